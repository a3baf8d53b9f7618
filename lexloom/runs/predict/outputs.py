"""Rows into a file: jsonl, json, csv, tsv or Parquet by its ending, the text ones also packed; written whole or not at all.

csv and tsv are for spreadsheets and eyes, so nothing in them is obeyed: a cell that would be a formula (it begins with = + - @)
gets an apostrophe before it, plain numbers excepted, and control characters are made visible. jsonl and Parquet keep every value
as it is.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lexloom import files
from lexloom.console import json_line, neutral
from lexloom.errors import ConfigError
from lexloom.text.rows import FORMATS, Row, SourceFile, format_of

GROUP_ROWS, GROUP_CHARACTERS = 10_000, 8 << 20
INFERRED_ROWS = 1000
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")
_UNSEEN = " \t\r\n\v\f\0\xa0\u200b\u3000\ufeff"
_TEXT = pa.string()


class Writer(Protocol):
    """Takes rows one by one."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the next row; what it lacks is empty."""
        ...

    def close(self) -> None:
        """Writes what is still held."""
        ...


def output_format(path: Path) -> str:
    """The format that a name asks for.

    Raises:
        ConfigError: it says none that can be written.
    """
    found = format_of(path)
    packed = path.suffix.lower() in (".gz", ".zst", ".zstd")
    if found is None or found == "txt" or (found == "parquet" and packed):
        expected = ", ".join(ending for ending, name in FORMATS.items() if name != "txt") + "; .gz or .zst after it, but for Parquet"
        raise ConfigError("the ending of this name says no format to write", expected=expected, got=path.name, where=str(path))
    return found


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Writer]:
    """A writer of `path`, which appears when the block ends well.

    Args:
        schema: the columns in order. Their types count for Parquet alone, where a value that is no text in a text column becomes JSON.

    Raises:
        ConfigError: see `output_format`.
    """
    kind = output_format(path)
    with files.replacing(path) as raw, ExitStack() as stack:
        file = stack.enter_context(_packing(path, raw))
        writer = _WRITERS[kind](file, schema)
        yield writer
        writer.close()


@contextmanager
def _packing(path: Path, raw: IO[bytes]) -> Iterator[Any]:
    ending = path.suffix.lower()
    if ending == ".gz":  # no name and no time inside, so that equal rows give equal bytes
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed:
            yield packed
    elif ending in (".zst", ".zstd"):
        with pa.CompressedOutputStream(pa.PythonFile(_Unclosed(raw), "w"), "zstd") as packed:
            yield packed
    else:
        yield raw


