"""Word vectors in use and on disk.

    .bin                word2vec's binary file            .txt .vec    its text file: a line "V D", then a word and D numbers a line
    .safetensors        our own: `vectors` (V, D) float32, mapped when it is opened; `words`, UTF-8, and `ends`, where each ends

Letters: V words, D width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from lexloom import files
from lexloom.errors import ConfigError, DataError, FormatError

Floats = npt.NDArray[np.float32]
ENDINGS = (".safetensors", ".bin", ".txt", ".vec")
MAX_HEADER, MAX_WORD_BYTES = 1 << 16, 1 << 16
_ROWS = 1 << 12


class WordVectors:
    """A vector a word.

    Attributes:
        index_to_key: the words, the most frequent first. key_to_index: word -> place. vectors: (V, D) float32.
    """

    def __init__(self, words: Sequence[str], vectors: Floats) -> None:
        if len(words) != len(vectors):
            raise DataError("there is not one vector a word", expected=f"{len(words):,} vectors", got=f"{len(vectors):,}")
        self.index_to_key, self.vectors = list(words), vectors
        self.key_to_index = {word: place for place, word in enumerate(self.index_to_key)}

    def __len__(self) -> int:
        return len(self.index_to_key)

    def __contains__(self, word: object) -> bool:
        return word in self.key_to_index

    def __getitem__(self, word: str) -> Floats:
        return self.vectors[self.key_to_index[word]]

    def save(self, path: Path | str) -> None:
        """Writes a file of the kind that its ending says.

        Raises:
            ConfigError: the ending says none.
            DataError: a word cannot stand in such a file.
        """
        ending = ending_of(path)
        with files.replacing(path) as file:
            if ending == ".safetensors":
                _write_own(file, self.index_to_key, self.vectors)
            else:
                _write_word2vec(file, self.index_to_key, self.vectors, text=ending != ".bin", where=str(path))

    @classmethod
    def load(cls, path: Path | str) -> WordVectors:
        """Opens a file of the kind that its ending says; `.safetensors` is mapped and not read.

        Raises:
            ConfigError: the ending says none.
            FormatError: the file is not what its ending says, or damaged; the line is named.
        """
        path, ending = Path(path), ending_of(path)
        if not path.is_file():
            raise ConfigError("this file of vectors does not exist", where=str(path))
        if ending == ".safetensors":
            return cls(*_read_own(path))
        with path.open("rb") as file:
            return cls(*(_read_binary if ending == ".bin" else _read_text)(file, str(path)))


def ending_of(path: Path | str) -> str:
    """The ending of a file of vectors.

    Raises:
        ConfigError: it is none of ours.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError("the ending says what kind of file it is", expected=", ".join(ENDINGS), got=ending or "none", where=str(path))
    return ending


def _write_own(file: IO[bytes], words: Sequence[str], vectors: Floats) -> None:
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    ends = np.cumsum([len(word) for word in encoded], dtype="<i8")
    whole = {"vectors": ("F32", vectors.shape), "ends": ("I64", ends.shape), "words": ("U8", (int(ends[-1]) if len(ends) else 0,))}
    header, at = {"__metadata__": {"format": str(files.FORMAT), "kind": "word vectors"}}, 0
    for name, (dtype, shape) in whole.items():
        size = int(np.prod(shape)) * {"F32": 4, "I64": 8, "U8": 1}[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}  # type: ignore[dict-item]
        at += size
    content = json.dumps(header).encode()
    content += b" " * (-(8 + len(content)) % 64)  # vectors begin with a line of memory
    file.write(len(content).to_bytes(8, "little") + content)
    for start in range(0, len(vectors), _ROWS):
        file.write(np.ascontiguousarray(vectors[start : start + _ROWS], dtype="<f4").tobytes())
    file.write(ends.tobytes())
    file.write(b"".join(encoded))


