"""How much of the right texts stands in the answers: chrF (Popović 2015), BLEU (Papineni et al. 2002), and how many are the very text.

Counted by `sacrebleu` row by row; the metrics are those of the whole set, made of the sums, so that they can be bootstrapped. Values are
shares of 1, which is `sacrebleu`'s score divided by 100. BLEU counts words as `13a` cuts them, in rows with Chinese characters as `zh`.

Letters: N rows, S statistics.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from lexloom.errors import DataError, unknown
from lexloom.tasks.metrics import Floats

CHARACTERS, WORDS = 6, 4  # the longest n-grams of chrF and of BLEU
_BETA = 2.0  # chrF2: recall counts twice as much as precision
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


class Overlap:
    """Statistics of texts beside the texts that they should be: `tasks.metrics.Statistics`."""

    metrics = ("chrf", "bleu", "accuracy")

    def rows(self, gold: Sequence[str], predicted: Sequence[str]) -> csr_array:
        """(N, S): a one, whether it is the very text, white space aside; n-grams of characters, then of words."""
        from sacrebleu.metrics.bleu import BLEU

        counted = {name: BLEU(tokenize=name, effective_order=True) for name in ("13a", "zh")}
        found = np.zeros((len(gold), 2 + 3 * CHARACTERS + 2 + 2 * WORDS))
        for i, (right, answer) in enumerate(zip(gold, predicted, strict=True)):
            words = counted["zh" if _HAN.search(right) else "13a"].sentence_score(answer, [right])
            of_words = [words.sys_len, words.ref_len, *words.counts, *words.totals]
            found[i] = [1, squeezed(right) == squeezed(answer), *_of_characters(right, answer), *of_words]
        return csr_array(found)

    def value(self, metric: str, sums: Floats) -> Floats:
        """As `sacrebleu` has them for a corpus."""
        if metric == "accuracy":
            return sums[..., 1] / sums[..., 0]
        if metric == "chrf":
            return _chrf(sums[..., 2 : 2 + 3 * CHARACTERS])
        if metric == "bleu":
            return _bleu(sums[..., 2 + 3 * CHARACTERS :])
        raise unknown("metric", metric, self.metrics)

    def scores(self, gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
        """Metric -> value over all rows.

        Raises:
            DataError: there are no rows to score.
        """
        if not len(gold):
            raise DataError("there are no rows to score")
        sums = np.asarray(self.rows(gold, predicted).sum(axis=0))
        return {metric: float(self.value(metric, sums)) for metric in self.metrics}


def squeezed(text: str) -> str:
    """Without white space."""
    return "".join(text.split())


def _of_characters(right: str, answer: str) -> list[int]:
    """For each length of n-grams: those of the answer, of the right text, of both."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    found: list[int] = []
    for given, wanted in zip(*(extract_all_char_ngrams(text, CHARACTERS) for text in (answer, right)), strict=True):
        both: Counter[str] = given & wanted
        # What is longer than the right text is not held against an answer, as in `sacrebleu`.
        found += [given.total() if wanted else 0, wanted.total(), both.total()]
    return found


def _chrf(sums: Floats) -> Floats:
    """(…, 3 · 6) -> (…): the F score of precision and recall, each the mean over the lengths of n-grams that both sides have."""
    given, wanted, both = np.moveaxis(sums.reshape(*sums.shape[:-1], CHARACTERS, 3), -1, 0)
    there = (given > 0) & (wanted > 0)
    lengths = np.maximum(there.sum(-1), 1)
    precision, recall = ((there * both / np.maximum(n, 1)).sum(-1) / lengths for n in (given, wanted))
    below = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / np.where(below > 0, below, 1)


def _bleu(sums: Floats) -> Floats:
    """(…, 2 + 2 · 4) -> (…): the geometric mean of the precisions, with the penalty for what is too short.

    A precision of 0 is taken as a half over its count, the next as a quarter (`exp`, as in mteval-v13a); with no right word it is 0.
    """
    length, wanted, right, given = sums[..., 0], sums[..., 1], sums[..., 2 : 2 + WORDS], sums[..., 2 + WORDS :]
    none = right == 0
    precisions = np.where(none, 0.5 ** np.cumsum(none, -1), right) / np.maximum(given, 1)
    penalty = np.exp(np.minimum(0, 1 - wanted / np.maximum(length, 1)))
    defined = right.any(-1) & (given > 0).all(-1)
    return np.where(defined, penalty * np.exp(np.log(precisions).mean(-1)), 0.0)
