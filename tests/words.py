"""The words of a text, found one character after the other: what `lexloom.text.words` says of all at once. No line of it is shared."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import pairwise

from lexloom.text.segment import Words

_ALONE = re.compile("[\u0e01-\u0fff\u1000-\u109f\u1780-\u17dd\u3041-\u309f\u3105-\u312f]")
_KATAKANA = re.compile("[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HAN = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


@cache
def segmenter() -> Words:
    return Words()


@cache
def kind(letter: str) -> str:
    category = unicodedata.category(letter)
    if letter == " ":
        return "space"
    if letter.isspace() and category not in ("Cn", "Co", "Cs"):
        return "blank"
    if category[0] == "M" or category == "Cf" or letter in "🏻🏼🏽🏾🏿":
        return "mark"
    if "\U0001f1e6" <= letter <= "\U0001f1ff":
        return "flag"
    if category == "Nd":
        return "digit"
    if category[0] in "LN" or letter == "_":
        named = {"han": _HAN, "alone": _ALONE, "katakana": _KATAKANA}
        return next((name for name, pattern in named.items() if pattern.match(letter)), "letter")
    return "sign"


def words(text: str) -> list[str]:
    """The words in order; together they are the text."""
    kinds = [kind(letter) for letter in text]
    for i, found in enumerate(kinds):
        if found == "mark" and (i == 0 or kinds[i - 1] in ("space", "blank")):
            kinds[i] = "sign"
    chinese = _chinese(text, kinds)
    starts = [i for i in range(len(text)) if not _joins(text, kinds, i, chinese)]
    return [text[a:b] for a, b in pairwise([*starts, len(text)])]


def _chinese(text: str, kinds: list[str]) -> set[int]:
    """Where the segmenter cuts, within stretches of Chinese characters, letters and digits; a mark ends a stretch."""
    codes = "".join({"han": "h", "letter": "l", "digit": "l"}.get(found, " ") for found in kinds)
    cuts: set[int] = set()
    for stretch in re.finditer("[hl]+", codes):
        if "h" in stretch.group():
            place = stretch.start()
            for word in segmenter()(text[stretch.start() : stretch.end()]):
                cuts.add(place)
                place += len(word)
    return cuts


def _joins(text: str, kinds: list[str], i: int, cuts: set[int]) -> bool:
    if i == 0:
        return False
    here, before, after = kinds[i], kinds[i - 1], kinds[i + 1] if i + 1 < len(text) else "end"
    if before == "space" and here not in ("space", "blank"):
        return True
    if here == "space":
        return before == "space" and after in ("space", "blank", "end")
    if here == "blank":
        return text[i] == text[i - 1]
    if here == "mark":
        return True
    if "han" in (here, before) and {here, before} <= {"han", "letter", "digit"}:
        return i not in cuts
    j = i - 1
    while kinds[j] == "mark":
        j -= 1
    base = kinds[j]
    if here in ("letter", "digit"):
        inside = _between(text, kinds, i - 1) == here if before == "sign" else False
        return base in ("letter", "digit") or inside
    if here in ("katakana", "flag"):
        return base == here
    if here == "sign":
        return _between(text, kinds, i) is not None or text[i] == text[i - 1] or text[i - 1] == "\u200d"
    return False


def _between(text: str, kinds: list[str], i: int) -> str | None:
    """`letter` or `digit` where the sign at `i` stands between two of them and belongs to them."""
    wanted = "letter" if text[i] in "'’" else "digit" if text[i] in ".," else None
    j = i - 1
    while j >= 0 and kinds[j] == "mark":
        j -= 1
    return wanted if wanted and j >= 0 and kinds[j] == wanted and i + 1 < len(text) and kinds[i + 1] == wanted else None
