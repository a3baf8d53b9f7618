"""Encoded rows: the special tokens that stand around token ids, for whole batches at once.

Letters: B rows, N tokens of all rows together, T tokens of one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from lexloom.errors import FormatError

Ints = npt.NDArray[np.integer[Any]]
FIRST, SECOND = -1, -2


class Encoded(TypedDict):
    """One text or pair as a model takes it.

    `input_ids` (T,) int32; `token_type_ids` (T,) int32; `special` (T,) bool: put there by the tokenizer, not by the text; `sequence`
    (T,) int8: 0 first text, 1 second, -1 special; `cut`: whether something of the text is missing; `offsets` (T, 2) int32 only where
    asked for: the characters of the raw text that a token covers, (0, 0) for special ones; `characters` (T, C) int16 where the tokenizer
    spells words, see `text.spelling`.
    """

    input_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.int32]
    special: npt.NDArray[np.bool_]
    sequence: npt.NDArray[np.int8]
    cut: bool
    offsets: NotRequired[npt.NDArray[np.int32]]
    characters: NotRequired[npt.NDArray[np.int16]]


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length as one array: `values` (N, …) and `lengths` (B,)."""

    values: Ints
    lengths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Ints]) -> Ragged:
        """Rows joined into one; none give int32."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        return cls(np.concatenate(rows) if rows else np.zeros(0, np.int32), lengths)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Start and end of each row in `values`."""
        ends = np.cumsum(self.lengths)
        return zip((ends - self.lengths).tolist(), ends.tolist(), strict=True)

    def rows(self) -> list[Ints]:
        """The rows, as views."""
        return [self.values[start:end] for start, end in self.spans()]

    def kept(self, keep: npt.NDArray[np.int64], *, tail: bool = False) -> npt.NDArray[np.bool_]:
        """(N,) true at the first `keep` (B,) values of each row, or at the last ones where `tail`."""
        starts = np.cumsum(self.lengths) - self.lengths
        place = np.arange(len(self.values)) - np.repeat(starts, self.lengths)
        if tail:
            place = np.repeat(self.lengths, self.lengths) - 1 - place
        return np.asarray(place < np.repeat(keep, self.lengths))


@dataclass(frozen=True)
class Composed:
    """Rows with their special tokens, flat: `input_ids`, `token_type_ids`, `sequence` (N,) and `lengths` (B,)."""

    input_ids: npt.NDArray[np.int32]
    token_type_ids: npt.NDArray[np.int32]
    sequence: npt.NDArray[np.int8]
    lengths: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Template:
    """What a tokenizer puts around one text or a pair: items of (token id, type); `FIRST` and `SECOND` stand for the texts."""

    items: tuple[tuple[int, int], ...]

    @property
    def added(self) -> int:
        """How many special tokens a row gets."""
        return sum(token >= 0 for token, _ in self.items)

    def plain(self) -> list[list[int]]:
        """As JSON keeps it."""
        return [list(item) for item in self.items]

    @classmethod
    def read(cls, value: Any, *, pair: bool, where: str) -> Template:
        """Back from `plain`.

        Raises:
            FormatError: it is no template.
        """
        try:
            items = tuple((int(token), int(kind)) for token, kind in value)
        except (TypeError, ValueError):
            items = ()
        texts = sorted(token for token, _ in items if token < 0)
        if texts != ([SECOND, FIRST] if pair else [FIRST]):
            raise FormatError("this is no template of special tokens", got=repr(value)[:80], where=where)
        return cls(items)

    def compose(self, first: Ragged, second: Ragged | None = None) -> Composed:
        """Puts the special tokens around all rows at once."""
        rows, places = len(first.lengths), len(self.items)
        sizes = np.ones((rows, places), dtype=np.int64)
        for place, (token, _) in enumerate(self.items):
            if token == FIRST:
                sizes[:, place] = first.lengths
            elif token == SECOND and second is not None:
                sizes[:, place] = second.lengths
        item = np.repeat(np.tile(np.arange(places, dtype=np.int8), rows), sizes.ravel())
        ids = np.array([max(token, 0) for token, _ in self.items], dtype=np.int32)[item]
        for place, (token, _) in enumerate(self.items):
            if token == FIRST:
                ids[item == place] = first.values
            elif token == SECOND and second is not None:
                ids[item == place] = second.values
        types = np.array([kind for _, kind in self.items], dtype=np.int32)[item]
        sequence = np.array([-1 if token >= 0 else -1 - token for token, _ in self.items], dtype=np.int8)[item]
        return Composed(ids, types, sequence, sizes.sum(axis=1))


def room_for_pairs(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], room: int) -> tuple[Any, Any]:
    """How many tokens of each text stay when a pair has room for `room`: the longer one gives way first, then both share.

    The rule of the `tokenizers` library's "longest first", so that cut pairs equal those of other programs.
    """
    swap = first > second
    short, long = np.minimum(first, second), np.maximum(first, second)
    kept_long = np.where(short > room, short, np.maximum(short, room - short))
    over = short + kept_long > room
    kept_short = np.where(over, room // 2, short)
    kept_long = np.where(over, room // 2 + room % 2, kept_long)
    fits = first + second <= room
    kept_short, kept_long = np.where(fits, short, kept_short), np.where(fits, long, np.minimum(kept_long, long))
    return np.where(swap, kept_long, kept_short), np.where(swap, kept_short, kept_long)


def shortened(ragged: Ragged, offsets: Any, keep: npt.NDArray[np.int64], tail: bool) -> tuple[Ragged, Any]:
    """The first `keep` (B,) values of each row, or the last ones where `tail`; and of `offsets` (N, 2), or None, the same."""
    if (ragged.lengths <= keep).all():
        return ragged, offsets
    mask = ragged.kept(keep, tail=tail)
    return Ragged(ragged.values[mask], np.minimum(ragged.lengths, keep)), None if offsets is None else offsets[mask]


def rows_of(
    template: Template, first: Ragged, second: Ragged | None, first_offsets: Any, second_offsets: Any, cut: npt.NDArray[np.bool_]
) -> list[Encoded]:
    """Rows one by one out of all texts, or pairs of them; offsets, (N, 2) or None, are those of their tokens, `cut` (B,)."""
    made = template.compose(first, second)
    special, places = made.sequence < 0, None
    if first_offsets is not None:
        places = np.zeros((len(made.input_ids), 2), dtype=np.int32)
        places[made.sequence == 0] = first_offsets
        if second is not None:
            places[made.sequence == 1] = second_offsets
    rows: list[Encoded] = []
    for (start, end), is_cut in zip(Ragged(made.input_ids, made.lengths).spans(), cut.tolist(), strict=True):
        row: Encoded = {
            "input_ids": made.input_ids[start:end],
            "token_type_ids": made.token_type_ids[start:end],
            "special": special[start:end],
            "sequence": made.sequence[start:end],
            "cut": is_cut,
        }
        if places is not None:
            row["offsets"] = places[start:end]
        rows.append(row)
    return rows
