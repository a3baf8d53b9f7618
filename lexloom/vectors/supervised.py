"""fastText's classifier: the mean of a text's rows, those of its words and word n-grams, and a softmax over labels (Joulin et al. 2016,
"Bag of tricks for efficient text classification").

    h = Σ x_r / R
    p = softmax(y h)    L = -log p_label
    g_k = rate · (1 if k is the label, else 0) - rate · p_k
    y_k ← y_k + g_k h    x_r ← x_r + Σ g_k y_k / R

One text after the other, so that the same texts in the same order give the same bits.

Letters: N texts, R rows of a text, K labels, D width, in blocks of 16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lexloom.compute import kernel
from lexloom.vectors.lanes import fma, load, pointer, spread, store
from lexloom.vectors.ngrams import hashes_of
from lexloom.vectors.windows import INLINE, PLAIN
from lexloom.vectors.word2vec import mean_of, mean_scores

_FACTOR = np.uint64(116049371)
"""What fastText multiplies the hash of a word n-gram by before it adds that of the next word."""


@kernel(**INLINE)
def slopes(s, k, label, rate):  # type: ignore[no-untyped-def]
    """s ← g for k scores; returns L."""
    top, whole = s[0], 0.0
    for j in range(1, k):
        top = max(top, s[j])
    for j in range(k):
        whole += np.exp(np.float64(s[j] - top))
    loss = np.log(whole) - np.float64(s[label] - top)
    for j in range(k):
        s[j] = np.float32(rate * (np.float64(j == label) - np.exp(np.float64(s[j] - top)) / whole))
    return loss


@kernel(**INLINE)
def move(x, y, h, rows, m, targets, k, g, width):  # type: ignore[no-untyped-def]
    """What a text changes."""
    share = spread(np.float32(1) / np.float32(m))
    for n in range(0, width, 16):
        hn, e = load(h, n), spread(np.float32(0))
        for j in range(k):
            gj, yj = spread(g[j]), load(y, targets[j] + n)
            e = fma(gj, yj, e)
            store(y, targets[j] + n, fma(gj, hn, yj))
        for i in range(m):
            store(x, rows[i] + n, fma(e, share, load(x, rows[i] + n)))


@kernel(**PLAIN)
def learn(order, starts, rows, labels, rate, fall, width, x, y):  # type: ignore[no-untyped-def]
    """Learns from texts in an order; returns the sum of their losses.

    Args:
        starts: where the rows of each text begin in `rows`, (N + 1,); none is without any. labels: of each text.
        rate, fall: the learning rate of the first, and how much it falls a text.
        x, y: rows of words and n-grams, and of labels, flat.
    """
    k, loss, most = len(y) // width, 0.0, 0
    for text in range(len(starts) - 1):
        most = max(most, starts[text + 1] - starts[text])
    at, targets = np.zeros(most, dtype=np.int64), np.zeros(k + 1, dtype=np.int64)
    h, s = np.zeros(width, dtype=np.float32), np.zeros(k + 4, dtype=np.float32)
    for j in range(k):
        targets[j] = j * width
    for i in range(len(order)):
        text = order[i]
        m = starts[text + 1] - starts[text]
        for z in range(m):
            at[z] = np.int64(rows[starts[text] + z]) * width
        mean_of(pointer(x), width, pointer(h), 0, pointer(at), 0, m)
        mean_scores(pointer(h), 0, pointer(y), width, pointer(targets), 0, k, pointer(s), 0)
        loss += slopes(s, k, labels[text], rate - fall * i)
        move(pointer(x), pointer(y), pointer(h), pointer(at), m, pointer(targets), k, pointer(s), width)
    return loss


def word_ngrams(texts: Sequence[Sequence[str]], longest: int, buckets: int) -> list[npt.NDArray[np.int64]]:
    """The buckets of the word n-grams of each text, of 2 to `longest` words, as fastText hashes them."""
    words = list(dict.fromkeys(word for text in texts for word in text))
    hashes = dict(zip(words, hashes_of(words).astype(np.int32).astype(np.int64).astype(np.uint64), strict=True))
    found = []
    for text in texts:
        one = np.array([hashes[word] for word in text], dtype=np.uint64)
        parts, many = [np.zeros(0, dtype=np.int64)], one
        for n in range(2, min(longest, len(text)) + 1):
            many = many[:-1] * _FACTOR + one[n - 1 :]
            parts.append((many % np.uint64(buckets)).astype(np.int64))
        found.append(np.concatenate(parts))
    return found
