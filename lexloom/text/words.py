"""Words: where they begin in a text, and which tokens of any tokenizer go on with one, by the characters that each token covers.

A word is a run of letters, digits and their marks (`don't`, `1,000.5`, `naïve` are one each); a Chinese word as the segmenter cuts it; one
letter of other scripts without spaces (Thai, Hiragana); a sign, or a run of the same sign; an emoji with all that is joined to it. The
space before a word goes with it, for so byte-level and unigram tokens hold it; other white space stands for itself.

Letters: C characters of all texts together, N tokens.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lexloom.text.segment import Words

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]
_SPACE, _BLANK, _LETTER, _DIGIT, _HAN, _ALONE, _KATAKANA, _MARK, _FLAG, _SIGN, _QUOTE, _POINT = range(12)
_JOINER = 0x200D
_RANGES = {
    _HAN: ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
    _ALONE: ((0x0E01, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17DD), (0x3041, 0x309F), (0x3105, 0x312F)),
    _KATAKANA: ((0x30A1, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
}
_EXACT = {_QUOTE: "'’", _POINT: ".,", _LETTER: "_", _SPACE: " ", _SIGN: "\u30fb"}


class WordBorders:
    """Finds words. The Chinese segmenter is built when the first Chinese text comes."""

    def __init__(self) -> None:
        self._segmenter: Words | None = None

    def continuing(self, texts: Sequence[str], lengths: Ints, offsets: Ints) -> Bools:
        """Which tokens go on with the word of the token before them in their text: (N,).

        What a token covers of two words makes one of them, so that groups of tokens are never less than words.

        Args:
            lengths: tokens of each text.
            offsets: (N, 2) the characters that each token covers in its text.
        """
        sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        numbers = np.append(self.numbers(texts), -1)
        begins = np.repeat(np.cumsum(sizes) - sizes, lengths)
        last = np.repeat(np.maximum(sizes - 1, 0), lengths)  # a token that covers nothing stands at the character behind it
        first_at = np.minimum(offsets[:, 0], last)
        last_at = np.minimum(np.maximum(offsets[:, 1] - 1, first_at), last)
        first, end = numbers[begins + first_at], np.maximum.accumulate(numbers[begins + last_at])
        found = np.zeros(len(first), dtype=np.bool_)
        found[1:] = first[1:] <= end[:-1]
        starts = np.cumsum(lengths) - lengths
        found[starts[np.asarray(lengths) > 0]] = False
        return found

    def numbers(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """The number of each character's word, growing through all texts: (C,). No word goes on into the next text."""
        whole = "".join(texts)
        codes = np.frombuffer(whole.encode("utf-32-le", "replace"), dtype=np.uint32)
        if not len(codes):
            return np.zeros(0, dtype=np.int64)
        ends = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
        first = np.zeros(len(codes), dtype=np.bool_)
        first[[0, *ends[ends < len(codes)].tolist()]] = True
        kinds = _classes()[codes]
        kinds[(kinds == _MARK) & (first | (_before(kinds) <= _BLANK))] = _SIGN  # a mark with nothing to stand on
        joins = _joins(codes, kinds, first)
        self._cut_chinese(whole, kinds, first, joins)
        return np.cumsum(first | ~joins) - 1

    def _cut_chinese(self, whole: str, kinds: npt.NDArray[np.uint8], first: Bools, joins: Bools) -> None:
        """Puts the segmenter's words into `joins`, where Chinese characters stand beside each other, letters or digits."""
        inside = (kinds == _HAN) | (kinds == _LETTER) | (kinds == _DIGIT)
        begins = np.flatnonzero(inside & (first | ~_before(inside)))
        if not (kinds == _HAN).any():
            return
        chinese = np.logical_or.reduceat(kinds == _HAN, begins)
        ends = np.flatnonzero(inside & np.append(first[1:] | ~inside[1:], True)) + 1
        begins, ends = begins[chinese], ends[chinese]
        self._segmenter = self._segmenter or Words()
        words = self._segmenter("\n".join(whole[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)))
        sizes = ends - begins
        places = np.arange(int(sizes.sum())) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
        lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
        assert lengths.sum() == len(places), "the segmenter gives back all it was given"
        goes_on = np.ones(len(places), dtype=np.bool_)
        goes_on[np.cumsum(lengths) - lengths] = False
        han = kinds == _HAN
        beside = (han | _before(han))[places]
        beside[np.cumsum(sizes) - sizes] = False  # before a run nothing changes
        joins[places[beside]] = goes_on[beside]


def _before(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The value before each; at the first that of nothing."""
    found = np.zeros_like(values)
    found[1:] = values[:-1]
    return found


def _joins(codes: npt.NDArray[np.uint32], kinds: npt.NDArray[np.uint8], first: Bools) -> Bools:
    """Which characters go on with the word before them, Chinese ones apart."""
    base = np.maximum.accumulate(np.where(kinds == _MARK, 0, np.arange(len(kinds))))
    left = np.where(first, _SIGN, _before(kinds[base]))  # of the last character that is no mark
    after = np.append(kinds[1:], _SIGN)
    after[:-1][first[1:]] = _SIGN
    spelt, spelt_left = (kinds == _LETTER) | (kinds == _DIGIT), (left == _LETTER) | (left == _DIGIT)
    joins = (kinds == _MARK) | (spelt & spelt_left) | ((kinds == left) & ((kinds == _KATAKANA) | (kinds == _FLAG)))
    for sign, beside in ((_QUOTE, _LETTER), (_POINT, _DIGIT)):
        between = (kinds == sign) & (left == beside) & (after == beside)
        joins |= between | (_before(between) & (kinds == beside))
    same = (codes == _before(codes)) & ((kinds >= _SIGN) | (kinds <= _BLANK))
    leads = (kinds == _SPACE) & (after > _BLANK)  # the space before a word
    joins |= (same & ~leads) | _before(leads) | ((kinds == _SIGN) & (_before(codes) == _JOINER))
    return np.asarray(joins & ~first)


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """What each code point is."""
    found = np.full(sys.maxunicode + 1, _SIGN, dtype=np.uint8)
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        kind = unicodedata.category(letter)
        if kind in ("Cn", "Co", "Cs"):
            continue
        if letter.isspace():
            found[code] = _BLANK
        elif kind[0] == "M" or kind == "Cf":
            found[code] = _MARK
        elif kind[0] in "LN":
            found[code] = _DIGIT if kind == "Nd" else _LETTER
    for kind_, ranges in _RANGES.items():
        for low, high in ranges:
            here = found[low : high + 1]
            here[here == _LETTER] = kind_
    for kind_, exact in _EXACT.items():
        found[[ord(letter) for letter in exact]] = kind_
    found[0x1F3FB:0x1F400], found[0x1F1E6:0x1F200] = _MARK, _FLAG
    return found
