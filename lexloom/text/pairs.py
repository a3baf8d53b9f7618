"""Sentence pairs for next sentence prediction (Devlin et al. 2018), made so that nothing but belonging together tells the classes apart.

Each document is cut into chunks of L tokens; each chunk is split at a sentence border into A and B. In one half of the chunks the B's
are exchanged, each for one of the same length out of another document. So every text is used in the same kind of place, and both classes
have the same lengths. Every token is used once, but for the end of a document: its last chunk reaches back until it is full, so that
the tokens before it come twice instead of padding. Letters: L tokens of A and B together, C chunks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lexloom import keys
from lexloom.errors import DataError
from lexloom.text.encoded import Ragged
from lexloom.text.shards import Split

if TYPE_CHECKING:
    from lexloom.text.pack import PackingConfig

Arrays = dict[str, npt.NDArray[Any]]
Ints = npt.NDArray[np.int64]
METHOD = 2
"""Counts the ways that pairs were made: other pairs are another packing, the rows of one stay what they were."""
_CHUNKS = 1 << 20
"""Chunks whose B's are exchanged among each other: this many are in memory at a time."""
_SENTENCES = 1 << 18
_SHORTEST = 4
"""Tokens that A and B have at least, where there is a border that allows it."""
_COUNTS = (
    *("rows", "tokens", "negatives", "repeated_tokens"),
    *("dropped_tokens", "dropped_long", "dropped_single", "truncated_tokens"),
)


def plan(split: Split, config: PackingConfig, seed: int, counts: Counter[str]) -> Iterator[Arrays]:
    """The arrays of all pairs, part by part.

    Raises:
        DataError: there are too few documents to take a second sentence from.
    """
    room = config.length - split.templates["pair"].added
    counts.update(dict.fromkeys(_COUNTS, 0))
    waiting = np.zeros((4, 0), dtype=np.int64)
    for part in _chunks(split, config, room, seed, counts):
        waiting = np.concatenate([waiting, part], axis=1)
        while waiting.shape[1] >= 2 * _CHUNKS:
            yield _paired(waiting[:, :_CHUNKS], split, config, room, seed, counts)
            waiting = waiting[:, _CHUNKS:]
    yield _paired(waiting, split, config, room, seed, counts)


def _chunks(split: Split, config: PackingConfig, room: int, seed: int, counts: Counter[str]) -> Iterator[Ints]:
    """Document, start, border and end of chunks: (4, C), for some documents at a time."""
    document, before = 0, 0
    while document < len(split):
        most = min(before + _SENTENCES, len(split.sentence_ends))
        stop = max(document + 1, int(np.searchsorted(split.document_ends, most, side="right")))
        borders = split.document_ends[document:stop].astype(np.int64)
        ends = split.sentence_ends[before : int(borders[-1])].astype(np.int64)
        places = np.arange(before, int(borders[-1]))
        draws = keys.uniform(keys.key(seed, "sentence pairs", config.length, places), 3).tolist()
        start = int(split.sentence_ends[before - 1]) if before else 0
        listed, found, first = ends.tolist(), [], 0
        for number, last in enumerate((borders - before).tolist()):
            made = _walk(start, listed[first:last], draws[first:last], room, config.short_share, counts)
            found += [(document + number, *chunk) for chunk in made]
            start, first = listed[last - 1], last
        yield np.array(found, dtype=np.int64).reshape(-1, 4).T
        document, before = stop, int(borders[-1])


