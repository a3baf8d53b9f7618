"""Pairs for sentence order (Lan et al. 2019): two neighbouring stretches of whole sentences, one half of them swapped.

Stretches are as long as a row has room for and lie within a document. Both begin and end where a sentence does: half a sentence at an end
would give the order away. What was cut because a sentence is longer than a row is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lexloom import keys
from lexloom.errors import DataError
from lexloom.text import full_sentences
from lexloom.text.shards import Split

if TYPE_CHECKING:
    from lexloom.text.pack import PackingConfig

Arrays = dict[str, npt.NDArray[Any]]
_COUNTS = ("rows", "tokens", "negatives", "dropped_tokens", "dropped_single", "dropped_long")


def plan(split: Split, config: PackingConfig, seed: int, counts: Counter[str]) -> Iterator[Arrays]:
    """The arrays of all pairs, those of `pairs`, part by part.

    Raises:
        DataError: no document has two sentences that fit into a row.
    """
    counts.update(dict.fromkeys(_COUNTS, 0))
    room = config.length - split.templates["pair"].added
    cut = full_sentences.cut(split, room, min(config.minimum, room), joined=False, between=False, ends=False, counts=counts)
    for document, offset, length in cut:
        before = split.document_ends[np.maximum(document - 1, 0)].astype(np.int64)
        start = np.where(document > 0, split.sentence_ends[np.maximum(before - 1, 0)].astype(np.int64), 0) + offset
        yield _pairs(start, start + length, split, config, seed, counts)
    counts["dropped_tokens"] += counts["dropped_single"] + counts["dropped_long"]
    if not counts["rows"]:
        raise DataError(
            "sentence order needs documents of several sentences",
            expected=f"two sentences of one document in {config.length} tokens",
            got=f"{len(split)} documents with {len(split.sentence_ends)} sentences",
            hint="sources whose documents are whole texts, or leave sentence-order out of the objective",
        )


def _pairs(start: Any, end: Any, split: Split, config: PackingConfig, seed: int, counts: Counter[str]) -> Arrays:
    """Cuts stretches at one of the borders inside them, and swaps some, both as their place says."""
    ends, kind = split.sentence_ends, split.sentence_ends.dtype.type
    low, high = np.searchsorted(ends, start.astype(kind), side="right"), np.searchsorted(ends, end.astype(kind), side="left")
    whole = (ends[high] == end) & ((start == 0) | (ends[np.maximum(low - 1, 0)] == start)) if len(start) else np.zeros(0, dtype=bool)
    counts["dropped_long"] += int((end - start)[~whole].sum())
    counts["dropped_single"] += int((end - start)[whole & (high == low)].sum())
    fit = whole & (high > low)
    start, end, low, high = start[fit], end[fit], low[fit], high[fit]
    which, swap = keys.uniform(keys.key(seed, "sentence order", config.length, start), 2).T
    border = ends[low + (which * (high - low)).astype(np.int64)].astype(np.int64)
    swapped = swap < 0.5
    first, second = border - start, end - border
    counts.update({"rows": len(start), "tokens": int((end - start).sum()), "negatives": int(swapped.sum())})
    places = np.uint32 if len(split.tokens) < 1 << 32 else np.uint64
    sizes = np.uint16 if config.length < 1 << 16 else np.uint32
    return {
        "first": np.where(swapped, border, start).astype(places),
        "first_length": np.where(swapped, second, first).astype(sizes),
        "second": np.where(swapped, start, border).astype(places),
        "second_length": np.where(swapped, first, second).astype(sizes),
        "label": swapped.astype(np.uint8),
    }
