"""Which words stand near each other, and how near: X of GloVe (Pennington et al. 2014, section 3), counted in bounded memory.

    X_ab = Σ 1/d over all places of a and b in one sentence, d words apart, d from 1 to the window, before and behind: X_ab = X_ba

Sums are of integers, in units of 1/lcm(1 … window), so that they are exact and do not depend on their order, on workers or on memory. From
a window of 23 on, where that is no longer below 2³², a unit is 2⁻³² and each 1/d is rounded to it.

Only a ≤ b is held. Pairs of frequent words, (a + 1)(b + 1) ≤ K, have a cell each, as in GloVe's C; all others have a place in a hash table,
which is written to disk when it is full and begins anew. What is on disk is merged at the end.

FOLDER/   pairs.bin (little-endian: a and b int32, X float64; in blocks), vocabulary.json, pairs.json, manifest.json

Blocks: a word belongs to one of 32 parts, its place's remainder, and a pair to the block of its two parts. Blocks without a common part
have no common words: they can be learned from at the same time.

Letters: V words, S places of the hash table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lexloom import files
from lexloom.compute import kernel
from lexloom.errors import ConfigError, DataError
from lexloom.vectors.idtext import IdText
from lexloom.vectors.vocabulary import Vocabulary

PARTS = 32
"""A power of two, of at most 5 bits."""
BLOCKS = PARTS * PARTS
"""Of which those of (i, j) with i > j are empty."""
PAIR = np.dtype([("a", "<i4"), ("b", "<i4"), ("x", "<f8")])
LEAST_MEMORY = 1 << 20
FULL = 0.7
"""Share of the hash table that is filled before it is written."""
FIRST = 1 << 20
"""Places of the hash table at first."""
PIECE = 1 << 18
"""Ids that a worker takes at once."""
_PAIRS, _WORDS, _ABOUT = "pairs.bin", "vocabulary.json", "pairs.json"
_ENTRY, _CELL = 16, 8  # bytes
_MERGED = 12 * _CELL  # bytes that merging takes an entry: read, joined, sorted, summed, and as it is written
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_32, _54, _27 = np.uint64(32), np.uint64(54), np.uint64(27)
_LOW32, _LOW27 = np.uint64(0xFFFFFFFF), np.uint64((1 << 27) - 1)
Units = npt.NDArray[np.uint64]


class Cooccurrences:
    """Pairs on disk.

    Attributes:
        pairs: (N,) of `PAIR`, mapped. borders: where each block begins, (BLOCKS + 1,). vocabulary: of the words.
        size: entries of the whole symmetric X that are not 0. words: of the text. window: words on each side.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, about: dict[str, Any]) -> None:
        self.folder, self.vocabulary, self.about = folder, vocabulary, about
        self.words, self.window, self.size = int(about["words"]), int(about["window"]), int(about["size"])
        self.borders = np.array(about["borders"], dtype=np.int64)
        self.digest = files.fingerprint(files.read_manifest(folder))
        self.pairs = np.asarray(np.memmap(folder / _PAIRS, dtype=PAIR, mode="r"))

    @classmethod
    def open(cls, folder: Path | str) -> Cooccurrences:
        """Opens a folder that `write` made; only sizes are checked.

        Raises:
            CheckpointError: it is not whole.
            FormatError: it is of a newer format.
        """
        folder = Path(folder)
        about = files.read_about(folder, _ABOUT, kind="co-occurrences")
        return cls(folder, Vocabulary.load(folder / _WORDS), about)

    def block_size(self, i: int, j: int) -> int:
        """How many pairs a block has."""
        return int(self.borders[i * PARTS + j + 1] - self.borders[i * PARTS + j])

    def block(self, i: int, j: int) -> npt.NDArray[Any]:
        """The pairs of two parts, i ≤ j, by a and b."""
        return self.pairs[self.borders[i * PARTS + j] : self.borders[i * PARTS + j + 1]]


