"""Training of fastText's vectors: what rows a word has, and how they are begun, saved and grown. The kernels are those of `fasttext.py`.

Letters: V words, D width, R buckets that n-grams of them fall into.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from lexloom.errors import ConfigError
from lexloom.vectors import fasttext
from lexloom.vectors.keyed import WordVectors
from lexloom.vectors.lanes import table
from lexloom.vectors.ngrams import NGrams, buckets_of
from lexloom.vectors.training import BLOCK, Doubles, Kernels, TextConfig, TextState
from lexloom.vectors.vocabulary import Vocabulary
from lexloom.vectors.windows import How

MAX_BUCKETS = 1 << 30
_SLOTS = 1 << 23
"""Rows that windows which are learned together have room for."""


class FastTextConfig(TextConfig):
    """How vectors of words and of their character n-grams are learned; what is not said is as in the paper."""

    kind: Literal["fasttext"] = "fasttext"
    model: Literal["skipgram", "cbow"] = "skipgram"
    """Predict the context from the word, or the word from the mean of its context."""
    min_n: Annotated[int, Field(ge=1, le=100)] = 3
    """Characters of the shortest n-grams, `<` and `>` counted; 1 for Chinese."""
    max_n: Annotated[int, Field(ge=1, le=100)] = 6
    buckets: Annotated[int, Field(ge=1, le=MAX_BUCKETS)] = 2_000_000
    """N-grams of the same bucket share a row; only those that a word of the text falls into take memory."""
    exponent: Annotated[float, Field(ge=-2, le=2)] = 0.5
    sample: Annotated[float, Field(ge=0, lt=1)] = 1e-4
    learning_rate: Annotated[float, Field(gt=0)] = 0.05

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        if self.min_n > self.max_n:
            raise ValueError(f"min_n is {self.min_n} and max_n {self.max_n}")
        return self


class FastText(TextState):
    """Vectors of words and n-grams on their way.

    Attributes:
        inner: rows of the words, then of the buckets that their n-grams fall into, (V + R, D). held: these buckets, (R,).
        starts: where the rows of each word begin in `places`, (V + 1,); its own stands first.
    """

    NAME, CONFIG = "fasttext", FastTextConfig
    KERNELS = Kernels(fasttext.learn, fasttext.learn_together, fasttext.room)
    config: FastTextConfig

    def __init__(self, config: FastTextConfig, vocabulary: Vocabulary, seed: int = 1) -> None:
        super().__init__(config, vocabulary, seed)
        size = len(vocabulary)
        starts, buckets = buckets_of(vocabulary.words, config.min_n, config.max_n, config.buckets)
        self.held, rows = _numbered(buckets)
        self.places = np.insert(rows + np.int32(size), starts[:-1], np.arange(size, dtype=np.int32))
        self.starts = starts + np.arange(size + 1)
        self.inner = table(size + len(self.held), config.dim)
        for name, numbers, at in (("words", np.arange(size), 0), ("n-grams", self.held, size)):
            for start in range(0, len(numbers), BLOCK):
                some = numbers[start : start + BLOCK]
                self.inner[at + start : at + start + len(some), : config.dim] = self.begun(some, name)

    @property
    def vectors(self) -> WordVectors:
        """Of each word the mean of its rows."""
        config, size = self.config, len(self.vocabulary)
        rows, outer = self.inner[:, : config.dim], self.outer[:, : config.dim] if config.loss == "negative-sampling" else None
        named = {"ws": config.window, "epoch": config.epochs, "neg": config.negatives, "loss": 2 - (outer is None), "t": config.sample}
        lengths, named["model"] = (config.min_n, config.max_n, config.buckets), 2 - self.mean
        ngrams = NGrams(*lengths, rows[:size], rows[size:], self.held, self.vocabulary.counts, outer, named)
        return WordVectors(self.vocabulary.words, ngrams.vectors(self.vocabulary.words), ngrams)

    @property
    def mean(self) -> bool:
        return self.config.model == "cbow"

    def sizes(self, negatives: int, longest: int) -> How:
        most = int(np.diff(self.starts).max())
        return fasttext.sizes(self.config.window, negatives, longest, self.inner.shape[1], most, mean=self.mean)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return *super().arrays(), self.starts, self.places

    def crowded(self, shares: Doubles) -> float:
        """Of a word's rows, which other words have, too, the mean: by so much its vector moves with theirs."""
        counts = np.diff(self.starts)
        by_row = np.bincount(self.places, weights=np.repeat(shares, counts), minlength=len(self.inner))
        return float((np.add.reduceat(by_row[self.places], self.starts[:-1]) / counts).max())

    def most_together(self, how: How) -> int:
        return max(1, min(super().most_together(how), _SLOTS // how[5]))

    def grown(self, vocabulary: Vocabulary, config: FastTextConfig | None = None, seed: int | None = None) -> FastText:
        """The same vectors at the start of another training, with further words and n-grams.

        Args:
            vocabulary: begins with the words of this one.
            config: of the other training; of the same width, with the same n-grams.

        Raises:
            ConfigError: the width or the n-grams are others, or a tree of hierarchical softmax would have to grow.
        """
        config, size, more = config or self.config, len(self.vocabulary), len(vocabulary)
        self.check_grown(vocabulary, config)
        mine, theirs = ({"min_n": one.min_n, "max_n": one.max_n, "buckets": one.buckets} for one in (self.config, config))
        if mine != theirs:
            raise ConfigError("the saved vectors have other n-grams", expected=str(mine), got=str(theirs), hint="or begin anew")
        found = FastText(config, vocabulary, self.seed if seed is None else seed)
        found.inner[:size], found.outer[:size] = self.inner[:size], self.outer
        found.inner[more : more + len(self.held)] = self.inner[size:]  # buckets are numbered by the first words that fall into them
        return found


def _numbered(buckets: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The different buckets in the order in which they come first, and the number of each: those of frequent words stand together."""
    different, firsts, numbers = np.unique(buckets, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return different[order], place[numbers]
