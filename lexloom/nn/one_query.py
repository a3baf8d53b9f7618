"""Attention of one new token of each row to the keys and values of a cache, on a CPU: one pass over what the row can see, and no more.

Letters: B rows, G groups of heads that share keys, R heads of a group, S slots, K head width.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from lexloom.compute import kernel, shared
from lexloom.nn.tile import FAST, LANES, ONE, fetch, power_of_two, tile, weighted

WIDE = 1 << 16  # keys times their width from which it is worth waking threads
_AHEAD, _LINE = 16, 16  # slots that are asked for before they are needed; numbers that come at once
_scores, _score = tile(1, ONE), tile(1, 1)
_four_wide, _one_wide = weighted(4), weighted(1)
_UNSEEN = np.float32(-1e4)  # a bias below this is that of a place that is not seen


@kernel(**FAST)
def exp(x):  # type: ignore[no-untyped-def]
    """eˣ of a float32 up to 0, but for its last digit; as `expf` of Cephes (Moshier), without a branch, so that many are made at once."""
    x = max(x, np.float32(-87))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    return (p * r * r + r + np.float32(1)) * power_of_two(np.int32(n))


@kernel(**FAST)
def attend_head(q, head, keys, values, bias, scale, shares, out):  # type: ignore[no-untyped-def]
    """out ← softmax(q[head] · keysᵀ · scale + bias) · values, up to the last slot that is seen.

    Args:
        q: (heads, K). keys, values: (S, K). bias, shares: (S,), of which `shares` is overwritten. out: (K,).
    """
    top, total, seen, width = np.float32(-np.inf), np.float32(0), bias.size, keys.shape[1]
    while seen > 0 and bias[seen - 1] < _UNSEEN:
        seen -= 1
    full, flat = seen - seen % ONE, values.reshape(-1)
    for s in range(0, full, ONE):
        for k in range(s * width, (s + ONE) * width, _LINE):  # values are wanted when all scores are there
            fetch(flat, k)
        for j, score in enumerate(_scores(q, head, keys, s, _AHEAD)):
            shares[s + j] = score
    for s in range(full, seen):
        shares[s] = _score(q, head, keys, s, 0)[0]
    for s in range(seen):
        shares[s] = shares[s] * scale + bias[s]
        top = max(top, shares[s])
    for s in range(seen):
        shares[s] = exp(shares[s] - top)
        total += shares[s]
    soon = keys.ctypes.data + 4 * keys.size  # the keys of the next group stand there, or of the next row, or nothing
    wide, full = width - width % (4 * LANES), width - width % LANES
    for k in range(0, wide, 4 * LANES):
        _four_wide(shares, values, seen, k, out, soon)
    for k in range(wide, full, LANES):
        _one_wide(shares, values, seen, k, out, soon)
    out[full:] = 0
    for s in range(seen if full < width else 0):
        for k in range(full, width):
            out[k] += shares[s] * values[s, k]
    if total > 0:  # a row that sees nothing gets nothing
        for k in range(width):
            out[k] /= total


def _attend(q, keys, values, row_stride, group_stride, bias, scale, out):  # type: ignore[no-untyped-def]
    """See `attend`.

    Args:
        q, out: (B, G, R, K). keys, values: flat, a row and a group every so many numbers. bias: (B, S).
    """
    rows, groups, heads, width = q.shape
    slots = bias.shape[1]
    for job in prange(rows * groups):
        row, group = job // groups, job % groups
        start, shares = row * row_stride + group * group_stride, np.empty(slots, np.float32)
        key, value = keys[start : start + slots * width].reshape(slots, width), values[start : start + slots * width].reshape(slots, width)
        for head in range(heads):
            attend_head(q[row, group], head, key, value, bias[row], scale, shares, out[row, group, head])


_attended = shared(_attend, **FAST)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """(B, H, 1, K) queries to (B, G, S, K) keys and values as a cache hands them out: (B, H, 1, K).

    Args:
        bias: (B, 1, 1, S).
    """
    (rows, heads, _, width), (groups, slots) = q.shape, k.shape[1:3]
    out, strides = torch.empty(rows, groups, heads // groups, width), k.stride()
    arrays = (_flat(k).numpy(), _flat(v).numpy())
    wide = rows * groups * slots * width >= WIDE
    _attended(
        q.reshape(out.shape).contiguous().numpy(), *arrays, *strides[:2], bias[:, 0, 0].numpy(), np.float32(scale), out.numpy(), wide=wide
    )
    return out.view(rows, heads, 1, width)


def fits(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Whether these are one query a row, float32 on a CPU, over slots that stand side by side."""
    if q.dtype != torch.float32 or q.device.type != "cpu" or bias is None or bias.shape != (len(q), 1, 1, k.shape[2]):
        return False
    return k.stride() == v.stride() and k.stride()[2:] == (k.shape[3], 1) and bias.is_contiguous()


def _flat(x: Tensor) -> Tensor:
    """All that lies between the first and the last number of a tensor."""
    return x.as_strided((1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)),), (1,))