class _Unclosed(io.RawIOBase):
    """A file that stays open when the stream on top of it is closed."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self.raw.write(content)


class _JsonLines:
    def __init__(self, file: Any, schema: pa.Schema) -> None:
        self.file = file

    def write(self, row: Mapping[str, Any]) -> None:
        self.file.write((json_line(jsonable(row)) + "\n").encode())

    def close(self) -> None:
        pass


class _Json:
    def __init__(self, file: Any, schema: pa.Schema) -> None:
        self.file, self.before = file, "[\n"

    def write(self, row: Mapping[str, Any]) -> None:
        self.file.write((self.before + json_line(jsonable(row))).encode())
        self.before = ",\n"

    def close(self) -> None:
        self.file.write(b"[]\n" if self.before == "[\n" else b"\n]\n")


class _Table:
    delimiter = ","

    def __init__(self, file: Any, schema: pa.Schema) -> None:
        self.file, self.names = file, schema.names
        self._line(self.names)

    def write(self, row: Mapping[str, Any]) -> None:
        self._line([row.get(name) for name in self.names])

    def _line(self, values: Iterable[Any]) -> None:
        self.file.write((self.delimiter.join(self.quoted(cell(value)) for value in values) + "\n").encode())

    def quoted(self, text: str) -> str:
        odd = text[:1] in ('"', " ") or text[-1:] == " " or any(mark in text for mark in ',"\n')
        return '"' + text.replace('"', '""') + '"' if text and odd else text

    def close(self) -> None:
        pass


class _Tabbed(_Table):
    """A line of a tsv file is a row, whatever stands in it: line ends and tabs become spaces."""

    delimiter = "\t"

    def quoted(self, text: str) -> str:
        text = text.replace("\n", " ").replace("\t", " ")
        return '"' + text.replace('"', '""') + '"' if text[:1] == '"' else text


class _Parquet:
    def __init__(self, file: Any, schema: pa.Schema) -> None:
        self.schema, self.rows, self.size = schema, list[Mapping[str, Any]](), 0
        self.table = pq.ParquetWriter(file, schema, write_page_checksum=True)

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)
        self.size += sum(len(value) for value in row.values() if isinstance(value, str | bytes | list))
        if len(self.rows) >= GROUP_ROWS or self.size >= GROUP_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self.rows:
            columns = [pa.array([_fitting(row.get(f.name), f.type) for row in self.rows], type=f.type) for f in self.schema]
            self.table.write_table(pa.Table.from_arrays(columns, schema=self.schema))
        self.rows, self.size = [], 0

    def close(self) -> None:
        self._flush()
        self.table.close()


_WRITERS: dict[str, Callable[[Any, pa.Schema], Writer]] = {
    "jsonl": _JsonLines,
    "json": _Json,
    "csv": _Table,
    "tsv": _Tabbed,
    "parquet": _Parquet,
}


def cell(value: Any) -> str:
    """A value as a cell of a table that neither a spreadsheet nor a terminal obeys."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = neutral(value)
    else:
        value = jsonable(value)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if is_formula(text) else text


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may take a text for a formula: it begins with = + - @, unseen signs before it or not, and is no number."""
    begin = text.lstrip(_UNSEEN)[:1]
    return begin in _FORMULA and not _NUMBER.fullmatch(text)


def jsonable(value: Any) -> Any:
    """A value as JSON has it: dates in ISO 8601, bytes in base64, numbers that are none as null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    if value is None or isinstance(value, str) or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return value
    return json.dumps(jsonable(value), ensure_ascii=False)


def schema_of(sources: Sequence[SourceFile], columns: Sequence[str], rows: Callable[[], Iterable[Row]]) -> pa.Schema:
    """Types for the columns of an output.

    Args:
        rows: gives all rows anew; they are gone through only where nothing else tells the types.
    """
    if all(source.format == "parquet" for source in sources):
        found = [pq.read_schema(source.path).remove_metadata() for source in sources]
        if all(schema == found[0] for schema in found):
            return found[0]
    if all(source.format in ("csv", "tsv", "txt") for source in sources):
        return pa.schema([(name, _TEXT) for name in columns])
    return _inferred(columns, rows())


def _inferred(columns: Sequence[str], rows: Iterable[Row]) -> pa.Schema:
    """One type a column over all rows; a text for what has none in common, or is nested beyond lists."""
    types: dict[str, pa.DataType] = dict.fromkeys(columns, pa.null())
    for batch in _batched(rows):
        for name in columns:
            if types[name] != _TEXT:
                types[name] = _common(types[name], [row.get(name) for row in batch])
    return pa.schema([(name, _TEXT if _is_empty(kind) else kind) for name, kind in types.items()])


def _batched(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == INFERRED_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _common(known: pa.DataType, values: list[Any]) -> pa.DataType:
    try:
        new = pa.array(values).type
        if _is_nested(new):
            return _TEXT
        fields = [pa.schema([("column", kind)]) for kind in (known, new)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except (pa.ArrowException, OverflowError, TypeError, ValueError, decimal.DecimalException):
        return _TEXT


def _is_nested(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return pa.types.is_nested(inner)


def _is_empty(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind.value_type if pa.types.is_list(kind) else kind)
