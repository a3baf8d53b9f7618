"""Whole words and spans from raw text on: shards that say where words begin, steps that can be done again to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lexloom
from lexloom import files
from lexloom.console import Console
from lexloom.errors import DataError
from lexloom.runs import pretrain
from lexloom.text.shards import Shards
from lexloom.train.log import read
from tests import tiny

QUIET = Console(quiet=True)
HEAD, _, REST = tiny.RECIPE.partition("finetune:")[0].partition("tokenizer:")
RECIPE = HEAD + "tokenizer:" + REST.replace("steps: 60", "steps: 12").replace("save_every: 7", "save_every: 5")
OBJECTIVES = {"words": "{masked-lm: {mask: words}, next-sentence: {}}", "spans": "{masked-lm: {mask: spans, rate: 0.3}}"}


@pytest.fixture(scope="module", params=sorted(OBJECTIVES))
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    recipe = RECIPE.replace("[masked-lm, next-sentence]", OBJECTIVES[request.param]).replace("vocab_size: 300", "vocab_size: 90")
    if request.param == "spans":
        recipe = recipe.replace("kind: wordpiece", "kind: unigram")
    return Path(str(lexloom.run(tiny.write(folder, recipe), out=folder / "run")))


def test_steps_are_done_again_to_the_bit_and_the_run_agrees(done: Path) -> None:
    for step in (3, 12):
        found = lexloom.replay(done, step=step, rows=2, console=QUIET)
        assert found["agrees"] and found["loss"].hex() == read(done / "pretrain")[step - 1]["loss"].hex()
    assert lexloom.verify(done, console=QUIET)["agrees"]


def test_shards_are_made_anew_where_words_are_asked_for_and_kept_where_not(done: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(done, tmp_path / "run"))
    split = Shards.open(out / "shards").split("train")
    continues = split.continues(np.arange(len(split.tokens)))
    assert continues is not None and 0 < continues.mean() < 0.9

    def planned(mask: str) -> dict[str, str]:
        rows: Any = lexloom.run(
            out / "recipe.yaml", out=out, dry_run=True, settings=["pretrain.objective={masked-lm: {mask: " + mask + "}}"]
        )
        return {row["stage"]: row["what"] for row in rows}

    assert planned("words")["shards"].endswith("is reused") and planned("spans")["shards"].endswith("is reused")
    assert planned("words")["tokenizer"].endswith("is reused") and planned("tokens")["shards"].startswith("runs")


def test_shards_without_words_are_named_before_the_first_step(done: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(done, tmp_path / "run"))
    about = files.read_json(out / "shards/shards.json")
    for split in about["splits"].values():
        split["files"] = {name: entry for name, entry in split["files"].items() if not name.startswith("words")}
    files.write_json(out / "shards/shards.json", about)
    shards = Shards.open(out / "shards")
    assert shards.split("train").words is None
    with pytest.raises(DataError, match="where words begin"):
        lexloom.replay(out, step=3, console=QUIET)
    assert pretrain.ensure_packing(shards.split("train"), pretrain.PackingConfig(length=32)).rows([0])[0].keys().isdisjoint({"continues"})
