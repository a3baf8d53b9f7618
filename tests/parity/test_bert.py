"""BERT beside `transformers`, both directions, every class, settings that are not the defaults."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from lexloom import files
from lexloom.hub import weights
from lexloom.models.base import Network
from lexloom.models.bert import Bert
from tests.parity.beside import Case, near_at_tokens, opened, oracle, same_in_their_hands, same_names

ORACLE = "oracle_bert.py"
SETTINGS = {
    "vocab_size": 61,
    "hidden_size": 30,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 44,
    "hidden_act": "gelu_new",
    "max_position_embeddings": 19,
    "type_vocab_size": 3,
    "layer_norm_eps": 1e-5,
}
CLASSES = sorted(Bert.ROLES.items(), key=lambda item: item[1])
UNTIED = ("BertForPreTraining", "BertForMaskedLM")
CASES = [(r, c, True) for r, c in CLASSES] + [(r, c, False) for r, c in CLASSES if c in UNTIED]


def name_of(class_name: str, tied: bool) -> str:
    return class_name if tied else f"{class_name}-untied"


def settings_of(class_name: str, tied: bool) -> dict[str, object]:
    return SETTINGS | {"tie_word_embeddings": tied, "num_labels": 2 if class_name == "BertForQuestionAnswering" else 4}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """All classes at once: two processes of the oracle in all, for importing it is slow."""
    root = tmp_path_factory.mktemp("bert")
    oracle(ORACLE, "make", [[c, root / "theirs" / name_of(c, t), settings_of(c, t)] for _, c, t in CASES])
    found = {}
    for _, class_name, tied in CASES:
        paths = [root / kind / name_of(class_name, tied) for kind in ("theirs", "ours", "read")]
        case = Case(*opened(paths[0], Bert, class_name, labels=4), *paths)
        weights.save(case.network, case.ours)
        files.write_json(case.ours / "config.json", files.read_json(case.theirs / "config.json"))
        found[name_of(class_name, tied)] = case
    (root / "read").mkdir()
    cases = [(c, found[name_of(c, t)]) for _, c, t in CASES]
    oracle(ORACLE, "read", [[c, case.ours, case.theirs / "inputs.safetensors", case.read] for c, case in cases])
    return found


def outputs(network: Network, inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Our tensors under the oracle's names."""
    batch = {name: tensor.reshape(-1, tensor.shape[-1]) for name, tensor in inputs.items()}
    batch["attention_mask"] = batch["attention_mask"].bool()
    with torch.inference_mode():
        out = network.to(dtype).backbone(batch, layers=True)
        found = {f"layer{i}": states for i, states in enumerate(out.layers)}
        if not network.heads:
            found |= {"last_hidden_state": out.hidden, "pooler_output": out.pooled}
        for role, head in network.heads.items():
            logits = head(out.pooled if role in Bert._POOLED else out.hidden)
            if role == "question-answering":
                found["start_logits"] = logits[..., 0]
            elif role == "multiple-choice":
                found["logits"] = logits.reshape(inputs["input_ids"].shape[:2])
            else:
                two = len(network.heads) == 2
                names = {"masked-lm": "prediction_logits", "next-sentence": "seq_relationship_logits"} if two else {}
                found[names.get(role, "logits")] = logits
    return found


@pytest.mark.parametrize("name", [name_of(c, t) for _, c, t in CASES])
def test_their_folder_gives_the_same_numbers_here(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    assert not case.loaded.missing and not case.loaded.unused
    inputs, expected = case.given()
    for dtype in (torch.float64, torch.float32):
        near_at_tokens(outputs(copy.deepcopy(case.network), inputs, dtype), expected, inputs["attention_mask"], dtype)


@pytest.mark.parametrize("name", [name_of(c, t) for _, c, t in CASES])
def test_our_folder_is_theirs_to_the_bit(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    same_names(case.ours, case.theirs)
    tensors = weights.read_tensors(case.theirs)
    for key, tensor in load_file(case.ours / "model.safetensors").items():
        if key == "cls.predictions.bias" and name.endswith("-untied"):
            continue  # their untied head never reads this one: it has the decoder's own bias
        assert torch.equal(tensor, tensors[key]), key
    same_in_their_hands(case.read, case.theirs, name.removesuffix("-untied"))


def test_old_names_and_a_missing_prefix_are_understood() -> None:
    """Folders from before 2019 call the norms' weights gamma and beta; encoders are saved without `bert.`."""
    config = Bert.Config.read(dict(Bert.TINY))
    network = Network.build(Bert, config, {"masked-lm"}, seed=3)
    disk = weights.to_disk(network)
    old = {
        n.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in disk.items()
    }
    other = Network.build(Bert, config, {"masked-lm"})
    loaded = weights.load_into(other, old)
    assert not loaded.missing and not loaded.unused
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
