"""Checkpoints: the whole resumable state of a run, in folders whose manifest is written last. What has no valid manifest does not exist."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from lexloom import files
from lexloom.errors import CheckpointError, FormatError
from lexloom.train.optim import AdamW

_NAME = re.compile(r"step-(\d{9})$")


@dataclass
class Checkpoint:
    """A checkpoint read back: weights, moments, and the JSON state of the run."""

    step: int
    masters: dict[str, Tensor]
    moments: dict[str, Tensor]
    state: dict[str, Any]


def save(folder: Path, step: int, optimizer: AdamW, state: dict[str, Any], *, keep: int = 2) -> Path:
    """Writes `FOLDER/step-000000100/`, then removes all but the newest `keep` checkpoints.

    Args:
        state: JSON of what else a run needs to go on: best value so far, patience left, compute.
    """
    path = folder / f"step-{step:09d}"
    with files.new_folder(path, step=step) as new:
        files.write_bytes(new / "model.safetensors", to_bytes({n: m.contiguous() for n, m in optimizer.masters.items()}))
        files.write_bytes(new / "optimizer.safetensors", to_bytes(optimizer.state()))
        files.write_json(new / "state.json", {"format": files.FORMAT, "step": step, "optimizer_steps": optimizer.steps, **state})
    for _, old in whole(folder)[:-keep]:
        files.remove(old)
    return path


def whole(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder that were written to their end, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.match(path.name)) and files.read_manifest(path)]
    return sorted(found)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint after checking every digest.

    Raises:
        CheckpointError: something in it is missing or was changed.
    """
    files.verify(path)
    state = files.read_json(path / "state.json", kind="checkpoint state")
    files.check_format(state, path / "state.json")
    return Checkpoint(state["step"], load_file(path / "model.safetensors"), load_file(path / "optimizer.safetensors"), state)


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is sound, and a line for each damaged one that was passed over."""
    complaints: list[str] = []
    for _, path in reversed(whole(folder)):
        try:
            return load(path), complaints
        except (CheckpointError, FormatError, KeyError) as error:
            complaints.append(f"passed over a damaged checkpoint: {error}")
    return None, complaints


def restore(optimizer: AdamW, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights and moments into the optimizer and, through it, into the network."""
    optimizer.load(checkpoint.masters, checkpoint.moments, checkpoint.state["optimizer_steps"])
