"""Quarantine: the bad rows of a reading, counted by reason, reported as file:line, and kept aside in a file."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from lexloom import files
from lexloom.errors import BadRow, DataError

EXCERPT = 200


class Quarantine:
    """Collects bad rows. Memory is bounded; the file lists all of them.

    Args:
        path: a JSON-lines file (`file`, `line`, `reason`, `rows`, `text`) that appears when this is closed, if there was a bad row.
        max_bad_rows: how many are allowed; None for any number.
        strict: stop at the first.
        keep: how many are held in memory as `first`.
    """

    def __init__(self, path: Path | str | None = None, *, max_bad_rows: int | None = None, strict: bool = False, keep: int = 1000) -> None:
        self.path, self.max_bad_rows, self.strict, self.keep = (Path(path) if path else None), max_bad_rows, strict, keep
        self.total = 0
        self.reasons: Counter[str] = Counter()
        self.first: list[BadRow] = []
        self._exit = ExitStack()
        self._file: IO[Any] | None = None

    def add(self, file: str, line: int, reason: str, *, text: str | bytes = "", rows: int = 1) -> None:
        """Puts a row aside.

        Args:
            reason: what is wrong; counted by what stands before its first ": ", since what follows differs from row to row.
            text: what stands there; its beginning is kept.
            rows: how many rows were lost at this place.

        Raises:
            DataError: `strict` is set, or there are more than `max_bad_rows`.
        """
        found = BadRow(file, line, reason)
        self.total += rows
        self.reasons[reason.partition(": ")[0]] += rows
        if len(self.first) < self.keep:
            self.first.append(found)
        self._write(found, text, rows)
        if self.strict:
            raise DataError(found.reason, where=f"{file}:{line}", hint="mend the row, or leave strict off to have such rows put aside")
        if self.max_bad_rows is not None and self.total > self.max_bad_rows:
            raise DataError(
                "more bad rows than allowed",
                expected=f"at most {self.max_bad_rows}",
                got=", ".join(f"{reason} ({n})" for reason, n in self.reasons.most_common(5)),
                where=f"{file}:{line}",
                hint=f"they are listed in {self.path}" if self.path else None,
            )

    def _write(self, found: BadRow, text: str | bytes, rows: int) -> None:
        if self.path is None:
            return
        if self._file is None:
            self._file = self._exit.enter_context(files.replacing(self.path))
        shown = text[:EXCERPT].decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text[:EXCERPT]
        entry = {"file": found.file, "line": found.line, "reason": found.reason, "rows": rows, "text": shown}
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        self._file.write(line.encode("utf-8", "backslashreplace"))

    def summary(self) -> dict[str, Any]:
        """Counts for a report: `total`, `reasons` (most frequent first) and the `first` ten as file:line: reason."""
        return {"total": self.total, "reasons": dict(self.reasons.most_common()), "first": [str(row) for row in self.first[:10]]}

    def close(self) -> None:
        """Completes the file of bad rows."""
        self._file = None
        self._exit.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()  # also after an error: what was found so far is what the user wants to see then
