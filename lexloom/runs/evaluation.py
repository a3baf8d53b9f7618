"""What an evaluation says, how it is printed, and its scores by the values of a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lexloom.console import Console
from lexloom.errors import DataError, nearest
from lexloom.runs.scores import Comparison

MAX_GROUPS = 50
_OTHER = "(other)"


@dataclass
class Evaluation:
    """What `lexloom evaluate` says."""

    bundle: str
    file: str
    task: str
    n: int
    columns: str
    comparison: Comparison
    groups: list[dict[str, Any]] = field(default_factory=list)
    confusion: dict[str, Any] | None = None
    examples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bad: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The first thing to read."""
        return self.comparison.verdict

    def __str__(self) -> str:
        """The verdict, the scores and the notes, as lines."""
        scores = [
            f"{s['model']}: {s['metric']} {s['value']:.4f} (95 % interval {s['low']:.4f} to {s['high']:.4f}, n = {s['n']:,})"
            for s in self.comparison.scores
        ]
        return "\n".join([self.verdict, *scores, *self.notes])

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "bundle": self.bundle,
            "file": self.file,
            "task": self.task,
            "n": self.n,
            "columns": self.columns,
            "verdict": self.verdict,
            "scores": self.comparison.scores,
            "differences": self.comparison.differences,
            "groups": self.groups,
            "confusion": self.confusion,
            "examples": self.examples,
            "notes": self.notes,
            "bad_rows": self.bad,
        }


def show(evaluation: Evaluation, console: Console) -> None:
    """Prints an evaluation: the verdict, tables, and notes on stderr; under --json one object."""
    if console.json:
        console.result(evaluation.plain())
        return
    for note in evaluation.notes:
        console.warn(note)
    if evaluation.bad.get("total"):
        console.warn(f"{evaluation.bad['total']:,} bad rows were left out: {', '.join(evaluation.bad['first'][:3])}")
    console.result(evaluation.verdict, evaluation.verdict + "\n")
    ends = {"value": "value", "low": "95 % from", "high": "to", "n": "n"}
    comparison = evaluation.comparison
    console.table({"model": "model", "metric": "metric", **ends, "note": ""}, comparison.scores)
    if comparison.differences:
        console.result("", "")
        console.table(
            {"a": "model", "b": "minus", "metric": "metric", **ends}, comparison.differences, title="Differences on the same rows"
        )
    if evaluation.groups:
        column = evaluation.groups[0]["column"]
        console.result("", "")
        rows = [{"group": group["group"], **score} for group in evaluation.groups for score in group["scores"]]
        console.table({"group": column, "model": "model", "metric": "metric", **ends}, rows, title=f"By {column}")


def by_values(rows: Sequence[Mapping[str, Any]], by: str, compared: Callable[[list[int]], Comparison]) -> list[dict[str, Any]]:
    """The first metric for the rows of each value of a column; rare values are taken together.

    Args:
        compared: the comparison over some rows, given by their places.

    Raises:
        DataError: there is no such column.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if by not in names:
        guess = nearest(by, names)
        hint = f"did you mean {guess!r}?" if guess else None
        raise DataError(f"there is no column {by!r} to group by", expected="one of: " + ", ".join(names[:50]), hint=hint)
    values = ["(none)" if row.get(by) is None else str(row[by])[:200] for row in rows]
    counts = Counter(values)
    shown = [value for value, _ in counts.most_common(MAX_GROUPS)]
    values = [value if value in set(shown) else _OTHER for value in values]
    found = []
    for group in [*shown, *([_OTHER] if len(counts) > MAX_GROUPS else [])]:
        places = [i for i, value in enumerate(values) if value == group]
        scores = compared(places).scores
        first = [score for score in scores if score["metric"] == scores[0]["metric"]]
        found.append({"column": by, "group": group, "n": len(places), "scores": first})
    return found
