"""ELMo from raw text by a recipe: words spelt in shards and texts, features of every layer, and on from a checkpoint to the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lexloom
from lexloom import files
from lexloom.batch import Batch
from lexloom.errors import ConfigError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.runs.check import check
from lexloom.runs.pretrain import extended
from lexloom.train.log import read
from tests import tiny
from tests.unfinished import ends_in_the_same_bits

RECIPE = """\
name: tiny
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}, split: {validation: 0.1}}
tokenizer: {kind: word, vocab_size: 40, characters: 12, lowercase: false}
pretrain:
  model: {kind: elmo, filters: [[1, 8], [2, 8], [3, 16]], highway_layers: 1, cell_size: 32, projection_size: 16, cutoffs: [20]}
  objective: two-way-lm
  train:
    {steps: 40, batch_tokens: 512, micro_batch_tokens: 256, length: 32, evaluate_every: 20, save_every: 8, checkpoints: 9,
     learning_rate: 3e-3}
finetune:
  topics:
    task: text-classification
    data: {train: rows.jsonl, validation: rows.jsonl, test: rows.jsonl}
    train: {epochs: 1, batch_rows: 16, learning_rate: 1e-2}
    baselines: [majority]
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elmo")
    return Path(str(lexloom.run(tiny.write(folder, RECIPE), out=folder / "run")))


def test_it_learns_in_both_directions(done: Path) -> None:
    log = read(done / "pretrain")
    losses = [line["loss"] for line in log]
    assert len(losses) == 40 and sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert log[0]["loss"] == pytest.approx((log[0]["parts"]["forward-lm"] + log[0]["parts"]["backward-lm"]) / 2)
    summary = files.read_json(done / "pretrain/summary.json")
    assert set(summary["validation"]["parts"]) == {"forward-lm", "backward-lm"} and summary["model"]["class"] == "ElmoForTwoWayLM"
    assert set(files.read_json(done / "pretrain/alarms.json")["blind"]) == {"forward-lm", "backward-lm"}


def test_a_bundle_gives_the_features_of_every_layer(done: Path) -> None:
    bundle = Bundle.load(done / "pretrain/bundle")
    assert bundle.network.roles == {"two-way-lm"} and bundle.max_length == 32
    batch = Batch.from_texts(["The river sees a xylophone.", "The river sees a zither."], bundle.tokenizer)
    with torch.no_grad():
        layers = bundle.network.backbone(batch, layers=True).layers
    assert layers is not None and [tuple(layer.shape) for layer in layers] == [(2, 8, 32)] * 3
    unheard = (batch["input_ids"] == bundle.tokenizer.unk_id).nonzero().tolist()
    assert unheard == [[0, 5], [1, 5]] and (layers[0][0, 5] != layers[0][1, 5]).any()
    assert torch.equal(layers[0][0, 2], layers[0][1, 2]) and (layers[1][0, 2, 16:] != layers[1][1, 2, 16:]).any()
    assert torch.equal(layers[2][0, 2, :16], layers[2][1, 2, :16])  # what stands before them is the same


def test_a_task_learns_the_mix(done: Path) -> None:
    mix = Bundle.load(done / "finetune/topics/bundle").network.backbone.mix
    assert isinstance(mix, torch.nn.Module) and mix.scores.any() and mix.gamma != 1
    assert {answer["label"] for answer in lexloom.predict(done / "finetune/topics/bundle", ["A river.", "Unheard."])} <= {"high", "low"}


def test_from_a_checkpoint_on_it_ends_in_the_same_bits(done: Path, tmp_path: Path) -> None:
    ends_in_the_same_bits(done, tmp_path / "run", 32)


def test_its_steps_can_be_done_again(done: Path) -> None:
    found = lexloom.verify(done)
    assert found["differences"] == [] and {told["stage"] for told in found["trainings"]} >= {"pretrain"}


def test_what_it_takes_is_known_before_there_is_a_tokenizer(done: Path) -> None:
    found = check(done.parent / "recipe.yaml", overrides=["name=another"])
    assert found.of("model") == [] and not any("characters" in one.what for one in found.found if one.level == "error")
    assert any(table.title == "memory of topics, about" for table in found.tables)


def test_words_that_come_without_characters_are_told_before_the_first_step(tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path, RECIPE.replace(", characters: 12", ""))
    assert any("reads characters of words" in one.what for one in check(recipe).found if one.level == "error")
    with pytest.raises(LexloomError, match="reads characters of words"):
        lexloom.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run/pretrain/metrics.jsonl").exists()


def test_there_is_no_matrix_of_words_to_extend(done: Path) -> None:
    with pytest.raises(ConfigError, match="no matrix of words"):
        extended(Bundle.load(done / "pretrain/bundle"), ["xylophone"])


def test_embedding_is_the_mean_of_its_words(done: Path) -> None:
    bundle = Bundle.load(done / "pretrain/bundle")
    found = bundle.embed(["The river.", ""])
    with torch.no_grad():
        hidden = bundle.network.backbone(Batch.from_texts(["The river."], bundle.tokenizer)).hidden
    assert found.shape == (2, 32) and np.allclose(found[0], hidden[0].mean(0), atol=1e-5)
