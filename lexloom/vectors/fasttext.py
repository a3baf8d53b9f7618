"""fastText: vectors of words that are made of their character n-grams (Bojanowski et al. 2017, "Enriching word vectors with subword
information"), learned as skip-gram and CBOW are, with negative sampling or hierarchical softmax.

One window has P positives, which are predicted: of skip-gram the M words around, of CBOW the centre. Each is told apart from K - 1
negatives, or is at the end of K turns of a Huffman tree. They are predicted by the mean of R rows: of skip-gram those of the centre, of
CBOW those of all words around it.

    h = Σ x_r / R     the rows of words and of their n-grams (equation 2 of the paper has their sum; the released code takes the mean)
    for each positive:
        s = h · y         y: outer vector of a target
        L = Σ log(1 + exp(sign · s))      sign: -1 for what is so, 1 for what is not
        g = -rate · ∂L/∂s = -rate · sign · σ(sign · s)
        e = Σ g y    y ← y + g h    h ← h + e
    x_r ← x_r + Σ e       which is R times the gradient of a row in the mean, so that h has moved by the whole of it

So does the released code, but that it draws negatives for each positive; here the positives of a window share theirs (Ji et al. 2016), but
for one that is the positive itself. The windows of `word2vec.py` run the other way, from each word around to the centre: the pairs of a
text are the same, and here rows are read and written once a window.

Letters: M, K, P, R as above; D width, in blocks of 16; V words; B windows that wait for each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from lexloom.compute import kernel
from lexloom.nn.meeting import LINE, meet, take
from lexloom.vectors.draws import bits_at, key_at
from lexloom.vectors.lanes import fetch, fma, further, load, pointer, spread, store, table
from lexloom.vectors.windows import INLINE, NEGATIVE, PLAIN, How, ask_for, draw_contexts, draw_word, kept_words
from lexloom.vectors.word2vec import mean_of, mean_scores, slopes


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
def lay_targets(word, words, at, negatives, width, targets, signs, to):  # type: ignore[no-untyped-def]
    """A positive, and the negatives behind words[at]; returns K."""
    targets[to], signs[to] = word * width, np.float32(-1)
    for j in range(negatives):
        targets[to + 1 + j], signs[to + 1 + j] = words[at + j] * width, np.float32(words[at + j] != word)
    return 1 + negatives


@kernel(**INLINE)
def lay_path(word, tree, width, targets, signs, to):  # type: ignore[no-untyped-def]
    """The nodes on the way to a positive; returns K."""
    starts, nodes, turns = tree
    first, k = starts[word], starts[word + 1] - starts[word]
    for j in range(k):
        targets[to + j], signs[to + j] = nodes[first + j] * width, turns[first + j]
    return k


@kernel(**INLINE)
def draw(kept, i, how, draws, tree, subwords, room, b):  # type: ignore[no-untyped-def]
    """Puts the window around the i-th word into slot b of `room`; returns R and P, which are 0 where no word stands around it."""
    (window, negatives, mean, width, wide, most), (state, noise, size) = how, draws
    rows, targets, signs, counts, _, _, words = room
    key, at, positives = key_at(state, kept[1][i]), b * (2 * window + 2 + negatives), 1 if mean else 2 * window
    centre = at + 2 * window + 1
    m, words[centre] = draw_contexts(kept, i, key, window, 1, words, at), kept[0][i]
    if m == 0:
        return 0, 0
    for j in range(negatives):
        words[centre + 1 + j] = draw_word(bits_at(key, NEGATIVE + j), noise, size)
    r = lay_rows(subwords, words, at, m, width, rows, b * most) if mean else lay_rows(subwords, words, centre, 1, width, rows, b * most)
    first, p = (centre, 1) if mean else (at, m)
    for c in range(p):
        to, word = (b * positives + c) * wide, words[first + c]
        if negatives > 0:
            k = lay_targets(word, words, centre + 1, negatives, width, targets, signs, to)
        else:
            k = lay_path(word, tree, width, targets, signs, to)
        counts[b * positives + c] = k
        for j in range(k, (k + 15) & -16):
            targets[to + j], signs[to + j] = targets[to], np.float32(0)
    return r, p


@kernel(**INLINE)
def move(h, e, y, targets, j0, k, g, to, first, last):  # type: ignore[no-untyped-def]
    """y_j ← y_j + g_j h, and h and e ← + Σ g_j y_j, in the columns from `first` to `last`."""
    for n in range(first, last, 16):
        hn, en = load(h, n), spread(np.float32(0))
        for j in range(k):
            en = fma(spread(g[to + j]), load(y, targets[j0 + j] + n), en)
        for j in range(k):  # one that is drawn twice is moved twice
            store(y, targets[j0 + j] + n, fma(spread(g[to + j]), hn, load(y, targets[j0 + j] + n)))
        store(h, n, hn + en)
        store(e, n, load(e, n) + en)


@kernel(**INLINE)
def move_mean(h, y, targets, j0, k, g, to, width):  # type: ignore[no-untyped-def]
    """h ← h + Σ g_j y_j"""
    for n in range(0, width, 16):
        hn = load(h, n)
        for j in range(k):
            hn = fma(spread(g[to + j]), load(y, targets[j0 + j] + n), hn)
        store(h, n, hn)


@kernel(**INLINE)
def move_rows(x, rows, i0, r, e, first, last):  # type: ignore[no-untyped-def]
    """x_r ← x_r + e, in the columns from `first` to `last`."""
    for n in range(first, last, 16):
        en = load(e, n)
        for i in range(i0, i0 + r):
            store(x, rows[i] + n, load(x, rows[i] + n) + en)


@kernel(**INLINE)
def step(how, x, y, room, r, p, rate, b):  # type: ignore[no-untyped-def]
    """Learns from a window; returns its loss."""
    (window, _, mean, width, wide, most), (rows, targets, signs, counts, s, means, _) = how, room
    first, loss = b * (1 if mean else 2 * window), np.float32(0)
    h, e = further(means, 3 * b * width), further(means, (3 * b + 1) * width)
    mean_of(x, width, h, 0, rows, b * most, r)
    for n in range(0, width, 16):
        store(e, n, spread(np.float32(0)))
    for c in range(first, first + p):
        mean_scores(h, 0, y, width, targets, c * wide, counts[c], s, c * wide)
        loss += slopes(s, c * wide, signs, c * wide, counts[c], rate)
        move(h, e, y, targets, c * wide, counts[c], s, c * wide, 0, width)
    move_rows(x, rows, b * most, r, e, 0, width)
    return loss


@kernel(**INLINE)
def forward(how, x, y, room, r, p, rate, b):  # type: ignore[no-untyped-def]
    """The slopes of a window's scores, at outer vectors as they are, and its loss."""
    (window, _, mean, width, wide, most), (rows, targets, signs, counts, s, means, _) = how, room
    first, loss = b * (1 if mean else 2 * window), np.float32(0)
    begun, h = further(means, 3 * b * width), further(means, (3 * b + 1) * width)
    mean_of(x, width, begun, 0, rows, b * most, r)
    for n in range(0, width, 16):
        store(h, n, load(begun, n))
    for c in range(first, first + p):
        mean_scores(h, 0, y, width, targets, c * wide, counts[c], s, c * wide)
        loss += slopes(s, c * wide, signs, c * wide, counts[c], rate)
        move_mean(h, y, targets, c * wide, counts[c], s, c * wide, width)
    return loss


