"""Lines of text files: plain, gzip or zstandard, in bounded memory, with the encoding found out and damage told apart."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from lexloom.errors import ConfigError, nearest

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 8 << 20
LIMIT = 1 << 30
"""No setting of a line's length may go beyond this."""
Progress = Callable[[int], None]
_COMMON = frozenset(
    "的一是不了在人有我他这這个個们們中来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着下自之年过過发發后後作里用道行所然家种事成方多经經么麼去法学學如都同现現当當没沒动動面起看定天分还還进進好小部其些主样樣理心本前开開但因只从從想日月市"
)


class Damaged(Exception):
    """A compressed stream ends too early or cannot be unpacked; what came before it is good."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding a file is read in, and what speaks for it.

    Args:
        name: a Python codec.
        lines: how many lines were looked at; 0 where the encoding was given.
        undecodable: how many of them are not of this encoding, as far as that is known: they will be bad rows.
    """

    name: str
    lines: int = 0
    undecodable: int = 0


def blocks(path: Path, progress: Progress | None = None) -> Iterator[bytes]:
    """The unpacked bytes of a file, about a mebibyte at a time. Compression is told by the first bytes, not by the name.

    Args:
        progress: called with the number of bytes of the file read so far.

    Raises:
        Damaged: after the last good block, when the compressed stream is cut or broken.
    """
    with path.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        unpack = _gunzip if magic[:3] == b"\x1f\x8b\x08" else _unzstd if magic == b"\x28\xb5\x2f\xfd" else _plain
        for block in unpack(raw):
            yield block
            if progress is not None:
                progress(raw.tell())


def _plain(raw: BinaryIO) -> Iterator[bytes]:
    while block := raw.read(BLOCK_BYTES):
        yield block


