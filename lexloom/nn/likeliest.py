"""The likeliest token of each row of scores, and what their softmax divides by: on a CPU in two passes, by a kernel.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from lexloom.compute import kernel, shared
from lexloom.nn.one_query import exp
from lexloom.nn.tile import FAST

WIDE = 1 << 16  # scores from which it is worth waking threads
_LANES = 64  # scores that are looked at together


@kernel(**FAST)
def _sum(row, top):  # type: ignore[no-untyped-def]
    """Σ exp of some scores less the best."""
    total = np.float32(0)
    for k in range(row.size):
        total += exp(row[k] - top)
    return total


@kernel(**FAST)
def _best(row):  # type: ignore[no-untyped-def]
    """Where the largest stands, the first where there are several: the best of each lane first, which takes many numbers at once."""
    tops, places = np.full(_LANES, -np.inf, np.float32), np.zeros(_LANES, np.int32)
    full = row.size - row.size % _LANES
    for k in range(0, full, _LANES):
        here = np.int32(k)
        for j in range(_LANES):
            better = row[k + j] > tops[j]
            places[j] = here if better else places[j]
            tops[j] = row[k + j] if better else tops[j]
    best, top = 0, np.float32(-np.inf)
    for j in range(_LANES):
        place = places[j] + j
        if place < row.size and (row[place] > top or (row[place] == top and place < best)):
            best, top = place, row[place]
    for k in range(full, row.size):
        if row[k] > top:
            best, top = k, row[k]
    return best


@kernel(**FAST)
def likeliest_of(row):  # type: ignore[no-untyped-def]
    """Of one row where the best stands, its score, and log Σ exp of all scores."""
    best, total = _best(row), 0.0
    top = row[best]
    for k in range(0, row.size, _LANES):
        total += _sum(row[k : k + _LANES], top)
    return best, top, top if np.isinf(top) else np.float32(top + np.log(total))


def _search(scores, best, tops, norms):  # type: ignore[no-untyped-def]
    """See `likeliest`."""
    for i in prange(scores.shape[0]):
        best[i], tops[i], norms[i] = likeliest_of(scores[i])


_searched = shared(_search, **FAST)


def likeliest(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, V) float32 on a CPU -> (B,) ids, the first ones where several are best; (B,) their scores; (B,) log Σ exp of all scores."""
    rows = len(scores)
    found = torch.empty(rows, dtype=torch.int64), torch.empty(rows), torch.empty(rows)
    _searched(scores.contiguous().numpy(), *(tensor.numpy() for tensor in found), wide=rows > 1 and scores.numel() >= WIDE)
    return found
