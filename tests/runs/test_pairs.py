"""Pairs of texts: a new encoder–decoder, or a pre-trained one, learns to write a text for a text; scored, reported, done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lexloom
from lexloom import files, keys
from lexloom.errors import ConfigError, DataError
from lexloom.hub.bundle import Bundle
from lexloom.runs.check import check

RECIPE = """\
name: pairs
seed: 3
prepare: {sources: [train.jsonl], columns: {text: [there, here]}, dedup: {near: false}}
tokenizer: {kind: wordpiece, vocab_size: 120}
finetune:
  back:
    task: text2text-generation
    model: {kind: marian, preset: marian-tiny, d_model: 32, encoder_ffn_dim: 64, decoder_ffn_dim: 64, dropout: 0.0, init_std: 0.1}
    data: {train: train.jsonl, validation: test.jsonl, test: test.jsonl}
    settings: {columns: {text: there, label: here}, label_smoothing: 0.1, max_new_tokens: 24}
    train:
      {epochs: 20, batch_rows: 16, learning_rate: 5e-3, max_length: 24, evaluate_every: 190, save_every: 190, checkpoints: 9, threads: 1}
"""
WORDS = "river stone green house tree bird walks sees".split()


def pair(number: int) -> dict[str, Any]:
    """Two to four words that are a function of a number, and the same words backwards."""
    drawn = keys.integers(keys.key(9, number), 5, 1 << 30)
    words = [WORDS[d % len(WORDS)] for d in drawn[: 2 + drawn[4] % 3]]
    return {"here": " ".join(words), "there": " ".join(word[::-1] for word in words)}


def write(folder: Path, recipe: str = RECIPE, train: list[dict[str, Any]] | None = None) -> Path:
    """Writes pairs and the recipe; returns the recipe's path."""
    rows = {"train": train or [pair(i) for i in range(300)], "test": [pair(i) for i in range(300, 340)]}
    for name, content in rows.items():
        files.write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in content))
    files.write_text(folder / "recipe.yaml", recipe)
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    return Path(str(lexloom.run(write(folder), out=folder / "run")))


def test_it_learns_to_write(done: Path) -> None:
    summary = files.read_json(done / "finetune/back/summary.json")
    scores = {(score["model"], score["metric"]): score["value"] for score in summary["scores"]}
    assert {model for model, _ in scores} == {"fine-tuned", "the text as it is"}
    assert scores["fine-tuned", "chrf"] > 0.9 > 0.5 > scores["the text as it is", "chrf"]
    assert scores["fine-tuned", "accuracy"] > 0.7 and scores["the text as it is", "accuracy"] == 0.0
    assert summary["verdict"].startswith("Use the fine-tuned model: it has 0.9") or scores["fine-tuned", "chrf"] == 1.0
    assert summary["confusion"] is None and {example["predicted"] for example in summary["examples"]} > {""} - {""}


def test_the_bundle_writes_and_is_scored_beside_the_text_as_it_is(done: Path) -> None:
    bundle = Bundle.load(done / "finetune/back/bundle")
    texts = [pair(i) for i in range(300, 310)]
    answers = bundle.predict([row["there"] for row in texts])
    assert sum(answer["generated_text"] == row["here"] for answer, row in zip(answers, texts, strict=True)) >= 7
    found = lexloom.evaluate(done / "finetune/back/bundle", done.parent / "test.jsonl")
    values = {(score["model"], score["metric"]): score for score in found.plain()["scores"]}
    told = {(score["model"], score["metric"]): score for score in files.read_json(done / "finetune/back/summary.json")["scores"]}
    assert values["back/bundle", "bleu"]["value"] == told["fine-tuned", "bleu"]["value"]
    assert values["the text as it is", "chrf"]["value"] == told["the text as it is", "chrf"]["value"]
    assert found.examples and found.confusion is None


