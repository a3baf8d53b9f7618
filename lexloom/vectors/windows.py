"""Windows of a text, drawn in compiled loops: which words are kept, what stands around each, and what it is told apart from.

Everything that is drawn is a function of (seed, epoch, place in the text). Words stand in windows by where their vectors begin, M words and
K targets filled up to even numbers. Scores of a window, and their signs, stand in tiles of six or two targets: in each a row of so many for
every word of the window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lexloom.compute import kernel
from lexloom.vectors.draws import LOW, below, bits_at, key_at
from lexloom.vectors.lanes import fetch, pointer, table

PLAIN: dict[str, Any] = {"error_model": "numpy"}
INLINE: dict[str, Any] = {**PLAIN, "forceinline": True}
How = tuple[int, int, bool, int, int, int]
"""Window, negatives (0: hierarchical softmax), whether it is CBOW, width of the vectors, targets and scores that a window has room for."""
KEEP, SHRINK, NEGATIVE = 0, 1, 2
"""Which number of a key decides what; negatives take those from the third on."""
SHARED = 2
"""In skip-gram the windows of 2² neighbouring places have the same negatives."""
TRIES = 64
"""How often a word is drawn anew that is the centre, before the next one is taken: where one word is nearly all of a text."""


@kernel(**PLAIN)
def kept_words(ids, begin, end, state, keep, kept):  # type: ignore[no-untyped-def]
    """What subsampling leaves of ids[begin:end]; returns how many.

    Args:
        kept: four arrays to be filled: words, their places in the text, where the sentence of each begins in these arrays, and ends.
    """
    words, places, firsts, lasts = kept
    n = first = 0
    for place in range(begin, end):
        word = ids[place]
        if word < 0:
            for i in range(first, n):
                lasts[i] = n
            first = n
        elif (bits_at(key_at(state, place), KEEP) >> np.uint64(32)) < keep[word]:
            words[n], places[n], firsts[n] = word, place, first
            n += 1
    for i in range(first, n):
        lasts[i] = n
    return n


@kernel(**INLINE)
def draw_contexts(kept, i, key, window, width, contexts, at):  # type: ignore[no-untyped-def]
    """The words around the i-th, a drawn number of 1 to `window` on each side, no further than the sentence; returns M."""
    words, _, firsts, lasts = kept
    reach = 1 + below(bits_at(key, SHRINK), window)
    first, last = max(i - reach, np.int64(firsts[i])), min(i + reach + 1, np.int64(lasts[i]))
    before, m = i - first, last - first - 1
    for j in range(window):  # always as many, which is guessed right by the CPU, though those behind M are none
        contexts[at + j] = words[first + j] * width
    for j in range(window):
        contexts[at + before + j] = words[i + 1 + j] * width
    if m & 1:
        contexts[at + m] = contexts[at]
    return m


@kernel(**INLINE)
def draw_word(bits, noise, size):  # type: ignore[no-untyped-def]
    """A word by the alias method (Vose 1991)."""
    drawn = below(bits, size)
    bound, other = np.uint64(noise[2 * drawn]), np.int64(noise[2 * drawn + 1])
    return drawn if (bits & LOW) < bound else other


@kernel(**INLINE)
def draw_negatives(state, group, negatives, noise, size, drawn, at):  # type: ignore[no-untyped-def]
    """The negatives of a group of windows."""
    key = key_at(state, group)
    for j in range(negatives):
        drawn[at + j] = draw_word(bits_at(key, NEGATIVE + j), noise, size)


@kernel(**INLINE)
def draw_targets(word, key, negatives, noise, size, drawn, first, width, targets, at):  # type: ignore[no-untyped-def]
    """The word itself and the negatives of its group, where one of them is the word another; returns K."""
    targets[at] = word * width
    for j in range(negatives):
        found, n = drawn[first + j], NEGATIVE + negatives + j
        while found == word:
            found = draw_word(bits_at(key, n), noise, size) if n < NEGATIVE + TRIES * negatives else (word + 1) % size
            n += negatives
        targets[at + j + 1] = found * width
    if (negatives & 1) == 0:
        targets[at + negatives + 1] = word * width
    return negatives + 1


@kernel(**INLINE)
def path_targets(word, m, rows, tree, width, targets, signs, at, to):  # type: ignore[no-untyped-def]
    """The nodes on the way to the word, and the signs of their scores, of which there are `rows` times as many; returns K."""
    starts, nodes, turns = tree
    first, k = starts[word], starts[word + 1] - starts[word]
    wide = k + (k & 1)
    sixes = wide - wide % 6
    for j in range(wide):
        targets[at + j] = nodes[first + min(j, k - 1)] * width
        tile, size = (j - j % 6, 6) if j < sixes else (j & -2, 2)
        for i in range(rows):
            signs[to + tile * rows + i * size + j - tile] = turns[first + j] if j < k and i < m else np.float32(0)
    for place in range(wide * rows, (wide * rows + 15) & -16):
        signs[to + place] = np.float32(0)
    return k


@kernel(**INLINE)
def draw(kept, i, how, draws, tree, room, b, thread, group):  # type: ignore[no-untyped-def]
    """Puts the window around the i-th word into slot b of `room`; returns M, K, and the group whose negatives the thread has now."""
    (window, negatives, mean, width, wide, size), (state, noise, words) = how, draws
    contexts, targets, signs, _, _, drawn, _ = room
    word, place = np.int64(kept[0][i]), kept[1][i]
    key = key_at(state, place)
    m = draw_contexts(kept, i, key, window, width, contexts, b * (2 * window + 2))
    if negatives == 0:
        rows = 1 if mean else m + (m & 1)
        return m, path_targets(word, m, rows, tree, width, targets, signs, b * wide, b * size), group
    here = place if mean else place >> SHARED
    if here != group:
        group = here
        draw_negatives(state, group, negatives, noise, words, drawn, thread * wide)
    return m, draw_targets(word, key, negatives, noise, words, drawn, thread * wide, width, targets, b * wide), group


@kernel(**INLINE)
def pointers(draws, tree, tables, kept, room):  # type: ignore[no-untyped-def]
    """All that windows are drawn from and learned with, as pointers."""
    state, _, noise = draws
    contexts, targets, signs, s, h, drawn, work = room
    return (
        (state, pointer(noise), noise.shape[0]),
        (pointer(tree[0]), pointer(tree[1]), pointer(tree[2])),
        (pointer(tables[0]), pointer(tables[1])),
        (pointer(kept[0]), pointer(kept[1]), pointer(kept[2]), pointer(kept[3])),
        (pointer(contexts), pointer(targets), pointer(signs), pointer(s), pointer(h), pointer(drawn), pointer(work)),
    )


@kernel(**INLINE)
def ask_for(y, targets, at, k, width):  # type: ignore[no-untyped-def]
    """Has vectors brought near."""
    for j in range(at, at + k):
        for z in range(0, width, 16):
            fetch(y, targets[j] + z)


def sizes(window: int, negatives: int, longest: int, width: int, *, mean: bool) -> How:
    """How much room a window takes: window, negatives, whether it is CBOW, width, targets, scores.

    Args:
        negatives: 0 for hierarchical softmax, whose longest path has `longest` nodes. width: of the vectors, a multiple of 16.
    """
    wide = (negatives + 1 if negatives else longest) + 1 & -2
    return window, negatives, mean, width, wide, 2 * window * wide + 15 & -16


def room(how: How, *, windows: int = 2, threads: int = 1) -> tuple[Any, ...]:
    """Memory for `windows` windows on their way: contexts, targets, signs, scores, means, negatives, sums."""
    window, negatives, _, width, wide, size = how
    signs = table(1, windows * size) if not negatives else _signs(how)
    contexts, targets = np.zeros(windows * (2 * window + 2), dtype=np.int64), np.zeros(windows * wide, dtype=np.int64)
    drawn, work = np.zeros(threads * wide, dtype=np.int64), table(1, threads * 16 * (2 * window + wide))
    scored, means = table(1, windows * size), table(1, windows * width)
    return contexts, targets, signs.reshape(-1), scored.reshape(-1), means.reshape(-1), drawn, work.reshape(-1)


def kept_room(most: int, how: How) -> tuple[Any, ...]:
    """Memory for what subsampling leaves of `most` ids, as `kept_words` takes it."""
    size = most + 2 * how[0] + 1  # what is looked at on both sides of a word is always there
    return np.zeros(size, np.int32), np.zeros(size, np.int64), np.zeros(size, np.int32), np.zeros(size, np.int32)


def _signs(how: How) -> npt.NDArray[np.float32]:
    """The signs for a window of M words in row M, in tiles as scores are: (2 window + 1, …)."""
    window, negatives, mean, _, wide, size = how
    found = table(2 * window + 1, size)
    column = np.where(np.arange(wide) > negatives, 0.0, np.where(np.arange(wide) == 0, -1.0, 1.0))
    sixes = wide - wide % 6
    tiles = [column[j : j + 6] for j in range(0, sixes, 6)] + [column[j : j + 2] for j in range(sixes, wide, 2)]
    for m in range(1, 2 * window + 1):
        rows, filled = (1, 0) if mean else (m, m & 1)
        parts = [part for tile in tiles for part in (np.tile(tile, rows), np.zeros(filled * len(tile)))]
        found[m, : wide * (rows + filled)] = np.concatenate(parts)
    return found
