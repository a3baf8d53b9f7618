"""Word vectors as stages of a recipe: trained, asked, reported, reused, and gone on with after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lexloom
from lexloom import files
from lexloom.console import Console, Progress
from lexloom.errors import ConfigError
from lexloom.runs.report import text_report
from lexloom.vectors import training
from lexloom.vectors.keyed import WordVectors
from tests import tiny
from tests.runs.page import report

RECIPE = """\
name: tiny
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}}
vectors:
  train:
    skipgram: {kind: skipgram, dim: 12, epochs: 2, min_count: 1, deterministic: true, workers: 2}
    glove: {kind: glove, dim: 8, epochs: 2, min_count: 1, x_max: 10, file: words.vec}
  evaluate: [sets]
  settings: {resamples: 100}
  neighbours: [River, unheard]
  map: [river, stone, green, walks, unheard]
"""
PAIRS = "river\tstone\t3\ngreen\twalks\t1.5\nhouse\ttree\t4\nriver\tunheard\t2\n"
ANALOGIES = ": made up\nriver stone green walks\nhouse tree River bird\nriver unheard green walks\n"


def write(folder: Path) -> Path:
    recipe = tiny.write(folder, RECIPE)
    (folder / "sets").mkdir()
    files.write_text(folder / "sets/pairs.tsv", PAIRS)
    files.write_text(folder / "sets/questions.txt", ANALOGIES)
    return recipe


def run(recipe: Path, out: Path, **options: Any) -> Any:
    return lexloom.run(recipe, out=out, console=Console(quiet=True), **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    return Path(str(run(write(folder), folder / "run")))


def test_what_the_stages_leave(done: Path) -> None:
    first, second = (WordVectors.load(done / "vectors" / name) for name in ("skipgram/vectors.bin", "glove/words.vec"))
    assert set(first.index_to_key) == set(second.index_to_key) == set(tiny.WORDS)
    assert first.vectors.shape[1] == 12 and second.vectors.shape[1] == 8
    told = files.read_json(done / "vectors/skipgram/summary.json")
    assert told["words"] == len(first) and len(told["losses"]) == 2 and told["settings"]["dim"] == 12
    found = files.read_json(done / "word-sets/summary.json")
    for score in found["scores"]:
        assert (score["set"], score["covered"], score["n"]) in {("pairs.tsv", 3, 4), ("questions.txt", 2, 3)}
        file, sets = done / "vectors" / _file(score["vectors"]), done.parent / "sets"
        again = [one.plain() for one in lexloom.evaluate_vectors(file, sets, seed=3, resamples=100)]
        assert {name: value for name, value in score.items() if name != "vectors"} in again
    assert [(row["vectors"], row["word"], len(row["found"])) for row in found["neighbours"]] == [
        ("skipgram", "River", 8),
        ("skipgram", "unheard", 0),
        ("glove", "River", 8),
        ("glove", "unheard", 0),
    ]
    assert found["neighbours"][0]["found"] == [list(one) for one in first.most_similar("river", topn=8)]
    assert found["maps"][0]["words"] == ["river", "stone", "green", "walks"]
    assert (done / "word-sets/map-glove.svg").read_text(encoding="utf-8") == second.map(found["maps"][1]["words"], title="glove")


def _file(name: str) -> str:
    return {"skipgram": "skipgram/vectors.bin", "glove": "glove/words.vec"}[name]


def test_the_report_tells_it(done: Path) -> None:
    page = report(done)
    assert "vectors" in [a["id"] for tag, a in page.tags if tag == "section"]
    for expected in ("skipgram with 19 words of 12 numbers", "2 of 3", "3 of 4", "made up", "it has no vector", "Map of words, glove"):
        assert expected in page.words, expected
    drawn = [data for path, data in page.where if path[-2:] == ("svg", "text")]
    assert drawn.count("walks") == 4  # of two kinds, for wide and for narrow screens
    text = text_report(done)
    assert "vectors skipgram: words 19" in text and "glove  pairs.tsv  spearman" in text
    assert f"lexloom evaluate {done.as_posix()}/vectors/glove/words.vec" in text


def test_hostile_summaries_are_told_as_far_as_they_go(done: Path, tmp_path: Path) -> None:
    files.write_json(tmp_path / "vectors/a<b>/summary.json", {"words": "many", "losses": [None, "x"], "dim": [1]})
    rows = [{"vectors": 1, "word": None, "found": [["w"], [1, 2, 3], ["<b>", "x"]]}, 7]
    maps = [{"vectors": "a", "words": ["x", "y"], "points": [[0, 1]]}, {"words": ["x"], "points": [["0", 1]]}, {"words": 3, "points": {}}]
    scores = [{"set": {}, "section": "all", "metric": 3, "covered": 1, "n": 2, "value": "high"}, {"covered": None}]
    files.write_json(tmp_path / "word-sets/summary.json", {"neighbours": rows, "maps": maps, "scores": scores})
    page = report(tmp_path)
    assert "a<b>" in page.words and "1 of 2" in page.words


def test_what_is_finished_is_reused_and_what_changed_runs_again(done: Path) -> None:
    recipe = done.parent / "recipe.yaml"
    whats = [row["what"] for row in run(recipe, done, dry_run=True)]
    assert whats == ["is reused"] * 4
    assert [row["what"] for row in run(done / "recipe.yaml", done, dry_run=True)] == whats  # as it is kept, with absolute paths
    assert [row["what"] for row in run(recipe, done, dry_run=True, settings=["vectors.train.skipgram.workers=1"])] == whats
    other = run(recipe, done, dry_run=True, settings=["vectors.train.glove.dim=9"])
    assert [row["stage"] for row in other if row["what"].startswith("runs")] == ["vectors/glove", "word-sets"]
    asked = run(recipe, done, dry_run=True, settings=["vectors.neighbours=[stone]"])
    assert [row["stage"] for row in asked if row["what"].startswith("runs")] == ["word-sets"]


def test_a_crash_costs_no_bit(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out, seen = write(tmp_path), tmp_path / "run", [0]
    real = Progress.update

    def update(self: Progress, done: float, **fields: Any) -> None:
        seen[0] += "loss" in fields
        if seen[0] == 3:
            raise KeyboardInterrupt
        real(self, done, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(training, "CHUNK", 2000)
        patch.setattr(training, "INTERVAL", 1)
        patch.setattr(Progress, "update", update)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out)
    assert json.loads((out / "vectors/skipgram/stage.json").read_text(encoding="utf-8"))["finished"] is False
    assert [row["what"] for row in run(recipe, out, dry_run=True)][1] == "goes on from its last checkpoint"
    run(recipe, out)
    for name in ("skipgram", "glove"):
        assert (out / "vectors" / _file(name)).read_bytes() == (done / "vectors" / _file(name)).read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("kind: glove, dim: 8", "kind: glove, negatives: 8", r"recipe.yaml:7:5: there is no setting 'negatives'"),
        ("dim: 12", "dimm: 12", "did you mean 'dim'"),
        ("workers: 2", "workers: 0", "vectors.train.skipgram.workers"),
        ("words.vec", "words.npy", "the ending says what kind of file it is"),
        ("words.vec", "../words.vec", "vectors.train.glove.file"),
        ("resamples: 100", "resample: 100", "did you mean 'resamples'"),
        ("[sets]", "[set]", "did you mean 'sets'"),
        ("    glove:", "    a/b:", "vectors.train"),
        ("prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}}\n", "", "word vectors need a corpus"),
    ],
)
def test_mistakes_are_told_before_anything_runs(old: str, new: str, expected: str, tmp_path: Path) -> None:
    recipe = write(tmp_path)
    files.write_text(recipe, RECIPE.replace(old, new))
    with pytest.raises(ConfigError, match=expected):
        run(recipe, tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run").exists()
