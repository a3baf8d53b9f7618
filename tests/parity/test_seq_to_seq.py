"""BART and Marian beside `transformers`, both directions, settings that are not the defaults, padding on both sides, and generation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lexloom.errors import ConfigError, LexloomError, WeightsError
from lexloom.hub import weights
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.nn.positions import halved_sinusoids, sinusoids
from tests.parity.beside import Case, both_sides, near, same_in_their_hands, same_names

SIZES = {
    **{"vocab_size": 61, "d_model": 30, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 5},
    **{"decoder_attention_heads": 3, "encoder_ffn_dim": 44, "decoder_ffn_dim": 28, "max_position_embeddings": 40},
    **{"pad_token_id": 4, "eos_token_id": None, "bos_token_id": 1, "decoder_start_token_id": 3, "forced_eos_token_id": None},
}
ODD = {**SIZES, "d_model": 15, "decoder_attention_heads": 1}
OTHER = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 53}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bart-bare": ("BartModel", SIZES),
    "bart-bare-untied": ("BartModel", {**SIZES, "tie_word_embeddings": False}),
    "bart-tied": ("BartForConditionalGeneration", {**SIZES, "activation_function": "relu"}),
    "bart-untied": ("BartForConditionalGeneration", {**SIZES, "tie_word_embeddings": False, "encoder_layers": 1, "scale_embedding": True}),
    "bart-odd": ("BartForConditionalGeneration", {**ODD, "activation_function": "gelu_new"}),
    "marian-bare": ("MarianModel", {**SIZES, "scale_embedding": True}),
    "marian-bare-unshared": ("MarianModel", {**SIZES, **OTHER}),
    "marian-tied": ("MarianMTModel", {**SIZES, "activation_function": "swish"}),
    "marian-untied": ("MarianMTModel", {**SIZES, "tie_word_embeddings": False}),
    "marian-unshared": ("MarianMTModel", {**SIZES, **OTHER, "activation_function": "relu"}),
    "marian-unshared-untied": ("MarianMTModel", {**SIZES, **OTHER, "tie_word_embeddings": False, "scale_embedding": True}),
    "marian-odd": ("MarianMTModel", ODD),
}
cases = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return both_sides("oracle_seq_to_seq.py", tmp_path_factory.mktemp("seq-to-seq"), CASES)


def batch_of(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.bool() if name.endswith("mask") else tensor for name, tensor in inputs.items()}


def outputs(network: Network, inputs: dict[str, torch.Tensor], dtype: torch.dtype, *, learning: bool) -> dict[str, torch.Tensor]:
    """Our tensors under the oracle's names."""
    with torch.set_grad_enabled(learning):
        out = network.to(dtype).backbone(batch_of(inputs), layers=True)
        assert out.layers is not None and out.encoder_layers is not None and out.encoder is not None
        found = {f"decoder{i}": states for i, states in enumerate(out.layers)}
        found |= {f"encoder{i}": states for i, states in enumerate(out.encoder_layers)} | {"encoder_last_hidden_state": out.encoder}
        for head in network.heads.values():
            found["logits"] = head(out.hidden)
    return found if network.heads else found | {"last_hidden_state": out.hidden}


@cases
@pytest.mark.parametrize("learning", [True, False], ids=["written-out", "kernel"])
def test_their_folder_gives_the_same_numbers_here(name: str, learning: bool, found: dict[str, Case]) -> None:
    case = found[name]
    assert not case.loaded.missing and not case.loaded.unused
    inputs, expected = case.given()
    for dtype in (torch.float64, torch.float32):
        ours = outputs(copy.deepcopy(case.network), inputs, dtype, learning=learning)
        assert {f"{key}.{dtype}" for key in ours} == {key for key in expected if key.endswith(str(dtype))}
        for key, states in ours.items():
            mask = "attention_mask" if key.startswith("encoder") else "decoder_attention_mask"
            keep = inputs[mask].bool()  # what stands at padding is nobody's business
            near(states.detach()[keep], expected[f"{key}.{dtype}"][keep], dtype, key)


@cases
def test_our_folder_is_theirs_to_the_bit(name: str, found: dict[str, Case]) -> None:
    case = found[name]
    same_names(case.ours, case.theirs)
    tensors = weights.read_tensors(case.theirs)
    for key, tensor in load_file(case.ours / "model.safetensors").items():
        assert torch.equal(tensor.to(tensors[key].dtype), tensors[key]), key
    same_in_their_hands(case.read, case.theirs, CASES[name][0])


