"""word2vec: skip-gram and CBOW with negative sampling or hierarchical softmax (Mikolov et al. 2013a, 2013b).

One window has M words around a centre. Skip-gram predicts the centre from each of them, CBOW from the mean of them. What is told apart is K
targets: the centre and negative words, or the inner nodes on the centre's path in a Huffman tree.

    s = x · y        x: inner vector of a word, or h, the mean of the window's; y: outer vector of a target
    L = Σ log(1 + exp(sign · s))      sign: -1 for what is so, 1 for what is not
    g = -rate · ∂L/∂s = -rate · sign · σ(sign · s)
    y ← y + Σ g x    x ← x + Σ g y    CBOW: y ← y + g h, x ← x + Σ g y, which is M times the gradient of a word in a mean of M

word2vec.c and gensim have that M as well, and the customary rates count on it: with each word's share of the mean's gradient alone CBOW
learns much less in as many epochs (docs/log.md; İrsoy et al. 2021, "Corrected CBOW performs as well as skip-gram", use a larger rate).

The negatives of a window are shared by its words, as Ji et al. 2016 do it ("Parallelizing word2vec in shared and distributed memory"),
which makes of it three small products of matrices, and in skip-gram by the windows of four neighbouring places. The update is that of the
whole window at the weights as they were; only a word that stands in it twice may see what came of the first. `plain.py` has it in NumPy.

Letters: M, K as above; D width, in blocks of 16; B windows that wait for each other. How they stand in memory is told in `windows.py`.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from lexloom.compute import kernel
from lexloom.nn.meeting import LINE, meet, take
from lexloom.vectors.lanes import (
    absolute,
    fetch,
    floor,
    fma,
    larger,
    load,
    power_of_two,
    spread,
    store,
    store_totals,
    total,
    where_above_zero,
)
from lexloom.vectors.windows import INLINE, PLAIN, ask_for, draw, kept_words, pointers


@kernel(**INLINE)
def scores(x, y, width, contexts, i0, m, targets, j0, k, s, to):  # type: ignore[no-untyped-def]
    """s_ij = x_i · y_j, of two words with six or two targets at a time."""
    k, rows = k + (k & 1), m + (m & 1)
    sixes = k - k % 6
    for i in range(0, rows, 2):
        p, q = contexts[i0 + i], contexts[i0 + i + 1]
        for j in range(0, sixes, 6):
            t, a = j0 + j, to + j * rows + i * 6
            t0, t1, t2, t3, t4, t5 = targets[t], targets[t + 1], targets[t + 2], targets[t + 3], targets[t + 4], targets[t + 5]
            p0 = p1 = p2 = p3 = p4 = p5 = q0 = q1 = q2 = q3 = q4 = q5 = spread(np.float32(0))
            for n in range(0, width, 16):
                xp, xq, y0, y1, y2 = load(x, p + n), load(x, q + n), load(y, t0 + n), load(y, t1 + n), load(y, t2 + n)
                y3, y4, y5 = load(y, t3 + n), load(y, t4 + n), load(y, t5 + n)
                p0, p1, p2, p3, p4, p5 = (
                    fma(xp, y0, p0),
                    fma(xp, y1, p1),
                    fma(xp, y2, p2),
                    fma(xp, y3, p3),
                    fma(xp, y4, p4),
                    fma(xp, y5, p5),
                )
                q0, q1, q2, q3, q4, q5 = (
                    fma(xq, y0, q0),
                    fma(xq, y1, q1),
                    fma(xq, y2, q2),
                    fma(xq, y3, q3),
                    fma(xq, y4, q4),
                    fma(xq, y5, q5),
                )
            store_totals(s, a, p0, p1, p2, p3)
            store_totals(s, a + 4, p4, p5, q0, q1)
            store_totals(s, a + 8, q2, q3, q4, q5)
        for j in range(sixes, k, 2):
            c, d = targets[j0 + j], targets[j0 + j + 1]
            pc = pd = qc = qd = spread(np.float32(0))
            for n in range(0, width, 16):
                xp, xq, yc, yd = load(x, p + n), load(x, q + n), load(y, c + n), load(y, d + n)
                pc, pd, qc, qd = fma(xp, yc, pc), fma(xp, yd, pd), fma(xq, yc, qc), fma(xq, yd, qd)
            store_totals(s, to + j * rows + i * 2, pc, pd, qc, qd)


@kernel(**INLINE)
def _exp_minus(a):  # type: ignore[no-untyped-def]
    """exp(-a) for a from 0 on: 2ⁿ times a polynomial for what is left of the exponent, within 2e-7."""
    t = larger(a * spread(np.float32(-1.4426950408889634)), spread(np.float32(-126)))
    n = floor(t)
    f = t - n
    p = fma(spread(np.float32(0.00021871895)), f, spread(np.float32(0.0012391309)))
    p = fma(p, f, spread(np.float32(0.0096840102)))
    p = fma(p, f, spread(np.float32(0.055480309)))
    p = fma(p, f, spread(np.float32(0.24023044)))
    p = fma(p, f, spread(np.float32(0.69314695)))
    p = fma(p, f, spread(np.float32(1)))
    return p * power_of_two(n)


@kernel(**INLINE)
def _log_one_plus(e):  # type: ignore[no-untyped-def]
    """log(1 + e) for e from 0 to 1: 2 artanh(z) with z = e / (2 + e), by its series, within 3e-7."""
    z = e / (e + spread(np.float32(2)))
    w = z * z
    p = fma(spread(np.float32(2 / 11)), w, spread(np.float32(2 / 9)))
    p = fma(p, w, spread(np.float32(2 / 7)))
    p = fma(p, w, spread(np.float32(2 / 5)))
    p = fma(p, w, spread(np.float32(2 / 3)))
    p = fma(p, w, spread(np.float32(2)))
    return p * z


@kernel(**INLINE)
def slopes(s, to, signs, of, size, rate):  # type: ignore[no-untyped-def]
    """s ← g for `size` scores; returns L. A sign of 0 is for what fills up."""
    none, one = spread(np.float32(0)), spread(np.float32(1))
    loss, minus_rate = none, spread(-rate)
    for n in range(0, size, 16):
        sign = load(signs, of + n)
        u = sign * load(s, to + n)
        e = _exp_minus(absolute(u))
        near = one / (one + e)  # σ(|u|)
        store(s, to + n, minus_rate * sign * where_above_zero(u, near, e * near))
        loss = fma(sign * sign, larger(u, none) + _log_one_plus(e), loss)
    return total(loss)


@kernel(**INLINE)
def apply(x, y, contexts, i0, m, targets, j0, k, g, to, first, last, work, at):  # type: ignore[no-untyped-def]
    """x_i ← x_i + Σ_j g_ij y_j and y_j ← y_j + Σ_i g_ij x_i, in the columns from `first` to `last`.

    What comes to a word more than once waits in `work`, from `at` on, until all was taken from the vectors as they were.
    """
    k, rows, none = k + (k & 1), m + (m & 1), spread(np.float32(0))
    sixes, after = k - k % 6, at + 16 * rows
    for n in range(first, last, 16):
        for j in range(0, sixes, 6):
            t, a = j0 + j, to + j * rows
            y0, y1, y2 = load(y, targets[t] + n), load(y, targets[t + 1] + n), load(y, targets[t + 2] + n)
            y3, y4, y5 = load(y, targets[t + 3] + n), load(y, targets[t + 4] + n), load(y, targets[t + 5] + n)
            d0 = d1 = d2 = d3 = d4 = d5 = none
            for i in range(m):
                p, xi = contexts[i0 + i] + n, load(x, contexts[i0 + i] + n)
                g0, g1, g2 = spread(g[a]), spread(g[a + 1]), spread(g[a + 2])
                g3, g4, g5 = spread(g[a + 3]), spread(g[a + 4]), spread(g[a + 5])
                e = fma(g4, y4, fma(g2, y2, g0 * y0)) + fma(g5, y5, fma(g3, y3, g1 * y1))
                d0, d1, d2, d3, d4, d5 = (
                    fma(g0, xi, d0),
                    fma(g1, xi, d1),
                    fma(g2, xi, d2),
                    fma(g3, xi, d3),
                    fma(g4, xi, d4),
                    fma(g5, xi, d5),
                )
                a += 6
                if j > 0:
                    e = e + load(work, at + i * 16)
                if j + 6 == k:
                    store(x, p, xi + e)
                else:
                    store(work, at + i * 16, e)
            store(work, after + 16 * j, d0)
            store(work, after + 16 * (j + 1), d1)
            store(work, after + 16 * (j + 2), d2)
            store(work, after + 16 * (j + 3), d3)
            store(work, after + 16 * (j + 4), d4)
            store(work, after + 16 * (j + 5), d5)
        for j in range(sixes, k, 2):
            t, a = j0 + j, to + j * rows
            yc, yd = load(y, targets[t] + n), load(y, targets[t + 1] + n)
            dc = dd = none
            for i in range(m):
                p, xi, gc, gd = contexts[i0 + i] + n, load(x, contexts[i0 + i] + n), spread(g[a]), spread(g[a + 1])
                e = fma(gc, yc, gd * yd)
                dc, dd = fma(gc, xi, dc), fma(gd, xi, dd)
                a += 2
                if j > 0:
                    e = e + load(work, at + i * 16)
                if j + 2 == k:
                    store(x, p, xi + e)
                else:
                    store(work, at + i * 16, e)
            store(work, after + 16 * j, dc)
            store(work, after + 16 * (j + 1), dd)
        for j in range(k):
            p = targets[j0 + j] + n
            store(y, p, load(y, p) + load(work, after + 16 * j))


@kernel(**INLINE)
def mean_of(x, width, h, h0, contexts, i0, m):  # type: ignore[no-untyped-def]
    """h ← Σ x_i / M"""
    share = spread(np.float32(1) / np.float32(m))
    for n in range(0, width, 16):
        found = load(x, contexts[i0] + n)
        for i in range(i0 + 1, i0 + m):
            found = found + load(x, contexts[i] + n)
        store(h, h0 + n, found * share)


@kernel(**INLINE)
def mean_scores(h, h0, y, width, targets, j0, k, s, to):  # type: ignore[no-untyped-def]
    """s_j = h · y_j"""
    k, none = k + (k & 1), spread(np.float32(0))
    for j in range(0, k, 4):
        t0, t1 = targets[j0 + j], targets[j0 + j + 1]
        s0 = s1 = s2 = s3 = none
        if j + 2 < k:
            t2, t3 = targets[j0 + j + 2], targets[j0 + j + 3]
            for n in range(0, width, 16):
                hn = load(h, h0 + n)
                s0, s1 = fma(hn, load(y, t0 + n), s0), fma(hn, load(y, t1 + n), s1)
                s2, s3 = fma(hn, load(y, t2 + n), s2), fma(hn, load(y, t3 + n), s3)
        else:
            for n in range(0, width, 16):
                hn = load(h, h0 + n)
                s0, s1 = fma(hn, load(y, t0 + n), s0), fma(hn, load(y, t1 + n), s1)
        store_totals(s, to + j, s0, s1, s2, s3)


@kernel(**INLINE)
def mean_apply(x, y, h, h0, contexts, i0, m, targets, j0, k, g, to, first, last):  # type: ignore[no-untyped-def]
    """y_j ← y_j + g_j h and x_i ← x_i + Σ_j g_j y_j, in the columns from `first` to `last`."""
    for n in range(first, last, 16):
        hn, e = load(h, h0 + n), spread(np.float32(0))
        for j in range(k):
            e = fma(spread(g[to + j]), load(y, targets[j0 + j] + n), e)
        for j in range(k):
            store(y, targets[j0 + j] + n, fma(spread(g[to + j]), hn, load(y, targets[j0 + j] + n)))
        for i in range(i0, i0 + m):
            store(x, contexts[i] + n, load(x, contexts[i] + n) + e)


@kernel(**INLINE)
def forward(how, tables, room, m, k, rate, b):  # type: ignore[no-untyped-def]
    """The slopes of a window's scores, and its loss."""
    (window, negatives, mean, width, wide, size), (x, y) = how, tables
    contexts, targets, signs, s, h, _, _ = room
    i0, j0, to, rows = b * (2 * window + 2), b * wide, b * size, 1 if mean else m + (m & 1)
    if mean:
        mean_of(x, width, h, b * width, contexts, i0, m)
        mean_scores(h, b * width, y, width, targets, j0, k, s, to)
    else:
        scores(x, y, width, contexts, i0, m, targets, j0, k, s, to)
    return slopes(s, to, signs, m * size if negatives > 0 else to, rows * (k + (k & 1)), rate)


