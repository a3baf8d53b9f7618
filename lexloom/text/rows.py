"""Rows: plain dicts out of txt, jsonl, json, csv, tsv and Parquet files, plain or packed, streamed with file and line of each."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lexloom import files
from lexloom.errors import ConfigError, DataError, nearest
from lexloom.text import tables, values
from lexloom.text.lines import MAX_LINE_BYTES, Progress, blocks, byte_lines, check_encoding, decode, find_encoding, has_byte_lines
from lexloom.text.quarantine import Quarantine

Row = dict[str, Any]
FORMATS = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
PACKED = (".gz", ".zst", ".zstd")
BATCH_ROWS = 256
HOPELESS = 1000
"""When so many rows at the beginning of a file lack the same column, the column's name is wrong, not the rows."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A row and where it stands: `line` counts from 1 (in Parquet files it counts rows)."""

    row: Row
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read from, looked at once: how it is read and what identifies it.

    Args:
        name: what reports call it.
        encoding: a Python codec; "" for Parquet.
        undecodable: lines that are known not to be of that encoding.
        sha256: "" where it was not asked for.
    """

    path: Path
    name: str
    format: str
    encoding: str
    bytes: int
    undecodable: int = 0
    sha256: str = ""


def format_of(path: Path) -> str | None:
    """`txt`, `jsonl`, `json`, `csv`, `tsv` or `parquet` by the name's ending, or None."""
    name = path.name.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    return FORMATS.get(Path(name).suffix)


