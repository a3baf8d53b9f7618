"""word2vec, fastText and GloVe in plain NumPy: their kernels once more, to read, and to hold the fast ones against.

Letters: M words of a window, K targets, D width, V words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lexloom import keys
from lexloom.vectors.vocabulary import Huffman
from lexloom.vectors.windows import KEEP, NEGATIVE, SHARED, SHRINK, TRIES

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Seed = Sequence[int | str]
"""The parts of a key before the place: seed, …"""
_32 = np.uint64(32)


def kept_words(ids: Ints, seed: Seed, keep: npt.NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """What subsampling leaves of a text, with the ends of sentences, and the places where it stood."""
    places = np.arange(len(ids))
    drawn = keys.bits(keys.key(*seed, places), KEEP + 1)[:, KEEP] >> _32
    left = np.flatnonzero((ids < 0) | (drawn < keep[ids]))
    return ids[left], places[left]


def windows(ids: Ints, seed: Seed, keep: npt.NDArray[np.uint64], window: int) -> Iterator[tuple[int, int, list[int]]]:
    """(place, centre, contexts) of each window of a text that has a context."""
    words, places = kept_words(ids, seed, keep)
    ends = [-1, *np.flatnonzero(words < 0).tolist(), len(words)]
    for first, last in zip([end + 1 for end in ends[:-1]], ends[1:], strict=True):
        for i in range(first, last):
            bits = int(keys.bits(keys.key(*seed, places[i : i + 1]), SHRINK + 1)[0, SHRINK])
            reach = 1 + ((bits >> 32) * window >> 32)
            around = [*words[max(first, i - reach) : i].tolist(), *words[i + 1 : min(last, i + reach + 1)].tolist()]
            if around:
                yield int(places[i]), int(words[i]), around


def negatives(word: int, place: int, seed: Seed, n: int, noise: npt.NDArray[np.uint32], *, mean: bool = False) -> list[int]:
    """`n` words that are not `word`: those of the place's group, or where one of them is the word, the place's own."""
    group, own = keys.key(*seed, np.array(place if mean else place >> SHARED)), keys.key(*seed, np.array(place))
    found = [_drawn(group, NEGATIVE + j, noise) for j in range(n)]
    for j in range(n):
        number = NEGATIVE + n + j
        while found[j] == word:
            found[j] = _drawn(own, number, noise) if number < NEGATIVE + TRIES * n else (word + 1) % len(noise)
            number += n
    return found


def _drawn(key: keys.Keys, number: int, noise: npt.NDArray[np.uint32]) -> int:
    """The word that a number of a key draws, by the alias method."""
    bits = int(keys.bits(key, number + 1)[number])
    drawn = (bits >> 32) * len(noise) >> 32
    return drawn if (bits & 0xFFFFFFFF) < noise[drawn, 0] else int(noise[drawn, 1])


def path(word: int, tree: Huffman) -> tuple[list[int], Floats]:
    """The nodes on the way to a word, and their signs."""
    here = slice(tree.starts[word], tree.starts[word + 1])
    return tree.nodes[here].tolist(), tree.turns[here]


def step(x: Floats, y: Floats, contexts: Sequence[int], targets: Sequence[int], signs: Floats, rate: float, *, mean: bool) -> float:
    """Learns from one window and returns its loss.

    Args:
        x, y: inner and outer vectors, (V, D) each; changed.
        signs: (K,), -1 where the target is so. mean: CBOW.
    """
    inner, outer = x[list(contexts)], y[list(targets)]
    rows = inner.mean(axis=0, keepdims=True) if mean else inner
    u = signs * (rows @ outer.T)
    g = -rate * signs / (1 + np.exp(-u))
    change = np.broadcast_to(g @ outer, inner.shape)
    np.add.at(y, list(targets), g.T @ rows)
    np.add.at(x, list(contexts), change)
    return float(np.logaddexp(0, u).sum())


def learn(
    ids: Ints, seed: Seed, rate: float, fall: float, how: tuple[int, int, bool], draws: Sequence[Any], x: Floats, y: Floats
) -> tuple[float, int]:
    """As `word2vec.learn` over a whole text, in which no word stands in a window twice.

    Args:
        draws: keep, noise, and what a `Huffman` holds.
    """
    window, k, mean = how
    keep, noise, *tree = draws
    loss, predictions = 0.0, 0
    for place, word, contexts in windows(ids, seed, keep, window):
        if k > 0:
            targets, signs = [word, *negatives(word, place, seed, k, noise, mean=mean)], np.r_[-1.0, np.ones(k)]
        else:
            targets, signs = path(word, Huffman(*tree))
        loss += step(x, y, contexts, targets, signs, rate - fall * place, mean=mean)
        predictions += 1 if mean else len(contexts)
    return loss, predictions


def ngram_buckets(word: str, min_n: int, max_n: int, buckets: int) -> list[int]:
    """The buckets of the n-grams of a word, as `ngrams.find_buckets` finds them."""
    whole = f"<{word}>"
    spans = [(i, i + n) for i in range(len(whole)) for n in range(min_n, max_n + 1) if i + n <= len(whole)]
    return [_fnv(whole[a:b].encode()) % buckets for a, b in spans if b - a > 1 or 0 < a < len(whole) - 1]


def _fnv(letters: bytes) -> int:
    """FNV-1a of 32 bits, bytes from 128 on being negative numbers."""
    found = 2166136261
    for byte in letters:
        found = (found ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619 & 0xFFFFFFFF
    return found


def fasttext_step(x: Floats, y: Floats, rows: Sequence[int], told: Sequence[tuple[Sequence[int], Floats]], rate: float) -> float:
    """fastText learns from a window and returns its loss.

    Args:
        x, y: inner and outer vectors; changed. rows: of x, whose mean predicts.
        told: targets of each positive, and their signs.
    """
    h, whole, loss = x[list(rows)].mean(axis=0), np.zeros(x.shape[1]), 0.0
    for targets, signs in told:
        u = signs * (y[list(targets)] @ h)
        g = -rate * signs / (1 + np.exp(-u))
        e = g @ y[list(targets)]
        np.add.at(y, list(targets), np.outer(g, h))
        h, whole, loss = h + e, whole + e, loss + float(np.logaddexp(0, u).sum())
    np.add.at(x, list(rows), whole)
    return loss


def fasttext_learn(
    ids: Ints,
    seed: Seed,
    rate: float,
    fall: float,
    how: tuple[int, int, bool],
    draws: Sequence[Any],
    rows: Sequence[Sequence[int]],
    x: Floats,
    y: Floats,
) -> tuple[float, int]:
    """As `fasttext.learn` over a whole text; `rows` of each word, in x."""
    window, k, mean = how
    keep, noise, *tree = draws
    loss, predictions = 0.0, 0
    for place, word, contexts in windows(ids, seed, keep, window):
        given, positives = (contexts, [word]) if mean else ([word], contexts)
        key = keys.key(*seed, np.array(place))
        drawn = [_drawn(key, NEGATIVE + j, noise) for j in range(k)]
        told: list[tuple[Sequence[int], Floats]] = []
        for one in positives:
            others = [other for other in drawn if other != one]
            told.append(([one, *others], np.r_[-1.0, np.ones(len(others))]) if k > 0 else path(one, Huffman(*tree)))
        loss += fasttext_step(x, y, [row for one in given for row in rows[one]], told, rate - fall * place)
        predictions += len(positives)
    return loss, predictions


def classifier_step(x: Floats, y: Floats, rows: Sequence[int], label: int, rate: float) -> float:
    """fastText's classifier learns from a text and returns its loss.

    Args:
        x, y: vectors of words and word n-grams, and of labels; changed.
    """
    h = x[list(rows)].mean(axis=0)
    scores = y @ h
    shares = np.exp(scores - np.logaddexp.reduce(scores))
    g = rate * ((np.arange(len(y)) == label) - shares)
    change = g @ y / len(rows)
    y += np.outer(g, h)
    np.add.at(x, list(rows), change)
    return float(-np.log(shares[label]))


def glove_step(tables: Sequence[Floats], a: int, b: int, x: float, rate: float, x_max: float, alpha: float) -> float:
    """GloVe learns from X_ab and returns f(X_ab) times the square of what is missing.

    Args:
        tables: w, c and the sums of their squared slopes, (V, D + 2) each; changed.
    """
    w, c, w_sum, c_sum = tables
    f = min(1.0, x / x_max) ** alpha
    missing = float(w[a] @ c[b]) - np.log(x)
    w_slope, c_slope = rate * f * missing * c[b], rate * f * missing * w[a]
    w[a] -= w_slope / np.sqrt(w_sum[a])
    c[b] -= c_slope / np.sqrt(c_sum[b])
    w_sum[a] += w_slope**2
    c_sum[b] += c_slope**2
    return float(f * missing**2)


def glove_learn(
    pairs: Sequence[tuple[int, int, float]], seed: Seed, tables: Sequence[Floats], rate: float, x_max: float, alpha: float
) -> tuple[float, int]:
    """As `glove.learn` over the pairs of a block."""
    order, key = list(range(len(pairs))), keys.key(*seed)
    bits = keys.bits(key, max(1, len(pairs))).tolist()
    for last in range(len(pairs) - 1, 0, -1):  # Fisher and Yates
        drawn = (bits[last] >> 32) * (last + 1) >> 32
        order[last], order[drawn] = order[drawn], order[last]
    loss, n = 0.0, 0
    for place in order:
        a, b, x = pairs[place]
        for one, other in [(a, b), (b, a)][: 1 + (a != b)]:
            loss += glove_step(tables, one, other, x, rate, x_max, alpha)
            n += 1
    return loss, n
