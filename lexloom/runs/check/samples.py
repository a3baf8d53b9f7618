"""Samples: the first rows or documents of a source, held in memory so that a check can look at them from several sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from lexloom.errors import BadRow, DataError
from lexloom.tasks.columns import Columns
from lexloom.text.documents import ColumnsConfig as DocumentColumns
from lexloom.text.documents import Unit, read_documents
from lexloom.text.lines import byte_lines
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, SourceFile, files_of, format_of, read_rows, survey

MAX_ROWS = 200_000
MAX_CHARACTERS = 40_000_000
"""Of one source: more is not looked at, and that is said."""
KEPT_BAD = 100
LARGE = 64 << 20


@dataclass
class Sample:
    """Rows or documents that were looked at, and those that could not be.

    Args:
        name: what findings call it: `train`, `test`, a file.
        path: where it was read.
        rows: labelled rows with their places; empty for documents.
        texts: of each row; a pair as its two texts on two lines.
        places: file:line of each.
        labels: of each, as they stand in the file; None where there are none.
        unusable: rows that can be read and yet cannot be used: no text, no label.
        whole: False where there is more than was looked at.
        characters: about how many there are in all, the rest estimated by its share of bytes.
    """

    name: str
    path: Path
    bad: Quarantine
    rows: list[Placed] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    labels: list[str] | None = None
    pairs: bool = False
    groups: list[str | None] | None = None
    unusable: list[BadRow] = field(default_factory=list)
    whole: bool = True
    characters: float = 0.0
    bytes: int = 0
    encodings: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def where(self) -> str:
        """Where findings about the whole of it point to."""
        return str(self.path)

    @property
    def extent(self) -> str:
        """What the figures are about: `9,600 rows`, or `the first 200,000 rows`."""
        unit = "documents" if not self.rows else "rows"
        return f"{len(self):,} {unit}" if self.whole else f"the first {len(self):,} {unit}"


def looked_at(path: Path, name: str | None = None, *, encoding: str = "auto") -> SourceFile:
    """A file before it is read. Of a large one the encoding is told by its beginning, unless that is not UTF-8."""
    if encoding == "auto" and path.stat().st_size > LARGE and format_of(path) != "parquet" and _begins_in_utf8(path):
        return survey(path, name, encoding="utf-8")
    return survey(path, name, encoding=encoding)


def _begins_in_utf8(path: Path) -> bool:
    read = 0
    for _, line, problem in byte_lines(path, "utf-8"):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return False
        read += len(line)
        if read > LARGE // 4 or problem:
            break
    return not problem if read else False


@dataclass
class Read:
    """Rows as they were read, before anything is known of their columns."""

    path: Path
    rows: list[Placed]
    bad: Quarantine
    whole: bool
    sources: list[SourceFile]


def read(path: Path, files: Sequence[Path] = (), *, encoding: str = "auto", max_rows: int = MAX_ROWS) -> Read:
    """Reads the first rows of a file, or of the files of a folder.

    Args:
        files: the only ones of the folder to read, where it has others.

    Raises:
        ConfigError: it does not exist, or has no known format.
        DataError: a file cannot be read as a table at all.
    """
    bad = Quarantine(keep=KEPT_BAD)
    sources = [looked_at(file, encoding=encoding) for file in files or files_of(path)[0]]
    rows: list[Placed] = []
    characters = 0
    for source in sources:
        for placed in read_rows(source, bad=bad):
            if len(rows) >= max_rows or characters >= MAX_CHARACTERS:
                return Read(path, rows, bad, False, sources)
            rows.append(placed)
            characters += sum(len(value) for value in placed.row.values() if isinstance(value, str))
    return Read(path, rows, bad, True, sources)


def encodings(sources: Sequence[SourceFile]) -> frozenset[str]:
    """In what the files are read; Parquet holds UTF-8."""
    return frozenset(source.encoding or "utf-8" for source in sources)


def unread(name: str, found: Read) -> Sample:
    """A sample without texts: there are none, or nobody knows where they stand."""
    return Sample(name, found.path, found.bad, rows=found.rows, whole=found.whole, encodings=encodings(found.sources))


def labelled(name: str, found: Read, columns: Columns, *, group: str | None = None, classes: bool = True) -> Sample:
    """The rows as labelled texts; with `columns.label` None, as texts.

    Args:
        classes: whether labels are to be counted; else each row has to have one, and that is all.
        group: a column that says what belongs together.
    """
    sample = Sample(name, found.path, found.bad, whole=found.whole, labels=[] if classes and columns.label is not None else None)
    sample.bytes = sum(source.bytes for source in found.sources)
    sample.encodings, sample.pairs = encodings(found.sources), columns.pair is not None
    for i, placed in enumerate(found.rows):
        try:
            text, pairs = columns.texts([placed])[0], columns.pairs([placed])
            label = columns.raw_label(placed, i) if columns.label is not None else ""
        except DataError as error:
            reason = f"{error.problem}: {error.got}" if error.got else error.problem
            sample.unusable.append(BadRow(placed.file, placed.line, reason))
            continue
        sample.rows.append(placed)
        sample.texts.append(f"{text}\n{pairs[0]}" if pairs is not None else text)
        sample.places.append(f"{placed.file}:{placed.line}")
        if sample.labels is not None:
            sample.labels.append(label)
    if group is not None:
        sample.groups = [None if (value := placed.row.get(group)) is None else str(value) for placed in sample.rows]
    return sample


def documents(
    name: str,
    sources: Sequence[SourceFile],
    columns: DocumentColumns,
    *,
    unit: Unit = "file",
    max_rows: int = MAX_ROWS,
    max_characters: int = MAX_CHARACTERS // 2,
) -> Sample:
    """The first documents of each of many files, of large files more.

    Raises:
        DataError: a file lacks a column.
    """
    sample = Sample(name, Path(sources[0].name), Quarantine(keep=KEPT_BAD))
    sample.bytes = sum(source.bytes for source in sources)
    sample.encodings = encodings(sources)
    for source in sources:
        share = source.bytes / max(1, sample.bytes)
        _take(sample, source, columns, unit, max(100, int(max_rows * share)), max(100_000, int(max_characters * share)))
    return sample


def _take(sample: Sample, source: SourceFile, columns: DocumentColumns, unit: Unit, most: int, most_characters: int) -> None:
    seen = _Seen(source)
    for document in read_documents(source, columns, bad=sample.bad, unit=unit, progress=seen.told):
        if seen.documents >= most or seen.characters >= most_characters:
            sample.whole = False
            break
        seen.documents += 1
        seen.characters += len(document.text)
        sample.texts.append(document.text)
        place = document.id if document.id.startswith(source.name) else f"{source.name} ({document.id})"
        sample.places.append(place)
    else:
        seen.ended = True
    sample.characters += seen.estimate()


class _Seen:
    """How much of a file was read, to estimate how much it holds."""

    def __init__(self, source: SourceFile) -> None:
        self.source, self.documents, self.characters, self.ended = source, 0, 0, False
        self.marks: tuple[int, int] = (0, 0)  # bytes, characters, when bytes were last told
        self.told: Callable[[int], None] = self._told

    def _told(self, done: int) -> None:
        self.marks = (done, self.characters)

    def estimate(self) -> float:
        """Characters of the whole file."""
        if self.ended:
            return float(self.characters)
        if self.source.format == "parquet":
            return self.characters * pq.read_metadata(self.source.path).num_rows / max(1, self.documents)
        done, characters = self.marks
        if not done or not characters:  # less than a block of the file was looked at
            done, characters = min(self.source.bytes, 1 << 20), self.characters
        return characters * self.source.bytes / done
