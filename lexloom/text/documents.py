"""Documents out of files: rows through a column map, plain text by file, by line or by paragraphs."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from lexloom.config import Config
from lexloom.text.corpus import Document
from lexloom.text.lines import MAX_LINE_BYTES, Progress
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, SourceFile, read_lines, read_rows

Unit = Literal["file", "line", "blank-line"]


class ColumnsConfig(Config):
    """Which column is what. Columns named here must be there; `id` and `title` are also taken where they happen to be."""

    text: str | list[str] = Field(default="text", min_length=1)
    """Of several columns each is a document of its own, such as both sides of a translation."""
    id: str | None = None
    title: str | None = None
    group: str | None = None
    """What belongs together, such as a patient or an author, and must not be divided between training and validation."""
    date: str | None = None
    """ISO 8601, or at least year, month and day in this order."""
    keep: list[str] = Field(default_factory=list)
    """Further columns to keep as metadata."""

    @property
    def texts(self) -> list[str]:
        """The columns of texts."""
        return [self.text] if isinstance(self.text, str) else self.text

    def metadata(self) -> dict[str, str]:
        """Metadata names -> columns that must be there."""
        named = {name: getattr(self, name) for name in ("title", "group", "date") if getattr(self, name)}
        return named | {name: name for name in self.keep if name not in named}

    def required(self) -> list[str]:
        """The columns every row must have."""
        return list(dict.fromkeys([*self.texts, *([self.id] if self.id else []), *self.metadata().values()]))


def read_documents(
    source: SourceFile,
    columns: ColumnsConfig,
    *,
    bad: Quarantine,
    unit: Unit = "file",
    dated: bool = False,
    max_line_bytes: int = MAX_LINE_BYTES,
    progress: Progress | None = None,
) -> Iterator[Document]:
    """Streams the documents of a file.

    Args:
        unit: what a document is in plain text files. A file longer than `max_line_bytes` is cut, at an empty line where there is one.
        dated: put rows aside whose date cannot be read.
    """
    if source.format == "txt":
        lines = read_lines(source, bad=bad, max_line_bytes=max_line_bytes, progress=progress)
        yield from _of_text(lines, source.name, unit, max_line_bytes)
        return
    rows = read_rows(
        source, bad=bad, columns=columns.required(), optional=("id", "title"), max_line_bytes=max_line_bytes, progress=progress
    )
    yield from documents_of(rows, columns, bad=bad, dated=dated)


def documents_of(rows: Iterator[Placed], columns: ColumnsConfig, *, bad: Quarantine, dated: bool = False) -> Iterator[Document]:
    """Makes documents of rows; those with values of a wrong type go to `bad`."""
    named = {"title": "title"} | columns.metadata()
    for placed in rows:
        try:
            yield from [_document(placed, column, columns, named, dated) for column in columns.texts]
        except _BadValueError as error:
            bad.add(placed.file, placed.line, str(error))


class _BadValueError(ValueError):
    """What is wrong with a row."""


def _document(placed: Placed, column: str, columns: ColumnsConfig, named: Mapping[str, str], dated: bool) -> Document:
    row = placed.row
    text = row.get(column)
    if not isinstance(text, str):
        raise _BadValueError(f"column {column!r} is not text: {_kind(text)}")
    own = row.get(columns.id or "id")
    if columns.id is not None and own in (None, ""):
        raise _BadValueError(f"column {columns.id!r} is empty")
    identity = _plain(own, columns.id or "id") if columns.id or isinstance(own, str | int) else None
    metadata = {name: value for name, column in named.items() if (value := _plain(row.get(column), column)) is not None}
    if dated and date_number(metadata.get("date", "")) is None:
        raise _BadValueError(f"column {columns.date!r} is not a date: {metadata.get('date', 'empty')[:40]!r}")
    several = f"#{column}" if len(columns.texts) > 1 else ""
    return Document(f"{identity or f'{placed.file}:{placed.line}'}{several}", text, (), placed.file, metadata)


def _plain(value: Any, column: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, datetime.date):  # datetimes too
        return value.isoformat()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    raise _BadValueError(f"column {column!r} is not a text or a number: {_kind(value)}")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _of_text(lines: Iterator[tuple[int, str]], name: str, unit: Unit, limit: int) -> Iterator[Document]:
    if unit == "line":
        for number, text in lines:
            if text.strip():
                yield Document(f"{name}:{number}", text, (), name)
        return
    held, part = _Lines(), 0
    for number, text in lines:
        blank = not text.strip()
        if (unit == "blank-line" and blank) or held.size + len(text) > limit:
            now = held.take(whole=unit == "blank-line" and blank)
            if now[1].strip():
                part += 1
                yield Document(f"{name}:{now[0]}" if unit == "blank-line" else f"{name}#{part}", now[1], (), name)
        if not (unit == "blank-line" and blank):
            held.add(number, text)
    first, rest = held.take(whole=True)
    if rest.strip():
        yield Document(f"{name}:{first}" if unit == "blank-line" else f"{name}#{part + 1}" if part else name, rest, (), name)


class _Lines:
    """The lines of a document that has not ended."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.size = 0

    def add(self, number: int, text: str) -> None:
        self.lines.append((number, text))
        self.size += len(text) + 1

    def take(self, *, whole: bool) -> tuple[int, str]:
        """(number of the first line, text): all, or what comes before the last empty line of the second half."""
        end = len(self.lines)
        if not whole:
            end = next((place for place in range(end - 1, end // 2, -1) if not self.lines[place][1].strip()), end)
        now, self.lines = self.lines[:end], self.lines[end:]
        self.size = sum(len(text) + 1 for _, text in self.lines)
        return (now[0][0] if now else 0), "\n".join(text for _, text in now)


_DATE = re.compile(r"(\d{4})(?:[-/.年](\d{1,2})(?:[-/.月](\d{1,2})日?)?)?月?年?(?:$|[T\s])")


def date_number(text: str) -> int | None:
    """A date as YYYYMMDDhhmmss, so that later is larger; None where it is none.

    Takes ISO 8601 (with a time zone made UTC), `2020/1/31`, `2020年1月31日`, `2020-01` and `2020`.
    """
    text = text.strip()
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment = moment.astimezone(datetime.UTC)
        return int(moment.strftime("%Y%m%d%H%M%S")) if len(text) != 4 else int(text) * 10**10
    except (ValueError, OverflowError):
        pass
    match = _DATE.match(text)
    if match is None:
        return None
    year, month, day = (int(part or 0) for part in match.groups())
    return ((year * 100 + month) * 100 + day) * 10**6 if month <= 12 and day <= 31 else None