@kernel(**INLINE)
def update(how, x, y, room, r, p, b, first, last):  # type: ignore[no-untyped-def]
    """What a window changes in some columns, by slopes that were found before."""
    (window, _, mean, width, wide, most), (rows, targets, _, counts, s, means, _) = how, room
    c0 = b * (1 if mean else 2 * window)
    h, e = further(means, 3 * b * width), further(means, (3 * b + 2) * width)
    for n in range(first, last, 16):
        store(e, n, spread(np.float32(0)))
    for c in range(c0, c0 + p):
        move(h, e, y, targets, c * wide, counts[c], s, c * wide, first, last)
    move_rows(x, rows, b * most, r, e, first, last)


@kernel(**INLINE)
def ask_for_rows(x, subwords, word, width):  # type: ignore[no-untyped-def]
    """Has the rows of a word brought near."""
    starts, places = subwords
    for z in range(starts[word], starts[word + 1]):
        for n in range(0, width, 16):
            fetch(x, np.int64(places[z]) * width + n)


@kernel(**INLINE)
def ask_for_targets(y, how, room, first, p):  # type: ignore[no-untyped-def]
    """Has the outer vectors of a window brought near: of all positives but the first only their own, where they share the others."""
    (_, negatives, _, width, wide, _), (_, targets, _, counts, _, _, _) = how, room
    for c in range(first, first + p):
        ask_for(y, targets, c * wide, 1 if negatives > 0 and c > first else counts[c], width)


@kernel(**INLINE)
def pointers(draws, tree, tables, kept, room):  # type: ignore[no-untyped-def]
    """All that windows are drawn from and learned with, as pointers."""
    state, _, noise = draws
    x, y, starts, places = tables
    rows, targets, signs, counts, s, means, words = room
    return (
        (state, pointer(noise), noise.shape[0]),
        (pointer(tree[0]), pointer(tree[1]), pointer(tree[2])),
        pointer(x),
        pointer(y),
        (pointer(starts), pointer(places)),
        (pointer(kept[0]), pointer(kept[1]), pointer(kept[2]), pointer(kept[3])),
        (pointer(rows), pointer(targets), pointer(signs), pointer(counts), pointer(s), pointer(means), pointer(words)),
    )


