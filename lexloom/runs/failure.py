"""What is kept of a step that went wrong: its batch and which of its rows did it, so that the cause can be looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save as to_bytes

from lexloom import files
from lexloom.batch import Batch
from lexloom.errors import LexloomError
from lexloom.runs.origin import Visit, pieces
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
    bad = culprits(step, batches)
    called = [names[i] if i < len(names) else f"row {i} of the step" for i in bad]
    place = folder / f"failed-step-{error.step + 1:09d}"
    with files.new_folder(place, kind="failed step", step=error.step + 1) as new:
        for number, batch in enumerate(batches):
            files.write_bytes(new / f"batch-{number}.safetensors", to_bytes({name: t.contiguous() for name, t in batch.items()}))
        files.write_json(
            new / "failure.json",
            {
                "format": files.FORMAT,
                "step": error.step + 1,
                "losses": {part: value if math.isfinite(value) else str(value) for part, value in error.losses.items()},
                "parameters": error.parameters,
                "rows": names,
                "not_finite_rows": called,
            },
        )
    more = f" and {len(called) - NAMED} more" if len(called) > NAMED else ""
    rows = f"; rows with a loss that is not finite: {', '.join(called[:NAMED])}{more}" if called else "; each row alone has a finite loss"
    return LexloomError(error.problem, got=f"{error.got}{rows}", where=str(place), hint=error.hint)


def documents(visit: Visit) -> str:
    """What a packed row is called: its documents, by id."""
    if visit.packing is None:
        return f"row {visit.row}"
    ids = dict.fromkeys(visit.packing.split.document_id(piece.document) for piece in pieces(visit.packing, visit.row))
    return f"row {visit.row} (document {', '.join(ids)})"


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
    """Whether an error says that memory was short, on whatever device. A thread that cannot be started lacks room for its stack."""
    told = ("can't allocate memory", "can't start new thread")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in told)
