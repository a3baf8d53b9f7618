"""Checkpoints: the whole resumable state of a run, in folders whose manifest is written last. What has no valid manifest does not exist.

    checkpoints/step-000000100/   model.safetensors (fp32 masters), optimizer.safetensors (moments), state.json, manifest.json
    checkpoints/best-000000060/   model.safetensors of the best evaluation so far, where the stage keeps it

Where several processes hold a share of the weights each, `slices.py` says what stands in the place of the two tensor files.
A checkpoint whose run keeps its best weights names their step in its manifest, and is sound only together with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lexloom import files
from lexloom.errors import CheckpointError, DiskFullError
from lexloom.train import slices, tensorfile
from lexloom.train.optim import AdamW

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_NAME = re.compile(r"(step|best)-(\d{9,})$")
_MANIFEST_BYTES, _ENTRY_BYTES = 84, 171


class Resumable(Protocol):
    """What a checkpoint holds of an optimizer: `AdamW` itself, or a copy of it as it was."""

    masters: dict[str, Tensor]
    steps: int

    def state(self) -> dict[str, Tensor]:
        """The moments by name."""
        ...


@dataclass
class Best:
    """The best evaluation so far, where its weights are kept.

    Attributes:
        weights: own name -> tensor while they wait to be written with the next checkpoint; None once they are.
    """

    step: int
    weights: Mapping[str, Tensor] | None = None


@dataclass
class Checkpoint:
    """A checkpoint read back: weights, moments, and the JSON state of the run."""

    step: int
    masters: dict[str, Tensor]
    moments: dict[str, Tensor]
    state: dict[str, Any]
    best: Best | None = None


def save(folder: Path, step: int, optimizer: Resumable, state: Mapping[str, Any], *, keep: int = 2, best: Best | None = None) -> Path:
    """Writes `FOLDER/step-000000100/`, then removes all but the newest `keep` checkpoints up to this step, and those beyond it.

    What lies beyond was damaged, or the run would have gone on from there.

    Args:
        state: JSON of what else a run needs to go on: best value so far, patience left, compute.
        best: the best evaluation so far, where its weights are kept; they are written first and then no longer held.

    Raises:
        DiskFullError: says how many bytes are missing. The newest older checkpoint is whole still, and the run may go on.
    """
    content = content_of(step, optimizer, state)
    with writing(folder, content, size(optimizer, content, best), keep=keep, best=best) as new:
        tensorfile.write(new / MODEL, optimizer.masters)
        tensorfile.write(new / OPTIMIZER, optimizer.state())
    return _place(folder, "step", step)


def content_of(step: int, optimizer: Resumable, state: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in `state.json`."""
    return {"format": files.FORMAT, "step": step, "optimizer_steps": optimizer.steps, **state}


@contextmanager
def writing(
    folder: Path,
    content: Mapping[str, Any],
    needed: int,
    *,
    keep: int,
    best: Best | None,
    hashed: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Path]:
    """The folder into which the tensors of a checkpoint go; all around them is done here. See `save`.

    Args:
        needed: bytes of it all. hashed: see `files.write_manifest`.
    """
    step = content["step"]
    what = f"the checkpoint of step {step:,}"
    _make_room(folder, step, needed, keep)
    files.check_room(folder, needed, what)
    try:
        if best is not None and best.weights is not None:
            with files.new_folder(_place(folder, "best", best.step), step=best.step) as new:
                tensorfile.write(new / MODEL, best.weights)
        with files.new_folder(_place(folder, "step", step), hashed=hashed, step=step, best=best.step if best else None) as new:
            yield new
            files.write_json(new / STATE, content)
    except DiskFullError as error:
        raise DiskFullError(what, free=files.free(folder), needed=needed, where=str(folder)) from error
    if best is not None:
        best.weights = None
    prune(folder, step, keep)


