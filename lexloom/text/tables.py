"""Records of CSV and TSV files, with the line each begins at, and a way on after a broken one.

Written out rather than left to `csv`, which counts no lines, keeps its field limit in a global, and loses its place at a stray quote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from lexloom.errors import DataError

Line = tuple[int, str, str]
Record = tuple[int, list[str], str]
UNCLOSED = "a quote is opened and never closed"


def records(lines: Iterator[Line], delimiter: str, limit: int) -> Iterator[Record]:
    """Records as (number of the first line, fields, what is wrong or "").

    Fields in double quotes may hold delimiters, doubled quotes and newlines. Where a record of several lines turns out broken, only
    its first line is given up and reading goes on at the second, so that one stray quote does not swallow the good rows after it.
    In TSV files, where most writers know no quoting, a field may not go over its line, and a quote that does not fit is text.

    Args:
        lines: (number, text, what is wrong with it or "").
        limit: characters of one record.
    """
    waiting: deque[Line] = deque()
    while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
        number, text, problem = line
        if problem:
            yield number, [text], problem
        elif not text.strip(" \t"):
            continue
        elif '"' not in text:
            yield number, text.split(delimiter), ""
        elif delimiter == "\t":
            yield number, [_unquoted(field) for field in text.split(delimiter)], ""
        else:
            record, taken = _Record(delimiter), []
            problem, size = record.feed(text), len(text)
            while record.is_open and not problem:
                following = waiting.popleft() if waiting else next(lines, None)
                if following is None:
                    problem = UNCLOSED
                    break
                taken.append(following)
                size += len(following[1])
                problem = following[2] or (UNCLOSED if size > limit else record.feed(following[1]))
            if problem:
                waiting.extendleft(reversed(taken))
            yield number, [text] if problem else record.fields, problem


class _Record:
    """One record, fed line by line."""

    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter
        self.fields: list[str] = []
        self.pieces: list[str] = []
        self.is_open = False

    def feed(self, text: str) -> str:
        """Takes the next line; says what is wrong with it, or ""."""
        start = 0
        if self.is_open:
            self.pieces.append("\n")
            start = self._quoted(text, 0)
        while not self.is_open and 0 <= start <= len(text):
            if text.startswith('"', start):
                start = self._quoted(text, start + 1)
            else:
                end = text.find(self.delimiter, start)
                self.fields.append(text[start:] if end < 0 else text[start:end])
                start = len(text) + 1 if end < 0 else end + 1
        return "text after a closing quote" if start < 0 else ""

    def _quoted(self, text: str, start: int) -> int:
        """Reads on inside quotes; gives the start of the next field, one past the end of the text, or -1 for a fault."""
        self.is_open = True
        while (end := text.find('"', start)) >= 0:
            self.pieces.append(text[start:end])
            if not text.startswith('"', end + 1):
                self.fields.append("".join(self.pieces))
                self.pieces, self.is_open = [], False
                at_end = end + 1 == len(text)
                return len(text) + 1 if at_end else end + 2 if text[end + 1] == self.delimiter else -1
            self.pieces.append('"')
            start = end + 2
        self.pieces.append(text[start:])
        return len(text) + 1


def _unquoted(field: str) -> str:
    inner = field[1:-1].replace('""', "") if len(field) > 1 and field[0] == field[-1] == '"' else '"'
    return field if '"' in inner else field[1:-1].replace('""', '"')


def header_of(fields: list[str], where: str) -> list[str]:
    """Column names out of the first record; columns without a name are called `unnamed 1` and so on.

    Raises:
        DataError: a name stands twice.
    """
    names = [field.strip() or f"unnamed {place}" for place, field in enumerate(fields, 1)]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the column {name!r} stands twice in the first line", got=", ".join(names), where=where)
    return names


def delimiter_of(first_line: str) -> str:
    """The delimiter of a CSV file: the comma, unless the first line has none but semicolons, tabs or bars."""
    if "," in first_line:
        return ","
    return max(",;\t|", key=first_line.count)