def write(
    text: IdText,
    folder: Path | str,
    *,
    window: int,
    memory: int,
    workers: int = 1,
    report: Callable[[str, int], None] | None = None,
    **about: Any,
) -> Cooccurrences:
    """Counts the pairs of a text; the same bytes for any memory and number of workers.

    Args:
        window: words on each side. memory: bytes that counting and merging take at most, the mapped text apart.
        report: called now and then with `co-occurrences` and the words of the text that are done.
        about: goes into the manifest.

    Raises:
        ConfigError: the memory is too little, or the vocabulary too large.
        DataError: no two words stand together.
        DiskFullError: the disk is full.
    """
    workers, folder = max(1, workers), Path(folder)
    if memory < LEAST_MEMORY * workers:
        raise ConfigError("this is too little memory to count in", expected=f"{LEAST_MEMORY * workers:,} bytes or more", got=f"{memory:,}")
    if len(text.vocabulary) > 1 << 27:
        raise ConfigError("pairs of so many words cannot be counted", expected=f"at most {1 << 27:,}", got=f"{len(text.vocabulary):,}")
    with files.new_folder(folder, kind="co-occurrences", **about) as new:
        spills = _count(text, new, window, memory, workers, report)
        borders, size = _merge(spills, new / _PAIRS, unit(window), memory)
        if not size:
            raise DataError("no two words stand together in this text", hint="give sentences of more than one word, or lower min_count")
        for spill in spills:
            files.remove(spill.path)
        text.vocabulary.save(new / _WORDS)
        told = {"format": files.FORMAT, "window": window, "words": text.words, "size": size, "runs": sum(len(s.borders) for s in spills)}
        files.write_json(new / _ABOUT, told | {"borders": borders})
    return Cooccurrences.open(folder)


def unit(window: int) -> int:
    """How many units are 1."""
    return min(math.lcm(*range(1, window + 1)), 1 << 32)


