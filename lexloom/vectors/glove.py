"""GloVe: vectors whose products are the logarithms of how often words stand together (Pennington, Socher and Manning 2014).

    J = Σ_ab f(X_ab) (w_a · c_b + b_a + b̃_b - log X_ab)²    f(X) = min(1, X / x_max)^α    (equations 8 and 9)
    g = η f(X_ab) (w_a · c_b + b_a + b̃_b - log X_ab)        half the slope of J, by the rate, as the released code has it
    w_a ← w_a - g c_b / √G    G ← G + (g c_b)²              AdaGrad (Duchi et al. 2011), G from 1; c_b, b_a and b̃_b likewise

That the rate stands within G is the released code's, too: what a rate of 0.05 means depends on it. The vectors that are used are w + c.

A row of w ends with b_a and 1, one of c with 1 and b̃_b, so that w · c is the whole of the score. Where there is a 1, G is infinite.

X is symmetric: from a pair both X_ab and X_ba are learned, which have no vector in common. Workers learn from blocks that have no word in
common (`cooccurrence.py`; Gemulla et al. 2011, "Large-scale matrix factorization with distributed stochastic gradient descent"), so that no
number depends on how many they are, and nothing is given up for it.

Letters: V words, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lexloom import keys
from lexloom.compute import kernel
from lexloom.config import Config, Count
from lexloom.errors import ConfigError
from lexloom.vectors import states
from lexloom.vectors.cooccurrence import LEAST_MEMORY, PARTS, Cooccurrences
from lexloom.vectors.draws import below, bits_at
from lexloom.vectors.keyed import WordVectors
from lexloom.vectors.lanes import fetch, fma, load, pointer, root, spread, store, table, total
from lexloom.vectors.states import Progress
from lexloom.vectors.vocabulary import Vocabulary
from lexloom.vectors.windows import INLINE, PLAIN

Floats = npt.NDArray[np.float32]
_BLOCK = 1 << 10
_SIDES = ("w", "c")


class GloveConfig(Config):
    """How word vectors are learned from co-occurrences."""

    kind: Literal["glove"] = "glove"
    dim: Annotated[Count, Field(ge=1)] = 100
    window: Annotated[int, Field(ge=1, le=200)] = 10
    """Words on each side, the d-th of which counts 1/d."""
    x_max: Annotated[float, Field(gt=0)] = 100.0
    """From so many on a pair has its full weight."""
    alpha: Annotated[float, Field(ge=0, le=10)] = 0.75
    """What stands less often has a weight of (X / x_max) to the power of this."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    epochs: Annotated[int, Field(ge=1)] = 25
    memory: Annotated[Count, Field(ge=LEAST_MEMORY)] = 1 << 30
    """Bytes that counting takes at most; what does not fit waits on disk."""
    deterministic: Literal[True] = True
    """The same vectors for any number of workers and kills, at no cost."""


