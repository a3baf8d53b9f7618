"""Files of word vectors: word2vec's, GloVe's, fastText's, those of TensorBoard's projector, and our own.

    .safetensors        our own: `vectors` (V, D) float32, mapped when it is opened; `words`, UTF-8, and `ends`, where each ends; where
                        they are made of n-grams, also the rows of words `own` (V, D) and of n-grams `rows` (R, D), the buckets `held` (R,)
                        of these, and `counts` (V,)
    .bin                word2vec's binary file; of vectors made of n-grams fastText's: `fasttext_file.py`
    .txt .vec           word2vec's text file: a line "V D", then a word and D numbers a line
    .glove              the lines of the text file alone, as GloVe has them; `.txt` and `.vec` may lack the first line, too
    .tsv                numbers between tabs for TensorBoard's projector; its words in `NAME.metadata.tsv` beside it

Letters: V words, D width, R n-grams' rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lexloom import files
from lexloom.errors import ConfigError, DataError, FormatError
from lexloom.vectors import fasttext_file
from lexloom.vectors.ngrams import NGrams

Floats = npt.NDArray[np.float32]
ENDINGS = (".safetensors", ".bin", ".txt", ".vec", ".glove", ".tsv")
MAX_HEADER, MAX_WORD_BYTES = 1 << 16, 1 << 16
_ROWS = 1 << 12
_TYPES = {"F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_KINDS = {"vectors": "F32", "own": "F32", "rows": "F32", "held": "I32", "counts": "I64", "ends": "I64", "words": "U8"}
_LENGTHS = ("min_n", "max_n", "buckets")


def ending_of(path: Path | str) -> str:
    """The ending of a file of vectors.

    Raises:
        ConfigError: it is none of ours.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError("the ending says what kind of file it is", expected=", ".join(ENDINGS), got=ending or "none", where=str(path))
    return ending


def write(path: Path | str, words: Sequence[str], vectors: Floats, ngrams: NGrams | None = None) -> None:
    """Writes a file of the kind that its ending says.

    Args:
        ngrams: what the vectors are made of, which only `.safetensors` and `.bin` keep.

    Raises:
        ConfigError: the ending says none.
        DataError: a word cannot stand in such a file.
    """
    ending, place = ending_of(path), Path(path)
    if ending == ".tsv":
        # The words first: a reader that finds the numbers finds them, too.
        _write_lines(metadata_of(place), (_encoded(word, ending, place) for word in words))
        _write_lines(place, (_numbers(vector, "\t") for vector in vectors))
        return
    with files.replacing(place) as file:
        if ending == ".safetensors":
            _write_own(file, words, vectors, ngrams)
            return
        if ending == ".bin" and ngrams is not None:
            fasttext_file.write(file, place, words, ngrams)
            return
        if ending != ".glove":
            file.write(f"{vectors.shape[0]} {vectors.shape[1]}\n".encode())
        for word, vector in zip(words, vectors, strict=True):
            numbers = vector.astype("<f4").tobytes() if ending == ".bin" else _numbers(vector, " ")
            file.write(_encoded(word, ending, place) + b" " + numbers + b"\n")


def read(path: Path | str) -> tuple[list[str], Floats, NGrams | None]:
    """Words, vectors (V, D), and what these are made of where a file has it; those of `.safetensors` are mapped and not read.

    Raises:
        ConfigError: the ending says none, or the file does not exist.
        FormatError: the file is not what its ending says, or damaged; the line is named.
    """
    path = Path(path)
    if path.suffix.lower() == ".ftz":
        raise fasttext_file.quantized_error(path)
    ending = ending_of(path)
    if not path.is_file():
        raise ConfigError("this file of vectors does not exist", where=str(path))
    if ending == ".safetensors":
        return _read_own(path)
    if ending == ".bin" and fasttext_file.is_one(path):
        return fasttext_file.read(path)
    if ending == ".tsv":
        return *_read_tsv(path), None
    with path.open("rb") as file:
        return *(_read_binary(file, path) if ending == ".bin" else _read_text(file, path, headed=ending != ".glove")), None


def metadata_of(path: Path) -> Path:
    """Where the words of a projector's file stand."""
    return path.with_name(f"{path.stem}.metadata.tsv")


def _encoded(word: str, ending: str, path: Path) -> bytes:
    """A word as it stands in a file, where it can: a word of white space, or of half a character, would be read as another one."""
    try:
        if word and (word.split() == [word] or (ending == ".tsv" and not {*word} & {*"\t\r\n"})):
            return word.encode()
    except UnicodeEncodeError:
        pass
    hint = "save it as .safetensors, which holds any word"
    raise DataError(
        "a word with white space, or half a character, cannot stand in this kind of file", got=repr(word), where=str(path), hint=hint
    )


def _numbers(vector: Floats, between: str) -> bytes:
    return between.join(vector.astype(np.float32).astype(str)).encode()


def _write_lines(path: Path, lines: Iterator[bytes]) -> None:
    with files.replacing(path) as file:
        for line in lines:
            file.write(line + b"\n")