def size(optimizer: Resumable, state: Mapping[str, Any], best: Best | None = None) -> int:
    """Bytes that `save` is about to write, to a few parts in a thousand; nothing is copied to count them."""
    waiting = [best.weights] if best is not None and best.weights is not None else []
    manifests = 3 * _ENTRY_BYTES + _MANIFEST_BYTES + len(waiting) * (_ENTRY_BYTES + _MANIFEST_BYTES)
    tensors = sum(map(tensorfile.size, [optimizer.masters, optimizer.state(), *waiting]))
    return tensors + len(json.dumps(state, indent=2)) + manifests


def _place(folder: Path, kind: str, step: int) -> Path:
    return folder / f"{kind}-{step:09d}"


def _there(folder: Path, kind: str) -> list[tuple[int, Path]]:
    """(step, path) of every folder of a kind, sound or not, oldest first."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(match[2]), path) for path in entries if (match := _NAME.match(path.name)) and match[1] == kind)


def whole(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder that were written to their end, oldest first."""
    return [(step, path) for step, path in _there(folder, "step") if files.read_manifest(path)]


def check_room(folder: Path, optimizer: Resumable, state: Mapping[str, Any], *, keep: int = 2, processes: int = 1) -> None:
    """Looks before the first step whether a checkpoint can be written at all.

    Args:
        processes: that hold as much as this one each.

    Raises:
        DiskFullError: it cannot; nothing was done yet.
    """
    files.sweep(folder)
    needed = processes * size(optimizer, state)
    if files.free(folder) + _bytes(_surplus(folder, None, keep)) < needed:
        files.check_room(folder, needed, "a checkpoint")


def _surplus(folder: Path, step: int | None, keep: int) -> list[Path]:
    """The older checkpoints that a save at `step` removes at its end; never the newest, and none where the newest is not sound."""
    older = [path for number, path in whole(folder) if step is None or number < step]
    surplus = older[: -max(1, keep - 1)]
    return surplus if surplus and _sound(older[-1]) else []


def _bytes(folders: Iterable[Path]) -> int:
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def _make_room(folder: Path, step: int, needed: int, keep: int) -> None:
    """Where there is no room beside the older checkpoints, those that this save removes at its end go before it, if that helps."""
    files.sweep(folder)
    there = files.free(folder)
    if there < needed:
        surplus = _surplus(folder, step, keep)
        if there + _bytes(surplus) >= needed:
            for path in surplus:
                files.remove(path)


def _sound(path: Path) -> bool:
    try:
        files.verify(path)
    except (CheckpointError, OSError):
        return False
    return True


def prune(folder: Path, step: int, keep: int) -> None:
    """Leaves the `keep` newest checkpoints up to `step`, and the best weights that they name; nothing else."""
    kept = [path for number, path in whole(folder) if number <= step][-max(1, keep) :]
    named = {(files.read_manifest(path) or {}).get("best") for path in kept}
    for _, path in _there(folder, "step"):
        if path not in kept:
            files.remove(path)
    for number, path in _there(folder, "best"):
        if number not in named:
            files.remove(path)


Reader = Callable[[Path], tuple[dict[str, Tensor], dict[str, Tensor]]]
"""Masters and moments out of the folder of a checkpoint that is sound."""


