"""Runs as they are when they were killed."""

from __future__ import annotations

from pathlib import Path

from lexloom import files
from lexloom.train import checkpoint


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