def _walk(
    start: int, ends: list[int], draws: Sequence[Sequence[float]], room: int, short_share: float, counts: Counter[str]
) -> list[tuple[int, int, int]]:
    """Cuts one document into (start, border, end).

    Only the border between A and B has to be a sentence's: chunks begin and end anywhere, so that they are full. The last one reaches
    back into the one before it. What has no border near it is dropped: a document of one sentence, the inside of a very long sentence.

    Args:
        ends: where sentences end, in tokens; draws: three random numbers for each (short?, how short, which border).
    """
    found: list[tuple[int, int, int]] = []
    stop, here = ends[-1], start
    while here < stop:
        sentence = bisect_right(ends, here)
        short, size, pick = draws[sentence]
        chunk = None
        if short < short_share and stop - start > room:
            chunk = _chunk(here, min(here + 2 + int(size * (room - 1)), stop), ends, pick)
        end = min(here + room, stop)
        chunk = chunk or _chunk(here if end < stop else max(start, stop - room), end, ends, pick)
        if chunk:
            found.append(chunk)
            here = chunk[2]
        elif ends[sentence] < stop:  # a sentence longer than a row: only its end is kept
            here = ends[sentence] - room // 2
        else:
            break
    _count(found, start, stop, counts)
    return found


def _chunk(start: int, end: int, ends: list[int], pick: float) -> tuple[int, int, int] | None:
    inner = ends[bisect_right(ends, start) : bisect_left(ends, end)]
    return (start, _border(inner, start, end, pick), end) if inner else None


def _count(found: list[tuple[int, int, int]], start: int, stop: int, counts: Counter[str]) -> None:
    """Of one document what stands in no chunk and what stands in two, from the end on: only the last chunk overlaps others."""
    first, why = stop, "dropped_long" if found else "dropped_single"
    for begin, _, end in reversed(found):
        counts[why] += max(0, first - end)
        counts["repeated_tokens"] += max(0, end - max(begin, first))
        first = min(first, begin)
    counts[why] += first - start


def _border(inner: list[int], start: int, end: int, pick: float) -> int:
    fair = [border for border in inner if border - start >= _SHORTEST and end - border >= _SHORTEST] or inner
    return fair[int(pick * len(fair))]


def _paired(chunks: Ints, split: Split, config: PackingConfig, room: int, seed: int, counts: Counter[str]) -> Arrays:
    """Exchanges the B's of one half of the chunks."""
    document, start, border, end = chunks
    first, second = border - start, end - border
    negative = _chosen(document, first, second, keys.key(seed, "negatives", config.length, int(start[0]) if len(start) else 0), split)
    source = np.arange(len(document))
    source[negative] = negative[_exchange(second[negative], document[negative], keys.key(seed, "exchange", config.length))]
    taken = np.minimum(second[source], room - first)
    label = np.zeros(len(document), dtype=np.uint8)
    label[negative] = 1
    counts["rows"] += len(document)
    counts["negatives"] += len(negative)
    counts["truncated_tokens"] += int((second[source] - taken).sum())
    counts["tokens"] += int((first + taken).sum())
    counts["dropped_tokens"] = counts["dropped_long"] + counts["dropped_single"] + counts["truncated_tokens"]
    places = np.uint32 if len(split.tokens) < 1 << 32 else np.uint64
    sizes = np.uint16 if config.length < 1 << 16 else np.uint32
    return {
        "first": start.astype(places),
        "first_length": first.astype(sizes),
        "second": border[source].astype(places),
        "second_length": taken.astype(sizes),
        "label": label,
    }


def _chosen(document: Ints, first: Ints, second: Ints, key: Any, split: Split) -> Ints:
    """Half of the chunks: one of each two that are alike in length, by lot, so that the classes are alike in length too.

    Raises:
        DataError: one document holds too much of the text.
    """
    order = np.lexsort((keys.bits(key, len(document)), second, first))
    half = len(document) // 2
    lots = keys.integers(keys.key(key, "lots"), half, 2) if half else np.zeros(0, dtype=np.int64)
    found = np.sort(order[2 * np.arange(half) + lots])
    return found if half and 2 * _most(document[found]) <= half else _capped(document, key, split)


