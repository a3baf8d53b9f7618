"""Corpus: a folder of documents in Parquet, cleaned, de-duplicated and split, with a report of what was dropped and why.

train-00000.parquet …   id, text, borders (ends of sentences, list of int32), source, and the metadata columns
validation-00000.parquet …
corpus.json             format, splits, counts, sources, drops by reason, settings
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lexloom import files
from lexloom.errors import CheckpointError, DataError, unknown
from lexloom.text.segment import cut

REPORT = "corpus.json"
KIND = "corpus"
SPLITS = ("train", "validation", "test")
COLUMNS = ("id", "text", "borders", "source")
GROUP_BYTES = 8 << 20
FILE_BYTES = 256 << 20
BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its metadata.

    Args:
        borders: ends of sentences, offsets into `text`, strictly growing.
        source: the file it came from.
        metadata: texts by name, such as `title`, `group`, `date`; what a document does not have is left out.
    """

    id: str
    text: str
    borders: Sequence[int] = ()
    source: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentences(self) -> list[str]:
        """The sentences in order, without the space around them."""
        return cut(self.text, self.borders)


class CorpusWriter:
    """Writes the documents of a corpus, split by split, in the order they come; equal documents give equal files.

    Memory is bounded by `group_bytes` for each split.

    Args:
        folder: exists and is empty; the caller makes it whole (`files.new_folder`).
        metadata: names of the metadata columns.
        group_bytes: text in a row group, which is what a reader holds at once.
        file_bytes: text in a file; beyond it the next one is begun.
    """

    def __init__(self, folder: Path, metadata: Sequence[str] = (), *, group_bytes: int = GROUP_BYTES, file_bytes: int = FILE_BYTES) -> None:
        taken = set(metadata) & set(COLUMNS)
        if taken or len(set(metadata)) != len(metadata):
            raise DataError("names of metadata must differ from each other and from the columns of a corpus", got=", ".join(metadata))
        fields = [("id", pa.string()), ("text", pa.string()), ("borders", pa.list_(pa.int32())), ("source", pa.string())]
        self.schema = pa.schema([*fields, *((name, pa.string()) for name in metadata)])
        self.folder, self.metadata, self.group_bytes, self.file_bytes = folder, list(metadata), group_bytes, file_bytes
        self._splits: dict[str, _SplitWriter] = {}

    def add(self, split: str, document: Document) -> None:
        """Writes the next document of a split (`train`, `validation` or `test`)."""
        if split not in self._splits:
            if split not in SPLITS:
                raise unknown("split", split, SPLITS)
            self._splits[split] = _SplitWriter(split, self)
        self._splits[split].add(document)

    def counts(self) -> dict[str, int]:
        """Totals over the splits so far: documents, sentences, characters, bytes of UTF-8."""
        for writer in self._splits.values():
            writer.flush()
        names = ("documents", "sentences", "characters", "bytes")
        return {name: sum(getattr(writer, name) for writer in self._splits.values()) for name in names}

    def finish(self, **report: Any) -> dict[str, Any]:
        """Completes the files and writes `corpus.json` with `report` in it; returns what it wrote."""
        for writer in self._splits.values():
            writer.close()
        splits = {name: self._splits[name].counts() for name in SPLITS if name in self._splits}
        whole = {"format": files.FORMAT, "kind": KIND, "splits": splits, "metadata": self.metadata, **report}
        files.write_json(self.folder / REPORT, whole)
        return whole


class _SplitWriter:
    def __init__(self, split: str, corpus: CorpusWriter) -> None:
        self.split, self.corpus = split, corpus
        self.waiting: list[Document] = []
        self.waiting_bytes = self.file_bytes = 0
        self.documents = self.sentences = self.characters = self.bytes = 0
        self.names: list[str] = []
        self.writer: pq.ParquetWriter | None = None

    def add(self, document: Document) -> None:
        self.waiting.append(document)
        self.waiting_bytes += len(document.text)
        self.documents += 1
        self.sentences += len(document.borders)
        self.characters += len(document.text)
        if self.waiting_bytes >= self.corpus.group_bytes:
            self.flush()

    def flush(self) -> None:
        if not self.waiting:
            return
        if self.writer is None:
            self.names.append(f"{self.split}-{len(self.names):05d}.parquet")
            self.writer = pq.ParquetWriter(
                self.corpus.folder / self.names[-1],
                self.corpus.schema,
                compression="zstd",
                use_dictionary=["source"],
                write_statistics=False,
                write_page_checksum=True,
            )
        table = self._table()
        size = pc.sum(pc.binary_length(table.column("text"))).as_py()
        self.writer.write_table(table, row_group_size=len(self.waiting))
        self.bytes += size
        self.file_bytes += size
        self.waiting, self.waiting_bytes = [], 0
        if self.file_bytes >= self.corpus.file_bytes:
            self.close()

    def _table(self) -> pa.Table:
        columns: dict[str, list[Any]] = {
            "id": [document.id for document in self.waiting],
            "text": [document.text for document in self.waiting],
            "borders": [document.borders for document in self.waiting],
            "source": [document.source for document in self.waiting],
        }
        for name in self.corpus.metadata:
            columns[name] = [document.metadata.get(name) for document in self.waiting]
        return pa.Table.from_pydict(columns, schema=self.corpus.schema)

    def close(self) -> None:
        self.flush()
        if self.writer is not None:
            self.writer.close()
        self.writer, self.file_bytes = None, 0

    def counts(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "sentences": self.sentences,
            "characters": self.characters,
            "bytes": self.bytes,
            "files": self.names,
        }


