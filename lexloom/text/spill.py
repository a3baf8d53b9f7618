"""Spill: documents on their way from one pass to the next, in a scratch file that is mapped rather than held in memory."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lexloom.text.corpus import Document

BATCH_CHARACTERS = 1 << 20


class Spill:
    """Write all with `add`, then `seal`, then read in order or by place.

    Args:
        path: a scratch file; the caller removes it.
        metadata: names of the metadata columns.
    """

    def __init__(self, path: Path, metadata: Sequence[str]) -> None:
        self.path, self.metadata = path, list(metadata)
        text = [(name, pa.string()) for name in ("id", "text", "source", *(f"metadata {name}" for name in metadata))]
        self.schema = pa.schema([*text, ("entry", pa.int32())])
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, self.schema)
        self._waiting: list[tuple[Document, int]] = []
        self._characters = 0
        self._starts = [0]

    def add(self, document: Document, entry: int) -> None:
        """Takes the next document; `entry` is a number of the caller's, kept with it."""
        self._waiting.append((document, entry))
        self._characters += len(document.text)
        if self._characters >= BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        documents = [document for document, _ in self._waiting]
        columns: dict[str, list[Any]] = {
            "id": [document.id for document in documents],
            "text": [document.text for document in documents],
            "source": [document.source for document in documents],
            "entry": [entry for _, entry in self._waiting],
        }
        for name in self.metadata:
            columns[f"metadata {name}"] = [document.metadata.get(name) for document in documents]
        self._writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=self.schema))
        self._starts.append(self._starts[-1] + len(documents))
        self._waiting, self._characters = [], 0

    def seal(self) -> None:
        """Ends writing and opens the file for reading."""
        if self._waiting:
            self._flush()
        self._writer.close()
        self._sink.close()
        self._file = pa.ipc.open_file(pa.memory_map(str(self.path)))

    def __len__(self) -> int:
        return self._starts[-1]

    def batches(self) -> Iterator[tuple[int, list[Document], list[int]]]:
        """(place of the first, documents, entries), in order."""
        for number, start in enumerate(self._starts[:-1]):
            rows = self._file.get_batch(number).to_pylist()
            yield start, [self._document(row) for row in rows], [row["entry"] for row in rows]

    def _document(self, row: dict[str, Any]) -> Document:
        named = {name: row[f"metadata {name}"] for name in self.metadata if row[f"metadata {name}"] is not None}
        return Document(row["id"], row["text"], (), row["source"], named)

    def value(self, place: int, column: str) -> Any:
        """One value of the document at a place: its `id`, `text`, `source` or `entry`."""
        number = bisect.bisect_right(self._starts, place) - 1
        return self._file.get_batch(number).column(column)[place - self._starts[number]].as_py()