class Glove:
    """Vectors on their way.

    Attributes:
        w, c: (V, D + 2) and what is missing to a multiple of 16. w_sum, c_sum: G of each number.
        epoch, round: which blocks are next. steps: rounds so far. sums: loss and learned entries of X of each epoch so far.
    """

    def __init__(self, config: GloveConfig, vocabulary: Vocabulary, seed: int = 1) -> None:
        self.config, self.vocabulary, self.seed = config, vocabulary, seed
        self.epoch = self.round = self.steps = 0
        self.sums: list[list[float]] = []
        (self.w, self.w_sum), (self.c, self.c_sum) = (self._begun(side) for side in _SIDES)

    def _begun(self, side: str) -> tuple[Floats, Floats]:
        """Vectors and biases drawn evenly from -1/2D to 1/2D, as the released code begins, and their G."""
        size, dim = len(self.vocabulary), self.config.dim
        own, one = (dim, dim + 1) if side == "w" else (dim + 1, dim)
        found, sums = table(size, dim + 2), table(size, dim + 2)
        for start in range(0, size, _BLOCK):
            rows = np.arange(start, min(size, start + _BLOCK))
            drawn = (keys.uniform(keys.key(self.seed, "glove", side, rows), dim + 1) - 0.5) / dim
            found[rows, :dim], found[rows, own] = drawn[:, :dim], drawn[:, dim]
        found[:, one], sums[:] = 1, 1
        sums[:, one] = np.inf
        return found, sums

    @property
    def vectors(self) -> WordVectors:
        """w + c."""
        dim = self.config.dim
        return WordVectors(self.vocabulary.words, self.w[:, :dim] + self.c[:, :dim])

    @property
    def _tables(self) -> dict[str, Floats]:
        held = {"w": self.w, "c": self.c, "w_sum": self.w_sum, "c_sum": self.c_sum}
        return {name: rows[:, : self.config.dim + 2] for name, rows in held.items()}

    def grown(self, vocabulary: Vocabulary, config: GloveConfig | None = None, seed: int | None = None) -> Glove:
        """The same vectors, and their G, at the start of another training, with further words.

        Args:
            vocabulary: begins with the words of this one.
            config: of the other training; of the same width.

        Raises:
            ConfigError: the width is another.
        """
        config, size = config or self.config, len(self.vocabulary)
        states.check_grown(self.vocabulary, self.config.dim, vocabulary, config.dim)
        found = Glove(config, vocabulary, self.seed if seed is None else seed)
        for name, rows in found._tables.items():
            rows[:size] = self._tables[name]
        return found

    def save(self, folder: Path | str, **about: Any) -> Path:
        """Writes the whole state into a folder, whole or not at all.

        Args:
            about: goes into the manifest.
        """
        state = {"config": self.config.plain(), "seed": self.seed, "epoch": self.epoch, "round": self.round}
        return states.save(folder, self._tables, self.vocabulary, state | {"steps": self.steps, "sums": self.sums}, **about)

    @classmethod
    def load(cls, folder: Path | str) -> Glove:
        """Reads a saved state.

        Raises:
            CheckpointError: it is missing, damaged, or its parts do not fit each other.
        """
        state, vocabulary = states.load(folder)
        found = cls(GloveConfig.read(state["config"]), vocabulary, state["seed"])
        found.epoch, found.round, found.steps, found.sums = (state[name] for name in ("epoch", "round", "steps", "sums"))
        states.fill(found._tables, folder)
        return found

    def train(self, pairs: Cooccurrences, workers: int = 1) -> Iterator[Progress]:
        """Learns from where it stands to the end of the last epoch; between two steps it may be saved and left.

        Args:
            pairs: of this vocabulary.

        Raises:
            ConfigError: the pairs are of another vocabulary or window.
        """
        if pairs.vocabulary.words != self.vocabulary.words or pairs.window != self.config.window:
            raise ConfigError("these pairs have another vocabulary or window than the vectors", where=str(pairs.folder))
        with ThreadPoolExecutor(max(1, workers)) as pool:
            while self.epoch < self.config.epochs:
                if len(self.sums) <= self.epoch:
                    self.sums.append([0.0, 0.0])
                meeting = sorted(meetings(self._rounds()[self.round]), key=lambda ij: -pairs.block_size(*ij))  # the longest first
                for loss, n in pool.map(lambda ij: self._learn(pairs, *ij), meeting):
                    self.sums[-1][0] += loss
                    self.sums[-1][1] += n
                self.steps += 1
                self.epoch, self.round = (self.epoch, self.round + 1) if self.round + 1 < PARTS else (self.epoch + 1, 0)
                yield self.progress(pairs)

    def _rounds(self) -> list[int]:
        """The rounds of this epoch in their order."""
        return keys.shuffled(keys.key(self.seed, "glove", "rounds", self.epoch), PARTS).tolist()

    def _learn(self, pairs: Cooccurrences, i: int, j: int) -> tuple[float, int]:
        """A block: the sum of its losses, and how many entries of X it has."""
        found, config = pairs.block(i, j), self.config
        words, x = found.view(np.int32).reshape(-1, 4), found.view(np.float64).reshape(-1, 2)
        key = np.uint64(keys.key(self.seed, "glove", self.epoch, i, j))
        tables = tuple(rows.reshape(-1) for rows in (self.w, self.c, self.w_sum, self.c_sum))
        return learn(words, x, key, tables, self.w.shape[1], config.learning_rate, config.x_max, config.alpha)

    def progress(self, pairs: Cooccurrences) -> Progress:
        """Where training stands, in words of the text, by the share of its pairs."""
        here = sum(pairs.block_size(*ij) for number in self._rounds()[: self.round] for ij in meetings(number))
        words = int((self.epoch + here / len(pairs.pairs)) * pairs.words)
        losses = tuple(loss / max(1.0, n) for loss, n in self.sums)
        return Progress(words, self.config.epochs * pairs.words, self.epoch, self.config.learning_rate, losses)


