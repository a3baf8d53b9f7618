"""What a measure is: rows of a file -> answers by likelihoods -> metrics with intervals. No fine-tuning, no labels to learn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from lexloom.config import Config
from lexloom.errors import DataError
from lexloom.registry import Registry
from lexloom.tasks.columns import place, plain
from lexloom.tasks.likelihoods.base import Likelihood


class Measure:
    """A measure of language models. A subclass is one file: its Config, `answers` and `statistics`.

    Attributes of a subclass:
        columns: columns that rows must have; a file that has them is measured so where nothing else is said.
        roles: the heads whose likelihoods it can use.
        groups: columns by whose values a table is made where a file has one and nothing else is said, the first that is there.
        comparable: whether a likelihood and a pseudo-likelihood may stand side by side in it.
        whole: whether a plain text file is one row and not one a line.
        chance: the value of a guess in its first metric, or None where there is no such thing.
    """

    Config: ClassVar[type[Config]] = Config
    columns: ClassVar[tuple[str, ...]] = ("text",)
    roles: ClassVar[tuple[str, ...]] = ("causal-lm", "masked-lm")
    groups: ClassVar[tuple[str, ...]] = ()
    comparable: ClassVar[bool] = True
    whole: ClassVar[bool] = False
    chance: ClassVar[float | None] = None

    def __init__(self, config: Any) -> None:
        self.config = config

    def answers(self, likelihood: Likelihood, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """What a network makes of rows: mappings with `row`, the index of the row each belongs to.

        Raises:
            DataError: a row lacks a text.
        """
        raise NotImplementedError

    def units(self, answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What is resampled, out of the answers; as many whatever the network."""
        return list(answers)

    def notes(self, answers: Sequence[dict[str, Any]]) -> list[str]:
        """What a reader has to know about the figures."""
        return []

    def statistics(self) -> Any:
        """What is summed over the units: a `tasks.metrics.Statistics` whose `predicted` are the units."""
        raise NotImplementedError


MEASURES: Registry[type[Measure]] = Registry("measure", "MEASURES", "lexloom.tasks.measures")


def fitting(columns: Collection[str], roles: Collection[str]) -> str | None:
    """The measure for a file with these columns and a network with heads for these roles: of several the one that wants most columns."""
    kinds = {name: MEASURES.get(name) for name in MEASURES.names()}
    fit = [name for name, kind in kinds.items() if set(kind.columns) <= set(columns) and set(kind.roles) & set(roles)]
    fit = [name for name in fit if kinds[name].columns != Measure.columns or kinds[name].whole]
    return max(fit, key=lambda name: len(kinds[name].columns), default=None)


def texts(rows: Sequence[Any], column: str) -> list[str]:
    """One column of rows as texts.

    Raises:
        DataError: a row lacks it, or has no text there.
    """
    found = []
    for i, row in enumerate(rows):
        values: Mapping[str, Any] = plain(row)
        if not isinstance(values.get(column), str):
            got = f"the columns {', '.join(values)}"[:200] if column not in values else type(values[column]).__name__
            raise DataError(f"this row has no text under {column!r}", got=got, where=place(row, i))
        found.append(values[column])
    return found
