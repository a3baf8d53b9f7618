"""fastText: vectors of words that are made of their character n-grams (Bojanowski et al. 2017, "Enriching word vectors with subword
information"), learned as skip-gram and CBOW are, with negative sampling or hierarchical softmax.

One window has P positives, which are predicted: of skip-gram the M words around, of CBOW the centre. They are told apart from K - P others,
and K targets are scored by one vector, the mean of R rows: of skip-gram those of the centre, of CBOW those of all words around it.

    h = Σ x_r / R     the rows of words and of their n-grams (equation 2 of the paper has their sum; the released code takes the mean)
    s = h · y         y: outer vector of a target
    L = Σ |c| log(1 + exp(sgn(c) s))      c = -1 for a positive; for a negative the number of positives that it is not
    g = -rate · ∂L/∂s = -rate · c · σ(sgn(c) s)
    y ← y + g h       x_r ← x_r + Σ g y      which is R times the gradient of a row in the mean, so that h moves by the whole of it

The released code draws negatives for each positive; here all positives of a window have the same ones, so that h is made and changed once a
window. Those windows of `word2vec.py` run the other way, from each word around to the centre: the pairs of a text are the same.

Letters: M, K, P, R as above; D width, in blocks of 16; V words; B windows that wait for each other.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from numba import prange
from pydantic import Field, model_validator

from lexloom.compute import kernel
from lexloom.errors import ConfigError
from lexloom.vectors.draws import bits_at, key_at
from lexloom.vectors.keyed import WordVectors
from lexloom.vectors.lanes import absolute, fetch, fma, larger, load, pointer, spread, store, table, total, where_above_zero
from lexloom.vectors.ngrams import NGrams, buckets_of
from lexloom.vectors.training import BLOCK, Doubles, Kernels, TextConfig, TextState
from lexloom.vectors.vocabulary import Vocabulary
from lexloom.vectors.windows import INLINE, NEGATIVE, PLAIN, How, ask_for, draw_contexts, draw_word, kept_words
from lexloom.vectors.word2vec import exp_minus, log_one_plus, mean_apply, mean_scores

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


@kernel(**INLINE)
def slopes(s, to, weights, k, rate):  # type: ignore[no-untyped-def]
    """s ← g for k scores, of which those that fill up have a weight c of 0; returns L."""
    none, one = spread(np.float32(0)), spread(np.float32(1))
    loss, minus_one, minus_rate = none, spread(np.float32(-1)), spread(-rate)
    for n in range(to, to + k, 16):
        c = load(weights, n)
        u = where_above_zero(c, one, minus_one) * load(s, n)
        e = exp_minus(absolute(u))
        near = one / (one + e)  # σ(|u|)
        store(s, n, minus_rate * c * where_above_zero(u, near, e * near))
        loss = fma(absolute(c), larger(u, none) + log_one_plus(e), loss)
    return total(loss)


@kernel(**INLINE)
def lay_rows(subwords, words, at, n, width, rows, to):  # type: ignore[no-untyped-def]
    """The rows of n words; returns R."""
    starts, places = subwords
    r = to
    for i in range(at, at + n):
        for z in range(starts[words[i]], starts[words[i] + 1]):
            rows[r] = np.int64(places[z]) * width
            r += 1
    return r - to


@kernel(**INLINE)
def lay_targets(words, at, p, key, negatives, noise, size, width, targets, weights, to):  # type: ignore[no-untyped-def]
    """The positives, and negatives that are drawn for them; returns K."""
    for i in range(p):
        targets[to + i], weights[to + i] = words[at + i] * width, np.float32(-1)
    for j in range(negatives):
        drawn, others = draw_word(bits_at(key, NEGATIVE + j), noise, size), np.float32(0)
        for i in range(at, at + p):
            others += np.float32(words[i] != drawn)
        targets[to + p + j], weights[to + p + j] = drawn * width, others
    return p + negatives


@kernel(**INLINE)
def lay_paths(words, at, p, tree, width, targets, weights, to):  # type: ignore[no-untyped-def]
    """The nodes on the ways to the positives; returns K."""
    starts, nodes, turns = tree
    k = to
    for i in range(at, at + p):
        for z in range(starts[words[i]], starts[words[i] + 1]):
            targets[k], weights[k] = nodes[z] * width, turns[z]
            k += 1
    return k - to


@kernel(**INLINE)
def draw(kept, i, how, draws, tree, subwords, room, b):  # type: ignore[no-untyped-def]
    """Puts the window around the i-th word into slot b of `room`; returns R, K and P, which are 0 where no word stands around it."""
    (window, negatives, mean, width, wide, most), (state, noise, size) = how, draws
    rows, targets, weights, _, _, words = room
    key, at, to = key_at(state, kept[1][i]), b * (2 * window + 2), b * wide
    centre = at + 2 * window + 1
    m, words[centre] = draw_contexts(kept, i, key, window, 1, words, at), kept[0][i]
    if m == 0:
        return 0, 0, 0
    r = lay_rows(subwords, words, at, m, width, rows, b * most) if mean else lay_rows(subwords, words, centre, 1, width, rows, b * most)
    first, p = (centre, 1) if mean else (at, m)
    if negatives > 0:
        k = lay_targets(words, first, p, key, negatives, noise, size, width, targets, weights, to)
    else:
        k = lay_paths(words, first, p, tree, width, targets, weights, to)
    for j in range(k, (k + 15) & -16):
        targets[to + j], weights[to + j] = targets[to], np.float32(0)
    return r, k, p


@kernel(**INLINE)
def forward(how, x, y, room, r, k, rate, b):  # type: ignore[no-untyped-def]
    """The slopes of a window's scores, and its loss."""
    (_, _, _, width, wide, most), (rows, targets, weights, s, h, _) = how, room
    mean_scores(x, y, width, h, b * width, rows, b * most, r, targets, b * wide, k, s, b * wide)
    return slopes(s, b * wide, weights, k, rate)