def meetings(number: int) -> list[tuple[int, int]]:
    """The blocks of a round, none of which has a part in common with another: a tournament in which all meet once, and the last round, in
    which each meets itself.
    """
    most = PARTS - 1
    if number == most:
        return [(i, i) for i in range(PARTS)]
    others = [((number + k) % most, (number - k) % most) for k in range(1, PARTS // 2)]
    return [(number, most), *((min(pair), max(pair)) for pair in others)]


@kernel(**INLINE)
def ask_for(tables, row, width):  # type: ignore[no-untyped-def]
    """Has all that belongs to a word brought near."""
    for n in range(row, row + width, 16):
        fetch(tables[0], n)
        fetch(tables[1], n)
        fetch(tables[2], n)
        fetch(tables[3], n)


@kernel(**INLINE)
def score(w, c, a, b, width):  # type: ignore[no-untyped-def]
    """w_a · c_b + b_a + b̃_b"""
    found = spread(np.float32(0))
    for n in range(0, width, 16):
        found = fma(load(w, a + n), load(c, b + n), found)
    return total(found)


@kernel(**INLINE)
def move(tables, a, b, width, slope):  # type: ignore[no-untyped-def]
    """AdaGrad's step of w_a and c_b."""
    (w, c, w_sum, c_sum), g = tables, spread(slope)
    for n in range(0, width, 16):
        wn, cn, wg, cg = load(w, a + n), load(c, b + n), load(w_sum, a + n), load(c_sum, b + n)
        u, v = g * cn, g * wn
        store(w, a + n, wn - u / root(wg))
        store(c, b + n, cn - v / root(cg))
        store(w_sum, a + n, fma(u, u, wg))
        store(c_sum, b + n, fma(v, v, cg))


@kernel(**PLAIN)
def learn(words, x, key, tables, width, rate, x_max, alpha):  # type: ignore[no-untyped-def]
    """Learns from the pairs of a block in an order that the key draws (Fisher and Yates); from each both X_ab and X_ba.

    Args:
        words: (N, 4) int32, of which the first two are a and b. x: (N, 2) float64, of which the last is X: both are views of `PAIR`.
        tables: w, c and their G, flat.

    Returns: the sum of f(X) (w · c - log X)², each at the weights before its step, and how many they are.
    """
    size, loss, n = len(words), 0.0, 0
    order = np.arange(size, dtype=np.int32)
    for last in range(size - 1, 0, -1):
        drawn = below(bits_at(key, last), last + 1)
        order[last], order[drawn] = order[drawn], order[last]
    held = (pointer(tables[0]), pointer(tables[1]), pointer(tables[2]), pointer(tables[3]))
    for place in range(size):
        if place + 1 < size:
            ask_for(held, np.int64(words[order[place + 1], 0]) * width, width)
            ask_for(held, np.int64(words[order[place + 1], 1]) * width, width)
        at = order[place]
        a, b, here = np.int64(words[at, 0]) * width, np.int64(words[at, 1]) * width, x[at, 1]
        f, log = min(1.0, here / x_max) ** alpha, math.log(here)
        missing = score(held[0], held[1], a, b, width) - log
        loss += f * missing * missing
        n += 1
        if a != b:
            other = score(held[0], held[1], b, a, width) - log
            loss += f * other * other
            n += 1
            move(held, b, a, width, np.float32(rate * f * other))
        move(held, a, b, width, np.float32(rate * f * missing))
    return loss, n
