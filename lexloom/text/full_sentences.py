"""Blocks of whole sentences (Liu et al. 2019, "RoBERTa", FULL-SENTENCES and DOC-SENTENCES): a row ends where the next one would not fit.

The blocks are those of `blocks`, cut elsewhere: a sentence is cut only where it is longer than a row, and what is left over is padding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lexloom.text.shards import Split

Ints = npt.NDArray[np.int64]
_DOCUMENTS = 1 << 14


@dataclass
class _Filler:
    """The row that is being filled, and those that are full: (first document, place in it, positions)."""

    most: int
    least: int
    counts: Counter[str]
    document: int = 0
    offset: int = 0
    length: int = 0
    tail: int = 0  # a separator at the end, which says nothing there
    rows: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, document: int, begin: int, end: int) -> None:
        """One sentence: its positions within its document."""
        if end - begin <= self.most < self.length + end - begin:
            self.close(document, begin)
        while self.length + end - begin > self.most:
            if taken := self.most - self.length:
                begin, self.length, self.tail = begin + taken, self.most, 0
            self.close(document, begin)
        self.length, self.tail = self.length + end - begin, 0

    def mark(self, document: int) -> None:
        """A separator after this document, where there is room for it and something behind it."""
        if self.length < self.most:
            self.length, self.tail = self.length + 1, 1
        else:
            self.close(document + 1, 0)

    def close(self, document: int, offset: int) -> None:
        """The row is full; the next one begins at this place."""
        if (length := self.length - self.tail) >= self.least:
            self.rows.append((self.document, self.offset, length))
        else:
            self.counts["dropped_tokens"] += length
        self.document, self.offset, self.length, self.tail = document, offset, 0, 0


def cut(
    split: Split, most: int, least: int, *, joined: bool, between: bool, ends: bool, counts: Counter[str]
) -> Iterator[tuple[Ints, Ints, Ints]]:
    """First document, place in it and positions of each block, for some documents at a time.

    Args:
        most: positions of a block at most; shorter ones than `least` are dropped.
        joined: whether a block may go on into the next document.
        between: whether a separator stands between two documents of a block.
        ends: whether each document ends with a token that belongs to it.
    """
    filler = _Filler(most, least, counts)
    for document, borders in _documents(split):
        begin = 0
        for border in borders:
            end = border + (ends and border == borders[-1])
            filler.add(document, begin, end)
            begin = end
        if not joined:
            filler.close(document + 1, 0)
        elif between:
            filler.mark(document)
        if (document + 1) % _DOCUMENTS == 0:
            yield _arrays(filler)
    filler.close(len(split), 0)
    yield _arrays(filler)


def _documents(split: Split) -> Iterator[tuple[int, list[int]]]:
    """Each document's number and where its sentences end, in tokens from its first on."""
    before, token = 0, 0
    for start in range(0, len(split), _DOCUMENTS):
        borders = split.document_ends[start : start + _DOCUMENTS].astype(np.int64)
        ends = split.sentence_ends[before : int(borders[-1])].astype(np.int64)
        for number, (first, last) in enumerate(zip([before, *borders[:-1].tolist()], borders.tolist(), strict=True)):
            inner = ends[first - before : last - before]
            yield start + number, (inner - token).tolist()
            token = int(inner[-1])
        before = int(borders[-1])


def _arrays(filler: _Filler) -> tuple[Ints, Ints, Ints]:
    made = np.array(filler.rows, dtype=np.int64).reshape(-1, 3)
    filler.rows.clear()
    return made[:, 0], made[:, 1], made[:, 2]
