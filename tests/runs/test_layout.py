"""Settings that say where numbers are held: a run goes on under others, and is the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lexloom
from lexloom import files
from lexloom.runs.stage import pathless
from lexloom.train.log import read
from tests import tiny


def test_a_stage_does_not_depend_on_where_its_numbers_are_held() -> None:
    train = {"steps": 5, "micro_batch_tokens": 64}
    changed = {**train, "recompute": True, "shard": True}
    assert pathless({"train": changed}) == pathless({"train": train})
    assert pathless({"train": {**train, "micro_batch_tokens": 32}}) != pathless({"train": train})


def test_recompute_gives_the_same_bits_in_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dropout on, two micro-batches a step; half of the second run without it."""
    recipe = tiny.write(tmp_path, tiny.RECIPE.replace("micro_batch_tokens: 256,", "micro_batch_tokens: 256, dtype: float32,"))

    def run(out: str, *settings: str) -> dict[str, Any]:
        made = Path(str(lexloom.pretrain(recipe, out=tmp_path / out, settings=[f"pretrain.train.{name}" for name in settings])))
        losses = [(line["loss"], line["gradient_norm"]) for line in read(made)]
        return {"losses": losses, "weights": files.digest(made / "bundle" / "model.safetensors")}

    plain = run("plain", "steps=20")
    again = run("again", "steps=20", "recompute=true", "shard=true")
    assert again == plain
    capsys.readouterr()
    assert run("again", "steps=20") == plain
    said = capsys.readouterr().err
    assert "again: reused" in said or "pretrain: reused" in said


def test_shard_in_one_process_says_that_it_has_no_effect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.write(tmp_path)
    lexloom.pretrain(recipe, out=tmp_path / "run", settings=["pretrain.train.steps=2", "pretrain.train.shard=true"])
    assert "shard has no effect in one process" in capsys.readouterr().err