def _write_own(file: IO[bytes], words: Sequence[str], vectors: Floats, ngrams: NGrams | None) -> None:
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    parts: dict[str, npt.NDArray[Any]] = {"vectors": vectors}
    about = {"format": str(files.FORMAT), "kind": "word vectors"}
    if ngrams is not None:
        parts |= {"own": ngrams.own, "rows": ngrams.rows, "held": ngrams.held, "counts": ngrams.counts}
        about |= {"min_n": str(ngrams.min_n), "max_n": str(ngrams.max_n), "buckets": str(ngrams.buckets)}
    parts["ends"] = np.cumsum([len(word) for word in encoded], dtype=np.int64)
    parts["words"] = np.array(bytearray().join(encoded), dtype=np.uint8)
    header, at = dict[str, Any]({"__metadata__": about}), 0
    for name, part in parts.items():
        kind, end = _KINDS[name], at + part.size * np.dtype(_TYPES[_KINDS[name]]).itemsize
        header[name] = {"dtype": kind, "shape": list(part.shape), "data_offsets": [at, end]}
        at = end
    content = json.dumps(header).encode()
    content += b" " * (-(8 + len(content)) % 64)  # vectors begin with a line of memory
    file.write(len(content).to_bytes(8, "little") + content)
    for name, part in parts.items():
        for start in range(0, len(part), _ROWS):
            file.write(np.ascontiguousarray(part[start : start + _ROWS], dtype=_TYPES[_KINDS[name]]).tobytes())


def _read_own(path: Path) -> tuple[list[str], Floats, NGrams | None]:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= MAX_HEADER else {}
        about = header["__metadata__"]
        parts = {
            name: (8 + size + entry["data_offsets"][0], tuple(map(int, entry["shape"]))) for name, entry in header.items() if name in _KINDS
        }
        whole = 8 + size + header["words"]["data_offsets"][1]
        number, lengths = int(about["format"]), [int(about[name]) for name in _LENGTHS] if "rows" in parts else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError("this is no file of word vectors", got=f"{type(error).__name__}: {error}", where=str(path)) from None
    files.check_format({"format": number}, path)
    if path.stat().st_size != whole:
        raise FormatError("this file of word vectors is cut", expected=f"{whole} bytes", got=str(path.stat().st_size), where=str(path))
    _check_shapes({name: shape for name, (_, shape) in parts.items()}, path)
    found = {name: _mapped(path, at, shape, _KINDS[name], whole) for name, (at, shape) in parts.items()}
    words = _spelt(found["words"].tobytes(), found["ends"], path)
    if lengths is None:
        return words, found["vectors"], None
    if not 1 <= lengths[0] <= lengths[1] <= MAX_WORD_BYTES or not 0 < lengths[2] < 1 << 31:
        raise FormatError("there are no such n-grams", got=str(dict(zip(_LENGTHS, lengths, strict=True))), where=str(path))
    least, most, buckets = lengths
    return (
        words,
        found["vectors"],
        NGrams(least, most, buckets, found["own"], found["rows"], np.array(found["held"]), np.array(found["counts"])),
    )


