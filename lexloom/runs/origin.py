"""Where the rows of a step come from: documents with their tokens for pre-training, file:line for labelled rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lexloom.errors import DataError
from lexloom.text import blocks
from lexloom.text.corpus import Corpus
from lexloom.text.pack import Packing
from lexloom.text.shards import Split
from lexloom.train.loop import Source
from lexloom.train.source import LabelledSource, PackedSource


@dataclass(frozen=True)
class Visit:
    """A row as one step had it: its id, the epoch, T, and the packing it is a row of (None for labelled rows)."""

    row: int
    epoch: int
    length: int
    packing: Packing | None = None


@dataclass(frozen=True)
class Piece:
    """A stretch of a document: its place in the split, and the tokens from `start` to `end`, counted from the document's first."""

    document: int
    start: int
    end: int


def visits(source: Source, step: int) -> list[Visit]:
    """The rows of step `step` (from 0), in the order of its micro-batches; none for a source that is neither packed nor labelled."""
    if isinstance(source, LabelledSource):
        epoch, planned = source.plan.step(step)
        return [Visit(int(row), epoch, planned.length) for row in planned.rows]
    if not isinstance(source, PackedSource):
        return []
    for phase, order in zip(source.phases, source.orders, strict=True):
        if step < phase.steps:
            epochs, ids = order.batch_rows(step, phase.rows)
            packing = phase.packing if isinstance(phase.packing, Packing) else None
            return [Visit(int(row), int(epoch), phase.length, packing) for epoch, row in zip(epochs, ids, strict=True)]
        step -= phase.steps
    raise IndexError(f"this source has {source.steps} steps")


def pieces(packing: Packing, row: int) -> list[Piece]:
    """What a packed row is made of, in its order."""
    return list(_of_pair(packing, row) if packing.config.kind != "blocks" else _of_block(packing, row))


def _of_pair(packing: Packing, row: int) -> Iterator[Piece]:
    for name in ("first", "second"):
        start, length = int(packing.arrays[name][row]), int(packing.arrays[f"{name}_length"][row])
        if length:
            document = document_at(packing.split, start)
            begin, _ = packing.split.span(document)
            yield Piece(document, start - begin, start - begin + length)


def _of_block(packing: Packing, row: int) -> Iterator[Piece]:
    document, offset, left = (int(packing.arrays[name][row]) for name in ("document", "offset", "length"))
    marked = blocks.separator(packing.split, packing.config) is not None
    while left > 0:
        start, end = packing.split.span(document)
        if take := min(left, max(end - start - offset, 0)):
            yield Piece(document, offset, offset + take)
        left -= take
        left -= 1 if left > 0 and marked else 0
        document, offset = document + 1, 0


def document_at(split: Split, token: int) -> int:
    """The place of the document that a token of the split belongs to."""
    sentence = np.searchsorted(split.sentence_ends, split.sentence_ends.dtype.type(token), side="right")
    return int(np.searchsorted(split.document_ends, split.document_ends.dtype.type(sentence), side="right"))


def lookup(corpus: Path, split: str, ids: Iterable[str], columns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The columns of the documents with some ids, in the corpus's order; ids that stand there twice come twice.

    Only ids are read of the parts of the corpus that have none of them.

    Raises:
        DataError: the corpus is missing or damaged.
    """
    found, wanted, names = Corpus.open(corpus), pa.array(sorted(set(ids)), pa.string()), ["id", *columns]
    for name in found.report["splits"].get(split, {}).get("files", []):
        path = found.folder / name
        try:
            with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):
                    here = pc.is_in(file.read_row_group(group, columns=["id"]).column(0), value_set=wanted)
                    if pc.any(here).as_py():
                        yield from file.read_row_group(group, columns=names).filter(here).to_pylist()
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DataError("this corpus file is damaged", got=str(error)[:200], where=str(path), hint="prepare it again") from None


def wheres(corpus: Path, split: str, ids: Iterable[str]) -> dict[str, str]:
    """Document id -> `file:line` where the corpus knows it, else the file. Empty without a corpus."""
    if not (corpus / "corpus.json").is_file():
        return {}
    return {row["id"]: where(row["id"], row["source"]) for row in lookup(corpus, split, ids, ["source"])}


def where(document: str, source: str) -> str:
    """A document without an id of its own is named by its place, `file:line`; of others only the file is known."""
    line = document.removeprefix(f"{source}:")
    return document if line != document and line.isdecimal() else source