@kernel(**INLINE)
def update(how, x, y, room, r, k, b, first, last):  # type: ignore[no-untyped-def]
    """What a window changes in some columns."""
    (_, _, _, width, wide, most), (rows, targets, _, s, h, _) = how, room
    mean_apply(x, y, h, b * width, rows, b * most, r, targets, b * wide, k, s, b * wide, first, last)


@kernel(**INLINE)
def ask_for_rows(x, subwords, word, width):  # type: ignore[no-untyped-def]
    """Has the rows of a word brought near."""
    starts, places = subwords
    for z in range(starts[word], starts[word + 1]):
        for n in range(0, width, 16):
            fetch(x, np.int64(places[z]) * width + n)


@kernel(**INLINE)
def pointers(draws, tree, tables, kept, room):  # type: ignore[no-untyped-def]
    """All that windows are drawn from and learned with, as pointers."""
    state, _, noise = draws
    x, y, starts, places = tables
    rows, targets, weights, s, h, words = room
    return (
        (state, pointer(noise), noise.shape[0]),
        (pointer(tree[0]), pointer(tree[1]), pointer(tree[2])),
        pointer(x),
        pointer(y),
        (pointer(starts), pointer(places)),
        (pointer(kept[0]), pointer(kept[1]), pointer(kept[2]), pointer(kept[3])),
        (pointer(rows), pointer(targets), pointer(weights), pointer(s), pointer(h), pointer(words)),
    )


@kernel(**PLAIN)
def learn(ids, begin, end, rate, fall, how, draws, tree, tables, kept, room):  # type: ignore[no-untyped-def]
    """Learns from the sentences in ids[begin:end], one window after the other; see `word2vec.learn`.

    Args:
        tables: inner and outer vectors, flat; where the rows of each word begin, and these.
    """
    window, _, mean, width, wide, _ = how
    n = kept_words(ids, begin, end, draws[0], draws[1], kept)
    draws_p, tree_p, x, y, subwords, kept_p, room_p = pointers(draws, tree, tables, kept, room)
    loss, predictions = 0.0, 0
    b, r, k, p, now = 0, 0, 0, 0, np.float32(0)
    for i in range(n + 1):  # a window is drawn, and its vectors are asked for, while the one before it is learned
        c, r_next, k_next, p_next, then = 1 - b, 0, 0, 0, now
        if i < n:
            r_next, k_next, p_next = draw(kept_p, i, how, draws_p, tree_p, subwords, room_p, c)
            then = np.float32(rate - fall * (kept_p[1][i] - begin))
            ask_for(y, room_p[1], c * wide, k_next, width)
            ask_for_rows(x, subwords, kept_p[0][i + window if mean else i], width)
        if p > 0:
            loss += forward(how, x, y, room_p, r, k, now, b)
            update(how, x, y, room_p, r, k, b, 0, width)
            predictions += p
        b, r, k, p, now = c, r_next, k_next, p_next, then
    return loss, predictions


