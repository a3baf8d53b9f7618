"""Vectors of texts out of those of their words: the mean, and SIF (Arora et al. 2017, "A simple but tough-to-beat baseline").

Letters: V words, D width, N texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from lexloom.errors import ConfigError
from lexloom.vectors.ngrams import NGrams

Floats = npt.NDArray[np.float32]
Texts = Sequence[Sequence[str]]


class Keyed(Protocol):
    """What has a vector a word, and may have some of other words by their n-grams."""

    vectors: Floats
    key_to_index: dict[str, int]
    ngrams: NGrams | None


def mean(wv: Keyed, texts: Texts, weights: npt.NDArray[np.float64] | None = None) -> Floats:
    """The mean of the vectors of each text's words, (N, D) float32; 0 for a text without a word that has one.

    Args:
        weights: what the vector of each word is multiplied by, (V,), 1 for words that have theirs by n-grams; the sum is divided by the
            number of words all the same.

    Raises:
        ConfigError: a text is not given as its words.
    """
    found = np.zeros((len(texts), wv.vectors.shape[1]), dtype=np.float32)
    for number, text in enumerate(texts):
        if isinstance(text, str):
            raise ConfigError("a text is given as its words", expected="lists of words", got=repr(text[:60]), hint="split it first")
        places = [place for word in text if (place := wv.key_to_index.get(word)) is not None]
        others = _others(wv, text)
        if places:
            share = np.ones(len(places)) if weights is None else weights[places]
            found[number] = share @ wv.vectors[places]
        found[number] = (found[number] + sum(others)) / max(1, len(places) + len(others))
    return found


def _others(wv: Keyed, text: Sequence[str]) -> list[Floats]:
    """The vectors that words of a text have by their n-grams alone."""
    if wv.ngrams is None:
        return []
    return [vector for word in text if word not in wv.key_to_index and (vector := wv.ngrams.of(word)) is not None]


@dataclass(frozen=True)
class Sif:
    """Smooth inverse frequency: words weighted by a / (a + p(w)), less the direction that the texts have in common.

    Attributes:
        weights: of the words, (V,).
        common: the first singular vector of the weighted means of the texts it was fitted to, (D,), of length 1.
    """

    wv: Keyed
    weights: npt.NDArray[np.float64]
    common: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, wv: Keyed, texts: Texts, *, counts: Mapping[str, int] | None = None, a: float = 1e-3) -> Self:
        """Finds weights and the common direction (algorithm 1 of the paper).

        Args:
            counts: how often words stand in a large text, from which p(w) comes; in these texts where None. A word that is not among
                them counts as never seen and has weight 1.
            a: the paper finds 1e-4 to 1e-3 good.

        Raises:
            ConfigError: `a` is not above 0, or a text is not given as its words.
        """
        if not a > 0:
            raise ConfigError("`a` has to be above 0", got=str(a))
        told = Counter(word for text in texts for word in text) if counts is None else counts
        share = np.zeros(len(wv.key_to_index))
        for word, n in told.items():
            if (place := wv.key_to_index.get(word)) is not None:
                share[place] = n
        weights = a / (a + share / max(1, sum(told.values())))
        found = mean(wv, texts, weights).astype(np.float64)
        # The first right singular vector of (N, D) is the last eigenvector of (D, D), which does not grow with the texts.
        return cls(wv, weights, np.linalg.eigh(found.T @ found)[1][:, -1])

    def __call__(self, texts: Texts) -> Floats:
        """Vectors of texts, those it was fitted to or others: (N, D)."""
        found = mean(self.wv, texts, self.weights).astype(np.float64)
        return (found - np.outer(found @ self.common, self.common)).astype(np.float32)
