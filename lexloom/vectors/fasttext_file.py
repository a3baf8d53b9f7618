"""fastText's own files, `.bin`, as its version 12 writes them: what words and their n-grams are made of, not only the vectors of words.

    magic, version              2 int32
    settings                    12 int32 (`SETTINGS`) and the subsampling rate, a float64
    vocabulary                  int32: entries, words, labels; int64: words of the text, pruned n-grams (-1: none)
                                an entry: UTF-8 to a zero byte, its count (int64), 0 for a word and 1 for a label (int8)
    whether it is quantized     a byte; then the input matrix: rows, columns (int64), float32: words, then buckets of n-grams
    whether the rest is         a byte; then the output matrix, likewise

All little-endian. Nothing is believed before it was held against the size of the file.

Letters: V words, D width, B buckets.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lexloom import files
from lexloom.errors import DataError, FormatError
from lexloom.vectors.ngrams import NGrams, letters_of

MAGIC = struct.pack("<i", 793712314)
VERSIONS = (11, 12)
SETTINGS = {
    "dim": 0,
    "ws": 5,
    "epoch": 5,
    "minCount": 1,
    "neg": 5,
    "wordNgrams": 1,
    "loss": 2,
    "model": 2,
    "bucket": 0,
    "minn": 0,
    "maxn": 0,
    "lrUpdateRate": 100,
    "t": 1e-4,
}
"""fastText's names, and what is written where nothing is known. loss: 1 is hierarchical softmax, 2 negative sampling; model: 1 is CBOW, 2
skip-gram, 3 a classifier."""
MAX_WORD_BYTES = 1 << 16
_HEADER, _COUNTS, _ENTRY, _MATRIX = struct.Struct("<4s13id"), struct.Struct("<3i2q"), struct.Struct("<qb"), struct.Struct("<?2q")
_ROWS = 1 << 12
Matrix = npt.NDArray[np.float32]


def is_one(path: Path | str) -> bool:
    """Whether a file begins as fastText's do."""
    with Path(path).open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: Path | str) -> tuple[list[str], Matrix, NGrams | None]:
    """Words, their vectors (V, D), and what these are made of, mapped; None where the words have no n-grams.

    Raises:
        FormatError: it is cut, damaged, quantized, or a classifier.
    """
    path = Path(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        part = _Parts(path, content)
        settings = _settings(part)
        words, counts = _words(part)
        rows, at = part.matrix(settings["dim"], "input")
        outer_rows, outer_at = part.matrix(settings["dim"], "output")
        if part.at != len(content):
            raise FormatError("this file of fastText's goes on behind its end", got=f"{len(content) - part.at} bytes", where=str(path))
    if rows != len(words) + settings["bucket"]:
        expected = f"{len(words)} words and {settings['bucket']} buckets"
        raise FormatError(
            "the vectors of this file of fastText's are not those of its words", expected=expected, got=f"{rows} rows", where=str(path)
        )
    inner, outer = (_mapped(path, place, (n, settings["dim"])) for n, place in ((rows, at), (outer_rows, outer_at)))
    if not settings["bucket"] or not settings["maxn"]:
        return words, inner[: len(words)], None
    held, size = np.arange(settings["bucket"], dtype=np.int32), len(words)
    lengths = settings["minn"], settings["maxn"], settings["bucket"]
    ngrams = NGrams(*lengths, inner[:size], inner[size:], held, counts, outer if outer_rows == size else None, settings)
    return words, ngrams.vectors(words), ngrams


class _Parts:
    """A file that is read from its start to its end, and is never read beyond it."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.at = path, content, 0

    def next(self, kind: struct.Struct) -> tuple[Any, ...]:
        if self.at + kind.size > len(self.content):
            raise self.cut(f"{self.at + kind.size} bytes or more")
        found = kind.unpack_from(self.content, self.at)
        self.at += kind.size
        return found

    def word(self, number: int) -> str:
        end = self.content.find(b"\0", self.at, self.at + MAX_WORD_BYTES)
        if end < 0:
            raise FormatError("a word of this file of fastText's has no end", where=f"{self.path}, word {number}")
        found = self.content[self.at : end]
        self.at = end + 1
        return found.decode("utf-8", "surrogateescape")

    def matrix(self, width: int, name: str) -> tuple[int, int]:
        """How many rows a matrix has, and where they begin."""
        quantized, rows, columns = self.next(_MATRIX)
        if quantized:
            raise quantized_error(self.path)
        if rows < 0 or columns != width:
            got = f"{rows} of {columns}"
            raise FormatError(f"the {name} vectors of this file have another width", expected=str(width), got=got, where=str(self.path))
        begin, self.at = self.at, self.at + rows * width * 4
        if self.at > len(self.content):
            raise self.cut(f"{self.at} bytes or more")
        return rows, begin

    def cut(self, expected: str) -> FormatError:
        got = f"{len(self.content)} bytes"
        return FormatError("this file of fastText's is cut", expected=expected, got=got, where=str(self.path))


def quantized_error(path: Path) -> FormatError:
    """The error for numbers that are kept as codes."""
    return FormatError("quantized files of fastText are not read", where=str(path), hint="take the .bin that it was made of")


def _settings(part: _Parts) -> dict[str, Any]:
    magic, version, *values = part.next(_HEADER)
    if magic != MAGIC or version not in VERSIONS:
        expected, got = f"version {VERSIONS[-1]}", f"{magic!r}, version {version}"
        raise FormatError("this is no file of fastText's that can be read", expected=expected, got=got, where=str(part.path))
    found = dict(zip(SETTINGS, values, strict=True))
    if found["model"] == 3:
        hint = "train one here: baselines: [fasttext] under a task to fine-tune for"
        raise FormatError("this is a classifier of fastText, not word vectors", where=str(part.path), hint=hint)
    if found["dim"] < 1 or found["bucket"] < 0 or not (0 <= found["minn"] <= 1 << 16 and 0 <= found["maxn"] <= 1 << 16):
        got = ", ".join(f"{name} {found[name]}" for name in ("dim", "bucket", "minn", "maxn"))
        raise FormatError("the settings of this file of fastText's cannot be", got=got, where=str(part.path))
    return found


def _words(part: _Parts) -> tuple[list[str], npt.NDArray[np.int64]]:
    size, n, labels, _, pruned = part.next(_COUNTS)
    if labels or size != n or n < 1 or n * (1 + _ENTRY.size) > len(part.content):
        got = f"{size} entries, {n} words, {labels} labels"
        raise FormatError("the vocabulary of this file of fastText's cannot be", got=got, where=str(part.path))
    if pruned >= 0:
        raise quantized_error(part.path)
    words, counts, places = list[str](), np.zeros(n, dtype=np.int64), dict[str, int]()
    for place in range(n):
        word = part.word(place + 1)
        counts[place], label = part.next(_ENTRY)
        where = f"{part.path}, word {place + 1}"
        if label:
            raise FormatError("there is a label among the words", got=repr(word), where=where)
        if places.setdefault(word, place) != place:
            raise FormatError("a word stands twice in this file", got=f"{word!r}, also word {places[word] + 1}", where=where)
        words.append(word)
    return words, counts


def _mapped(path: Path, at: int, shape: tuple[int, int]) -> Matrix:
    return np.memmap(path, dtype="<f4", mode="r", offset=at, shape=shape) if shape[0] else np.zeros(shape, dtype=np.float32)


def write(file: IO[bytes], path: Path, words: Sequence[str], ngrams: NGrams) -> None:
    """Writes words and n-grams; of buckets that have no row zeros, and of outer vectors that are not known, too.

    Raises:
        DataError: a word holds a zero byte, or is too long.
        DiskFullError: there is no room for all buckets.
    """
    (size, width), outer = ngrams.own.shape, ngrams.outer
    files.check_room(path.parent, (2 * size + ngrams.buckets) * width * 4, "a file of fastText's, which has a row for each bucket")
    own = {"dim": width, "bucket": ngrams.buckets, "minn": ngrams.min_n, "maxn": ngrams.max_n}
    file.write(_HEADER.pack(MAGIC, VERSIONS[-1], *(SETTINGS | dict(ngrams.settings) | own).values()))
    file.write(_COUNTS.pack(size, size, 0, int(ngrams.counts.sum()), -1))
    for word, count in zip(words, ngrams.counts.tolist(), strict=True):
        letters = letters_of(word)
        if b"\0" in letters or len(letters) >= MAX_WORD_BYTES:
            raise DataError("this word cannot stand in a file of fastText's", got=repr(word[:60]), where=str(path))
        file.write(letters + b"\0" + _ENTRY.pack(max(1, count), 0))
    file.write(_MATRIX.pack(False, size + ngrams.buckets, width))
    for rows in _blocks(ngrams.own):
        file.write(rows)
    for rows in _buckets(ngrams, width):
        file.write(rows)
    file.write(_MATRIX.pack(False, size, width))
    for rows in _blocks(outer if outer is not None else np.broadcast_to(np.float32(0), (size, width))):
        file.write(rows)


def _blocks(matrix: Matrix) -> Iterator[bytes]:
    for start in range(0, len(matrix), _ROWS):
        yield np.ascontiguousarray(matrix[start : start + _ROWS], dtype="<f4").tobytes()


def _buckets(ngrams: NGrams, width: int) -> Iterator[bytes]:
    """The rows of all buckets."""
    for start in range(0, ngrams.buckets, _ROWS):
        buckets = np.arange(start, min(start + _ROWS, ngrams.buckets), dtype=np.int32)
        places = ngrams.places(buckets)
        block = np.zeros((len(buckets), width), dtype="<f4")
        block[places >= 0] = ngrams.rows[places[places >= 0]]
        yield block.tobytes()