def _read_own(path: Path) -> tuple[list[str], Floats]:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= MAX_HEADER else {}
        about, (rows, width) = header["__metadata__"], header["vectors"]["shape"]
        parts = {name: 8 + size + header[name]["data_offsets"][0] for name in ("vectors", "ends", "words")}
        whole = 8 + size + header["words"]["data_offsets"][1]
        number = int(about["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError("this is no file of word vectors", got=f"{type(error).__name__}: {error}", where=str(path)) from None
    files.check_format({"format": number}, path)
    if path.stat().st_size != whole:
        raise FormatError("this file of word vectors is cut", expected=f"{whole} bytes", got=str(path.stat().st_size), where=str(path))
    vectors = np.memmap(path, dtype="<f4", mode="r", offset=parts["vectors"], shape=(rows, width))
    ends = np.fromfile(path, dtype="<i8", count=rows, offset=parts["ends"]).tolist()
    letters = np.fromfile(path, dtype=np.uint8, offset=parts["words"]).tobytes()
    return [letters[a:b].decode("utf-8", "surrogatepass") for a, b in zip([0, *ends[:-1]], ends, strict=True)], vectors


def _write_word2vec(file: IO[bytes], words: Sequence[str], vectors: Floats, *, text: bool, where: str) -> None:
    """As word2vec.c and gensim write it: a word, a space, and its numbers."""
    file.write(f"{vectors.shape[0]} {vectors.shape[1]}\n".encode())
    for word, vector in zip(words, vectors, strict=True):
        if not word or word.split() != [word]:
            hint = "save it as .safetensors, which holds any word"
            raise DataError("a word with white space cannot stand in this kind of file", got=repr(word), where=where, hint=hint)
        head = word.encode("utf-8", "replace") + b" "
        if text:
            file.write(head + " ".join(vector.astype(np.float32).astype(str)).encode() + b"\n")
        else:
            file.write(head + vector.astype("<f4").tobytes() + b"\n")


def _sizes(line: bytes, where: str) -> tuple[int, int]:
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        got = line[:60].decode("utf-8", "replace").strip()
        raise FormatError("the first line is not how many words and numbers there are", expected="V D", got=repr(got), where=f"{where}:1")
    return int(parts[0]), int(parts[1])


def _read_text(file: IO[bytes], where: str) -> tuple[list[str], Floats]:
    rows, width = _sizes(file.readline(MAX_HEADER), where)
    words, vectors = list[str](), np.empty((rows, width), dtype=np.float32)
    for number, line in enumerate(file, start=2):
        parts = line.rstrip().rsplit(b" ", width)
        if len(words) == rows or len(parts) != width + 1:
            got = f"{len(parts) - 1} numbers" if len(words) < rows else "one more"
            raise FormatError(
                "this line is not a word and its numbers", expected=f"{rows} lines of {width} numbers", got=got, where=f"{where}:{number}"
            )
        try:
            vectors[len(words)] = np.array(parts[1:], dtype=np.float32)
            words.append(parts[0].decode())
        except ValueError as error:
            raise FormatError("this line is not a word and its numbers", got=str(error)[:80], where=f"{where}:{number}") from None
    return _whole(words, rows, where), vectors


def _read_binary(file: IO[bytes], where: str) -> tuple[list[str], Floats]:
    rows, width = _sizes(file.readline(MAX_HEADER), where)
    words, vectors = list[str](), np.empty((rows, width), dtype=np.float32)
    for place in range(rows):
        word = bytearray()
        while (letter := file.read(1)) not in (b" ", b"") and len(word) < MAX_WORD_BYTES:
            word += letter if letter != b"\n" else b""
        content = file.read(4 * width)
        if len(content) < 4 * width:
            break
        try:
            words.append(word.decode())
        except UnicodeDecodeError as error:
            raise FormatError("a word is not UTF-8", got=str(error), where=f"{where}, word {place + 1}") from None
        vectors[place] = np.frombuffer(content, dtype="<f4")
    return _whole(words, rows, where), vectors


def _whole(words: list[str], rows: int, where: str) -> list[str]:
    if len(words) < rows:
        raise FormatError("this file of vectors is cut", expected=f"{rows} words", got=str(len(words)), where=where)
    if len(set(words)) < rows:
        seen: set[str] = set()
        number, word = next((n, word) for n, word in enumerate(words, start=2) if word in seen or seen.add(word))  # type: ignore[func-returns-value]
        raise FormatError("a word stands twice in this file", got=repr(word), where=f"{where}:{number}")
    return words
