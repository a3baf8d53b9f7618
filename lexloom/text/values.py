"""Values of a JSON file that is one long array (or many objects after each other), read piece by piece in bounded memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from lexloom.text.lines import Damaged

_SPACE = re.compile(r"[\s,]*+")
_NEXT_OBJECT = re.compile(r"(?:\}\s*+,?|\n)\s*+(?=\{)")
_NEAR = 16


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse)
_LENIENT = json.JSONDecoder()  # NaN is found afterwards: to stop at it would cost the place in the file


def parse(text: str) -> Any:
    """One JSON value.

    Raises:
        ValueError: it is none, is nested too deeply, or holds half a surrogate pair; the message is the reason.
    """
    try:
        value = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError("a number is too long" if "limit" in str(error) else str(error)) from None
    if "\\ud" in text or "\\uD" in text:
        check(value)
    return value


def check(value: Any) -> None:
    """Raises ValueError where `value` cannot be written as JSON in UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair") from None
    except ValueError:
        raise ValueError("NaN or infinity is no JSON") from None


class Values:
    """Iterates over (line, value, what is wrong or "", excerpt).

    After a broken value reading goes on at the next place where an object seems to begin.

    Args:
        chunks: pieces of the text; may end with `Damaged`.
        limit: characters of one value.
    """

    def __init__(self, chunks: Iterator[str], limit: int) -> None:
        self.chunks, self.limit = chunks, limit
        self.buffer, self.place, self.line = "", 0, 1
        self.ended, self.damage = False, ""

    def __iter__(self) -> Iterator[tuple[int, Any, str, str]]:
        self._move(self._skipped())
        if self.buffer.startswith("[", self.place):
            self._move(self.place + 1)
        while True:
            self._move(self._skipped())
            if self.place >= len(self.buffer):
                break
            if self.buffer[self.place] == "]":
                self._move(self.place + 1)
                continue
            yield self._value()
        if self.damage:
            yield self.line, None, self.damage, ""

    def _value(self) -> tuple[int, Any, str, str]:
        line, problem, value = self.line, "", None
        while True:
            try:
                value, end = _LENIENT.raw_decode(self.buffer, self.place)
                break
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string") or error.pos >= len(self.buffer) - _NEAR
                problem = f"not JSON: {error.msg}"
                too_long = len(self.buffer) - self.place > self.limit
                if unfinished and not too_long and self._more():
                    continue
                problem = self._too_long() if unfinished and too_long else problem
            except (ValueError, RecursionError) as error:
                problem = f"not JSON: {'nested too deeply' if isinstance(error, RecursionError) else error}"
            excerpt = self.buffer[self.place : self.place + 200]
            self._resume()
            return line, None, self._cut(problem), excerpt
        excerpt = self.buffer[self.place : min(end, self.place + 200)]
        too_long = end - self.place > self.limit
        self._move(end)
        return line, value, self._too_long() if too_long else "", excerpt

    def _too_long(self) -> str:
        return f"the value is longer than {self.limit} characters"

    def _cut(self, problem: str) -> str:
        """The damage of the stream in place of the value that it broke off."""
        if self.damage and self.place >= len(self.buffer):
            problem, self.damage = self.damage, ""
        return problem

    def _resume(self) -> None:
        """Goes to the next place where an object seems to begin, at least one character on."""
        done = 1  # characters from self.place on that are known to hold no beginning
        while (match := _NEXT_OBJECT.search(self.buffer, self.place + done)) is None:
            done = max(1, len(self.buffer) - self.place - _NEAR)  # a mark may lie across the border
            if done > self.limit:
                self._move(self.place + done)
                done = 0
            if not self._more():
                break
        self._move(match.end() if match else len(self.buffer))

    def _skipped(self) -> int:
        while True:
            match = _SPACE.match(self.buffer, self.place)
            end = match.end() if match else self.place
            if end < len(self.buffer) or not self._more():
                return end

    def _move(self, place: int) -> None:
        self.line += self.buffer.count("\n", self.place, place)
        self.place = place

    def _more(self) -> bool:
        """Drops what is done with and at least doubles what is left; False at the end."""
        if self.ended:
            return False
        left = len(self.buffer) - self.place
        pieces, size = [self.buffer[self.place :]], 0
        try:
            while size <= left:
                pieces.append(next(self.chunks))
                size += len(pieces[-1])
        except StopIteration:
            self.ended = True
        except Damaged as damage:
            self.ended, self.damage = True, str(damage)
        self.buffer, self.place = "".join(pieces), 0
        return size > 0