def _gunzip(raw: BinaryIO) -> Iterator[bytes]:
    # zlib by hand: gzip.GzipFile loses what it has already unpacked when it comes upon the cut.
    decoder = zlib.decompressobj(wbits=31)
    try:
        while chunk := raw.read(BLOCK_BYTES // 4):
            while chunk:
                if decoder.eof:  # another member, or the zeros that tape archives are padded with
                    chunk = chunk.lstrip(b"\0")
                    if not chunk:
                        break
                    decoder = zlib.decompressobj(wbits=31)
                if block := decoder.decompress(chunk, BLOCK_BYTES):
                    yield block
                chunk = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        while not decoder.eof and (block := decoder.decompress(b"", BLOCK_BYTES)):
            yield block
    except zlib.error as error:
        raise Damaged(f"the gzip stream is damaged ({error})") from None
    if not decoder.eof:
        raise Damaged("the gzip stream is cut")


def _unzstd(raw: BinaryIO) -> Iterator[bytes]:
    try:
        with pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") as stream:
            while block := stream.read(BLOCK_BYTES // 4):
                yield block
    except (OSError, pa.ArrowException) as error:
        raise Damaged(f"the zstandard stream is cut or damaged ({error})") from None


def byte_lines(
    path: Path, encoding: str, limit: int = MAX_LINE_BYTES, progress: Progress | None = None
) -> Iterator[tuple[int, bytes, str]]:
    """Lines as (number from 1, bytes, what is wrong or ""), in memory bounded by `limit`.

    Lines end with LF, CR LF or CR, mixed as they come; the ends are taken off. Bytes are those of the file's encoding, or UTF-8
    where that encoding has no ASCII newlines (UTF-16). A line over the limit comes with its first bytes only, and the line at
    which a compressed stream breaks off comes with what is there of it.
    """
    number, skipped, held = 0, 0, _Held()
    try:
        for block in _newlines(_transcoded(blocks(path, progress), encoding)):
            if b"\n" not in block:
                held.add(block)
                skipped += held.cut(200) if held.size > limit or skipped else 0
                continue
            *whole, rest = (held.take() + block).split(b"\n")
            for line in whole:
                number += 1
                yield (number, line[:200], _too_long(limit)) if skipped + len(line) > limit else (number, line, "")
                skipped = 0
            held.add(rest)
    except Damaged as damage:
        yield number + 1, held.take()[:200], str(damage)
        return
    if rest := held.take():
        yield (number + 1, rest[:200], _too_long(limit)) if skipped + len(rest) > limit else (number + 1, rest, "")


class _Held:
    """The pieces of a line whose end has not come yet."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0

    def add(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.size += len(piece)

    def take(self) -> bytes:
        whole = b"".join(self.pieces)
        self.pieces, self.size = [], 0
        return whole

    def cut(self, size: int) -> int:
        """Keeps the first `size` bytes and says how many went."""
        whole = self.take()
        self.add(whole[:size])
        return max(0, len(whole) - size)


def _too_long(limit: int) -> str:
    return f"the line is longer than {limit} bytes"


def _newlines(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Makes CR LF and CR to LF; a CR at the end of a block waits for what follows."""
    held = b""
    for block in stream:
        if held or b"\r" in block:
            block = held + block
            held = b"\r" if block.endswith(b"\r") else b""
            block = block[: len(block) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield block
    if held:
        yield b"\n"


def _transcoded(stream: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Makes UTF-8 of encodings whose newline is not the byte 10; what cannot be decoded turns into U+FFFD."""
    if has_byte_lines(encoding):
        yield from stream
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for block in stream:
        yield decoder.decode(block).encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def has_byte_lines(encoding: str) -> bool:
    """Whether ASCII stands for itself, so that lines can be cut before they are decoded."""
    return "\n{}".encode(encoding) == b"\n{}"


def decode(line: bytes, encoding: str) -> str:
    """A line as text, without a byte order mark.

    Raises:
        ValueError: it is not of that encoding, or holds a NUL; the message is the reason for a report.
    """
    if b"\0" in line:
        raise ValueError("the line holds a NUL byte")
    try:
        text = line.decode(encoding if has_byte_lines(encoding) else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding}: byte 0x{line[error.start]:02x} at column {error.start + 1}") from None
    if "\ufffd" in text and not has_byte_lines(encoding):
        raise ValueError(f"not {encoding}")
    return text.removeprefix("\ufeff")


def check_encoding(name: str) -> str:
    """The codec's own name.

    Raises:
        ConfigError: Python has no such text codec.
    """
    known = (
        "utf-8",
        "gb18030",
        "gbk",
        "gb2312",
        "big5",
        "utf-16",
        "latin-1",
        "cp1252",
        "shift_jis",
        "euc-jp",
        "euc-kr",
        "koi8-r",
        "cp1251",
    )
    try:
        info = codecs.lookup(name)
        if not getattr(info, "_is_text_encoding", True) or "\n".encode(info.name).decode(info.name) != "\n":
            raise LookupError
    except (LookupError, UnicodeError, ValueError):
        guess = nearest(name, known)
        hint = f"did you mean {guess!r}?" if guess else None
        raise ConfigError("there is no such encoding", expected="auto, " + ", ".join(known), got=name, hint=hint) from None
    return "utf-8" if info.name == "utf-8-sig" else info.name


def find_encoding(path: Path, limit: int = MAX_LINE_BYTES) -> Encoding:
    """Looks at every line of a file and chooses UTF-8, UTF-16 (by its mark only), or GB18030.

    UTF-8 is tried first and strictly. Where lines fail, the question is whether the file is in GB18030 or is UTF-8 with damage.
    It is taken for GB18030 when at least 1 % of the lines fail, these are the greater part of the lines that are not plain ASCII
    (in a UTF-8 file the other such lines decode), and what they say in GB18030 looks Chinese (the bytes of Latin-1 often decode
    too, but to rare characters). Otherwise it stays UTF-8, and the lines that fail will be bad rows.
    """
    with path.open("rb") as raw:
        if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return Encoding("utf-16")
    tally = _Tally()
    for _, line, problem in byte_lines(path, "utf-8", limit):
        if not problem:  # a line that is too long is a bad row whatever it holds
            tally.add(line)
    return tally.verdict()


class _Tally:
    """Counts over lines: all, not ASCII, not UTF-8, and a sample of the latter."""

    def __init__(self) -> None:
        self.lines = self.beyond_ascii = self.failed = self.sampled = 0
        self.sample: list[bytes] = []

    def add(self, line: bytes) -> None:
        self.lines += 1
        if line.isascii():
            return
        self.beyond_ascii += 1
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            self.failed += 1
            if self.sampled < BLOCK_BYTES:
                self.sample.append(line[: BLOCK_BYTES // 4])
                self.sampled += len(self.sample[-1])

    def verdict(self) -> Encoding:
        if self.failed * 100 >= max(1, self.lines) and self.failed * 2 > self.beyond_ascii:
            decoded = [text for line in self.sample if (text := _gb18030(line)) is not None]
            if len(decoded) >= 0.9 * len(self.sample) and _looks_chinese("".join(decoded)):
                return Encoding("gb18030", self.lines, len(self.sample) - len(decoded))
        return Encoding("utf-8", self.lines, self.failed)


def _gb18030(line: bytes) -> str | None:
    for end in (len(line), len(line) - 1, len(line) - 2, len(line) - 3):  # the sample may cut a character
        try:
            return line[:end].decode("gb18030")
        except UnicodeDecodeError:
            if len(line) < BLOCK_BYTES // 4:
                return None
    return None


def _looks_chinese(text: str) -> bool:
    """Whether most of what is not ASCII stands in GB 2312, as living Chinese does, and common characters are common."""
    beyond = [character for character in text if ord(character) > 127]
    in_gb2312 = len("".join(beyond).encode("gb2312", "ignore")) / 2
    common = sum(character in _COMMON for character in beyond)
    return in_gb2312 >= 0.5 * max(1, len(beyond)) and (len(beyond) < 100 or common >= 0.03 * len(beyond))