def files_of(path: Path | str) -> tuple[list[Path], list[Path]]:
    """The readable files at `path` and the ones left out: itself, or all below a folder in the order of their names.

    Hidden files and folders are passed over in silence; links to folders are not followed.

    Raises:
        ConfigError: it does not exist (the nearest name that does is given), or is a file of no known format.
        DataError: the folder holds no readable file.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError("this file or folder does not exist", where=str(path), hint=_nearest_path(path))
    if path.is_file():
        if format_of(path) is None:
            raise _no_format(path)
        return [path], []
    found: list[Path] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in names if not name.startswith(".") and Path(folder, name).is_file()]
    found.sort(key=lambda file: file.relative_to(path).parts)
    readable = [file for file in found if format_of(file)]
    if not readable:
        names_found = ", ".join(sorted({file.suffix or file.name for file in found})[:10])
        expected = "files ending in " + ", ".join(FORMATS) + ", also packed as .gz or .zst"
        raise DataError("there is no readable file in this folder", expected=expected, got=names_found or "nothing", where=str(path))
    return readable, [file for file in found if not format_of(file)]


def _no_format(path: Path) -> ConfigError:
    return ConfigError(
        "the ending of this name says no format",
        expected=", ".join(FORMATS) + ", also packed as .gz or .zst",
        got=path.suffix or "no ending",
        where=str(path),
        hint="rename the file",
    )


def _nearest_path(path: Path) -> str | None:
    """The existing sibling of the first missing part of a path that was probably meant."""
    for parent, name in [(path.parent, path.name), *((above.parent, above.name) for above in path.parents)]:
        if parent.is_dir() and not (parent / name).exists():
            guess = nearest(name, (entry.name for entry in parent.iterdir()))
            return f"did you mean {parent / guess}?" if guess else f"{parent} holds no such name"
    return None


def survey(
    path: Path, name: str | None = None, *, encoding: str = "auto", digest: bool = False, max_line_bytes: int = MAX_LINE_BYTES
) -> SourceFile:
    """Looks at a file before it is read: format, encoding, size and, if asked, SHA-256.

    Raises:
        ConfigError: its name says no known format, or there is no such encoding.
    """
    kind = format_of(path)
    if kind is None:
        raise _no_format(path)
    sha256 = files.digest(path) if digest else ""
    shown, size = name or str(path), path.stat().st_size
    if kind == "parquet":
        return SourceFile(path, shown, kind, "", size, sha256=sha256)
    if encoding != "auto":
        return SourceFile(path, shown, kind, check_encoding(encoding), size, sha256=sha256)
    found = find_encoding(path, max_line_bytes)
    return SourceFile(path, shown, kind, found.name, size, found.undecodable, sha256)


def read_rows(
    path: Path | str | SourceFile,
    *,
    bad: Quarantine,
    encoding: str = "auto",
    columns: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    max_line_bytes: int = MAX_LINE_BYTES,
    progress: Progress | None = None,
) -> Iterator[Placed]:
    """Streams the rows of a file, or of every file in a folder; memory is bounded by `max_line_bytes`, not by the file.

    A txt file gives `{"text": line}` for every line that is not blank. Values of csv and tsv are texts.

    Args:
        bad: takes the rows that cannot be read or lack one of `columns`.
        encoding: a codec, or `auto`, as `find_encoding` chooses.
        columns: what every row must have; with it, of Parquet files only these and `optional` are read.
        progress: called now and then with the bytes of the present file read so far.

    Raises:
        ConfigError: the path does not exist or has no known format.
        DataError: a table's columns, or the first thousand rows, lack one of `columns`; or `bad` had enough.
    """
    if not isinstance(path, SourceFile):
        for file in files_of(path)[0]:
            source = survey(file, encoding=encoding, max_line_bytes=max_line_bytes)
            yield from read_rows(source, bad=bad, columns=columns, optional=optional, max_line_bytes=max_line_bytes, progress=progress)
        return
    if path.format == "parquet":
        yield from _parquet(path, bad, columns, optional, progress)
    elif path.format == "txt":
        lines = read_lines(path, bad=bad, max_line_bytes=max_line_bytes, progress=progress)
        yield from (Placed({"text": text}, path.name, line) for line, text in lines if text.strip())
    elif path.format in ("csv", "tsv"):
        yield from _table(path, bad, columns, max_line_bytes, progress)
    else:
        found = _jsonl if path.format == "jsonl" else _json
        yield from _with_columns(found(path, bad, max_line_bytes, progress), columns or (), bad)


def read_lines(
    source: SourceFile, *, bad: Quarantine, max_line_bytes: int = MAX_LINE_BYTES, progress: Progress | None = None
) -> Iterator[tuple[int, str]]:
    """The lines of a text file as (number from 1, text without its end); bad ones go to `bad`."""
    for number, text, problem in _decoded(source, max_line_bytes, progress):
        if problem:
            bad.add(source.name, number, problem, text=text)
        else:
            yield number, text


def _decoded(source: SourceFile, limit: int, progress: Progress | None) -> Iterator[tables.Line]:
    for number, line, problem in byte_lines(source.path, source.encoding, limit, progress):
        text = ""
        if not problem:
            try:
                text = decode(line, source.encoding)
            except ValueError as error:
                problem = str(error)
        yield number, text if not problem else line[:200].decode("utf-8", "backslashreplace"), problem


def _jsonl(source: SourceFile, bad: Quarantine, limit: int, progress: Progress | None) -> Iterator[Placed]:
    for number, text in read_lines(source, bad=bad, max_line_bytes=limit, progress=progress):
        if not text or text.isspace():
            continue
        try:
            yield Placed(_object(values.parse(text)), source.name, number)
        except ValueError as error:
            bad.add(source.name, number, f"not JSON: {error}", text=text)


def _object(value: Any) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object with columns, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _json(source: SourceFile, bad: Quarantine, limit: int, progress: Progress | None) -> Iterator[Placed]:
    for line, value, problem, excerpt in values.Values(_chunks(source, progress), limit):
        try:
            if problem:
                raise ValueError(problem)
            values.check(value)  # also finds the bytes that were not of the encoding
            yield Placed(_object(value), source.name, line)
        except ValueError as error:
            reason = str(error) if problem else f"not JSON: {error}"
            bad.add(source.name, line, reason, text=excerpt)


def _chunks(source: SourceFile, progress: Progress | None) -> Iterator[str]:
    errors = "surrogateescape" if has_byte_lines(source.encoding) else "replace"
    decoder = codecs.getincrementaldecoder(source.encoding)(errors=errors)
    for number, block in enumerate(blocks(source.path, progress)):
        text = decoder.decode(block)
        yield text.removeprefix("\ufeff") if number == 0 else text
    yield decoder.decode(b"", final=True)


def _table(source: SourceFile, bad: Quarantine, columns: Sequence[str] | None, limit: int, progress: Progress | None) -> Iterator[Placed]:
    lines = _decoded(source, limit, progress)
    first = next((line for line in lines if line[1].strip() or line[2]), None)
    if first is None:
        return
    if first[2]:
        raise DataError(f"the first line, which names the columns, cannot be read: {first[2]}", where=f"{source.name}:{first[0]}")
    delimiter = "\t" if source.format == "tsv" else tables.delimiter_of(first[1])
    found = tables.records(_chain(first, lines), delimiter, limit)
    number, fields, problem = next(found)
    where = f"{source.name}:{number}"
    if problem:
        raise DataError(f"the first line, which names the columns, cannot be read: {problem}", where=where)
    names = tables.header_of(fields, where)
    _check_columns(columns or (), names, where)
    for number, fields, problem in found:
        if problem or len(fields) != len(names):
            bad.add(source.name, number, problem or f"not {len(names)} fields: {len(fields)}", text=delimiter.join(fields))
        else:
            yield Placed(dict(zip(names, fields, strict=True)), source.name, number)


def _chain(first: tables.Line, rest: Iterator[tables.Line]) -> Iterator[tables.Line]:
    yield first
    yield from rest


def _parquet(
    source: SourceFile, bad: Quarantine, columns: Sequence[str] | None, optional: Sequence[str], progress: Progress | None
) -> Iterator[Placed]:
    try:
        table = pq.ParquetFile(source.path, memory_map=True, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        bad.add(source.name, 1, f"not a Parquet file: {_short(error)}")
        return
    with table:
        present = table.schema_arrow.names
        _check_columns(columns or (), present, source.name)
        wanted = None if columns is None else [name for name in present if name in {*columns, *optional}]
        start = 0
        for group in range(table.num_row_groups):
            size = table.metadata.row_group(group).num_rows
            yield from _row_group(table, group, wanted, start, size, source.name, bad)
            start += size
            if progress is not None:
                progress(source.bytes * (group + 1) // table.num_row_groups)


def _row_group(table: Any, group: int, wanted: list[str] | None, start: int, size: int, name: str, bad: Quarantine) -> Iterator[Placed]:
    done = 0
    try:
        for batch in table.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False):
            for row in _dicts(batch):
                done += 1
                if row is None:
                    bad.add(name, start + done, "not utf-8")
                else:
                    yield Placed(row, name, start + done)
    except (OSError, pa.ArrowException) as error:
        lost = size - done
        bad.add(name, start + done + 1, f"a damaged page of a Parquet file: {lost} rows of its group are lost ({_short(error)})", rows=lost)


def _dicts(batch: pa.RecordBatch) -> list[Row | None]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:  # the writer did not check its texts: find the rows
        return [row for place in range(len(batch)) for row in _dicts(batch.slice(place, 1))] if len(batch) > 1 else [None]


def _short(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _with_columns(rows: Iterable[Placed], columns: Sequence[str], bad: Quarantine) -> Iterator[Placed]:
    """Passes on the rows that have all columns."""
    good, missing = 0, 0
    for placed in rows:
        lacking = next((column for column in columns if column not in placed.row), None)
        if lacking is None:
            good += 1
            yield placed
            continue
        guess = nearest(lacking, placed.row)
        detail = f"did you mean {guess!r}?" if guess else f"the columns are {', '.join(list(placed.row)[:20])[:200]}"
        bad.add(placed.file, placed.line, f"no column {lacking!r}: {detail}")
        missing += 1
        if not good and missing >= HOPELESS:
            _check_columns([lacking], list(placed.row), f"{placed.file}:{placed.line}")


def _check_columns(wanted: Iterable[str], present: Sequence[str], where: str) -> None:
    for column in wanted:
        if column not in present:
            guess = nearest(column, present)
            hint = f"did you mean {guess!r}?" if guess else "name the column to read in `columns`"
            shown = ", ".join(list(present)[:50])[:1000]
            raise DataError(f"there is no column {column!r}", expected=f"one of: {shown}", where=where, hint=hint)
