"""RoBERTa and ModernBERT beside `transformers`, both directions, every class, settings that are not the defaults."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lexloom import files
from lexloom.hub import weights
from lexloom.models.base import ARCHITECTURES, Network
from tests.parity.beside import near_at_tokens, opened, oracle, same_in_their_hands, same_names

ORACLE = "oracle_encoder.py"
SIZES = {"vocab_size": 61, "hidden_size": 30, "num_attention_heads": 5, "intermediate_size": 44, "classifier_dropout": 0.3}
ROBERTA = SIZES | {
    "num_hidden_layers": 3,
    "hidden_act": "gelu_new",
    "max_position_embeddings": 24,
    "type_vocab_size": 3,
    "layer_norm_eps": 1e-4,
    "pad_token_id": 5,
}
MODERNBERT = SIZES | {
    "num_hidden_layers": 5,
    "max_position_embeddings": 40,
    "norm_eps": 1e-4,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
BIASED = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
IRREGULAR = ["sliding_attention", "full_attention", "full_attention", "sliding_attention", "sliding_attention"]
ROPES = {
    "full_attention": {"rope_type": "default", "rope_theta": 700.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta": ("roberta", ROBERTA),
    "roberta-one-segment": ("roberta", ROBERTA | {"type_vocab_size": 1, "hidden_act": "relu"}),
    "modernbert": ("modernbert", MODERNBERT | {"local_attention": 6, "global_attn_every_n_layers": 2, "global_rope_theta": 900.0}),
    "modernbert-all-biases": (
        "modernbert",
        MODERNBERT
        | BIASED
        | {"local_attention": 9, "layer_types": IRREGULAR, "rope_parameters": ROPES, "classifier_pooling": "mean"}
        | {"hidden_activation": "silu", "classifier_activation": "relu"},
    ),
}
WHOLE = ("sequence-classification", "multiple-choice")
AUTO = {
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
}


@dataclass
class Case:
    """One class with one set of settings: their folder, ours, and what ours gave in their hands."""

    kind: str
    roles: frozenset[str]
    class_name: str
    settings: dict[str, Any]
    root: Path = Path()
    network: Network = field(init=False)
    loaded: weights.Loaded = field(init=False)

    @property
    def theirs(self) -> Path:
        return self.root / "theirs"

    @property
    def ours(self) -> Path:
        return self.root / "ours"

    @property
    def left(self) -> bool:
        """Their classifier takes the state at place 0, padding or not, where ours takes the first token's."""
        first = self.settings.get("classifier_pooling", "cls") == "cls"
        return not (self.kind == "modernbert" and "sequence-classification" in self.roles and first)

    @property
    def auto(self) -> str:
        return AUTO[next(iter(self.roles))] if self.roles else "AutoModel"


def all_cases() -> dict[str, Case]:
    found = {}
    for variant, (kind, settings) in VARIANTS.items():
        for roles, class_name in ARCHITECTURES.get(kind).ROLES.items():
            labels = {"num_labels": 2 if "question-answering" in roles else 4}
            found[f"{variant} {class_name}"] = Case(kind, roles, class_name, settings | labels)
        masked = ARCHITECTURES.get(kind).ROLES[frozenset({"masked-lm"})]
        untied = settings | {"tie_word_embeddings": False} | ({"decoder_bias": False} if kind == "modernbert" else {})
        found[f"{variant} {masked} untied"] = Case(kind, frozenset({"masked-lm"}), masked, untied)
    return found


NAMES = sorted(all_cases())


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """All of them at once: two processes of the oracle, for importing it is slow."""
    root, found = tmp_path_factory.mktemp("encoders"), all_cases()
    for name, case in found.items():
        case.root = root / name.replace(" ", "-")
    oracle(ORACLE, "make", [[c.kind, c.class_name, c.theirs, c.settings, c.left] for c in found.values()])
    for case in found.values():
        kind, about = ARCHITECTURES.get(case.kind), files.read_json(case.theirs / "config.json")
        case.network, case.loaded = opened(case.theirs, kind, case.class_name, labels=4)
        weights.save(case.network, case.ours)
        rest = {key: value for key, value in about.items() if key not in kind.Config.model_fields}
        files.write_json(case.ours / "config.json", rest | case.network.backbone.config.plain())
    oracle(ORACLE, "read", [[c.auto, c.ours, c.theirs / "inputs.safetensors", c.root / "read"] for c in found.values()])
    return found


def outputs(network: Network, inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Our tensors under the oracle's names."""
    batch = {name: tensor.reshape(-1, tensor.shape[-1]) for name, tensor in inputs.items()}
    batch["attention_mask"] = batch["attention_mask"].bool()
    with torch.inference_mode():
        out = network.to(dtype).backbone(batch, layers=True)
        found = {f"layer{i}": states for i, states in enumerate(out.layers)}
        if not network.heads:
            found |= {"last_hidden_state": out.hidden} | ({"pooler_output": out.pooled} if out.pooled is not None else {})
        for role, head in network.heads.items():
            whole = out.pooled if out.pooled is not None else out.hidden[:, 0]
            logits = head(whole if role in WHOLE else out.hidden)
            if role == "question-answering":
                found |= {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
            else:
                found["logits"] = logits.reshape(inputs["input_ids"].shape[:2]) if role == "multiple-choice" else logits
    return found


@pytest.mark.parametrize("name", NAMES)
def test_their_folder_gives_the_same_numbers_here(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    assert not case.loaded.missing and not case.loaded.unused
    inputs, expected = load_file(case.theirs / "inputs.safetensors"), load_file(case.theirs / "outputs.safetensors")
    for dtype in (torch.float64, torch.float32):
        ours = outputs(copy.deepcopy(case.network), inputs, dtype)
        assert {f"{key}.{dtype}" for key in ours} == {key for key in expected if key.endswith(str(dtype))}
        near_at_tokens(ours, expected, inputs["attention_mask"], dtype)


@pytest.mark.parametrize("name", NAMES)
def test_our_folder_is_theirs_to_the_bit(name: str, cases: dict[str, Case]) -> None:
    """Also that the config we write says to them what theirs did."""
    case = cases[name]
    same_names(case.ours, case.theirs)
    tensors = weights.read_tensors(case.theirs)
    for key, tensor in load_file(case.ours / "model.safetensors").items():
        if key == "lm_head.bias" and name.endswith("untied"):
            continue  # their untied head never reads this one: it has the decoder's own bias
        assert torch.equal(tensor, tensors[key]), key
    same_in_their_hands(case.root / "read", case.theirs, case.class_name)