class Corpus:
    """A corpus on disk. `Corpus.open(folder)`; `len(corpus)` is the number of documents.

    Attributes:
        report: what `corpus.json` holds.
    """

    def __init__(self, folder: Path, report: dict[str, Any]) -> None:
        self.folder, self.report = folder, report

    @classmethod
    def open(cls, folder: Path | str) -> Corpus:
        """Opens a corpus folder; only sizes of files are checked, since it may be large (`verify` checks digests).

        Raises:
            DataError: there is none, or it is not whole.
            FormatError: it is of a newer format.
        """
        folder = Path(folder)
        if not (folder / REPORT).is_file():
            hint = "make one with: lexloom prepare SOURCE --out CORPUS"
            raise DataError("this is no corpus: it has no corpus.json", where=str(folder), hint=hint)
        try:
            files.verify(folder, check_digests=False)
        except CheckpointError as error:
            raise DataError(error.problem, expected=error.expected, got=error.got, where=error.where, hint="prepare it again") from None
        report = files.read_json(folder / REPORT, kind="corpus report")
        files.check_format(report, folder / REPORT)
        for split in report["splits"].values():
            for name in split["files"]:
                if Path(name).name != name or not (folder / name).is_file():
                    raise DataError("the report names a file that is not in the corpus", got=name, where=str(folder / REPORT))
        return cls(folder, report)

    def verify(self) -> None:
        """Checks every file against its digest.

        Raises:
            CheckpointError: a file was changed or damaged.
        """
        files.verify(self.folder)

    @property
    def splits(self) -> list[str]:
        """The names of the splits that have documents."""
        return list(self.report["splits"])

    @property
    def languages(self) -> dict[str, int]:
        """Documents by guessed language, most frequent first."""
        return dict(self.report.get("languages", {}))

    @property
    def language(self) -> str:
        """The language of most documents: `en`, `zh`, …"""
        return next(iter(self.languages), "unknown")

    def count(self, split: str) -> int:
        """How many documents a split has."""
        return int(self._split(split)["documents"])

    def __len__(self) -> int:
        return sum(self.count(split) for split in self.splits)

    def __repr__(self) -> str:
        counts = ", ".join(f"{split} {self.count(split)}" for split in self.splits)
        return f"Corpus({str(self.folder)!r}; {counts})"

    def _split(self, split: str) -> dict[str, Any]:
        if split in self.report["splits"]:
            return dict(self.report["splits"][split])
        if split not in SPLITS:
            raise unknown("split", split, SPLITS, where=str(self.folder))
        return {"documents": 0, "sentences": 0, "characters": 0, "bytes": 0, "files": []}

    def documents(self, split: str = "train") -> Iterator[Document]:
        """The documents of a split in order; a row group (some 8 MB of text) at a time is in memory.

        Raises:
            ConfigError: there is no such split.
            DataError: a file is damaged.
        """
        for name in self._split(split)["files"]:
            yield from self._read(self.folder / name)

    def texts(self, split: str = "train") -> Iterator[str]:
        """The texts of a split in order."""
        for name in self._split(split)["files"]:
            for batch in self._batches(self.folder / name, ["text"]):
                yield from batch.column(0).to_pylist()

    def _read(self, path: Path) -> Iterator[Document]:
        metadata = self.report.get("metadata", [])
        for batch in self._batches(path, [*COLUMNS, *metadata]):
            for row in batch.to_pylist():
                named = {name: row[name] for name in metadata if row[name] is not None}
                yield Document(row["id"], row["text"], row["borders"], row["source"], named)

    def _batches(self, path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
                missing = [name for name in columns if name not in file.schema_arrow.names]
                if missing:
                    raise DataError("this corpus file lacks columns", got=", ".join(missing), where=str(path), hint="prepare it again")
                yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DataError("this corpus file is damaged", got=str(error)[:200], where=str(path), hint="prepare it again") from None
