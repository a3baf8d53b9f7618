"""Character n-grams of words, as fastText has them (Bojanowski et al. 2017, "Enriching word vectors with subword information").

Those of `<word>`, of `min_n` to `max_n` characters, each hashed into one of B buckets by fastText's FNV-1a of its UTF-8 bytes, which takes
each byte as a signed number. A word has a row of its own and shares those of its n-grams; its vector is the mean of all of them. A word
without a row of its own still has the others.

Only buckets that a word of the vocabulary falls into have a row; the rest are never learned, and stand for zeros.

Letters: V words, D width, B buckets, R of them that have a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from lexloom.compute import kernel
from lexloom.vectors.windows import INLINE, PLAIN

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
END_OF_SENTENCE = "</s>"
"""Stands in fastText's vocabularies as a word, and has no n-grams."""
_BASIS, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_BLOCK = 1 << 12


def letters_of(word: str) -> bytes:
    """A word as UTF-8; bytes that were none, and stand in it as halves of characters, as they were."""
    try:
        return word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return word.encode("utf-8", "surrogatepass")


@kernel(**INLINE)
def _further(hashed, letter):  # type: ignore[no-untyped-def]
    return np.uint32((hashed ^ np.uint32(np.int8(letter))) * _PRIME)


@kernel(**PLAIN)
def find_hashes(letters, ends, found):  # type: ignore[no-untyped-def]
    """found ← the hash of each word as a whole."""
    first = 0
    for word in range(len(ends)):
        hashed = _BASIS
        for i in range(first, ends[word]):
            hashed = _further(hashed, letters[i])
        found[word], first = hashed, ends[word]


def hashes_of(words: Sequence[str]) -> npt.NDArray[np.uint32]:
    """The hash of each word as a whole, (V,)."""
    spelt = [letters_of(word) for word in words]
    letters, ends = np.frombuffer(b"".join(spelt) or b"\0", dtype=np.uint8), np.cumsum([len(word) for word in spelt], dtype=np.int64)
    found = np.zeros(len(words), dtype=np.uint32)
    find_hashes(letters, ends, found)
    return found


@kernel(**PLAIN)
def find_buckets(letters, ends, min_n, max_n, buckets, starts, found):  # type: ignore[no-untyped-def]
    """The buckets of the n-grams of words, in the order of their first characters.

    Args:
        letters: the bytes of all words, each between `<` and `>`. ends: where each ends.
        starts: (V + 1,), is filled: where the n-grams of each word begin in `found`.
        found: is filled; with no room in it they are only counted.
    """
    at = 0
    for word in range(len(ends)):
        first = ends[word - 1] if word > 0 else 0
        starts[word] = at
        for i in range(first, ends[word]):
            if letters[i] & 0xC0 == 0x80:  # within a character
                continue
            hashed, n, j = _BASIS, 0, i
            while j < ends[word] and n < max_n:
                hashed = _further(hashed, letters[j])
                j += 1
                while j < ends[word] and letters[j] & 0xC0 == 0x80:
                    hashed = _further(hashed, letters[j])
                    j += 1
                n += 1
                if n >= min_n and not (n == 1 and (i == first or j == ends[word])):  # neither < nor > alone
                    if len(found) > 0:
                        found[at] = hashed % np.uint32(buckets)
                    at += 1
    starts[len(ends)] = at


def buckets_of(words: Sequence[str], min_n: int, max_n: int, buckets: int) -> tuple[npt.NDArray[np.int64], Ints]:
    """Where the n-grams of each word begin, (V + 1,), and the bucket of each n-gram."""
    spelt = [b"" if word == END_OF_SENTENCE else b"<" + letters_of(word) + b">" for word in words]
    letters, ends = np.frombuffer(b"".join(spelt) or b"\0", dtype=np.uint8), np.cumsum([len(word) for word in spelt], dtype=np.int64)
    starts, found = np.zeros(len(words) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
    find_buckets(letters, ends, min_n, max_n, buckets, starts, found)
    found = np.zeros(starts[-1], dtype=np.int32)
    if len(found):
        find_buckets(letters, ends, min_n, max_n, buckets, starts, found)
    return starts, found


@kernel(**PLAIN)
def add_means(own, rows, starts, places, found):  # type: ignore[no-untyped-def]
    """found_w ← (own_w + Σ rows_r) / (1 + n) over the n places of each word; those below 0 are zeros."""
    for word in range(len(starts) - 1):
        found[word] = own[word]
        for at in range(starts[word], starts[word + 1]):
            if places[at] >= 0:
                for n in range(found.shape[1]):
                    found[word, n] += rows[places[at], n]
        share = np.float32(1) / np.float32(1 + starts[word + 1] - starts[word])
        for n in range(found.shape[1]):
            found[word, n] *= share


@dataclass(frozen=True)
class NGrams:
    """What word vectors are made of.

    Attributes:
        own: the rows of the words, (V, D). rows: of n-grams, (R, D). held: the bucket of each of these, (R,).
        counts: how often each word stands in the text it was learned from, (V,).
        outer: the vectors that words were predicted by, (V, D); None where they are not known.
        settings: of the training, under fastText's names, as far as they are known.
    """

    min_n: int
    max_n: int
    buckets: int
    own: Floats
    rows: Floats
    held: Ints
    counts: npt.NDArray[np.int64]
    outer: Floats | None = None
    settings: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return np.argsort(self.held, kind="stable")

    @cached_property
    def _sorted(self) -> Ints:
        return np.asarray(self.held)[self._order]

    def places(self, buckets: Ints) -> Ints:
        """The row of each bucket; -1 where it has none."""
        if not len(self.held):
            return np.full(len(buckets), -1, dtype=np.int32)
        at = np.minimum(np.searchsorted(self._sorted, buckets), len(self.held) - 1)
        return np.where(self._sorted[at] == buckets, self._order[at], -1).astype(np.int32)

    def of(self, word: str) -> Floats | None:
        """The vector of a word by its n-grams alone, (D,): their mean, rows that are not there being zeros; None where all are."""
        places = self.places(buckets_of([word], self.min_n, self.max_n, self.buckets)[1])
        held = places[places >= 0]
        return np.asarray(self.rows[held].sum(axis=0) / np.float32(len(places)), dtype=np.float32) if len(held) else None

    def vectors(self, words: Sequence[str]) -> Floats:
        """The vectors of the words that have rows of their own, (V, D)."""
        found = np.empty((len(words), self.own.shape[1]), dtype=np.float32)
        for start in range(0, len(words), _BLOCK):
            some = slice(start, start + _BLOCK)
            starts, buckets = buckets_of(words[some], self.min_n, self.max_n, self.buckets)
            add_means(self.own[some], self.rows, starts, self.places(buckets), found[some])
        return found

    def copied(self) -> Self:
        """The same in memory of its own, where it was mapped; without the outer vectors."""
        return replace(self, own=np.array(self.own), rows=np.array(self.rows), held=np.array(self.held), outer=None)
