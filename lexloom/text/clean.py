"""Cleaning of texts: small steps, each with a switch, each counted; and filters that say why a text is left out."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lexloom.config import Config, Count
from lexloom.text.segment import guess_language

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Step = Callable[[str], str]


class CleanConfig(Config):
    """What is done to each text, in this order, and which texts are left out."""

    html: Literal["keep", "strip"] = "keep"
    """Take tags out and read entities (`&amp;`)."""
    control: bool = True
    """Take out control and zero-width characters, directional marks, soft hyphens and half surrogate pairs."""
    width: Literal["keep", "letters", "all"] = "keep"
    """Make full-width ASCII half-width: letters and digits (and the ideographic space), or all, Chinese punctuation such as ，！ too."""
    unicode: Literal["nfc", "nfkc", "keep"] = "nfc"
    """Unicode normal form. NFKC also folds ligatures, circled numbers and all full-width forms."""
    whitespace: bool = True
    """One kind of newline and of space, no space at the ends of lines, at most one empty line in a row."""
    boilerplate: Share | None = 0.3
    """Take out short lines that stand in more than this share of the documents of one source; null leaves them."""
    boilerplate_documents: Count = 50
    """A line must stand in at least this many documents to be taken for boilerplate."""
    languages: list[str] | None = None
    """Keep only these languages, as `guess_language` names them; texts too short to tell are kept."""
    min_characters: Count = 1
    max_characters: Count | None = None
    min_mean_word: float | None = None
    """Least mean length of words; not asked of texts in Chinese, Japanese or Korean. Gopher (Rae et al. 2021) uses 3."""
    max_mean_word: float | None = None
    """Gopher uses 10."""
    max_symbols: Share | None = None
    """Largest share of `#`, `…`, `...` and the like to words. Gopher uses 0.1."""
    max_repeated_lines: Share | None = None
    """Largest share of lines that stood in the text before. Gopher uses 0.3."""


class Cleaned(NamedTuple):
    """A text, or None and the reason why it is left out."""

    text: str | None
    reason: str = ""


class Cleaner:
    """Cleans texts by a `CleanConfig`: `cleaner(text)`. The result depends on the text and the settings alone.

    `changed` counts the texts that each step changed, `dropped` those left out, by reason.
    """

    def __init__(self, config: CleanConfig | None = None) -> None:
        self.config = config or CleanConfig()
        self.steps = steps(self.config)
        self.changed: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def __call__(self, text: str) -> Cleaned:
        return self.filter(self.normalise(text))

    def normalise(self, text: str) -> str:
        """The steps that look at one text alone."""
        for name, step in self.steps:
            after = step(text)
            if after is not text and after != text:
                self.changed[name] += 1
                text = after
        return text

    def filter(self, text: str) -> Cleaned:
        """Keeps a cleaned text or says why not."""
        reason = self.reason(text)
        if not reason:
            return Cleaned(text)
        self.dropped[reason] += 1
        return Cleaned(None, reason)

    def reason(self, text: str) -> str:
        """Why a cleaned text would be left out, or ""."""
        config = self.config
        if not text or text.isspace():
            return "empty"
        if len(text) < config.min_characters:
            return "too short"
        if config.max_characters is not None and len(text) > config.max_characters:
            return "too long"
        if config.languages is not None and (found := guess_language(text)) not in (*config.languages, "unknown"):
            return f"language {found}"
        return self._quality(text)

    def _quality(self, text: str) -> str:
        config = self.config
        if config.min_mean_word is not None or config.max_mean_word is not None:
            mean = mean_word(text)
            if mean is not None and mean < (config.min_mean_word or 0):
                return "words too short"
            if mean is not None and mean > (config.max_mean_word or float("inf")):
                return "words too long"
        if config.max_symbols is not None and symbol_share(text) > config.max_symbols:
            return "too many symbols"
        if config.max_repeated_lines is not None and repeated_lines(text) > config.max_repeated_lines:
            return "too many repeated lines"
        return ""


def steps(config: CleanConfig) -> list[tuple[str, Step]]:
    """The steps that are switched on, by name, in the order they are done."""
    chosen: list[tuple[str, Step | None]] = [
        ("html", strip_html if config.html == "strip" else None),
        ("control", strip_control if config.control else None),  # before the normal form: it may stand between a letter and its mark
        ("width", {"letters": half_width_letters, "all": half_width, "keep": None}[config.width]),
        ("unicode", {"nfc": nfc, "nfkc": nfkc, "keep": None}[config.unicode]),
        ("whitespace", tidy_whitespace if config.whitespace else None),
    ]
    return [(name, step) for name, step in chosen if step is not None]


_CONTROL, _WHITE, _WIDE, _JOINER, _MARK = 1, 2, 4, 8, 16
# Control characters but tab and line ends, soft hyphen, zero-width space, marks of direction, byte order marks, tags, non-characters.
_CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_NEWLINES = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_SPACES = "\t\x1f\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_JOINERS = re.compile("[\u200c\u200d]")
# Joiners shape Persian and Indic words and hold emoji together; next to Latin, Chinese or a space they are debris.
_DEBRIS = re.compile("(?<![^\\s\x00-\u024f\u2e80-\u9fff])[\u200c\u200d]|[\u200c\u200d](?![^\\s\x00-\u024f\u2e80-\u9fff])")
_HALF = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
_HALF_LETTERS = {code: half for code, half in _HALF.items() if chr(half).isalnum() or half == 0x20}
MAX_MARKS = 30


@cache
def _table() -> npt.NDArray[np.uint8]:
    """What each UTF-16 unit may be, as bits. Halves of surrogate pairs may be anything but white or wide."""
    table = np.zeros(1 << 16, dtype=np.uint8)
    for code in range(1 << 16):
        character = chr(code)
        white = character in _NEWLINES or character in _SPACES
        table[code] = (
            (_CONTROL if _CONTROLS.match(character) else 0)
            | (_WHITE if white else 0)
            | (_WIDE if code in _HALF else 0)
            | (_JOINER if _JOINERS.match(character) else 0)
            | (_MARK if unicodedata.combining(character) or 0xD800 <= code < 0xE000 else 0)
        )
    return table


@lru_cache(maxsize=2)
def _kinds(text: str) -> int:
    """Which kinds of characters a text may hold. One fast look, kept for the steps that follow: most texts need none of them."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    return int(np.bitwise_or.reduce(_table()[units])) if len(units) else 0