@kernel(**INLINE)
def update(how, tables, room, m, k, b, first, last, thread):  # type: ignore[no-untyped-def]
    """What a window changes in some columns."""
    (window, _, mean, width, wide, size), (x, y) = how, tables
    contexts, targets, _, s, h, _, work = room
    i0, j0, to = b * (2 * window + 2), b * wide, b * size
    if mean:
        mean_apply(x, y, h, b * width, contexts, i0, m, targets, j0, k, s, to, first, last)
    else:
        apply(x, y, contexts, i0, m, targets, j0, k, s, to, first, last, work, thread * 16 * (2 * window + wide))


@kernel(**PLAIN)
def learn(ids, begin, end, rate, fall, how, draws, tree, tables, kept, room):  # type: ignore[no-untyped-def]
    """Learns from the sentences in ids[begin:end], one window after the other.

    Args:
        rate, fall: the learning rate at `begin`, and how much it falls an id.
        draws: the state that keys are made of, and what `Vocabulary.keep` and `noise` give. tree: what a `Huffman` holds.
        tables: inner and outer vectors, flat. how, kept, room: as `sizes` and `room` make them.

    Returns: the sum of the losses, and how many predictions they are: pairs of centre and context, or centres.
    """
    window, _, mean, width, wide, _ = how
    n = kept_words(ids, begin, end, draws[0], draws[1], kept)
    draws_p, tree_p, tables_p, kept_p, room_p = pointers(draws, tree, tables, kept, room)
    loss, predictions, group = 0.0, 0, -1
    b, m, k, now = 0, 0, 0, np.float32(0)
    for i in range(n + 1):  # a window is drawn, and its vectors are asked for, while the one before it is learned
        c, m_next, k_next, then = 1 - b, 0, 0, now
        if i < n:
            m_next, k_next, group_next = draw(kept_p, i, how, draws_p, tree_p, room_p, c, 0, group)
            then = np.float32(rate - fall * (kept_p[1][i] - begin))
            ask_for(tables_p[1], room_p[1], c * wide, k_next if group_next != group else 1, width)
            group = group_next
            for z in range(0, width, 16):
                fetch(tables_p[0], kept_p[0][i + window] * width + z)
        if m > 0:
            loss += forward(how, tables_p, room_p, m, k, now, b)
            update(how, tables_p, room_p, m, k, b, 0, width, 0)
            predictions += 1 if mean else m
        b, m, k, now = c, m_next, k_next, then
    return loss, predictions