def read_whole(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All of the masters and moments, however many processes wrote them."""
    if (path / slices.INDEX).is_file():
        return slices.whole(path, "model"), slices.whole(path, "optimizer")
    return _tensors(path / MODEL), _tensors(path / OPTIMIZER)


def load(path: Path, *, needs: Iterable[str] = (), read: Reader = read_whole) -> Checkpoint:
    """Reads a checkpoint after checking every digest.

    Args:
        needs: entries of the state that the run cannot go on without.
        read: what gets the tensors.

    Raises:
        CheckpointError: something in it is missing or was changed.
        FormatError: a newer lexloom wrote it.
    """
    manifest = files.verify(path)
    _check_list(path, manifest["files"])
    state = files.read_json(path / STATE, kind="checkpoint state")
    files.check_format(state, path / STATE)
    for name in ("step", "optimizer_steps", *needs):
        if name not in state:
            raise CheckpointError("an entry of the state is missing", expected=name, where=str(path / STATE))
    if (match := _NAME.match(path.name)) and int(match[2]) != state["step"]:
        raise CheckpointError("the state is of another step", expected=match[2], got=str(state["step"]), where=str(path / STATE))
    masters, moments = read(path)
    best = manifest.get("best")
    if best is None and "best" not in manifest:  # of the first version, which kept them under one name
        best = (files.read_manifest(path.parent / "best") or {}).get("step")
    return Checkpoint(state["step"], masters, moments, state, None if best is None else Best(best))


def _check_list(path: Path, listed: Collection[str]) -> None:
    sliced = slices.INDEX in listed
    for name in (STATE,) if sliced else (MODEL, OPTIMIZER, STATE):
        if name not in listed:
            raise CheckpointError("a file is missing", expected=name, where=str(path))
    if sliced:
        slices.check(path, listed)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError("these tensors cannot be read", got=str(error)[:200], where=str(path)) from None


def latest(
    folder: Path, *, needs: Iterable[str] = (), read: Reader = read_whole, at_most: int | None = None, with_best: bool = True
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is sound, its best weights too, and a line for each damaged one that was passed over.

    Where none has sound best weights, and they are not there at all, the newest goes on without: its `best` is None.

    Args:
        at_most: no step beyond this one.
        with_best: False for who looks back and needs no best weights: they are not read.

    Raises:
        FormatError: a newer lexloom wrote it.
        CheckpointError: of all that checkpoints need only the best weights are damaged.
    """
    complaints: list[str] = []
    needs, without = tuple(needs), None
    for step, path in reversed(_there(folder, "step")):
        if not (path / files.MANIFEST).is_file() or (at_most is not None and step > at_most):
            continue
        try:
            found = load(path, needs=needs, read=read)
            without = without or found
            if with_best and found.best is not None:
                files.verify(_best_place(folder, found.best.step))
            return found, complaints
        except (CheckpointError, OSError) as error:
            complaints.append(f"passed over a damaged checkpoint: {error}")
    return _without_best(folder, without), complaints


def _without_best(folder: Path, found: Checkpoint | None) -> Checkpoint | None:
    """Training for hours is not thrown away for the weights of one evaluation, nor these in silence."""
    if found is None or found.best is None:
        return None
    place = _best_place(folder, found.best.step)
    if place.exists():
        raise CheckpointError(
            f"the weights of the best evaluation are damaged, those of step {found.step:,} are sound",
            where=str(place),
            hint="put the folder back from a copy, or remove it: then the best of the evaluations to come is kept",
        )
    found.best = None
    return found


def load_best(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights of the best evaluation, which was at `step`.

    Raises:
        CheckpointError: they are missing or were changed.
    """
    path = _best_place(folder, step)
    files.verify(path)
    return _tensors(path / MODEL)


def _best_place(folder: Path, step: int) -> Path:
    path, before = _place(folder, "best", step), folder / "best"  # the name that the first version gave them
    if not path.is_dir() and (files.read_manifest(before) or {}).get("step") == step:
        return before
    return path


def restore(optimizer: AdamW, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint's weights and moments into the optimizer and, through it, into the network.

    Raises:
        CheckpointError: they are of another network or another optimizer.
    """
    odd = sorted(set(optimizer.state()) ^ set(checkpoint.moments))
    if odd and set(optimizer.masters) == set(checkpoint.masters):
        raise CheckpointError("the optimizer's state in this checkpoint is not this optimizer's", got=", ".join(odd[:5]))
    optimizer.load(checkpoint.masters, checkpoint.moments, checkpoint.state["optimizer_steps"])