def _capped(document: Ints, key: Any, split: Split) -> Ints:
    """Half of the chunks by lot alone, no more than half of them from one document: it would have to take from itself."""
    _, number, size = np.unique(document, return_inverse=True, return_counts=True)
    half = len(document) // 2
    if half % 2 and np.minimum(size, half // 2).sum() < half:
        half -= 1  # an odd number cannot be exchanged between two documents
    if half < 2 or np.minimum(size, half // 2).sum() < half:
        largest = f", {size.max() / len(document):.0%} of them in one document" if len(document) else ""
        raise DataError(
            "next sentence prediction needs text of several documents",
            expected="four sentence pairs or more, no document with more than three quarters of them",
            got=f"{len(document)} sentence pairs in {len(size)} of {len(split)} documents{largest}",
            hint="use sources with several documents of several sentences, or leave next-sentence out of the objective",
        )
    order = keys.shuffled(key, len(document))
    by_document = order[np.argsort(number[order], kind="stable")]
    rank = np.empty(len(document), dtype=np.int64)  # the how-manieth of its document in the random order
    rank[by_document] = np.arange(len(document)) - np.repeat(np.cumsum(size) - size, size)
    return np.sort(order[rank[order] < half // 2][:half])


def _exchange(length: Ints, document: Ints, key: Any) -> Ints:
    """For each negative the place of the one whose B it takes: of the same length where that is possible, never of the same document."""
    rank = keys.bits(keys.key(key, document), 1)[:, 0]
    order = np.lexsort((np.arange(len(length)), document, rank, length))
    edges = [0, *(np.flatnonzero(np.diff(length[order])) + 1).tolist(), len(order)]
    groups: list[Ints] = []
    waiting = order[:0]
    for low, high in pairwise(edges):
        waiting = np.concatenate([waiting, order[low:high]])
        if _most(document[waiting]) * 2 <= len(waiting):
            groups.append(waiting)
            waiting = order[:0]
    while len(waiting) and _most(document[waiting]) * 2 > len(waiting):
        waiting = np.concatenate([groups.pop(), waiting])
    partner = np.empty(len(length), dtype=np.int64)
    for number, group in enumerate([*groups, waiting] if len(waiting) else groups):
        members = group[np.lexsort((group, document[group], rank[group]))]
        most = _most(document[members])
        turn = most + int(keys.integers(keys.key(key, "turn", number), 1, len(members) - 2 * most + 1)[0])
        partner[members] = np.roll(members, -turn)
    return partner


def _most(document: Ints) -> int:
    return int(np.unique(document, return_counts=True)[1].max(initial=0))


def lengths(split: Split, config: PackingConfig, arrays: Mapping[str, npt.NDArray[Any]]) -> Ints:
    """Tokens of each row."""
    return np.asarray(arrays["first_length"].astype(np.int64) + arrays["second_length"] + split.templates["pair"].added)


def rows(split: Split, config: PackingConfig, arrays: Mapping[str, npt.NDArray[Any]], ids: Ints) -> list[dict[str, Any]]:
    """See `Packing.rows`."""
    first, second = (_places(arrays[name][ids], arrays[f"{name}_length"][ids]) for name in ("first", "second"))
    made = split.templates["pair"].compose(*(Ragged(split.tokens[places.values], places.lengths) for places in (first, second)))
    special, label = made.sequence < 0, arrays["label"][ids].tolist()
    found: list[dict[str, Any]] = [
        {
            "id": place,
            "input_ids": made.input_ids[start:end],
            "token_type_ids": made.token_type_ids[start:end],
            "special": special[start:end],
            "next_sentence_label": kind,
        }
        for place, kind, (start, end) in zip(ids.tolist(), label, Ragged(made.input_ids, made.lengths).spans(), strict=True)
    ]
    if split.words is not None:
        continues = np.zeros(len(special), dtype=np.bool_)
        for sequence, places in enumerate((first, second)):
            continues[made.sequence == sequence] = split.continues(places.values)
        for row, end in zip(found, np.cumsum(made.lengths).tolist(), strict=True):
            row["continues"] = continues[end - len(row["input_ids"]) : end]
    return found


def _places(starts: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> Ragged:
    """Where the tokens of stretches stand in the split."""
    wide = sizes.astype(np.int64)
    return Ragged(np.arange(int(wide.sum())) + np.repeat(starts.astype(np.int64) - (np.cumsum(wide) - wide), wide), wide)
