"""Labelled rows of a task, read into memory with their places, bad ones put aside and counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lexloom import keys
from lexloom.errors import DataError
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, read_rows

MAX_ROWS = 20_000_000


@dataclass
class Labelled:
    """The rows of one file and what was put aside."""

    path: Path
    rows: list[Placed]
    bad: dict[str, Any]


def read(path: Path, *, aside: Path | None = None, max_bad_rows: int | None = None, strict: bool = False) -> Labelled:
    """Reads a file of rows.

    Args:
        aside: where bad rows are written.

    Raises:
        DataError: no good row is left, too many are bad, or there are more than can be held.
    """
    with Quarantine(aside, max_bad_rows=max_bad_rows, strict=strict) as bad:
        rows = []
        for row in read_rows(path, bad=bad):
            rows.append(row)
            if len(rows) > MAX_ROWS:
                raise DataError("this file has more rows than fine-tuning holds", expected=f"at most {MAX_ROWS:,}", where=str(path))
        found = bad.summary()
    if not rows:
        raise DataError("there is no good row in this file", got=str(found), where=str(path))
    return Labelled(path, rows, found)


def hold_out(rows: list[Placed], share: float, seed: int) -> tuple[list[Placed], list[Placed]]:
    """Splits rows into (train, held out) by their places: the same rows whatever the order of anything else."""
    drawn = keys.uniform(keys.key(seed, "hold out", list(range(len(rows)))), 1)[:, 0]
    held = {i for i in range(len(rows)) if drawn[i] < share}
    return [row for i, row in enumerate(rows) if i not in held], [rows[i] for i in sorted(held)]
