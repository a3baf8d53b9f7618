"""Runs as they are when they were killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import lexloom
from lexloom import files
from lexloom.train import checkpoint
from lexloom.train.log import read


def unfinished(stage: Path) -> None:
    """A trained stage as it was before its bundle was written."""
    files.remove(stage / "bundle")
    files.write_json(stage / "stage.json", {**files.read_json(stage / "stage.json"), "finished": False})


def back_to(stage: Path, step: int) -> None:
    """A trained stage as it was when it had just saved a step."""
    for number, path in checkpoint.whole(stage / "checkpoints"):
        if number > step:
            files.remove(path)
    unfinished(stage)


def ends_in_the_same_bits(done: Path, copy: Path, step: int) -> None:
    """A copy of a run, gone on with from a step of its pre-training, ends as the run did; its recipe stands beside the run."""
    shutil.copytree(done, copy)
    back_to(copy / "pretrain", step)
    found, _ = checkpoint.latest(copy / "pretrain/checkpoints")
    assert found is not None and found.step == step
    lexloom.run(done.parent / "recipe.yaml", out=copy)
    [weights] = (done / "pretrain/bundle").glob("*.safetensors")
    assert files.digest(copy / "pretrain/bundle" / weights.name) == files.digest(weights)
    assert [line["loss"] for line in read(copy / "pretrain")] == [line["loss"] for line in read(done / "pretrain")]
