"""Tasks that start from a new network: no pre-training, other weights for each seed, and told what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

import lexloom
from lexloom import files
from lexloom.errors import ConfigError
from lexloom.hub.bundle import Bundle
from lexloom.runs.check import check
from tests import tiny

RECIPE = """\
name: tiny
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}}
tokenizer: {kind: word, vocab_size: 60, characters: 12}
finetune:
  topics:
    task: text-classification
    model: MODEL
    data: {train: rows.jsonl, validation: rows.jsonl, test: rows.jsonl}
    train: {epochs: 12, batch_rows: 16, learning_rate: 1e-2, seeds: 2, checkpoints: 9}
    baselines: [majority, from-scratch]
"""
MODELS = {
    "textcnn": "{kind: textcnn, embedding_size: 16, filters: 12, dropout: 0.1}",
    "bilstm": "{kind: bilstm, embedding_size: 16, cell_size: 16, filters: [[3, 8]], dropout: 0.1}",
}


@pytest.fixture(scope="module", params=MODELS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return Path(str(lexloom.run(tiny.write(folder, RECIPE.replace("MODEL", MODELS[request.param])), out=folder / "run")))


def test_it_learns_and_each_seed_has_weights_of_its_own(done: Path) -> None:
    summary = files.read_json(done / "finetune/topics/summary.json")
    scores = {score["model"]: score["value"] for score in summary["scores"] if score["metric"] == "accuracy"}
    assert scores["fine-tuned"] > scores["majority"] + 0.2 and set(scores) == {"fine-tuned", "majority"}
    one, two = (Bundle.load(done / f"finetune/topics/seeds/seed-{seed}/bundle").network.backbone for seed in (3, 4))
    assert abs(one.embedding.weight - two.embedding.weight).max() > 0.1  # type: ignore[union-attr]
    bundle = Bundle.load(done / "finetune/topics/bundle")
    assert bundle.max_length == 256 and {answer["label"] for answer in bundle.predict(["a river", ""])} <= {"high", "low"}


def test_it_is_reused_and_its_steps_can_be_done_again(done: Path) -> None:
    before = (done / "finetune/topics/summary.json").stat().st_mtime_ns
    lexloom.run(done.parent / "recipe.yaml", out=done)
    assert (done / "finetune/topics/summary.json").stat().st_mtime_ns == before
    assert lexloom.verify(done)["differences"] == []


def test_what_it_takes_is_known_before(done: Path) -> None:
    found = check(done.parent / "recipe.yaml", overrides=["name=another"])
    assert found.of("model") == [] and not any("characters" in one.what for one in found.found if one.level == "error")
    assert any(table.title == "memory of topics, about" for table in found.tables)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tokenizer: {kind: word, vocab_size: 60, characters: 12}\n", "", "no tokenizer for it"),
        ("    model: MODEL\n", "    model: {kind: textcnn}\n    from: texts.jsonl\n", "from a bundle and from a new network"),
        ("    model: MODEL\n", "", "no model to start from"),
        ("MODEL", "{kind: textcn}", "did you mean 'textcnn'"),
        ("MODEL", "{kind: textcnn, preset: textcnn-kin}", "did you mean 'textcnn-kim'"),
        ("MODEL", "{kind: textcnn, filter: 4}", "did you mean 'filters'"),
        (", characters: 12", "", "reads characters of words"),
    ],
)
def test_what_does_not_fit_is_told(old: str, new: str, message: str, tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path, RECIPE.replace(old, new).replace("MODEL", MODELS["bilstm"]))
    with pytest.raises(ConfigError, match=message):
        lexloom.run(recipe, out=tmp_path / "run")
