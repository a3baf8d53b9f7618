"""Texts that a pre-trained network fills in or goes on with, for the report: looked at before the first step, answered after the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lexloom.console import Console
from lexloom.errors import ConfigError, DataError
from lexloom.hub.bundle import Bundle, as_rows
from lexloom.models.decoder import WRITING

_WRITTEN = 32  # tokens that a network writes for each text, as far as its context goes


def check(bundle: Bundle, texts: list[str], console: Console) -> None:
    """Looks whether there will be an answer to each text, of which one would else hear after the last step.

    Raises:
        ConfigError: a text has nothing to fill in, or nothing or too much to go on with.
    """
    if bundle.task is None and texts:
        console.warn(f"pre-training: {bundle.network.class_name} answers nothing by itself; the texts of fills are left out")
    elif texts:
        try:
            bundle.task.encode(as_rows(texts), bundle.tokenizer, max_length=bundle.max_length, labelled=False)  # type: ignore[union-attr]
        except DataError as error:
            told = {"expected": error.expected, "got": error.got, "hint": error.hint}
            raise ConfigError(f"fills: {error.problem}", where=error.where, **told) from None


def answers(bundle: Bundle, texts: list[str]) -> list[dict[str, Any]]:
    """`{"text", "answers": [{"token", "score"}]}` of each text with one mask; of a network that writes what it writes, without a score."""
    if bundle.task is None or not texts:
        return []
    if bundle.network.roles & WRITING:
        options: dict[str, Any] = {"return_full_text": False} if bundle.task.pipeline == "text-generation" else {}
        written = bundle.predict(texts, max_new_tokens=_WRITTEN, **options)
        several = [answer if isinstance(answer, list) else [answer] for answer in written]
        return [
            {"text": text, "answers": [{"token": one["generated_text"], "score": None} for one in answer]}
            for text, answer in zip(texts, several, strict=True)
        ]
    found = bundle.predict(texts, top_k=5)
    return [
        {"text": text, "answers": [{"token": a["token_str"], "score": a["score"]} for a in answer]}
        for text, answer in zip(texts, found, strict=True)
        if answer and isinstance(answer[0], Mapping)
    ]
