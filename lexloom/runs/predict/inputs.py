"""The input of a prediction: rows of many files, part by part, and what a task wants of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lexloom.errors import DataError
from lexloom.hub.bundle import Bundle
from lexloom.tasks.columns import Columns, ColumnsConfig
from lexloom.tasks.simple import SimpleClassifier
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, Row, SourceFile, read_rows

Model = Bundle | SimpleClassifier
PART_CHARACTERS = 1 << 20
"""A part ends at so many characters too, so that long texts or a large network do not make the work lost by a kill large."""


@dataclass(frozen=True)
class Refused:
    """Why a row has no answer."""

    reason: str
    text: str

    @classmethod
    def of(cls, error: DataError, row: Row) -> Refused:
        reason = f"{error.problem}: {error.got}" if error.got else error.problem
        return cls(reason, str(row)[:400])


class Input:
    """The rows of all files in order, each with the number of its file; taken part by part."""

    def __init__(self, sources: Sequence[SourceFile], aside: Quarantine, report: Any = None) -> None:
        self.sources, self.aside, self.report = sources, aside, report
        self.rows, self.ended, self.bytes = self._read(), False, 0

    def __iter__(self) -> Iterator[tuple[int, Placed]]:
        return self.rows

    def _read(self) -> Iterator[tuple[int, Placed]]:
        before = 0
        for number, source in enumerate(self.sources):

            def progress(done: int, before: int = before) -> None:
                self.bytes = before + done
                if self.report is not None:
                    self.report(self.bytes)

            for placed in read_rows(source, bad=self.aside, progress=progress):
                yield number, placed
            before += source.bytes
        self.ended = True

    def take(self, most: int) -> list[tuple[int, Placed]]:
        """The rows of the next part: the same ones whenever the input is the same."""
        found: list[tuple[int, Placed]] = []
        characters = 0
        for number, placed in self.rows:
            found.append((number, placed))
            characters += sum(len(value) for value in placed.row.values() if isinstance(value, str))
            if len(found) >= most or characters >= PART_CHARACTERS:
                break
        return found


class Reader:
    """What a task wants of a row."""

    def __init__(self, model: Model, given: ColumnsConfig | None) -> None:
        found = getattr(model.config if isinstance(model, SimpleClassifier) else getattr(model.task, "config", None), "columns", None)
        self.config = found if isinstance(found, ColumnsConfig) else None
        self.given, self.columns = given, None  # type: ColumnsConfig | None, Columns | None

    def find(self, taken: Sequence[tuple[int, Placed]]) -> None:
        """Finds the columns in the first rows.

        Raises:
            DataError: there is none for the text.
        """
        if self.columns is not None or not taken or (self.config is None and self.given is None):
            return
        rows = [placed for _, placed in taken]
        if self.given is None:
            self.columns = Columns.find(self.config or ColumnsConfig(), rows, labelled=False)
        else:
            self.columns = Columns.find(self.given, rows, labelled=False, strict=True)

    def input(self, placed: Placed) -> Row | Refused:
        """The row as the task takes it: its text, and the second one of a pair; all its columns for tasks with columns of their own."""
        if self.columns is None:
            return placed.row
        try:
            pairs = self.columns.pairs([placed])
            return {"text": self.columns.texts([placed])[0], **({"pair": pairs[0]} if pairs is not None else {})}
        except DataError as error:
            return Refused.of(error, placed.row)
