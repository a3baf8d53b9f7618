"""A token drawn from each row of scores on a CPU, by a kernel: temperature, top-k, top-p, min-p, and the draw.

As `decoding.drawing` says it with PyTorch, where it takes a dozen operations, whose calls cost more than a step of a small decoder.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from numba import prange
from torch import Tensor

from lexloom.compute import kernel, shared
from lexloom.nn.likeliest import likeliest_of
from lexloom.nn.one_query import exp
from lexloom.nn.tile import FAST

WIDE = 1 << 16  # scores from which it is worth waking threads
_BLOCK = 64  # weights that are added up together
_SHIFT = 20  # bits of a float32 behind its sign, its exponent and three more
_ONE = 0x3F800000 >> _SHIFT  # the size of 1, which is the largest
_LOWEST = np.float32(-87)  # of what `exp` takes


@kernel(**FAST)
def _last_of_best(row, k):  # type: ignore[no-untyped-def]
    """The `k`-th largest score: the least of a heap of the largest so far, which few scores get into."""
    heap = np.sort(row[:k])  # in order, so it is a heap
    for j in range(k, row.size):
        if row[j] > heap[0]:
            value, place = row[j], 0
            while 2 * place + 1 < k:
                child = 2 * place + 1
                if child + 1 < k and heap[child + 1] < heap[child]:
                    child += 1
                if heap[child] >= value:
                    break
                heap[place] = heap[child]
                place = child
            heap[place] = value
    return heap[0]


@kernel(**FAST)
def _sum(weights):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(weights.size):
        total += np.float64(weights[j])
    return total


@kernel(**FAST)
def _narrow(row, weights, share):  # type: ignore[no-untyped-def]
    """The fewest stay that have this share together, of equals those behind, and the best one always.

    Weights of one size, as the first bits of a float tell it, are taken together: only those of the size at the border are put in order.
    """
    sizes, sums = weights.view(np.int32), np.zeros(_ONE + 1)
    for j in range(weights.size):
        sums[sizes[j] >> _SHIFT] += np.float64(weights[j])
    rest, gone, border = (1 - share) * _sum(weights), 0.0, 0
    while border < _ONE and gone + sums[border] <= rest:
        gone += sums[border]
        border += 1
    places, count = np.empty(weights.size, np.int64), 0
    for j in range(weights.size):
        if sizes[j] >> _SHIFT == border:
            places[count] = j
            count += 1
        elif sizes[j] >> _SHIFT < border:
            weights[j] = 0
    places = places[:count]
    order = np.argsort(row[places], kind="mergesort")
    for one in order[: count - (border == _ONE)]:
        gone += np.float64(weights[places[one]])
        if gone > rest:
            break
        weights[places[one]] = 0


@kernel(**FAST)
def _at(weights, uniform):  # type: ignore[no-untyped-def]
    """Where the sum of the weights in their order passes this share of all; never behind the last that has any."""
    total = 0.0
    for start in range(0, weights.size, _BLOCK):
        total += _sum(weights[start : start + _BLOCK])
    target, before, last = uniform * total, 0.0, 0
    for start in range(0, weights.size, _BLOCK):
        block = weights[start : start + _BLOCK]
        here = _sum(block)
        if here > 0:
            inside = before
            for j in range(block.size if before + here > target or before + here >= total else 0):
                if block[j] > 0:
                    inside, last = inside + np.float64(block[j]), start + j
                    if inside > target:
                        return last
        before += here
    return last


@kernel(error_model="numpy")  # as exact as PyTorch divides
def penalised(row, tokens, penalty, scores):  # type: ignore[no-untyped-def]
    """scores ← those of a row, of some tokens divided by the penalty where they are positive, else multiplied."""
    for token in tokens:
        score = row[token]
        scores[token] = score * penalty if score < 0 else score / penalty


@kernel(**FAST)
def drawn_of(row, top, rule, uniform, weights):  # type: ignore[no-untyped-def]
    """The id that is drawn from a row.

    Args:
        row: (V,) scores. top: the best of them. rule: (5,), see `decoding.drawing.Rule`; its temperature is above 0.
        uniform: a number in [0, 1). weights: (V,), overwritten.
    """
    temperature, k, share, least = np.float32(rule[0]), np.int64(rule[1]), rule[2], rule[3]
    floor = _last_of_best(row, k) if 0 < k < row.size else np.float32(-np.inf)
    for j in range(row.size):
        x = (row[j] - top) / temperature
        weights[j] = exp(x) if row[j] >= floor and x > _LOWEST else np.float32(0)
    if share < 1:
        _narrow(row, weights, share)
    for j in range(row.size if least > 0 else 0):
        weights[j] = weights[j] if weights[j] >= least else np.float32(0)
    return _at(weights, uniform)


def _draw(scores, rule, uniforms, weights, found):  # type: ignore[no-untyped-def]
    """See `drawn`."""
    for i in prange(scores.shape[0]):
        found[i] = drawn_of(scores[i], likeliest_of(scores[i])[1], rule, uniforms[i], weights[i])


_drawn = shared(_draw, **FAST)


def drawn(scores: Tensor, rule: npt.NDArray[np.float64], uniforms: Tensor) -> Tensor:
    """(B, V) float32 scores on a CPU and (B,) numbers in [0, 1) -> (B,) ids; of the (5,) rule see `decoding.drawing.Rule`."""
    rows, found = scores.contiguous(), torch.empty(len(scores), dtype=torch.int64)
    wide = len(rows) > 1 and rows.numel() >= WIDE
    _drawn(rows.numpy(), rule, uniforms.numpy(), torch.empty_like(rows).numpy(), found.numpy(), wide=wide)
    return found