@kernel(**PLAIN)
def find_slopes(begin, start, size, rate, fall, how, at, found, thread, threads):  # type: ignore[no-untyped-def]
    """A thread's share of the windows that are taken together: drawn, and their slopes found."""
    draws, tree, x, y, subwords, kept, room = at
    for b in range(size * thread // threads, size * (thread + 1) // threads):
        r, k, p = draw(kept, start + b, how, draws, tree, subwords, room, b)
        found[b, 1], found[b, 2], found[b, 3] = r, k, p
        if p > 0:
            now = np.float32(rate - fall * (kept[1][start + b] - begin))
            found[b, 0] = forward(how, x, y, room, r, k, now, b)


@kernel(**PLAIN)
def make_updates(size, how, at, found, thread, threads):  # type: ignore[no-untyped-def]
    """What the windows that are taken together change in a thread's share of the columns."""
    _, _, x, y, _, _, room = at
    blocks = how[3] >> 4
    first, last = 16 * (blocks * thread // threads), 16 * (blocks * (thread + 1) // threads)
    for b in range(size):
        if found[b, 3] > 0:
            update(how, x, y, room, np.int64(found[b, 1]), np.int64(found[b, 2]), b, first, last)


@kernel(parallel=True, **PLAIN)
def learn_together(ids, begin, end, rate, fall, how, draws, tree, tables, kept, room, found, threads):  # type: ignore[no-untyped-def]
    """As `learn`, by several threads, to the same bits for any number of them; see `word2vec.learn_together`.

    Args:
        found: (B, 4), for the loss, R, K and P of each window.
    """
    n, batch = kept_words(ids, begin, end, draws[0], draws[1], kept), found.shape[0]
    loss, predictions = 0.0, 0  # type: float, int
    for start in range(0, n, batch):
        size = min(batch, n - start)
        for thread in prange(threads):
            find_slopes(begin, start, size, rate, fall, how, pointers(draws, tree, tables, kept, room), found, thread, threads)
        for thread in prange(threads):
            make_updates(size, how, pointers(draws, tree, tables, kept, room), found, thread, threads)
        for b in range(size):
            if found[b, 3] > 0:
                loss += found[b, 0]
                predictions += int(found[b, 3])
    return loss, predictions


def sizes(window: int, negatives: int, longest: int, width: int, rows: int, *, mean: bool) -> How:
    """How much room a window takes: window, negatives, whether it is CBOW, width, targets, rows.

    Args:
        negatives: 0 for hierarchical softmax, whose longest path has `longest` nodes. width: of the vectors, a multiple of 16.
        rows: of the word that has most.
    """
    positives = 1 if mean else 2 * window
    wide = positives + negatives if negatives else positives * longest
    return window, negatives, mean, width, wide + 15 & -16, rows * (2 * window if mean else 1)


def room(how: How, *, windows: int = 2, threads: int = 1) -> tuple[Any, ...]:
    """Memory for `windows` windows on their way: rows, targets, weights, scores, means, words."""
    window, _, _, width, wide, most = how
    rows, targets = np.zeros(windows * most, dtype=np.int64), np.zeros(windows * wide, dtype=np.int64)
    weights, scored, means = (table(1, windows * size).reshape(-1) for size in (wide, wide, width))
    return rows, targets, weights, scored, means, np.zeros(windows * (2 * window + 2), dtype=np.int64)


class FastText(TextState):
    """Vectors of words and n-grams on their way.

    Attributes:
        inner: rows of the words, then of the buckets that their n-grams fall into, (V + R, D). held: these buckets, (R,).
        starts: where the rows of each word begin in `places`, (V + 1,); its own stands first.
    """

    NAME, CONFIG = "fasttext", FastTextConfig
    KERNELS = Kernels(learn, learn_together, room)
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
                self.inner[at + start : at + start + len(some), : config.dim] = self.begun(some, name, config.dim / 2)

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
        return sizes(self.config.window, negatives, longest, self.inner.shape[1], most, mean=self.mean)

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