def nfc(text: str) -> str:
    """Unicode normal form C."""
    return text if text.isascii() else unicodedata.normalize("NFC", _few_marks(text))


def nfkc(text: str) -> str:
    """Unicode normal form KC."""
    return text if text.isascii() else unicodedata.normalize("NFKC", _few_marks(text))


def _few_marks(text: str) -> str:
    """No character bears more than MAX_MARKS combining marks: normalising takes the square of their number."""
    if not _kinds(text) & _MARK:
        return text
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")
    at = np.flatnonzero(_table()[units] & _MARK)
    if not (at[MAX_MARKS:] - at[:-MAX_MARKS] == MAX_MARKS).any():  # no such run
        return text
    return _many_marks().sub(lambda match: match.group()[:MAX_MARKS], text)


@cache
def _many_marks() -> re.Pattern[str]:
    marks = "".join(map(re.escape, filter(unicodedata.combining, map(chr, range(0x300, 0x20000)))))
    return re.compile(f"[{marks}]{{{MAX_MARKS + 1},}}")


def half_width(text: str) -> str:
    """Full-width ASCII as plain ASCII, Chinese punctuation such as ，and ！too."""
    return text.translate(_HALF) if _kinds(text) & _WIDE else text


def half_width_letters(text: str) -> str:
    """Full-width letters, digits and spaces as plain ones; punctuation stays."""
    return text.translate(_HALF_LETTERS) if _kinds(text) & _WIDE else text


def strip_control(text: str) -> str:
    """Takes out what has no width and no meaning in running text. Tabs and line ends stay."""
    kinds = _kinds(text)
    if kinds & _CONTROL:
        text = _CONTROLS.sub("", text)
    return _DEBRIS.sub("", text) if kinds & _JOINER else text


_EMPTY_LINES = re.compile("\n{3,}")


