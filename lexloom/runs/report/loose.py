"""JSON that nobody vouches for: values taken out of it by what they ought to be, bounded in size, never an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lexloom.console import count, duration, size

MAX_ROWS, MAX_TEXT = 200, 800
Pairs = list[tuple[str, str]]


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or math.isnan(value):
        return None
    return float(value)


def words(value: Any, limit: int = MAX_TEXT, *, depth: int = 3) -> str:
    """A value as text of bounded length."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list) and depth == 0:
        return "…"
    if isinstance(value, dict):
        value = ", ".join(f"{spoken(key)} {words(inner, 100, depth=depth - 1)}" for key, inner in list(value.items())[:20])
    elif isinstance(value, list):
        value = ", ".join(words(inner, 100, depth=depth - 1) for inner in value[:20])
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def rows(value: Any, limit: int = MAX_ROWS) -> list[dict[str, Any]]:
    """The mappings of a list."""
    return [row for row in value[:limit] if isinstance(row, dict)] if isinstance(value, list) else []


def integer(value: Any) -> int | None:
    """A whole number, or None."""
    found = number(value)
    return None if found is None else int(found)


def seeds(value: Any) -> str:
    """How many seeds: a number, or a list of them."""
    return str(len(value)) if isinstance(value, list) else words(value, 20)


def spoken(key: object) -> str:
    """A key as words."""
    return words(key, 60).replace("_", " ")


def figure(key: str, value: Any) -> str:
    """A value of a mapping for reading; `key` tells seconds and bytes from counts."""
    found = number(value)
    if found is None:
        return words(value, 200)
    if key.endswith("seconds"):
        return duration(found)
    if key.endswith("bytes"):
        return size(found)
    return count(found) if found == int(found) else f"{found:.4g}"


def pairs(value: Any, *, only_numbers: bool = False) -> Pairs:
    """(label, text) of a flat mapping."""
    inner = value.items() if isinstance(value, Mapping) else ()
    return [
        (spoken(key), figure(str(key), item))
        for key, item in list(inner)[:MAX_ROWS]
        if key != "format" and not (only_numbers and number(item) is None)
    ]


def listed(value: Any) -> list[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else []


def items(value: Any) -> list[tuple[str, Any]]:
    """(key, value) of a mapping, or nothing."""
    return [(str(key), inner) for key, inner in list(mapping(value).items())[:MAX_ROWS]]


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}
