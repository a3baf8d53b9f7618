"""ELMo beside its equations, one word and one step at a time; the published sizes; the mix; its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lexloom import files
from lexloom.batch import Batch
from lexloom.errors import ConfigError, WeightsError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.models.elmo import Elmo, ElmoConfig
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.nn.test_characters import by_hand
from tests.nn.test_recurrent import cell_by_cell

TEXTS = ["The old house stood at the end of the lane.", "Nobody had lived there for years!", "那座老房子在小路的尽头。"]
BARE: frozenset[str] = frozenset()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, TokenizerConfig(kind="word", vocab_size=40, characters=20, lowercase=False))


def network(roles: frozenset[str] = BARE, **settings: Any) -> Network:
    return Network.build(Elmo, ElmoConfig.read({**Elmo.TINY, **settings}), roles, seed=1)


def by_equations(model: Elmo, symbols: Tensor) -> list[Tensor]:
    """(T, C) symbols of one text -> L + 1 of (T, 2 P): the paper's section 3.1 and 3.4."""
    words = torch.stack([by_hand(model.characters, word) for word in symbols])
    for layer in model.highway:
        gate = torch.sigmoid(words @ layer.gate.weight.t() + layer.gate.bias)  # type: ignore[operator, union-attr]
        words = gate * F.relu(words @ layer.change.weight.t() + layer.change.bias) + (1 - gate) * words  # type: ignore[operator, union-attr]
    ahead = behind = words @ model.project.weight.t() + model.project.bias
    found = [torch.cat([ahead, behind], dim=1)]
    for i, block in enumerate(model.blocks):
        first = torch.tensor(cell_by_cell(block.forwards, ahead.detach()), dtype=torch.float64)  # type: ignore[arg-type]
        second = torch.tensor(cell_by_cell(block.backwards, behind.detach().flip(0)), dtype=torch.float64).flip(0)  # type: ignore[arg-type]
        ahead, behind = (first + ahead, second + behind) if i else (first, second)
        found.append(torch.cat([ahead, behind], dim=1))
    return found


def test_every_layer_is_what_the_equations_say(tokenizer: Tokenizer) -> None:
    settings = {"filters": [[1, 3], [2, 4], [4, 5]], "highway_layers": 2, "num_hidden_layers": 3, "cell_size": 11, "projection_size": 6}
    model = network(**settings).double().backbone
    batch = Batch.from_texts(TEXTS, tokenizer)
    output = model(batch, layers=True)
    for row, kept in enumerate(batch["attention_mask"]):
        expected = by_equations(model, batch["characters"][row][kept])  # type: ignore[arg-type]
        assert len(output.layers) == len(expected) == 4
        assert all(torch.allclose(a[row][kept], b, atol=1e-9) for a, b in zip(output.layers, expected, strict=True))
        assert torch.allclose(output.hidden[row][kept], torch.stack(expected).mean(0), atol=1e-9)
        assert torch.allclose(output.pooled[row], torch.stack(expected).mean(0).mean(0), atol=1e-9)
        assert torch.allclose(torch.cat([output.forward, output.backward], dim=-1)[row][kept], expected[-1], atol=1e-9)


def test_the_mix_is_learned_by_tasks_and_begins_as_the_mean(tokenizer: Tokenizer) -> None:
    model, batch = network().backbone, Batch.from_texts(TEXTS, tokenizer)
    mean = network(frozenset({"two-way-lm"})).backbone(batch).hidden
    assert torch.allclose(model(batch).hidden, mean, atol=1e-6)
    model.mix.scores.data.copy_(torch.tensor([0.0, 50.0, 0.0]))  # type: ignore[union-attr, operator]
    model.mix.gamma.data.fill_(2.0)  # type: ignore[union-attr, operator]
    output = model(batch, layers=True)
    assert torch.allclose(output.hidden, 2 * output.layers[1], atol=1e-6)


@pytest.mark.parametrize(("preset", "millions"), [("elmo-small", 13.6), ("elmo-medium", 28.0), ("elmo-original", 93.6)])
def test_published_sizes(preset: str, millions: float) -> None:
    """Those of allennlp.org/elmo, which count all but the softmax."""
    found = Network.planned(Elmo, ElmoConfig.read(dict(Elmo.PRESETS[preset])), frozenset({"two-way-lm"})).backbone
    assert round(sum(p.numel() for p in found.parameters()) / 1e6, 1) == millions


def test_starting_values() -> None:
    state = network(frozenset({"token-classification"})).state_dict()
    bias = state["backbone.blocks.0.forwards.input.bias"].view(4, -1)
    assert bias[1].eq(1).all() and not bias[[0, 2, 3]].any() and state["backbone.highway.0.gate.bias"].eq(-2).all()
    assert state["backbone.mix.gamma"] == 1 and not state["backbone.mix.scores"].any()


def test_a_bundle_of_its_own_type(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bundle = Bundle(network(frozenset({"two-way-lm"})), tokenizer)
    folder = bundle.save(tmp_path / "bundle")
    assert (folder / "lexloom.safetensors").is_file() and not (folder / "model.safetensors").exists()
    settings = files.read_json(folder / "config.json")
    assert (settings["model_type"], settings["architectures"]) == ("lexloom-elmo", ["ElmoForTwoWayLM"])
    assert "library_name: lexloom" in (folder / "README.md").read_text() and "`transformers`" not in (folder / "README.md").read_text()
    again = Bundle.load(folder)
    texts = [*TEXTS, "unheard words", "unseen words"]
    assert (again.embed(texts) == bundle.embed(texts)).all()
    assert abs(again.embed(texts[-2:])[0] - again.embed(texts[-2:])[1]).max() > 1e-3  # both unknown, and not the same
    task, missing = Bundle.load(folder, roles=frozenset({"sequence-classification"})), ["mix.gamma", "mix.scores"]
    assert [name.removeprefix("backbone.") for name in task.loaded.missing if "mix" in name] == missing


def test_a_tokenizer_that_does_not_spell_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    plain = train_tokenizer(TEXTS, TokenizerConfig(kind="word", vocab_size=40))
    folder = Bundle(network(), plain).save(tmp_path / "bundle")
    with pytest.raises(ConfigError, match="reads characters of words"):
        Bundle.load(folder)
    tokenizer.save(folder)
    files.write_manifest(folder)
    assert Bundle.load(folder).embed(["a"]).shape == (1, 48)
    (folder / "lexloom.safetensors").unlink()
    with pytest.raises(WeightsError):
        Bundle.load(folder)


@pytest.mark.parametrize("wrong", [{"cutoffs": [5, 5]}, {"cutoffs": [0, 5]}, {"filters": [[0, 4]]}, {"filters": []}, {"cells": 4}])
def test_sizes_that_cannot_be_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ElmoConfig.read(wrong)
