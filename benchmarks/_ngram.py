"""An n-gram model with interpolated modified Kneser–Ney smoothing (Chen and Goodman 1999, section 3), in arrays.

An n-gram is a 64-bit number mixed out of its words; of 16 million of them two share one with a chance of 1 in 100,000. Of each order there
are two sorted tables: n-grams with their discounted share, and contexts with the share that is left to the order below. A word costs about
30 bytes an order while it is trained and 24 after that: 14 million words, 80 MB of text, peak below 3 GB.

Letters: N tokens, n the order at hand.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lexloom import keys
from lexloom.tasks.likelihoods.base import Sureness

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")
_START, _END, _UNKNOWN, _WORDS = 0, 1, 2, 3
Keys = npt.NDArray[np.uint64]


def words(sentence: str) -> list[str]:
    """Words, with what an apostrophe joins, and single signs; capitals are kept."""
    return _WORD.findall(sentence)


@dataclass(frozen=True)
class Order:
    """The tables of one order: `grams` sorted, `shares` beside them; `contexts` sorted, `left` beside them."""

    grams: Keys
    shares: npt.NDArray[np.float32]
    contexts: Keys
    left: npt.NDArray[np.float32]


class NGram:
    """The model.

    Args:
        sentences: of the training text.
        order: 5 for a 5-gram model.
        rare: words that stand there fewer times than this are all one, unknown, word.
        limit: tokens that are read at most.
    """

    def __init__(self, sentences: Iterable[str], *, order: int = 5, rare: int = 2, limit: int = 40_000_000) -> None:
        self.order, self.ids = order, dict[str, int]()
        raw = array("i")
        for sentence in sentences:
            raw.append(_START)
            raw.extend(_WORDS + self.ids.setdefault(word, len(self.ids)) for word in words(sentence))
            raw.append(_END)
            if len(raw) > limit:
                break
        tokens = np.frombuffer(raw, dtype=np.int32)
        counts = np.bincount(tokens, minlength=_WORDS)[_WORDS:]
        kept = np.flatnonzero(counts >= rare)
        place = np.full(len(counts), _UNKNOWN, dtype=np.int32)
        place[kept] = _WORDS + np.arange(len(kept), dtype=np.int32)
        self.ids = {word: int(place[i]) for word, i in self.ids.items() if place[i] != _UNKNOWN}
        self.size = _WORDS + len(kept) - 1  # no word is the start of a sentence
        self.tokens = np.concatenate([np.arange(_WORDS, dtype=np.int32), place])[tokens]
        self.orders = self._trained(self.tokens)

    def _trained(self, tokens: npt.NDArray[np.int32]) -> list[Order]:
        """From the highest order down: below it a count is of different words before, and not of times."""
        depth = _depths(tokens)
        found: list[Order] = []
        kinds = np.flatnonzero(depth >= max(1, self.order - 1))
        for n in range(self.order, 0, -1):
            if n < self.order:  # where each different longer one was seen first, and all that begin a sentence: nothing stands before them
                kinds = np.concatenate([kinds, np.flatnonzero(depth == n - 1)]) if n > 1 else kinds
            own = _keys(tokens, n)
            grams, first, counts = np.unique(own[kinds], return_index=True, return_counts=True)
            kinds = kinds[first]
            contexts = _keys(tokens, n - 1)[kinds - 1] if n > 1 else np.zeros(len(kinds), np.uint64)
            found.append(_order(grams, counts, contexts))
        return found[::-1]

    def __call__(self, texts: Sequence[str]) -> list[Sureness]:
        """The natural logarithms of all words of each text, as one sentence, its end counted too."""
        flat = array("i")
        lengths = []
        for text in texts:
            found = [self.ids.get(word, _UNKNOWN) for word in words(text)]
            flat.extend([_START, *found, _END])
            lengths.append(len(found) + 2)
        logs = np.log(self.probabilities(np.frombuffer(flat, dtype=np.int32)))
        pieces = np.split(logs, np.cumsum(lengths)[:-1])
        return [Sureness(piece[1:], np.zeros(len(piece) - 1, dtype=bool)) for piece in pieces]

    def probabilities(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """(N,): of each token given those before it in its sentence; 1 at starts."""
        depth = _depths(tokens)
        found = np.full(len(tokens), 1.0 / self.size)
        for n, order in enumerate(self.orders, 1):
            at = np.flatnonzero(depth >= max(1, n - 1))
            contexts = _keys(tokens, n - 1)[at - 1] if n > 1 else np.zeros(len(at), np.uint64)
            known, place = _places(order.contexts, contexts)
            at, place = at[known], place[known]
            seen, gram = _places(order.grams, _keys(tokens, n)[at])
            share = np.zeros(len(at))
            share[seen] = order.shares[gram[seen]]
            found[at] = share + order.left[place] * found[at]
        found[depth == 0] = 1.0
        return found


def _depths(tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """How many tokens of its sentence stand before each."""
    starts = np.flatnonzero(tokens == _START)
    return (np.arange(len(tokens)) - np.repeat(starts, np.diff(np.append(starts, len(tokens))))).astype(np.int32)


def _keys(tokens: npt.NDArray[np.int32], n: int) -> Keys:
    """(N,): the number of the n-gram that ends at each place; nonsense where it would reach over the front."""
    own = (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    found = keys.mix(own)
    for _ in range(n - 1):
        found = keys.mix(np.concatenate([found[:1], found[:-1]]) + own)
    return found


def _order(grams: Keys, counts: npt.NDArray[np.int64], contexts: Keys) -> Order:
    """Discounts by how many there are of one, two, three and four; what they take goes to the context's order below."""
    d = _discounts(counts)
    kinds, which = np.unique(contexts, return_inverse=True)
    total = np.bincount(which, weights=counts)
    taken = d[np.minimum(counts, 3)]
    left = np.bincount(which, weights=taken) / total
    return Order(grams, ((counts - taken) / total[which]).astype(np.float32), kinds, left.astype(np.float32))


def _discounts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(4,): for counts of 0 (nothing), 1, 2, and 3 or more (Chen and Goodman 1999, equation 26)."""
    t = [int((counts == k).sum()) for k in range(1, 5)]
    if not all(t):
        return np.asarray([0.0, 0.5, 0.75, 0.9])  # too little text to tell
    y = t[0] / (t[0] + 2 * t[1])
    found = [k - (k + 1) * y * t[k] / t[k - 1] for k in (1, 2, 3)]
    return np.clip([0.0, *found], [0.0, 0.05, 0.05, 0.05], [0.0, 0.99, 1.99, 2.99])


def _places(table: Keys, wanted: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
    """Which of the wanted stand in a sorted table, and where."""
    place = np.minimum(np.searchsorted(table, wanted), len(table) - 1)
    return table[place] == wanted, place