def test_the_report_shows_what_was_written(done: Path) -> None:
    text = (done / "report.html").read_text(encoding="utf-8")
    example = files.read_json(done / "finetune/back/summary.json")["examples"][-1]
    assert example["text"] in text and example["predicted"] in text and "chrF" in text and "chrf" not in text


def test_its_steps_can_be_done_again(done: Path) -> None:
    assert lexloom.verify(done)["differences"] == []
    logged = [json.loads(line) for line in next((done / "finetune").rglob("metrics.jsonl")).read_text(encoding="utf-8").splitlines()]
    told = lexloom.replay(done, step=7)
    assert told["loss"] == next(line for line in logged if line.get("step") == 7 and "loss" in line)["loss"]


def test_a_pre_trained_one_keeps_its_head(done: Path, tmp_path: Path) -> None:
    start = done / "finetune/back/bundle"
    recipe = RECIPE.partition("prepare:")[0] + RECIPE[RECIPE.index("finetune:") :]
    recipe = "\n".join(f"    from: {start}" if line.startswith("    model:") else line for line in recipe.splitlines())
    run = Path(str(lexloom.run(write(tmp_path, recipe), out=tmp_path / "run", settings=["finetune.back.train.epochs=0.1"])))
    scores = files.read_json(run / "finetune/back/summary.json")["scores"]
    assert next(score["value"] for score in scores if (score["model"], score["metric"]) == ("fine-tuned", "chrf")) > 0.7


def test_pairs_that_do_not_fit_are_left_out_and_told(tmp_path: Path) -> None:
    long, empty = {"here": "river", "there": "revir " * 40}, {"here": "river", "there": " "}
    path = write(tmp_path, train=[pair(0), long, pair(1), empty, {"here": "bird " * 40, "there": "drib"}, *map(pair, range(2, 8))])
    lexloom.run(path, out=tmp_path / "run", settings=["finetune.back.train.epochs=1"])
    assert "3 rows are longer, or empty, and are left out" in files.read_json(tmp_path / "run/finetune/back/summary.json")["encoding"]
    settings = ["finetune.back.train.epochs=1", "finetune.back.settings.long_texts=cut"]
    lexloom.run(path, out=tmp_path / "cut", settings=settings)
    told = files.read_json(tmp_path / "cut/finetune/back/summary.json")["encoding"]
    assert "1 texts are longer and are cut" in told and "2 rows are longer, or empty, and are left out" in told


def test_what_cannot_be_scored_is_told_before_anything_is_learned(tmp_path: Path) -> None:
    path = write(tmp_path)
    files.write_text(tmp_path / "test.jsonl", json.dumps(pair(1)) + "\n" + json.dumps({"here": "river", "there": "revir " * 40}) + "\n")
    with pytest.raises(DataError, match=r"test\.jsonl:2: this text is longer than the model's context"):
        lexloom.run(path, out=tmp_path / "run")
    assert not list((tmp_path / "run").rglob("metrics.jsonl"))


def test_check_looks_at_pairs_and_counts_no_labels(tmp_path: Path) -> None:
    found = check(write(tmp_path))
    assert [one.what for one in found.found if one.level == "error"] == []
    assert [table.title for table in found.tables if "labels" in table.title or "lengths" in table.title] == ["lengths of back"]
    files.write_text(tmp_path / "train.jsonl", json.dumps({"there": "revir"}) + "\n" + json.dumps(pair(1)) + "\n")
    assert any("this row has no label" in one.what for one in check(tmp_path / "recipe.yaml").found)


def test_an_encoder_cannot_do_it(tmp_path: Path) -> None:
    model = next(line for line in RECIPE.splitlines() if line.startswith("    model:"))
    with pytest.raises(ConfigError, match=r"(?s)bert cannot do text2text-generation.*bart, marian can"):
        lexloom.run(write(tmp_path, RECIPE.replace(model, "    model: {kind: bert, preset: bert-tiny}")), out=tmp_path / "run")
