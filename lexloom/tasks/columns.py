"""Columns of labelled rows: which one holds the text, its pair and the label; found by their usual names where nobody says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lexloom.config import Config
from lexloom.errors import DataError, nearest

PAIRS = (
    ("text", "pair"),
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "passage"),
    ("query", "document"),
    ("question", "sentence"),
)
TEXTS = ("text", "sentence", "content", "review", "body", "document", "utterance", "query", "question", "title", "tokens")
LABELS = ("label", "labels", "intent", "class", "category", "sentiment", "target")
_LOOKED_AT = 100
_SURROGATE = re.compile("[\ud800-\udfff]")


class ColumnsConfig(Config):
    """Names of the columns; those not given are found by their usual names."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Columns:
    """Where the text, its pair (None for single texts) and the label (None where none is needed) stand in a row."""

    text: str
    pair: str | None = None
    label: str | None = None

    @classmethod
    def find(cls, config: ColumnsConfig, rows: Sequence[Any], *, labelled: bool, strict: bool = False) -> Columns:
        """Finds the columns of rows.

        Args:
            labelled: whether there must be a label.
            strict: what `config` names must be there under that very name. Else the plain names `text`, `pair` and `label`
                may stand for it, and where no label is needed, any usual name of a text.

        Raises:
            DataError: a column is missing; the nearest name that is there is given.
        """
        names = _names(rows)
        label = _label(config.label, names, rows, strict=strict) if labelled else None
        if config.text is None:
            text, pair = _usual(names, label, config.pair, rows)
            return cls(text, _named(config.pair, ("pair", "text_pair"), names, rows) if config.pair else pair, label)
        instead: tuple[str, ...] = () if strict else ("text",) if labelled else ("text", *TEXTS)
        if not strict and not labelled and config.text not in names and config.pair is not None:
            usual = next(((a, b) for a, b in PAIRS if a in names and b in names), None)
            if usual:
                return cls(*usual)
        text = _named(config.text, instead, names, rows)
        pair = _named(config.pair, () if strict else ("pair", "text_pair"), names, rows) if config.pair else None
        return cls(text, pair, label)

    def said(self) -> str:
        """One line for the log."""
        return ", ".join(f"{what}: {name}" for what, name in (("text", self.text), ("pair", self.pair), ("label", self.label)) if name)

    def config(self) -> ColumnsConfig:
        """The names as settings, to be kept with a model."""
        return ColumnsConfig(text=self.text, pair=self.pair, label=self.label)

    def texts(self, rows: Sequence[Any]) -> list[str]:
        """The text of each row.

        Raises:
            DataError: a row has none, or something else in its place.
        """
        return [_text(row, self.text, i) for i, row in enumerate(rows)]

    def pairs(self, rows: Sequence[Any]) -> list[str] | None:
        """The second text of each row, or None for single texts; raises as `texts` does."""
        return None if self.pair is None else [_text(row, self.pair, i) for i, row in enumerate(rows)]

    def raw_label(self, row: Any, i: int) -> str:
        """The label of row `i` as text: 1 and 1.0 are "1", true is "true".

        Raises:
            DataError: there is none, or it is no label.
        """
        value = plain(row).get(self.label or "")
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str | int) and (found := str(value).strip()):
            return clean(found)
        got = "nothing" if value is None or value == "" else repr(value)[:60]
        raise DataError("this row has no label", expected=f"a word or a whole number under {self.label!r}", got=got, where=place(row, i))


def plain(row: Any) -> Mapping[str, Any]:
    """The columns of a row, whether it is a mapping or a row with its place in a file."""
    return row if isinstance(row, Mapping) else row.row


def place(row: Any, i: int) -> str:
    """`file:line` where the row knows it, else its number from 1."""
    return f"row {i + 1}" if isinstance(row, Mapping) else f"{row.file}:{row.line}"


def clean(text: str) -> str:
    """The text without halves of surrogate pairs, which no encoding can write."""
    return _SURROGATE.sub("\ufffd", text)


def _names(rows: Sequence[Any]) -> list[str]:
    if not len(rows):
        raise DataError("there are no rows")
    return list(dict.fromkeys(name for row in rows[:_LOOKED_AT] for name in plain(row)))


def _named(name: str, instead: Sequence[str], names: Sequence[str], rows: Sequence[Any]) -> str:
    for candidate in (name, *instead):
        if candidate in names:
            return candidate
    raise _missing(name, names, rows)


def _missing(name: str, names: Sequence[str], rows: Sequence[Any]) -> DataError:
    guess = nearest(name, names)
    hint = f"did you mean {guess!r}?" if guess else "name the columns under `columns`: {text: …, pair: …, label: …}"
    return DataError(f"there is no column {name!r}", expected=_shown(names), where=place(rows[0], 0), hint=hint)


def _shown(names: Sequence[str]) -> str:
    return "one of: " + ", ".join(map(str, names[:50])) if names else "a row with columns"


def _label(name: str | None, names: Sequence[str], rows: Sequence[Any], *, strict: bool) -> str:
    if name is not None:
        return _named(name, () if strict else ("label",), names, rows)
    found = next((candidate for candidate in LABELS if candidate in names), None)
    if found is None:
        raise _missing("label", names, rows)
    return found


def _usual(names: Sequence[str], label: str | None, pair: str | None, rows: Sequence[Any]) -> tuple[str, str | None]:
    free = [name for name in names if name not in (label, pair)]
    if pair is None:
        for a, b in PAIRS:
            if a in free and b in free:
                return a, b
    found = next((candidate for candidate in TEXTS if candidate in free), None)
    if found is None:
        written = [name for name in free if isinstance(plain(rows[0]).get(name), str) and name not in LABELS]
        found = written[0] if len(written) == 1 else None
    if found is None:
        raise _missing("text", names, rows)
    return found, None


def _text(row: Any, name: str, i: int) -> str:
    value = plain(row).get(name)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | tuple) and all(isinstance(word, str) for word in value):
        return clean(" ".join(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    got = "nothing" if value is None else repr(value)[:60]
    raise DataError(f"this row has no text under {name!r}", expected="a text, which may be empty", got=got, where=place(row, i))