def _weights(window: int) -> Units:
    """1/d in units, for d from 0, which is none, to the window."""
    return np.array([0, *((2 * unit(window) + d) // (2 * d) for d in range(1, window + 1))], dtype=np.uint64)


class _Spill:
    """A file of sorted runs, one after the other: entries of a key and its units, uint64 each, by block.

    Attributes:
        borders: for each run where its blocks begin, in entries of the file.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file, self.borders, self.end = path, file, list[npt.NDArray[np.int64]](), 0

    def write(self, entries: Units, firsts: npt.NDArray[np.int64]) -> None:
        """A run of entries that stand by block, in any order within them."""
        for first, last in zip(firsts[:-1].tolist(), firsts[1:].tolist(), strict=True):
            if last > first:
                part = entries[first:last]
                self.file.write(part[np.argsort(part[:, 0])].astype("<u8", copy=False).tobytes())
        self.borders.append(firsts + self.end)
        self.end += int(firsts[-1])


class _Counter:
    """What a worker counts in: at most half of its memory for cells, the rest for the hash table, which grows with what is found.

    Memory that a process has not had yet is dear, and a table that is no larger than it need be is near: neither is taken for more than
    the pairs that the worker will see.
    """

    def __init__(self, spill: _Spill, words: int, memory: int, pairs: int) -> None:
        most = _most(words, min(memory // 2 // _CELL, pairs))
        rows = min(words, math.isqrt(most))
        ends = np.minimum(words, most // np.arange(1, rows + 1))
        starts = np.concatenate([[0], np.cumsum(ends - np.arange(rows))])
        self.shape = (starts[:-1] - np.arange(rows), ends)  # a cell stands at starts[a] + b
        self.cells = np.zeros(int(starts[-1]), dtype=np.uint64)
        left = memory - self.cells.nbytes - 2 * rows * _CELL - memory // 16  # a block is sorted outside, too
        self.most = min(left // _ENTRY, int(pairs / FULL) + 1, (1 << 32) - 1)
        self.spill, self.used = spill, 0
        self.slots = _slots(min(self.most, FIRST))

    def add(self, ids: npt.NDArray[np.int32], begin: int, end: int, weights: Units) -> None:
        """The pairs of the places from `begin` on with those before them."""
        while begin < end:
            room = int(FULL * len(self.slots))
            begin, self.used = count(ids, begin, end, weights, *self.shape, self.cells, self.slots, self.used, room)
            if begin < end:
                self.make_room()

    def make_room(self) -> None:
        """A hash table of twice the size beside this one, if both may be held; else an empty one of the greatest size."""
        if 3 * len(self.slots) <= self.most:
            larger = _slots(2 * len(self.slots))
            move(self.slots, larger)
            self.slots = larger
            return
        self.flush()
        if len(self.slots) < self.most:
            self.slots = _slots(0)  # the old one is given back first
            self.slots = _slots(self.most)

    def flush(self) -> None:
        """Writes the hash table and empties it."""
        self.spill.write(self.slots, gather(self.slots, _firsts()))
        self.slots[:], self.used = _EMPTY, 0

    def finish(self) -> None:
        """Writes all that is left."""
        self.flush()
        place = (0, 0)
        while place[0] < len(self.shape[1]):
            place = drain(self.cells, *self.shape, *place, self.slots)
            self.flush()


def _slots(size: int) -> Units:
    return np.full((size, 2), _EMPTY)


def _firsts() -> npt.NDArray[np.int64]:
    return np.zeros(BLOCKS + 1, dtype=np.int64)


def _most(words: int, cells: int) -> int:
    """K: the greatest product of two words' places, from 1, whose pairs all find a cell."""
    low, high = 0, words * words
    while low < high:
        middle = (low + high + 1) // 2
        rows = min(words, math.isqrt(middle))
        numbers = np.arange(1, rows + 1)
        taken = int((np.minimum(words, middle // numbers) - numbers + 1).sum()) if rows <= cells else cells + 1
        low, high = (middle, high) if taken <= cells else (low, middle - 1)
    return low


@kernel(error_model="numpy", inline="always")
def find(slots, key):  # type: ignore[no-untyped-def]
    """Where a key stands in a hash table, or belongs."""
    mixed = key * _GOLDEN
    mixed = (mixed ^ (mixed >> _32)) * _GOLDEN
    at = np.int64(((mixed >> _32) * np.uint64(len(slots))) >> _32)
    while slots[at, 0] != key and slots[at, 0] != _EMPTY:
        at = np.int64(at + 1 if at + 1 < len(slots) else 0)
    return at


@kernel(error_model="numpy")
def move(slots, larger):  # type: ignore[no-untyped-def]
    """Puts what a hash table holds into a larger one that is empty."""
    for at in range(len(slots)):
        if slots[at, 0] != _EMPTY:
            to = find(larger, slots[at, 0])
            larger[to, 0], larger[to, 1] = slots[at, 0], slots[at, 1]


@kernel(error_model="numpy")
def count(ids, begin, end, weights, starts, ends, cells, slots, used, room):  # type: ignore[no-untyped-def]
    """Adds the pairs of ids[begin:end] with the words before them until the hash table might be full.

    Returns: the place to go on from, and how many places of the hash table are taken.
    """
    window, rows = len(weights) - 1, len(ends)
    for place in range(begin, end):
        if used + window > room:
            return place, used
        word = np.int64(ids[place])
        if word < 0:
            continue
        for d in range(1, min(window, place) + 1):
            other = np.int64(ids[place - d])
            if other < 0:
                break
            low, high, weight = min(word, other), max(word, other), weights[d]
            if low == high:
                weight += weight  # the one before the other, and behind it
            if low < rows and high < ends[low]:
                cells[starts[low] + high] += weight
                continue
            key = (np.uint64(low) << _32) | np.uint64(high)
            at = find(slots, key)
            if slots[at, 0] == _EMPTY:
                slots[at, 0], slots[at, 1] = key, weight
                used += 1
            else:
                slots[at, 1] += weight
    return end, used


@kernel(error_model="numpy")
def gather(slots, firsts):  # type: ignore[no-untyped-def]
    """Brings what a hash table holds to its front, by block, each key with its block before it: 10 bits, then 27 for a and b each.

    In its place, each entry moved once to where it belongs (McIlroy, Bostic and McIlroy 1993, "Engineering radix sort").

    Args:
        firsts: (BLOCKS + 1,) zeros, to be filled with where blocks begin.
    """
    n = 0
    for at in range(len(slots)):
        key = slots[at, 0]
        if key != _EMPTY:
            i, j = (key >> _32) & np.uint64(PARTS - 1), key & np.uint64(PARTS - 1)
            block = min(i, j) * np.uint64(PARTS) + max(i, j)
            slots[n, 0], slots[n, 1] = (block << _54) | ((key >> _32) << _27) | (key & _LOW32), slots[at, 1]
            firsts[np.int64(block) + 1] += 1
            n += 1
    for block in range(BLOCKS):
        firsts[block + 1] += firsts[block]
    heads = firsts[:-1].copy()
    for block in range(BLOCKS):
        while heads[block] < firsts[block + 1]:
            at = heads[block]
            own = np.int64(slots[at, 0] >> _54)
            to = heads[own]
            if own != block:
                key, units = slots[to, 0], slots[to, 1]
                slots[to, 0], slots[to, 1] = slots[at, 0], slots[at, 1]
                slots[at, 0], slots[at, 1] = key, units
            heads[own] += 1
    return firsts


@kernel(error_model="numpy")
def drain(cells, starts, ends, row, column, slots):  # type: ignore[no-untyped-def]
    """Moves cells that are not 0 into an empty hash table, in their order, from a place on until it is full; returns where to go on."""
    n = 0
    for low in range(row, len(ends)):
        for high in range(max(low, column), ends[low]):
            if n == len(slots):
                return low, high
            if cells[starts[low] + high] > 0:
                slots[n, 0], slots[n, 1] = (np.uint64(low) << _32) | np.uint64(high), cells[starts[low] + high]
                n += 1
        column = 0
    return len(ends), 0


def _count(text: IdText, folder: Path, window: int, memory: int, workers: int, report: Callable[[str, int], None] | None) -> list[_Spill]:
    """Counts pieces of the text, each worker with a share of the memory and a file of its own."""
    weights, size = _weights(window), len(text.ids)
    most = PIECE * math.ceil(size / PIECE / workers) + 1  # ids that a worker takes
    with ExitStack() as stack, ThreadPoolExecutor(workers) as pool:
        paths = [folder / f"spill-{number:03d}.bin" for number in range(workers)]
        spills = [_Spill(path, stack.enter_context(files.replacing(path))) for path in paths]
        counters = [_Counter(spill, len(text.vocabulary), memory // workers, most * window) for spill in spills]
        for start in range(0, size, workers * PIECE):
            borders = [min(size, start + number * PIECE) for number in range(workers + 1)]
            list(pool.map(lambda counter, a, b: counter.add(text.ids, a, b, weights), counters, borders[:-1], borders[1:]))
            if report is not None:
                report("co-occurrences", int(text.words * (borders[-1] / size)))
        list(pool.map(_Counter.finish, counters))
    return spills


def _merge(spills: Sequence[_Spill], path: Path, unit: int, memory: int) -> tuple[list[int], int]:
    """Writes the pairs of all runs; returns where blocks begin, and how many entries the whole symmetric X has."""
    borders, size = [0], 0
    with ExitStack() as stack:
        runs = [(stack.enter_context(spill.path.open("rb")), run) for spill in spills for run in spill.borders]
        file = stack.enter_context(files.replacing(path))
        for block in range(BLOCKS):
            borders.append(borders[-1])
            segments = [_Segment(source, *run[block : block + 2].tolist()) for source, run in runs if run[block] < run[block + 1]]
            for entries in _merged(segments, memory // _MERGED):
                pairs = _pairs(entries, unit)
                file.write(pairs.tobytes())
                borders[-1] += len(pairs)
                size += 2 * len(pairs) - int((pairs["a"] == pairs["b"]).sum())
    return borders, size


class _Segment:
    """What a run has of a block: from `at` to `end`, in entries of its file."""

    def __init__(self, file: IO[bytes], at: int, end: int) -> None:
        self.file, self.at, self.end = file, at, end

    def read(self, most: int) -> Units:
        """The next entries, which stay where they are."""
        self.file.seek(self.at * _ENTRY)
        return np.fromfile(self.file, dtype="<u8", count=2 * min(most, self.end - self.at)).reshape(-1, 2)


def _merged(segments: list[_Segment], most: int) -> Iterator[Units]:
    """The entries of all segments by key, those of one key added, with about `most` of them in memory."""
    while segments:
        read = [segment.read(max(1, most // len(segments))) for segment in segments]
        cut = [part[-1, 0] for part, segment in zip(read, segments, strict=True) if segment.at + len(part) < segment.end]
        if cut:  # behind the least of these keys something may be missing
            read = [part[: np.searchsorted(part[:, 0], min(cut), side="right")] for part in read]
        for part, segment in zip(read, segments, strict=True):
            segment.at += len(part)
        segments = [segment for segment in segments if segment.at < segment.end]
        together = np.concatenate(read)
        del read
        yield _summed(together)


def _summed(entries: Units) -> Units:
    entries = entries[np.argsort(entries[:, 0], kind="stable")]
    first = np.flatnonzero(np.diff(entries[:, 0], prepend=entries[:1, 0] ^ np.uint64(1)))
    return np.stack([entries[first, 0], np.add.reduceat(entries[:, 1], first)], axis=1)


def _pairs(entries: Units, unit: int) -> npt.NDArray[Any]:
    found = np.empty(len(entries), dtype=PAIR)
    found["a"], found["b"] = (entries[:, 0] >> _27) & _LOW27, entries[:, 0] & _LOW27
    found["x"] = entries[:, 1] / unit
    return found
