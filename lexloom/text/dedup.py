"""Exact and near duplicates among texts: hashes of normalised text; MinHash with locality-sensitive hashing, checked on true Jaccard.

MinHash: Broder 1997, "On the resemblance and containment of documents". Fast similarity sketches: `rensa`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import tempfile
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import rensa
from pydantic import Field

from lexloom import keys
from lexloom.config import Config

Hashes = npt.NDArray[np.uint64]
Fetch = Callable[[int], str]
BATCH_CHARACTERS = 1 << 20
CACHE_BYTES = 64 << 20
MAX_CANDIDATES = 50
"""How many earlier texts one text is held against at most, the likeliest first: bounds the work where thousands resemble each other."""
MAX_BUCKET = 100


class DedupConfig(Config):
    """Which texts count as duplicates. Of each set of duplicates the first text is kept."""

    exact: bool = True
    """Equal texts, but for case, width, and white space."""
    near: bool = True
    """Texts whose sets of shingles overlap by at least `threshold`."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Jaccard similarity: shingles in common to shingles in either."""
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Length of the MinHash signature; more find more surely."""
    shingle: Annotated[int, Field(ge=1, le=50)] = 5
    """Units a shingle has: words, or characters in scripts written without spaces such as Chinese."""


class Pair(NamedTuple):
    """Two duplicates by place, the later one second; `similarity` is the Jaccard similarity of their shingles, 1.0 for equal texts."""

    first: int
    second: int
    similarity: float


class Deduplicator:
    """Finds duplicates in a stream of texts: `add` them all in order, then `find`.

    The answer depends on the texts, their order, the settings and the seed; not on how they were cut into batches. A later text is
    dropped when it equals, or nearly equals, an earlier one that is kept.

    Memory is 17 bytes a text while adding. `find` takes some 100 bytes a text, 16 bytes for each band that a text shares with another,
    and up to 64 MB of shingles. Another 4 x permutations (512) bytes a text lie in a scratch file, which is mapped, not read whole.

    Args:
        folder: where the scratch file goes; the system's place for temporary files if None.
    """

    def __init__(self, config: DedupConfig | None = None, *, seed: int = 0, folder: Path | None = None) -> None:
        self.config = config or DedupConfig()
        self.seed = int(keys.key(seed, "minhash")) & 0x7FFFFFFF
        self.bands, self.rows = banding(self.config.threshold, self.config.permutations)
        self.size = 0
        self._exact: list[bytes] = []
        self._empty: list[npt.NDArray[np.bool_]] = []
        self._scratch = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it has no name on disk and goes with this object

    def add(self, texts: Sequence[str]) -> None:
        """Takes the next texts."""
        self.size += len(texts)
        self._exact.append(b"".join(exact_hash(text) for text in texts))
        if not self.config.near:
            return
        for start, end in _batches(texts):
            hashes, offsets = shingles(texts[start:end], self.config.shingle)
            self._scratch.write(signatures(hashes, offsets, self.config.permutations, self.seed).tobytes())
            self._empty.append(np.diff(offsets) == 0)

    def find(self, fetch: Fetch, *, border: int | None = None) -> Duplicates:
        """Decides over all texts that were added.

        Args:
            fetch: gives the text at a place again; it is asked for likely duplicates only.
            border: hold the texts from this place on against those before it, and nothing else; none of the latter is dropped.
        """
        of = np.full(self.size, -1, dtype=np.int64)
        similarity = np.zeros(self.size, dtype=np.float32)
        if self.config.exact and self.size:
            first = _first_equal(np.frombuffer(b"".join(self._exact), dtype=np.uint64).reshape(-1, 2))
            places = np.arange(self.size)
            equal = first != places if border is None else (first < border) & (places >= border)
            of[equal], similarity[equal] = first[equal], 1.0
        exact = of >= 0
        if self.config.near and self.size > 1:
            self._find_near(of, similarity, fetch, border)
        return Duplicates(of, similarity, exact)

    def _find_near(self, of: npt.NDArray[np.int64], similarity: npt.NDArray[np.float32], fetch: Fetch, border: int | None) -> None:
        self._scratch.flush()
        found = np.memmap(self._scratch, dtype=np.uint32, mode="r", shape=(self.size, self.config.permutations))
        checker = _Checker(fetch, self.config.shingle)
        kept: dict[int, list[int]] = {}
        for place, buckets in self._buckets(found, np.flatnonzero((of < 0) & ~np.concatenate(self._empty))):
            if border is None or place >= border:
                near = {other for bucket in buckets for other in kept.get(bucket, ())}
                for other in self._likely(found, place, near):
                    if (value := checker.similarity(other, place)) >= self.config.threshold:
                        of[place], similarity[place] = other, value
                        break
            if of[place] < 0 and (border is None or place < border):
                for bucket in buckets:
                    members = kept.setdefault(bucket, [])
                    if len(members) < MAX_BUCKET:
                        members.append(place)

    def _likely(self, found: npt.NDArray[np.uint32], place: int, near: set[int]) -> list[int]:
        """The texts whose signatures do not rule out the threshold (by three standard errors), the most alike first."""
        if not near:
            return []
        others = np.array(sorted(near), dtype=np.int64)
        estimate = (found[others] == found[place]).mean(axis=1)
        threshold = self.config.threshold
        least = threshold - 3 * math.sqrt(threshold * (1 - threshold) / self.config.permutations)
        order = np.argsort(-estimate, kind="stable")[:MAX_CANDIDATES]
        return [int(others[i]) for i in order if estimate[i] >= least]

    def _buckets(self, found: npt.NDArray[np.uint32], places: npt.NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
        """For each text that shares a band with another: its place and the numbers of its buckets, in order of places."""
        at, numbers = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for band in range(self.bands if len(places) else 0):
            hashes = _band_hash(found, places, slice(band * self.rows, (band + 1) * self.rows))
            order = np.argsort(hashes, kind="stable")
            ordered = hashes[order]
            group = np.cumsum(np.r_[False, ordered[1:] != ordered[:-1]])
            shared = np.bincount(group)[group] > 1
            at.append(places[order[shared]])
            numbers.append(group[shared] + band * len(places))
        where, bucket = np.concatenate(at), np.concatenate(numbers)
        order = np.lexsort((bucket, where))
        where, bucket = where[order], bucket[order]
        borders = [0, *(np.flatnonzero(np.diff(where)) + 1), len(where)]
        for start, end in itertools.pairwise(borders if len(where) else []):
            yield int(where[start]), bucket[start:end].tolist()


class Duplicates(NamedTuple):
    """The answer of a `Deduplicator`, by place, (N,) each: the earlier text that is duplicated or -1, how similar, and if equal."""

    of: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    exact: npt.NDArray[np.bool_]

    def counts(self) -> dict[str, int]:
        """How many were found: `exact` and `near`."""
        exact = int(self.exact.sum())
        return {"exact": exact, "near": int((self.of >= 0).sum()) - exact}

    def pairs(self) -> list[Pair]:
        """The dropped texts, each with the one it duplicates."""
        return [Pair(int(self.of[place]), int(place), float(self.similarity[place])) for place in np.flatnonzero(self.of >= 0)]


def near_duplicates(texts: Sequence[str], config: DedupConfig | None = None, *, seed: int = 0) -> list[Pair]:
    """The texts that duplicate an earlier one, exactly or nearly, each with that one."""
    finder = Deduplicator(config, seed=seed)
    for start in range(0, len(texts), 1000):
        finder.add(texts[start : start + 1000])
    return finder.find(texts.__getitem__).pairs()


def overlap(train: Sequence[str], test: Sequence[str], config: DedupConfig | None = None, *, seed: int = 0) -> list[Pair]:
    """The test texts that stand, exactly or nearly, among the training texts: `first` is a place in `train`, `second` in `test`."""
    finder = Deduplicator(config, seed=seed)
    for texts in (train, test):
        for start in range(0, len(texts), 1000):
            finder.add(texts[start : start + 1000])
    border = len(train)
    found = finder.find(lambda place: train[place] if place < border else test[place - border], border=border)
    return [Pair(pair.first, pair.second - border, pair.similarity) for pair in found.pairs()]


def banding(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows of one): as many rows as still let a pair at the threshold share a band with probability 0.995.

    More rows mean fewer pairs to check in vain. A pair of similarity s shares one of b bands of r rows with 1 - (1 - s^r)^b.
    """
    for rows in range(permutations, 0, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= 0.995:
            return bands, rows
    return permutations, 1


def exact_hash(text: str) -> bytes:
    """16 bytes that are equal for texts equal but for case, width and white space."""
    units = _folds()[np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")]
    return hashlib.blake2b(units[units != 0].tobytes(), digest_size=16).digest()


@cache
def _folds() -> npt.NDArray[np.uint16]:
    """What each character of the first plane is compared as: small, half-width, and nothing for white space."""
    table = np.arange(1 << 16, dtype=np.uint16)
    for code in range(1 << 16):
        folded = unicodedata.normalize("NFKC", chr(code)).casefold()
        if chr(code).isspace() or (len(folded) == 1 and ord(folded) < 1 << 16):
            table[code] = 0 if chr(code).isspace() else ord(folded)
    return table


def _first_equal(hashes: Hashes) -> npt.NDArray[np.int64]:
    """For each of (N, 2) hashes the place of the first equal one."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: of equal ones the first place comes first
    ordered = hashes[order]
    new = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    first = np.empty(len(hashes), dtype=np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


_PART, _SINGLE = 1, 2
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


class _Characters(NamedTuple):
    kind: npt.NDArray[np.uint8]
    """Part of a word, a unit of its own, or neither."""
    hash: Hashes
    """64 random bits, equal for characters that are compared as equal."""


@cache
def _characters() -> _Characters:
    kind = np.zeros(0x110000, dtype=np.uint8)
    for code in range(0x40000):
        character = chr(code)
        if unicodedata.category(character)[0] in "LNM":
            kind[code] = _SINGLE if _UNSPACED.match(character) else _PART
    same = np.arange(0x110000, dtype=np.uint32)
    same[: 1 << 16] = _folds()
    return _Characters(kind, keys.bits(same, 1)[:, 0])


_WITHIN = keys.bits(0, 64) | np.uint64(1)
"""What the place in a word multiplies a character's hash with; repeated in longer ones."""


def shingles(texts: Sequence[str], size: int) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hashes of the shingles of N texts, one after another, and where each text's begin: (S,) and (N + 1,).

    A unit is a word, or a character in a script without spaces; a shingle is `size` units in a row. A text with fewer units is one
    shingle, a text without any has none. Case and width make no difference.
    """
    codes = np.frombuffer("\n".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    units, at = _units(codes)
    ends = np.cumsum([len(text) + 1 for text in texts])
    units_in = np.diff(np.searchsorted(at, ends), prepend=0)
    count = np.where(units_in >= size, units_in - size + 1, np.minimum(units_in, 1))
    offsets = np.r_[0, np.cumsum(count)]
    flat = np.zeros(int(offsets[-1]), dtype=np.uint64)
    if len(units) >= size:
        text_of = np.repeat(np.arange(len(texts)), units_in)
        whole = np.repeat(units_in >= size, count)
        flat[whole] = _combined(units, size)[text_of[: len(units) - size + 1] == text_of[size - 1 :]]
    first_unit = np.cumsum(units_in) - units_in
    for text in np.flatnonzero((units_in > 0) & (units_in < size)):
        part = units[first_unit[text] : first_unit[text] + units_in[text]]
        flat[offsets[text]] = _combined(part, len(part))[0]
    return flat, offsets


def _units(codes: npt.NDArray[np.uint32]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hashes of the units in a run of characters and the places at which they begin."""
    characters = _characters()
    kind = characters.kind[codes]
    inside = np.flatnonzero(kind)
    if not len(inside):
        return np.zeros(0, dtype=np.uint64), inside
    follows = np.diff(inside, prepend=-2) == 1  # directly after another character that counts
    kinds = kind[inside]
    begins = np.flatnonzero((kinds == _SINGLE) | ~follows | np.r_[True, kinds[:-1] == _SINGLE])
    within = np.arange(len(inside)) - np.repeat(begins, np.diff(begins, append=len(inside)))
    hashes = characters.hash[codes[inside]] * _WITHIN[within & 63]
    return np.add.reduceat(hashes, begins), inside[begins]


def _combined(units: Hashes, size: int) -> Hashes:
    """One hash for each `size` units in a row: (U,) -> (U - size + 1,)."""
    count = len(units) - size + 1
    found = np.full(count, size, dtype=np.uint64)
    for place in range(size):
        found = found * np.uint64(0x9E3779B97F4A7C15) + units[place : place + count]
    return keys.mix(found)


def signatures(hashes: Hashes, offsets: npt.NDArray[np.int64], permutations: int, seed: int) -> npt.NDArray[np.uint32]:
    """MinHash signatures of N sets of hashes: (N, permutations)."""
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, permutations, seed)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(-1, permutations)


def _band_hash(found: npt.NDArray[np.uint32], places: npt.NDArray[np.int64], columns: slice) -> Hashes:
    part = np.ascontiguousarray(found[:, columns][places]).astype(np.uint64)
    return keys.key(*(part[:, column] for column in range(part.shape[1])))


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start, size = 0, 0
    for place, text in enumerate(texts):
        if size and size + len(text) > BATCH_CHARACTERS:
            yield start, place
            start, size = place, 0
        size += len(text)
    if start < len(texts):
        yield start, len(texts)


class _Checker:
    """True Jaccard similarities; keeps the shingles it saw last."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        self.fetch, self.size = fetch, size
        self.held: OrderedDict[int, Hashes] = OrderedDict()
        self.bytes = 0

    def similarity(self, first: int, second: int) -> float:
        a, b = self._set(first), self._set(second)
        common = len(np.intersect1d(a, b, assume_unique=True))
        return common / max(1, len(a) + len(b) - common)

    def _set(self, place: int) -> Hashes:
        if place in self.held:
            self.held.move_to_end(place)
            return self.held[place]
        found = np.unique(shingles([self.fetch(place)], self.size)[0])
        self.held[place] = found
        self.bytes += found.nbytes
        while self.bytes > CACHE_BYTES and len(self.held) > 2:
            self.bytes -= self.held.popitem(last=False)[1].nbytes
        return found
