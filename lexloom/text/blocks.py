"""Blocks: rows that are stretches of text, as full as can be (Liu et al. 2019, "RoBERTa", FULL-SENTENCES and DOC-SENTENCES).

Where documents are joined, the split is one endless stream with a separator after each document, cut every L positions. A block is
(first document, place in it, positions). `sentences: whole` cuts at the ends of sentences, see `full_sentences`, and pads.
Letters: L positions of a block, D documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lexloom.text import full_sentences
from lexloom.text.encoded import Ragged
from lexloom.text.shards import Split

if TYPE_CHECKING:
    from lexloom.text.pack import PackingConfig

Arrays = dict[str, npt.NDArray[Any]]
_DOCUMENTS = 1 << 20


def room(split: Split, config: PackingConfig) -> int:
    """L: positions for text and separators."""
    return config.length - (split.templates["single"].added if config.specials else 0)


def separator(split: Split, config: PackingConfig) -> int | None:
    """What stands after a document: [SEP] between joined ones of an encoder, the end token after each of a decoder."""
    if config.specials:
        return split.separator if config.documents == "joined" else None
    return split.end


def plan(split: Split, config: PackingConfig, seed: int, counts: Counter[str]) -> Iterator[Arrays]:
    """The arrays of all blocks, part by part."""
    cut = _whole if config.sentences == "whole" else _joined if config.documents == "joined" else _isolated
    parts = cut(split, config, counts)
    documents = np.uint32 if len(split) < 1 << 32 else np.uint64
    lengths = np.uint16 if config.length < 1 << 16 else np.uint32
    counts.update({"rows": 0, "tokens": 0, "dropped_tokens": 0})
    none = (np.zeros(0, np.int64),) * 3  # so that the files are there even where no row is
    for document, offset, length in chain([none], parts):
        counts["rows"] += len(document)
        counts["tokens"] += int(length.sum())
        yield {"document": document.astype(documents), "offset": offset.astype(np.uint32), "length": length.astype(lengths)}


def _sizes(split: Split, config: PackingConfig) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """First document and positions of each document, its separator included, for a million documents at a time."""
    last, extra = 0, separator(split, config) is not None
    for start in range(0, len(split), _DOCUMENTS):
        ends = split.token_ends(start, min(start + _DOCUMENTS, len(split)))
        yield start, np.diff(ends, prepend=last) + extra
        last = int(ends[-1])


def _whole(split: Split, config: PackingConfig, counts: Counter[str]) -> Iterator[tuple[Any, Any, Any]]:
    most, marked = room(split, config), separator(split, config) is not None
    between, ends = marked and config.specials, marked and not config.specials
    least = max(1, min(config.minimum, most))
    return full_sentences.cut(split, most, least, joined=config.documents == "joined", between=between, ends=ends, counts=counts)


def _isolated(split: Split, config: PackingConfig, counts: Counter[str]) -> Iterator[tuple[Any, Any, Any]]:
    most, least = room(split, config), max(1, config.minimum)
    for start, sizes in _sizes(split, config):
        full, rest = sizes // most, sizes % most
        blocks = full + (rest >= min(least, most))
        counts["dropped_tokens"] += int(rest[(rest < min(least, most))].sum())
        document = np.repeat(np.arange(len(sizes)), blocks)
        offset = (np.arange(len(document)) - np.repeat(np.cumsum(blocks) - blocks, blocks)) * most
        yield document + start, offset, np.minimum(sizes[document] - offset, most)


def _joined(split: Split, config: PackingConfig, counts: Counter[str]) -> Iterator[tuple[Any, Any, Any]]:
    """Cuts the stream at every multiple of L. A separator at the edge of an encoder's block says nothing and is left out."""
    most, base, trims = room(split, config), 0, config.specials and separator(split, config) is not None
    waiting: list[npt.NDArray[np.int64]] = []  # the block that goes on into the documents to come: document, offset, length
    for first, sizes in _sizes(split, config):
        ends = base + np.cumsum(sizes)
        top = int(ends[-1])
        starts = np.arange(-(-base // most) * most, top, most)
        document = np.searchsorted(ends, starts, side="right")
        offset = starts - (ends - sizes)[document]
        late = (offset == sizes[document] - 1) & trims
        block = np.stack([document + first, offset, np.full(len(starts), most)])
        block[:, late] += np.array([[1], [0], [-1]])
        block[1, late] = 0
        block = np.concatenate([*waiting, block], axis=1)
        stops = np.arange(base // most * most + most, top + 1, most)
        done = block[:, : len(stops)]
        done[2] -= (ends[np.minimum(np.searchsorted(ends, stops), len(ends) - 1)] == stops) & trims
        waiting, base = [block[:, len(stops) :]], top
        done = done[:, done[2] > 0]
        yield done[0], done[1], done[2]
    yield _rest(waiting, base % most, most, trims, config, counts)


def _rest(waiting: list[Any], filled: int, most: int, trims: bool, config: PackingConfig, counts: Counter[str]) -> tuple[Any, Any, Any]:
    """The last block, which is not full."""
    block = waiting[0] if waiting else np.zeros((3, 0), np.int64)
    block[2] -= most - filled + trims
    kept = block[:, block[2] >= max(1, config.minimum)]
    counts["dropped_tokens"] += int(block[2].sum() - kept[2].sum()) if block[2].sum() > 0 else 0
    return kept[0], kept[1], kept[2]


def lengths(split: Split, config: PackingConfig, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """Tokens of each row."""
    return np.asarray(arrays["length"].astype(np.int64) + (config.length - room(split, config)))


def rows(split: Split, config: PackingConfig, arrays: Mapping[str, npt.NDArray[Any]], ids: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """See `Packing.rows`."""
    mark = separator(split, config)
    places = zip(*(arrays[name][ids].tolist() for name in ("document", "offset", "length")), strict=True)
    made = [_block(split, document, offset, length, mark) for document, offset, length in places]
    tokens, numbers, taken = (Ragged.of([one[i] for one in made]) for i in range(3))
    columns = _told(split, config, taken.values)
    values: npt.NDArray[Any] = tokens.values
    sizes, special, documents = tokens.lengths, numbers.values < 0, np.abs(numbers.values) - 1
    if config.specials:
        row = split.templates["single"].compose(tokens)
        values, sizes, special = row.input_ids, row.lengths, row.sequence < 0
        documents = _carried(documents, special, sizes)
        columns = {name: _spread(column, ~special) for name, column in columns.items()} | {"token_type_ids": row.token_type_ids}
        special[~special] = numbers.values < 0
    if config.documents == "joined":
        columns["documents"] = documents
    columns |= {"input_ids": values, "special": special}
    spans = zip(ids.tolist(), Ragged(values, sizes).spans(), strict=True)
    return [{"id": place, **{name: column[a:b] for name, column in columns.items()}} for place, (a, b) in spans]


def _told(split: Split, config: PackingConfig, places: npt.NDArray[np.integer[Any]]) -> dict[str, npt.NDArray[Any]]:
    """What is known of tokens by their places in the split, -1 at separators: `continues`, whether one goes on with a word, where words are
    marked; `sentences`, the number of its sentence in the split, where borders are asked for.
    """
    at, found = np.maximum(places, 0), dict[str, npt.NDArray[Any]]()
    if (continues := split.continues(at)) is not None:
        found["continues"] = continues & (places >= 0)
    if config.borders:
        found["sentences"] = np.searchsorted(split.sentence_ends, at.astype(split.sentence_ends.dtype), side="right")
    return found


def _spread(column: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Puts the values in order to these places, and nothing to the others."""
    found = np.zeros(len(where), dtype=column.dtype)
    found[where] = column
    return found


def _carried(numbers: npt.NDArray[Any], special: npt.NDArray[np.bool_], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Document numbers for the special tokens around a block too: those in front go with the first document, the others with the last."""
    marks = np.zeros(len(special), dtype=np.int32)
    marks[~special] = numbers
    ends = np.cumsum(sizes)
    highest = np.maximum.reduceat(marks, ends - sizes) if len(marks) else marks
    behind = special & (np.arange(len(marks)) > np.repeat(ends - sizes, sizes))
    marks[behind] = highest[np.repeat(np.arange(len(sizes)), sizes)[behind]]
    return marks


def _block(split: Split, document: int, offset: int, length: int, mark: int | None) -> tuple[Any, Any, Any]:
    """Token ids of a block; for each the number of its document within the block from 1 on, negative for separators; and its place
    in the split, -1 for separators."""
    values, numbers, places, number = [], [], [], 0
    while length > 0:
        start, end = split.span(document)
        number += 1
        if take := min(length, max(end - start - offset, 0)):
            values.append(split.tokens[start + offset : start + offset + take].astype(np.int32))
            numbers.append(np.full(take, number, dtype=np.int32))
            places.append(np.arange(start + offset, start + offset + take))
        length -= take
        if length > 0 and mark is not None:
            values.append(np.array([mark], dtype=np.int32))
            numbers.append(np.array([-number], dtype=np.int32))
            places.append(np.array([-1]))
            length -= 1
        document, offset = document + 1, 0
    return np.concatenate(values), np.concatenate(numbers), np.concatenate(places)
