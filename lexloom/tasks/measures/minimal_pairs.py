"""Minimal pairs: which of two sentences that differ in one point of grammar does the model find likelier? (BLiMP, Warstadt et al. 2020)

Letters: N pairs, S statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_array

from lexloom.config import Config
from lexloom.errors import DataError
from lexloom.tasks.columns import place
from lexloom.tasks.likelihoods.base import Likelihood
from lexloom.tasks.measures.base import MEASURES, Measure, texts
from lexloom.tasks.metrics import Floats


class MinimalPairsConfig(Config):
    """Where the two sentences stand."""

    good: str = "sentence_good"
    bad: str = "sentence_bad"


class Credit:
    """Statistics of pairs: one for a right choice, a half for a tie."""

    metrics = ("accuracy",)

    def rows(self, gold: Sequence[Any], predicted: Sequence[Any]) -> csr_array:
        """(N, 2): a one, and the credit."""
        credit = np.asarray([answer["credit"] for answer in predicted], dtype=np.float64)
        return csr_array(np.stack([np.ones(len(credit)), credit], axis=1))

    def value(self, metric: str, sums: Floats) -> Floats:
        """The mean credit."""
        return sums[..., 1] / sums[..., 0]


@MEASURES.register("minimal-pairs")
class MinimalPairs(Measure):
    """Which of two sentences is likelier as a whole, ties counted half: accuracy by phenomenon (BLiMP, Warstadt et al. 2020)."""

    Config = MinimalPairsConfig
    columns: ClassVar[tuple[str, ...]] = ("sentence_good", "sentence_bad")
    groups: ClassVar[tuple[str, ...]] = ("term", "linguistics_term", "phenomenon", "UID")
    chance = 0.5

    def answers(self, likelihood: Likelihood, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """`{"row", "good", "bad", "credit"}` for each pair: the sums of both sentences' log-probabilities, and 1, 0.5 or 0."""
        good, bad = texts(rows, self.config.good), texts(rows, self.config.bad)
        found = likelihood([*good, *bad])
        for i, sure in enumerate(found):
            if not len(sure.logs):
                raise DataError("a sentence of this pair is empty", where=place(rows[i % len(rows)], i % len(rows)))
        sums = [float(sure.logs.sum()) for sure in found]
        pairs = list(zip(sums[: len(rows)], sums[len(rows) :], strict=True))
        credits = [0.5 if a == b else float(a > b) for a, b in pairs]
        return [{"row": i, "good": a, "bad": b, "credit": c} for i, ((a, b), c) in enumerate(zip(pairs, credits, strict=True))]

    def statistics(self) -> Credit:
        """See `Measure.statistics`."""
        return Credit()