@kernel(**PLAIN)
def find_slopes(begin, start, size, rate, fall, how, at, found, thread, threads):  # type: ignore[no-untyped-def]
    """A share of the windows that are taken together: drawn, and their slopes found."""
    draws, tree, tables, kept, room = at
    first, last, group = size * thread // threads, size * (thread + 1) // threads, -1
    for b in range(first, last):
        m, k, group = draw(kept, start + b, how, draws, tree, room, b, thread, group)
        found[b, 1], found[b, 2] = m, k
        ask_for(tables[1], room[1], b * how[4], k, how[3])
        for z in range(0, how[3], 16):
            fetch(tables[0], kept[0][start + b + how[0]] * how[3] + z)
    for b in range(first, last):
        if found[b, 1] > 0:
            now = np.float32(rate - fall * (kept[1][start + b] - begin))
            found[b, 0] = forward(how, tables, room, np.int64(found[b, 1]), np.int64(found[b, 2]), now, b)


@kernel(**PLAIN)
def make_updates(size, how, at, found, sums, thread, threads):  # type: ignore[no-untyped-def]
    """What the windows that are taken together change in a share of the columns. With the first share goes the sum of their losses."""
    _, _, tables, _, room = at
    blocks = how[3] >> 4
    first, last = 16 * (blocks * thread // threads), 16 * (blocks * (thread + 1) // threads)
    for b in range(size):
        if found[b, 1] > 0:
            if thread == 0:
                sums[0] += found[b, 0]
                sums[1] += 1 if how[2] else found[b, 1]
            update(how, tables, room, np.int64(found[b, 1]), np.int64(found[b, 2]), b, first, last, thread)


@kernel(parallel=True, **PLAIN)
def learn_together(ids, begin, end, rate, fall, how, draws, tree, tables, kept, room, found, threads):  # type: ignore[no-untyped-def]
    """As `learn`, by several threads, to the same bits for any number of them.

    B windows are taken together. First their scores are found, each by one thread, at the weights as they were before; then the updates are
    made, in the order of the windows, each thread making them in columns of its own. So no number depends on who computes it.

    Args:
        found: (B, 3), for the loss, M and K of each window.
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
