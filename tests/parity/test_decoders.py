"""GPT-2 and Llama beside `transformers`, both directions, settings that are not the defaults, padding on both sides, and generation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lexloom import files
from lexloom.errors import ConfigError, LexloomError
from lexloom.hub import weights
from lexloom.models.base import ARCHITECTURES, Network
from tests.parity.beside import Case, both_sides, near, same_in_their_hands, same_names

GPT2 = {"vocab_size": 61, "n_positions": 40, "n_embd": 30, "n_layer": 3, "n_head": 5, "n_inner": 44, "layer_norm_epsilon": 1e-4}
LLAMA = {
    "vocab_size": 61,
    "hidden_size": 30,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "rms_norm_eps": 1e-5,
}
LLAMA |= {"num_key_value_heads": 1, "max_position_embeddings": 40}
SIX = {**LLAMA, "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 90.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 700.0, "factor": 4.0, "original_max_position_embeddings": 10}
SCALES = {"mscale": 0.7, "mscale_all_dim": 1.2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2-bare": ("GPT2Model", GPT2),
    "gpt2-tied": ("GPT2LMHeadModel", {**GPT2, "activation_function": "relu", "n_inner": None}),
    "gpt2-untied": ("GPT2LMHeadModel", {**GPT2, "tie_word_embeddings": False, "reorder_and_upcast_attn": True}),
    "gpt2-scaled": ("GPT2LMHeadModel", {**GPT2, "scale_attn_by_inverse_layer_idx": True}),
    "gpt2-unscaled": ("GPT2LMHeadModel", {**GPT2, "scale_attn_weights": False}),
    "llama-bare": ("LlamaModel", {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
    "llama-biased": ("LlamaForCausalLM", {**SIX, "attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "llama-tied": ("LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True, "num_key_value_heads": 5}),
    "llama-linear": ("LlamaForCausalLM", {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0}}),
    "llama-dynamic": ("LlamaForCausalLM", {**SIX, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
    "llama-llama3": ("LlamaForCausalLM", {**SIX, "rope_parameters": {**LLAMA3, "original_max_position_embeddings": 12}}),
    "llama-yarn": ("LlamaForCausalLM", {**SIX, "rope_parameters": {**YARN, "beta_fast": 2.0, "beta_slow": 0.3}}),
    "llama-yarn-scales": (
        "LlamaForCausalLM",
        {**SIX, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2, "truncate": False}},
    ),
}
cases = pytest.mark.parametrize("name", CASES)


def settings_in(folder: Path) -> dict[str, Any]:
    return dict(files.read_json(folder / "config.json"))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return both_sides("oracle_decoders.py", tmp_path_factory.mktemp("decoders"), CASES)


def outputs(network: Network, inputs: dict[str, torch.Tensor], dtype: torch.dtype, *, learning: bool) -> dict[str, torch.Tensor]:
    """Our tensors under the oracle's names."""
    batch = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"].bool()}
    with torch.set_grad_enabled(learning):
        out = network.to(dtype).backbone(batch, layers=True)
        assert out.layers is not None
        found = {f"layer{i}": states for i, states in enumerate(out.layers)}
        for head in network.heads.values():
            found["logits"] = head(out.hidden)
    return found if network.heads else found | {"last_hidden_state": out.hidden}


def compare(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], mask: torch.Tensor, dtype: torch.dtype) -> None:
    for name, states in ours.items():
        keep = mask.bool()  # what stands at padding is nobody's business
        near(states.detach()[keep], theirs[f"{name}.{dtype}"][keep], dtype, name)


@cases
@pytest.mark.parametrize("learning", [True, False], ids=["written-out", "kernel"])
def test_their_folder_gives_the_same_numbers_here(name: str, learning: bool, found: dict[str, Case]) -> None:
    case = found[name]
    assert not case.loaded.missing and not case.loaded.unused
    inputs, expected = case.given()
    assert "layer3.torch.float64" in expected and "layer4.torch.float64" not in expected
    for dtype in (torch.float64, torch.float32):
        compare(outputs(copy.deepcopy(case.network), inputs, dtype, learning=learning), expected, inputs["attention_mask"], dtype)


@cases
def test_our_folder_is_theirs_to_the_bit(name: str, found: dict[str, Case]) -> None:
    case = found[name]
    same_names(case.ours, case.theirs)
    tensors = weights.read_tensors(case.theirs)
    for key, tensor in load_file(case.ours / "model.safetensors").items():
        assert torch.equal(tensor, tensors[key]), key
    same_in_their_hands(case.read, case.theirs, CASES[name][0])


@torch.inference_mode()
def greedy(network: Network, ids: torch.Tensor, mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """(B, tokens): always the likeliest next one."""
    cache, batch, found = network.backbone.cache(len(ids), ids.shape[1] + tokens), {"input_ids": ids, "attention_mask": mask}, []
    for _ in range(tokens):
        states = network.backbone(batch, cache=cache).hidden[:, -1:]  # type: ignore[call-arg]
        found.append(network.heads["causal-lm"](states).argmax(-1))
        batch = {"input_ids": found[-1]}
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("name", [name for name, (class_name, _) in CASES.items() if "LM" in class_name])
def test_the_likeliest_tokens_are_theirs(name: str, found: dict[str, Case]) -> None:
    case = found[name]
    inputs, made = case.given()
    expected = made["generated"]
    rows = inputs["attention_mask"][:, -1] == 1
    assert expected.unique().numel() > 2
    mask = inputs["attention_mask"][rows].bool()
    assert torch.equal(greedy(case.network, inputs["input_ids"][rows], mask, expected.shape[1]), expected)


def test_a_scaling_that_is_not_there_is_named() -> None:
    kind = ARCHITECTURES.get("llama")
    with pytest.raises(ConfigError, match=r"rope_scaling\.rope_type"):
        kind.Config.read({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}})
    with pytest.raises(ConfigError, match="low_freq_factor"):
        kind.Config.read({"rope_scaling": {"type": "llama3", "factor": 2.0}})
    with pytest.raises(ConfigError, match="partial_rotary_factor"):
        kind.Config.read({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})


def test_old_and_new_spelling_are_one() -> None:
    kind = ARCHITECTURES.get("llama")
    new = kind.Config.read({"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 12}})
    old = {"type" if name == "rope_type" else name: value for name, value in LLAMA3.items() if name != "rope_theta"}
    assert kind.Config.read({"rope_theta": 90.0, "rope_scaling": {**old, "original_max_position_embeddings": 12}}) == new
    assert kind.Config.read(new.plain()) == new
    assert kind.Config.read({"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}}).rope_scaling is None


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_text_over_the_context_is_named(name: str) -> None:
    kind = ARCHITECTURES.get(name)
    network = Network.build(kind, kind.Config.read(dict(kind.TINY)), (), seed=1)
    with pytest.raises(LexloomError, match="longer than the model's context"):
        network.backbone({"input_ids": torch.zeros(1, 33, dtype=torch.int64)})


def test_sizes_of_gpt2_have_two_names() -> None:
    kind = ARCHITECTURES.get("gpt2")
    fitted = kind.fitted({**kind.TINY, "num_hidden_layers": 5, "max_position_embeddings": 64}, length=16, vocabulary=70, ids={"eos": 4})
    config = kind.Config.read(fitted)
    assert (config.n_layer, config.n_positions, config.n_embd, config.vocab_size, config.eos_token_id) == (5, 64, 24, 70, 4)
    assert kind.Config.read(kind.fitted({"n_layer": 1}, length=16, vocabulary=70, ids={})).n_positions == 16
