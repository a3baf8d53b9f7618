"""Lengths of texts in characters and tokens, what a tokenizer does not know of them, and what their batches waste on padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lexloom.runs.check.findings import Findings, Level
from lexloom.runs.check.samples import Sample
from lexloom.tasks.base import Task, length_edges
from lexloom.text.order import BucketPlan
from lexloom.text.tokenizer import Tokenizer

CHARACTERS = 10_000_000
"""Of a sample, at most so many are encoded."""
UNKNOWN, UNREADABLE = 0.02, 0.5
"""The share of unknown tokens: from the first on a warning, from the second on an error."""
OVER = 0.05
WASTE = 0.4
COLUMNS = {
    "split": "split",
    "rows": "rows",
    "characters_50": "characters: median",
    "characters_90": "90 %",
    "characters_99": "99 %",
    "characters_max": "longest",
    "tokens_50": "tokens: median",
    "tokens_90": "90 %",
    "tokens_99": "99 %",
    "tokens_max": "longest",
    "over": "% over the limit",
    "unknown": "% unknown",
}


@dataclass(frozen=True)
class Limit:
    """A tokenizer and the longest row that the model behind it takes, special tokens included."""

    tokenizer: Tokenizer
    length: int | None


@dataclass(frozen=True)
class Encoded:
    """What a tokenizer makes of texts, evenly chosen where there are many: (N,) tokens of each, special ones not counted."""

    lengths: npt.NDArray[np.int64]
    unknown: int
    characters: int

    @property
    def unknown_share(self) -> float:
        """Unknown tokens to all tokens."""
        return self.unknown / max(1, int(self.lengths.sum()))

    @property
    def characters_per_token(self) -> float:
        """How long a token is."""
        return self.characters / max(1, int(self.lengths.sum()))


def encode(texts: Sequence[str], tokenizer: Tokenizer) -> Encoded:
    """Encodes texts, at most about `CHARACTERS` of them."""
    total = sum(map(len, texts))
    step = max(1, -(-total // CHARACTERS))
    chosen = [text[:CHARACTERS] for text in texts[::step]]
    found = tokenizer.plain(chosen)
    unknown = 0 if tokenizer.unk_id is None else int((found.values == tokenizer.unk_id).sum())
    return Encoded(found.lengths, unknown, sum(map(len, chosen)))


def table(samples: Sequence[Sample], limit: Limit | None, findings: Findings, *, of: str = "") -> None:
    """The table of lengths, and what is wrong with them."""
    rows: list[dict[str, Any]] = []
    for sample in samples:
        if not len(sample):
            continue
        row: dict[str, Any] = {"split": sample.name, "rows": len(sample), **_figures("characters", [len(text) for text in sample.texts])}
        if limit is not None:
            found = encode(sample.texts, limit.tokenizer)
            row |= _figures("tokens", found.lengths) | {"unknown": 100 * found.unknown_share}
            unknown_tokens(sample, found, findings)
            if limit.length is not None:
                row["over"] = 100 * _over(found, limit)
        rows.append(row)
    used = {key: heading for key, heading in COLUMNS.items() if any(key in row for row in rows)}
    findings.table(f"lengths of {of}" if of else "lengths", used, rows)


def _figures(unit: str, lengths: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, int]:
    values = np.percentile(np.asarray(lengths), (50, 90, 99, 100), method="higher")
    return {f"{unit}_{name}": int(value) for name, value in zip((50, 90, 99, "max"), values, strict=True)}


def _over(found: Encoded, limit: Limit) -> float:
    room = (limit.length or 0) - limit.tokenizer.templates[0].added
    return float((found.lengths > room).mean())


def unknown_tokens(sample: Sample, found: Encoded, findings: Findings) -> None:
    """Text that the tokenizer has no pieces for."""
    share = found.unknown_share
    if share >= UNKNOWN:
        level: Level = "error" if share >= UNREADABLE else "warning"
        what = f"{share:.1%} of the tokens of {sample.name or 'these texts'} are unknown to the tokenizer"
        do = "take a model of this language and script, or train a tokenizer on such text"
        findings.add(level, "unknown tokens", sample.where, what, do, places=sample.places[:1])


def batches(name: str, task: Task, encoded: Sequence[Any], batch_rows: int, max_length: int, findings: Findings, where: str) -> list[int]:
    """How full the batches of fine-tuning will be, and how many texts are cut.

    Args:
        encoded: token rows as a task's `encode` gives them.

    Returns:
        the lengths of the buckets.
    """
    lengths = [task.length(row) for row in encoded]
    edges = sorted({min(edge, max_length) for edge in length_edges(lengths)})
    plan = BucketPlan(lengths, edges=edges, batch_rows=batch_rows, seed=1)
    what = f"{name}: {plan.padding:.1%} of the places in its batches are padding, in buckets of {', '.join(map(str, edges))} tokens"
    if plan.padding >= WASTE:
        findings.add("warning", "padding", where, what, "smaller batch_rows: the last batch of each bucket is filled up with nothing")
    else:
        findings.add("fact", "padding", where, what)
    cut = len({row["row"] for row in encoded if row.get("cut")})
    if cut:
        share = cut / max(1, len({row["row"] for row in encoded}))
        what = f"{name}: {cut:,} training texts ({share:.1%}) are longer than {max_length} tokens and will be cut"
        setting, _, value = task.whole.partition("=")
        do = f"settings: {{{setting}: {value}}} reads them whole, at the price of time" if setting else "shorten them"
        findings.add("warning" if share >= OVER else "fact", "long texts", where, what, do)
    return edges