@kernel(**PLAIN)
def learn(ids, begin, end, rate, fall, how, draws, tree, tables, kept, room):  # type: ignore[no-untyped-def]
    """Learns from the sentences in ids[begin:end], one window after the other; see `word2vec.learn`.

    Args:
        tables: inner and outer vectors, flat; where the rows of each word begin, and these.
    """
    window, _, mean, width, _, _ = how
    n, positives = kept_words(ids, begin, end, draws[0], draws[1], kept), 1 if mean else 2 * window
    draws_p, tree_p, x, y, subwords, kept_p, room_p = pointers(draws, tree, tables, kept, room)
    loss, predictions = 0.0, 0
    b, r, p, now = 0, 0, 0, np.float32(0)
    for i in range(n + 1):  # a window is drawn, and its vectors are asked for, while the one before it is learned
        c, r_next, p_next, then = 1 - b, 0, 0, now
        if i < n:
            r_next, p_next = draw(kept_p, i, how, draws_p, tree_p, subwords, room_p, c)
            then = np.float32(rate - fall * (kept_p[1][i] - begin))
            ask_for_targets(y, how, room_p, c * positives, p_next)
            ask_for_rows(x, subwords, kept_p[0][i + window if mean else i], width)
        if p > 0:
            loss += step(how, x, y, room_p, r, p, now, b)
            predictions += p
        b, r, p, now = c, r_next, p_next, then
    return loss, predictions


@kernel(**PLAIN)
def find_slopes(begin, start, size, rate, fall, how, at, found, thread, threads):  # type: ignore[no-untyped-def]
    """A share of the windows that are taken together: drawn, and their slopes found."""
    draws, tree, x, y, subwords, kept, room = at
    for b in range(size * thread // threads, size * (thread + 1) // threads):
        r, p = draw(kept, start + b, how, draws, tree, subwords, room, b)
        found[b, 1], found[b, 2] = r, p
        if p > 0:
            now = np.float32(rate - fall * (kept[1][start + b] - begin))
            found[b, 0] = forward(how, x, y, room, r, p, now, b)


@kernel(**PLAIN)
def make_updates(size, how, at, found, sums, thread, threads):  # type: ignore[no-untyped-def]
    """What the windows that are taken together change in a share of the columns. With the first share goes the sum of their losses."""
    _, _, x, y, _, _, room = at
    blocks = how[3] >> 4
    first, last = 16 * (blocks * thread // threads), 16 * (blocks * (thread + 1) // threads)
    for b in range(size):
        if found[b, 2] > 0:
            if thread == 0:
                sums[0] += found[b, 0]
                sums[1] += found[b, 2]
            update(how, x, y, room, np.int64(found[b, 1]), np.int64(found[b, 2]), b, first, last)


@kernel(parallel=True, **PLAIN)
def learn_together(ids, begin, end, rate, fall, how, draws, tree, tables, kept, room, found, threads):  # type: ignore[no-untyped-def]
    """As `learn`, by several threads, to the same bits for any number of them; see `word2vec.learn_together`.

    Args:
        found: (B, 3), for the loss, R and P of each window.
    """
    n, batch = kept_words(ids, begin, end, draws[0], draws[1], kept), found.shape[0]
    batches = -(-n // batch)
    counters, sums = np.zeros((2 * batches, (threads + 1) * LINE), np.int64), np.zeros((batches, 2))
    for number in prange(threads):
        thread, at = np.int64(number), pointers(draws, tree, tables, kept, room)
        for phase in range(2 * batches):
            start, done = phase // 2 * batch, 0
            size = min(batch, n - start)
            piece = take(counters, phase, thread, threads, threads)
            while piece >= 0:
                if phase & 1:
                    make_updates(size, how, at, found, sums[phase // 2], piece, threads)
                else:
                    find_slopes(begin, start, size, rate, fall, how, at, found, piece, threads)
                done += 1
                piece = take(counters, phase, thread, threads, threads)
            meet(counters, phase, threads, threads, done)
    loss, predictions = 0.0, 0.0
    for b in range(batches):
        loss += sums[b, 0]
        predictions += sums[b, 1]
    return loss, int(predictions)


def sizes(window: int, negatives: int, longest: int, width: int, rows: int, *, mean: bool) -> How:
    """How much room a window takes: window, negatives, whether it is CBOW, width, targets of a positive, rows.

    Args:
        negatives: 0 for hierarchical softmax, whose longest path has `longest` nodes. width: of the vectors, a multiple of 16.
        rows: of the word that has most.
    """
    wide = (negatives + 1 if negatives else longest) + 15 & -16
    return window, negatives, mean, width, wide, rows * (2 * window if mean else 1)


def room(how: How, *, windows: int = 2, threads: int = 1) -> tuple[Any, ...]:
    """Memory for `windows` windows on their way: rows, targets, signs, how many targets a positive has, scores, means, words."""
    window, negatives, mean, width, wide, most = how
    positives = windows * (1 if mean else 2 * window)
    rows, targets, counts = (np.zeros(size, dtype=np.int64) for size in (windows * most, positives * wide, positives))
    signs, scored, means = (table(1, size).reshape(-1) for size in (positives * wide, positives * wide, 3 * windows * width))
    return rows, targets, signs, counts, scored, means, np.zeros(windows * (2 * window + 2 + negatives), dtype=np.int64)
