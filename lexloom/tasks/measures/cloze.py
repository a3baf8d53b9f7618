"""Cloze: would the model have written the last word of a passage? (LAMBADA, Paperno et al. 2016)

Letters: N rows, S statistics.
"""

from __future__ import annotations

import re
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

_LAST = re.compile(r"\s+(\S+)\s*\Z")


class ClozeConfig(Config):
    """Where the passage stands; its last word, with what is joined to it, is what has to be found."""

    text: str = "text"


class Found:
    """Statistics of words that were found or not, with how likely each was."""

    metrics = ("accuracy", "perplexity")

    def rows(self, gold: Sequence[Any], predicted: Sequence[Any]) -> csr_array:
        """(N, 3): a one, whether the word was found, nats."""
        return csr_array(np.asarray([[1.0, float(answer["found"]), answer["nats"]] for answer in predicted], dtype=np.float64))

    def value(self, metric: str, sums: Floats) -> Floats:
        """The share of words found; `perplexity` is of a word, however many tokens it has."""
        mean = sums[..., 1 if metric == "accuracy" else 2] / sums[..., 0]
        return mean if metric == "accuracy" else np.exp(mean)


@MEASURES.register("cloze")
class Cloze(Measure):
    """Whether each token of a passage's last word is the likeliest one after what stands before it (LAMBADA, Paperno et al. 2016)."""

    Config = ClozeConfig
    roles: ClassVar[tuple[str, ...]] = ("causal-lm",)

    def answers(self, likelihood: Likelihood, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """`{"row", "word", "found", "nats"}` for each passage."""
        found = []
        passages = [passage.rstrip() for passage in texts(rows, self.config.text)]
        cuts = []
        for i, passage in enumerate(passages):
            if (match := _LAST.search(passage)) is None or not passage[: match.start()].strip():
                raise DataError("this passage has no last word to find", expected="two words at least", where=place(rows[i], i))
            cuts.append(match.start())
        contexts = likelihood.tokenizer.encode_plain([passage[:cut] for passage, cut in zip(passages, cuts, strict=True)])
        for i, (sure, context) in enumerate(zip(likelihood(passages), contexts, strict=True)):
            n = min(len(context), len(sure.logs) - 1)  # one token of the word at least
            entry = {"row": i, "word": passages[i][cuts[i] :].strip(), "found": bool(sure.best[n:].all())}
            found.append({**entry, "nats": -float(sure.logs[n:].sum())})
        return found

    def statistics(self) -> Found:
        """See `Measure.statistics`."""
        return Found()
