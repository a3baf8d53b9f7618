"""What is kept of a step that went wrong: its batch and which of its rows did it, so that the cause can be looked at."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lexloom import files
from lexloom.batch import Batch
from lexloom.errors import LexloomError
from lexloom.runs.origin import Visit, pieces, wheres
from lexloom.train import tensorfile
from lexloom.train.loop import NotFinite, Source
from lexloom.train.step import Step

NAMED = 5


def kept(error: NotFinite, folder: Path, step: Step, source: Source, where: Callable[[int], list[str]] | None) -> LexloomError:
    """Writes `folder/failed-step-000000123/` and returns the error with the rows named in it.

    Args:
        where: step -> what each of its rows is called, `file:line` or a document, in the order of the micro-batches.
    """
    batches = source.batches(error.step)
    names = where(error.step) if where is not None else []
    bad = [i for i in culprits(step, batches) if not names or i < len(names)]  # what pads the last batch has no name
    called = [names[i] if i < len(names) else f"row {i} of the step" for i in bad]
    place, command = place_of(folder, error.step + 1), again(folder, error.step + 1)
    with files.new_folder(place, kind="failed step", step=error.step + 1) as new:
        for number, batch in enumerate(batches):
            tensorfile.write(new / f"batch-{number}.safetensors", batch.tensors)
        files.write_json(
            new / "failure.json",
            {
                "format": files.FORMAT,
                "step": error.step + 1,
                "losses": {part: value if math.isfinite(value) else str(value) for part, value in error.losses.items()},
                "parameters": error.parameters,
                "moments": error.moments,
                "rows": names,
                "not_finite_rows": called,
                "command": command,
            },
        )
    more = f" and {len(called) - NAMED} more" if len(called) > NAMED else ""
    rows = f"; rows with a loss that is not finite: {', '.join(called[:NAMED])}{more}" if called else "; each row alone has a finite loss"
    hint = f"{error.hint}; to see the step again: {command}" if command else error.hint
    return LexloomError(error.problem, got=f"{error.got}{rows}", where=str(place), hint=hint)


def place_of(folder: Path, step: int) -> Path:
    """Where a failed step (from 1) of the training in `folder` is kept."""
    return folder / f"failed-step-{step:09d}"


def again(folder: Path, step: int) -> str | None:
    """The command that computes a step of the training in `folder` again; None where that is in no run."""
    run = next((path for path in (folder, *folder.parents) if (path / "environment.json").is_file()), None)
    if run is None:
        return None
    stage = ["--stage", folder.relative_to(run).as_posix()] if run != folder else []
    return shlex.join(["lexloom", "replay", str(run), "--step", str(step), *stage])


def documents(seen: Sequence[Visit], corpus: Path | None = None) -> list[str]:
    """What packed rows are called: their documents, by `file:line`, or by file and id where they have ids of their own.

    Args:
        corpus: where the files of the documents are known.
    """
    made = [_ids(visit) for visit in seen]
    places = dict[str, str]()
    if corpus is not None:
        for name in {visit.packing.split.name for visit in seen if visit.packing is not None}:
            places |= wheres(corpus, name, {i for ids in made for i in ids})
    return [f"row {visit.row} ({', '.join(_document(i, places.get(i)) for i in ids)})" for visit, ids in zip(seen, made, strict=True)]


def _ids(visit: Visit) -> list[str]:
    if visit.packing is None:
        return []
    split = visit.packing.split
    return list(dict.fromkeys(split.document_id(piece.document) for piece in pieces(visit.packing, visit.row)))


def _document(number: str, where: str | None) -> str:
    if where is None or where == number:
        return where or f"document {number}"
    return f"document {number} of {where}"


@torch.no_grad()
def culprits(step: Step, batches: Sequence[Batch]) -> list[int]:
    """Places in the step, counted over its micro-batches, of the rows whose own loss is not finite."""
    found, before = list[int](), 0
    if step.objective.couples != "row":
        return found  # no row has a loss of its own
    device = next(step.parameters()).device
    for batch in batches:
        for row in range(batch.size):
            alone = {name: tensor[row : row + 1].to(device) for name, tensor in batch.items()}
            if not all(math.isfinite(value.item()) for value in step(alone).values()):
                found.append(before + row)
        before += batch.size
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was short, on whatever device.

    A thread that cannot be started lacks room for its stack, and a oneDNN primitive lacks room for its code or its scratchpad.
    """
    told = ("can't allocate memory", "can't start new thread", "could not create a primitive", "could not create a memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in told)
