"""Answers as a person reads them in a terminal."""

from __future__ import annotations

from typing import Any


def told(text: str, answer: Any) -> str:
    """What was written for a text, or in a line its labels or tokens with their scores, and the text."""
    written = _written(answer)
    return f"{_answer(answer)}\t{text}" if written is None else written


def _written(answer: Any) -> str | None:
    """What was generated, one text after the other; None for answers of another kind."""
    several = answer if isinstance(answer, list) else [answer]
    found = [one["generated_text"] for one in several if isinstance(one, dict) and "generated_text" in one]
    return "\n".join(found).strip("\n") if found else None


def _answer(answer: Any) -> str:
    """One answer in a few words: the label or token with its score; of several the first five."""
    if isinstance(answer, list):
        nested = bool(answer) and isinstance(answer[0], list)  # one list for each of several masks
        return (" | " if nested else "; ").join(_answer(one) for one in (answer if nested else answer[:5]))
    return f"{answer.get('label', answer.get('token_str'))} {answer['score']:.3f}"