def tidy_whitespace(text: str) -> str:
    """Newlines are LF, other white space is one space, lines have none at their ends, and empty lines stand alone."""
    if _kinds(text) & _WHITE:  # replace() over and over is faster than one regular expression
        text = text.replace("\r\n", "\n")
        for newline in _NEWLINES:
            text = text.replace(newline, "\n")
        for space in _SPACES:
            text = text.replace(space, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    if " \n" in text or "\n " in text:
        text = text.replace(" \n", "\n").replace("\n ", "\n")
    return (_EMPTY_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip()


_TAG = re.compile(r"<(?:!--|/?[A-Za-z!?])")
_BLOCK = re.compile(r"</?(?:p|div|br|h[1-6]|li|ul|ol|tr|td|th|table|section|article|blockquote|pre|hr|title|body|head)\b", re.IGNORECASE)
_NO_TEXT = ("script", "style", "noscript", "template")


def strip_html(text: str) -> str:
    """Takes tags, comments, scripts and styles out of HTML and reads its entities. Block tags become newlines. Not a parser, but linear."""
    if "<" not in text and "&" not in text:
        return text
    pieces, place, lower = [], 0, text.lower()
    if len(lower) != len(text):  # rare letters grow when lowered; then case cannot be looked up by place
        lower = text
    gone: set[str] = set()  # closing marks that do not come any more: looked for once
    while (match := _TAG.search(text, place)) is not None:
        start = match.start()
        pieces.append(text[place:start])
        name = next((name for name in _NO_TEXT if lower.startswith(name, start + 1)), "")
        closing = "-->" if match.group() == "<!--" else f"</{name}" if name else ">"
        end = -1 if closing in gone else lower.find(closing, match.end())
        if end >= 0 and name:
            end = lower.find(">", end)
        if end < 0:
            gone.add(closing)
            pieces.append(text[start : match.end()])  # never closed: it is text
            place = match.end()
            continue
        place = end + (3 if closing == "-->" else 1)
        pieces.append("\n" if _BLOCK.match(text, start) else "")
    pieces.append(text[place:])
    return html.unescape("".join(pieces))


_SPACED_WORD = re.compile(r"\S+")
_SYMBOL = re.compile(r"[#…|•■◆●★☆{}<>\\^~]|\.\.\.")
_NO_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def mean_word(text: str) -> float | None:
    """Mean length of what stands between spaces; None for scripts written without them."""
    if len(_NO_SPACES.findall(text)) * 5 > len(text):
        return None
    words = text.split()
    return sum(map(len, words)) / len(words) if words else None


def symbol_share(text: str) -> float:
    """Symbols to words; characters count as words in scripts written without spaces."""
    words = max(len(text.split()), len(_NO_SPACES.findall(text)), 1)
    return len(_SYMBOL.findall(text)) / words


def repeated_lines(text: str) -> float:
    """The share of lines that stood in the text before."""
    lines = [line for line in text.split("\n") if line.strip()]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


class Boilerplate:
    """Finds the lines that stand in a large share of the documents of one source: two passes, bounded memory.

    The first pass counts documents by line with the algorithm of Misra and Gries (1982, "Finding repeated elements"): the table has
    at most 2 x `capacity` lines, and counts are too low by no more than lines / capacity, which `lines` makes up for.

    Args:
        share: a line is boilerplate when it stands in more than this share of the documents …
        documents: … and in at least this many of them.
    """

    MAX_LINE = 400

    def __init__(self, share: float, documents: int = 50, capacity: int = 100_000) -> None:
        self.share, self.documents, self.capacity = share, documents, capacity
        self.seen = 0
        self.lost = 0
        self.counts: dict[bytes, int] = {}
        self.shown: dict[bytes, str] = {}
        self._found: frozenset[bytes] | None = None

    def count(self, text: str) -> None:
        """First pass: takes one document."""
        self.seen += 1
        for line in {line.strip() for line in text.split("\n") if 0 < len(line) <= self.MAX_LINE}:
            if line:
                mark = _mark(line)
                self.counts[mark] = self.counts.get(mark, 0) + 1
        if len(self.counts) > 2 * self.capacity:
            self._shrink()

    def _shrink(self) -> None:
        threshold = sorted(self.counts.values(), reverse=True)[self.capacity]
        self.lost += threshold
        self.counts = {mark: n - threshold for mark, n in self.counts.items() if n > threshold}

    def marks(self) -> frozenset[bytes]:
        """The lines found, hashed."""
        if self._found is None:
            least = max(self.share * self.seen, self.documents - 1)
            self._found = frozenset(mark for mark, n in self.counts.items() if n + self.lost > least and n > self.lost)
            self.counts = {mark: n for mark, n in self.counts.items() if mark in self._found}
        return self._found

    def remove(self, text: str) -> str:
        """Second pass: the document without those lines."""
        marks = self.marks()
        if not marks:
            return text
        kept = []
        for line in text.split("\n"):
            stripped = line.strip()
            if 0 < len(line) <= self.MAX_LINE and stripped and (mark := _mark(stripped)) in marks:
                self.shown.setdefault(mark, stripped)
            else:
                kept.append(line)
        return _EMPTY_LINES.sub("\n\n", "\n".join(kept)).strip("\n")

    def report(self) -> list[dict[str, str | int]]:
        """The lines that were taken out and in how many documents they stood, most frequent first."""
        found = sorted(self.marks(), key=lambda mark: (-self.counts[mark], mark))
        return [{"line": self.shown.get(mark, ""), "documents": self.counts[mark] + self.lost} for mark in found]


def _mark(line: str) -> bytes:
    return hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest()