def _spelt(letters: bytes, ends: npt.NDArray[np.int64], path: Path) -> list[str]:
    """The words of our own file."""
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    try:
        if (ends < starts).any() or (ends[-1] if len(ends) else 0) != len(letters):
            raise ValueError("words end before they begin")
        return [letters[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    except ValueError as error:
        raise FormatError("the words of this file are damaged", got=str(error)[:200], where=str(path)) from None


def _check_shapes(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    """Whether the parts of our own file fit each other.

    Raises:
        FormatError: they do not.
    """
    expected = {"vectors": "VD", "ends": "V", "words": "L"} | (
        {"own": "VD", "rows": "RD", "held": "R", "counts": "V"} if "rows" in shapes else {}
    )
    sizes: dict[str, int] = {}
    for name, letters in expected.items():
        shape = shapes.get(name, ())
        if len(shape) != len(letters) or any(
            size < 0 or sizes.setdefault(letter, size) != size for letter, size in zip(letters, shape, strict=True)
        ):
            raise FormatError("the parts of this file of word vectors do not fit", expected=letters, got=f"{name} {shape}", where=str(path))


def _mapped(path: Path, at: int, shape: tuple[int, ...], kind: str, whole: int) -> npt.NDArray[Any]:
    dtype = np.dtype(_TYPES[kind])
    if not 0 <= at <= at + math.prod(shape) * dtype.itemsize <= whole:
        raise FormatError("this file of word vectors is cut", expected=f"{shape} from byte {at}", got=f"{whole} bytes", where=str(path))
    return np.memmap(path, dtype=dtype, mode="r", offset=at, shape=shape) if math.prod(shape) else np.zeros(shape, dtype=dtype)


def _sizes(line: bytes, where: str) -> tuple[int, int]:
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        got = line[:60].decode("utf-8", "replace").strip()
        raise FormatError("the first line is not how many words and numbers there are", expected="V D", got=repr(got), where=f"{where}:1")
    return int(parts[0]), int(parts[1])


def _room(rows: int, width: int, least: int, path: Path) -> Floats:
    """Room for the vectors, where the file is long enough for what its first line says: a wrong one asks for any amount of memory.

    Args:
        least: bytes that a number and what parts it from the next take.
    """
    if rows * width * least > path.stat().st_size:
        got = f"{path.stat().st_size} bytes in all"
        raise FormatError("this file of vectors is cut", expected=f"{rows} words of {width} numbers", got=got, where=str(path))
    return np.empty((rows, width), dtype=np.float32)


def _read_text(file: IO[bytes], path: Path, *, headed: bool) -> tuple[list[str], Floats]:
    """Lines of a word and its numbers. The word may hold spaces, as some of GloVe's do: the numbers are counted from the end."""
    line = file.readline(MAX_HEADER)
    if headed and len(line.split()) < 3:
        (rows, width), first = _sizes(line, str(path)), 2
    else:
        rows, width, first = 1 + _lines(file), len(line.split()) - 1, 1
        file.seek(0)
    if width < 1:
        raise FormatError("this line is not a word and its numbers", got=repr(line[:60].decode("utf-8", "replace")), where=f"{path}:1")
    words, vectors = list[str](), _room(rows, width, 2, path)
    for number, line in enumerate(file, start=first):
        parts = line.rstrip().rsplit(b" ", width)
        if len(words) == rows or len(parts) != width + 1:
            got = f"{len(parts) - 1} numbers" if len(words) < rows else "one more"
            raise FormatError(
                "this line is not a word and its numbers", expected=f"{rows} lines of {width} numbers", got=got, where=f"{path}:{number}"
            )
        vectors[len(words)] = _row(parts[1:], f"{path}:{number}")
        words.append(_decoded(parts[0], f"{path}:{number}"))
    return _whole(words, rows, path, first), vectors


def _lines(file: IO[bytes]) -> int:
    """Lines from here on; a last one need not end."""
    found, last = 0, b"\n"
    while block := file.read(1 << 20):
        found, last = found + block.count(b"\n"), block[-1:]
    return found + (last != b"\n")


def _row(numbers: Sequence[bytes], where: str) -> Floats:
    try:
        return np.array(numbers, dtype=np.float32)
    except ValueError as error:
        raise FormatError("this line is not a word and its numbers", got=str(error)[:80], where=where) from None


def _decoded(word: bytes, where: str) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError as error:
        raise FormatError("a word is not UTF-8", got=f"{word!r}: {error.reason}", where=where) from None


def _read_binary(file: IO[bytes], path: Path) -> tuple[list[str], Floats]:
    rows, width = _sizes(file.readline(MAX_HEADER), str(path))
    words, vectors = list[str](), _room(rows, width, 4, path)
    for place in range(rows):
        word = bytearray()
        while (letter := file.read(1)) not in (b" ", b"") and len(word) < MAX_WORD_BYTES:
            word += letter if letter != b"\n" else b""
        content = file.read(4 * width)
        if len(content) < 4 * width:
            break
        words.append(_decoded(bytes(word), f"{path}, word {place + 1}"))
        vectors[place] = np.frombuffer(content, dtype="<f4")
    return _whole(words, rows, path, 2), vectors


def _read_tsv(path: Path) -> tuple[list[str], Floats]:
    """Numbers, and the first column of the words' file; where that has several columns, its first line names them."""
    beside = metadata_of(path)
    if not beside.is_file():
        raise ConfigError("the words of these vectors are missing", expected=beside.name, where=str(beside))
    told = beside.read_bytes().removesuffix(b"\n").split(b"\n")
    first = 2 if b"\t" in told[0] else 1
    words = [
        _decoded(line.rstrip(b"\r").split(b"\t")[0], f"{beside}:{number}") for number, line in enumerate(told[first - 1 :], start=first)
    ]
    with path.open("rb") as file:
        width = len(file.readline().split(b"\t"))
        file.seek(0)
        vectors = _room(len(words), width, 2, path)
        number = 0
        for number, line in enumerate(file, start=1):
            parts = line.strip().split(b"\t")
            if number > len(words) or len(parts) != width:
                expected, got = f"{len(words)} lines of {width} numbers", f"{len(parts)} numbers" if number <= len(words) else "one more"
                raise FormatError("this line is not the numbers of a word", expected=expected, got=got, where=f"{path}:{number}")
            vectors[number - 1] = _row(parts, f"{path}:{number}")
    if number < len(words):
        raise FormatError("this file of vectors is cut", expected=f"{len(words)} words", got=str(number), where=str(path))
    return _whole(words, len(words), beside, first), vectors


def _whole(words: list[str], rows: int, path: Path, first: int) -> list[str]:
    """The words, where they are all there and each once; `first` is the line of the first one."""
    if len(words) < rows:
        raise FormatError("this file of vectors is cut", expected=f"{rows} words", got=str(len(words)), where=str(path))
    if len(set(words)) < rows:
        lines: dict[str, int] = {}
        for number, word in enumerate(words, start=first):
            if lines.setdefault(word, number) != number:
                raise FormatError("a word stands twice in this file", got=f"{word!r}, also line {lines[word]}", where=f"{path}:{number}")
    return words