@torch.inference_mode()
def greedy(network: Network, source: dict[str, torch.Tensor], tokens: int) -> torch.Tensor:
    """(B, tokens): always the likeliest next one; the source goes to the first pass alone."""
    rows, found = len(source["input_ids"]), list[torch.Tensor]()
    cache = network.backbone.cache(rows, tokens)
    batch = source | {"decoder_input_ids": torch.full((rows, 1), network.backbone.config.decoder_start_token_id)}
    for _ in range(tokens):
        states = network.backbone(batch, cache=cache).hidden[:, -1:]  # type: ignore[call-arg]
        found.append(network.heads["seq-to-seq"](states).argmax(-1))
        batch = {"decoder_input_ids": found[-1]}
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("name", [name for name, (class_name, _) in CASES.items() if not class_name.endswith(("BartModel", "MarianModel"))])
def test_the_likeliest_tokens_are_theirs(name: str, found: dict[str, Case]) -> None:
    case = found[name]
    inputs, made = case.given()
    expected = made["generated"]
    source = {key: tensor for key, tensor in batch_of(inputs).items() if not key.startswith("decoder")}
    assert expected.unique().numel() > 1
    assert torch.equal(greedy(case.network, source, expected.shape[1]), expected)


@pytest.mark.parametrize("width", [8, 9])
def test_sinusoids_in_halves_are_those_of_the_paper_in_another_order(width: int) -> None:
    """DESIGN: Vaswani et al. interleave sine and cosine; what is stored has them in two halves."""
    paper, order = sinusoids(40, width), [*range(0, width, 2), *range(1, width, 2)]
    assert torch.equal(halved_sinusoids(torch.arange(40), width), paper[:, order])
    assert torch.equal(halved_sinusoids(torch.tensor([[3], [7]]), width)[:, 0], paper[[3, 7]][:, order])


def test_other_positions_than_sinusoids_are_refused(found: dict[str, Case]) -> None:
    case = found["marian-bare"]
    tensors = weights.read_tensors(case.theirs)
    tensors["decoder.embed_positions.weight"] = tensors["decoder.embed_positions.weight"].roll(1, 0)
    with pytest.raises(WeightsError, match=r"decoder\.embed_positions\.weight is not what the config makes of it"):
        weights.load_into(case.network, tensors)


@pytest.mark.parametrize("name", ["bart", "marian"])
def test_a_text_over_the_context_is_named(name: str) -> None:
    kind = ARCHITECTURES.get(name)
    network = Network.build(kind, kind.Config.read(dict(kind.TINY)), (), seed=1)
    short, long = torch.zeros(1, 5, dtype=torch.int64), torch.zeros(1, 33, dtype=torch.int64)
    for source, target in ((short, long), (long, short)):
        with pytest.raises(LexloomError, match="longer than the model's context"):
            network.backbone({"input_ids": source, "decoder_input_ids": target})


def test_two_sizes_of_one_vocabulary_are_refused() -> None:
    kind = ARCHITECTURES.get("marian")
    assert kind.Config.read({"vocab_size": 61, "decoder_vocab_size": 61}).decoder_vocab_size is None
    with pytest.raises(ConfigError, match="only without share_encoder_decoder_embeddings"):
        kind.Config.read({"vocab_size": 61, "decoder_vocab_size": 53})
    with pytest.raises(ConfigError, match="decoder_attention_heads"):
        kind.Config.read({"d_model": 30, "encoder_attention_heads": 5, "decoder_attention_heads": 4})


@pytest.mark.parametrize(("name", "role"), [("bart", "eos"), ("marian", "eos"), ("marian", "pad")])
def test_a_tokenizer_that_cannot_begin_or_end_a_target_is_named(name: str, role: str) -> None:
    kind, ids = ARCHITECTURES.get(name), {"bos": None, "eos": None, "sep": 3, "pad": 0, "cls": 2}
    config = kind.Config.read(kind.fitted(kind.TINY, length=16, vocabulary=70, ids=ids))
    assert (config.eos_token_id, config.forced_eos_token_id) == (3, 3) and config.decoder_start_token_id == (3 if name == "bart" else 0)
    with pytest.raises(ConfigError, match="this tokenizer has none"):
        kind.fitted(kind.TINY, length=16, vocabulary=70, ids={**ids, role: None, "sep": None if role == "eos" else 3})
