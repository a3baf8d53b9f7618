"""Groups: tokens that are hidden together or not at all. Whole words (Devlin 2019, the whole-word models of BERT; Cui et al. 2021 for
Chinese) and spans of words (Joshi et al. 2020, "SpanBERT").

Letters: R rows, T tokens, W words of the row that has most.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lexloom import keys
from lexloom.keys import Keys

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
STOP, LONGEST = 0.2, 10
"""A span goes on to the next word with probability 1 - STOP, up to LONGEST words: 3.8 in the mean."""


def words(free: Bools, continues: Bools) -> tuple[Ints, Ints]:
    """The word of each token, counted within its row, (R, T), of use where `free`; and the tokens of each word, (R, W), 0 where there is
    none.

    Args:
        free: (R, T) true where something may be hidden.
        continues: (R, T) true where a token goes on with the word before it. What begins a row or stands behind a special token begins
            a word, for the rest of that is not there.
    """
    starts = free.copy()
    starts[:, 1:] &= ~(continues[:, 1:] & free[:, :-1])
    number = np.cumsum(starts, axis=1) - 1
    most = max(1, int(starts.sum(axis=1).max(initial=0)))
    row, _ = np.nonzero(free)
    sizes = np.bincount(row * most + number[free], minlength=len(free) * most).reshape(len(free), most)
    return np.maximum(number, 0), sizes.astype(np.int64)


def hidden_words(row_keys: Keys, sizes: Ints, n: Ints, most: int | Ints) -> Ints:
    """Words in random order, each that still fits into the row's number of tokens: (R, W), 1 where hidden, 0 where not.

    Args:
        n: (R,) tokens to hide.
        most: tokens that may be hidden at most. Where no word fits into `n`, the first that fits into this is hidden.
    """
    order = _order(row_keys, sizes)
    found = _fitting(order, sizes, n)
    none = ~found.any(axis=1)
    found[none] = _fitting(order[none], sizes[none], np.broadcast_to(most, n.shape)[none], one=True)
    return found.astype(np.int64)


def hidden_spans(row_keys: Keys, sizes: Ints, n: Ints, most: int) -> Ints:
    """Spans from random words on, of random lengths: (R, W), the number of its span where hidden, from 1 on, 0 where not.

    A span ends before a word that is hidden already, or that does not fit any more. What is left when no span has found a place for
    long is filled with single words. Arguments as of `hidden_words`.
    """
    turns = 2 * int(n.max(initial=0)) + LONGEST
    starts = keys.integers(keys.key(row_keys, "start"), turns, np.maximum(1, (sizes > 0).sum(axis=1))[:, None])
    wanted = span_lengths(keys.key(row_keys, "length"), turns)
    wide, steps = np.pad(sizes, ((0, 0), (0, LONGEST))), np.arange(LONGEST)
    found, left = np.zeros_like(wide), n.copy()
    for turn in range(turns):
        if not left.any():
            break
        place = starts[:, turn, None] + steps
        size, before = np.take_along_axis(wide, place, axis=1), np.take_along_axis(found, place, axis=1)
        fits = (size > 0) & (before == 0) & (steps < wanted[:, turn, None]) & (np.cumsum(size, axis=1) <= left[:, None])
        taken = np.logical_and.accumulate(fits, axis=1)
        np.put_along_axis(found, place, np.where(taken, turn + 1, before), axis=1)
        left -= (size * taken).sum(axis=1)
    found = found[:, : sizes.shape[1]]
    singles = hidden_words(row_keys, np.where(found > 0, 0, sizes), left, np.where(found.any(axis=1), 0, most))
    return np.where(singles > 0, turns + np.cumsum(singles, axis=1), found)


def span_lengths(row_keys: Keys, n: int) -> Ints:
    """Words of `n` spans for each key: geometric, of those no longer than LONGEST. (R,) -> (R, n)."""
    chances = STOP * (1 - STOP) ** np.arange(LONGEST)
    return np.searchsorted(np.cumsum(chances / chances.sum())[:-1], keys.uniform(row_keys, n), side="right") + 1


def _order(row_keys: Keys, sizes: Ints) -> Ints:
    """A random order of the words of each row, (R, W); places without a word come last."""
    drawn = np.where(sizes > 0, keys.bits(keys.key(row_keys, "mask"), sizes.shape[1]), ~np.uint64(0))
    return np.argsort(drawn, axis=1, kind="stable").astype(np.int64)


def _fitting(order: Ints, sizes: Ints, room: Ints, *, one: bool = False) -> Bools:
    """In this order every word that fits into what the ones before it left of `room` (R,), or only the first: (R, W)."""
    found, left = np.zeros(sizes.shape, dtype=np.bool_), room.copy()
    rows, ordered = np.arange(len(sizes)), np.take_along_axis(sizes, order, axis=1)
    for turn in range(sizes.shape[1]):
        if not left.any():
            break
        size = ordered[:, turn]
        fits = (size > 0) & (size <= left)
        found[rows, order[:, turn]] = fits
        left = np.where(fits, 0 if one else left - size, left)
    return found
