"""Attention of one new token of each row to the keys and values of a cache, on a CPU: one pass over what the row can see, and no more.

Letters: B rows, G groups of heads that share keys, R heads of a group, S slots, K head width.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor

from lexloom.compute import kernel, shared
from lexloom.nn.few_rows import FAST

WIDE = 1 << 16  # keys times their width from which it is worth waking threads
_UNSEEN = np.float32(-1e4)  # a bias below this is that of a place that is not seen


@kernel(**FAST)
def _add_four(out, values, a, b, c, d):  # type: ignore[no-untyped-def]
    """out ← out + a, b, c and d times four values that stand one after the other."""
    n = out.size
    for k in range(n):
        out[k] += a * values[k] + b * values[n + k] + c * values[2 * n + k] + d * values[3 * n + k]


@kernel(**FAST)
def _dot_four(q, keys):  # type: ignore[no-untyped-def]
    """A query times four keys that stand one after the other."""
    n, a, b, c, d = q.size, np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for k in range(n):
        a += q[k] * keys[k]
        b += q[k] * keys[n + k]
        c += q[k] * keys[2 * n + k]
        d += q[k] * keys[3 * n + k]
    return a, b, c, d


@kernel(**FAST)
def attend_head(q, keys, values, start, bias, scale, shares, out):  # type: ignore[no-untyped-def]
    """out ← softmax(q · keysᵀ · scale + bias) · values, over the slots behind `start` up to the last that is seen."""
    width, top, total, seen = q.size, np.float32(-np.inf), np.float32(0), bias.size
    while seen > 0 and bias[seen - 1] < _UNSEEN:
        seen -= 1
    fours = seen - seen % 4
    for s in range(0, fours, 4):
        shares[s], shares[s + 1], shares[s + 2], shares[s + 3] = _dot_four(q, keys[start + s * width : start + (s + 4) * width])
    for s in range(fours, seen):
        key, score = keys[start + s * width : start + (s + 1) * width], np.float32(0)
        for k in range(width):
            score += q[k] * key[k]
        shares[s] = score
    for s in range(seen):
        shares[s] = shares[s] * scale + bias[s]
        top = max(top, shares[s])
    for s in range(seen):
        shares[s] = np.exp(shares[s] - top)
        total += shares[s]
    for k in range(width):
        out[k] = 0
    for s in range(0, fours, 4):
        _add_four(out, values[start + s * width : start + (s + 4) * width], shares[s], shares[s + 1], shares[s + 2], shares[s + 3])
    for s in range(fours, seen):
        value = values[start + s * width : start + (s + 1) * width]
        for k in range(width):
            out[k] += shares[s] * value[k]
    if total > 0:  # a row that sees nothing gets nothing
        for k in range(width):
            out[k] /= total


def _attend(q, keys, values, row_stride, group_stride, bias, scale, out):  # type: ignore[no-untyped-def]
    """See `attend`.

    Args:
        q, out: (B, G, R, K). keys, values: flat, a row and a group every so many numbers. bias: (B, S).
    """
    rows, groups, heads, _ = q.shape
    for job in prange(rows * groups):
        row, group = job // groups, job % groups
        shares, start = np.empty(bias.shape[1], np.float32), row * row_stride + group * group_stride
        for head in range(heads):
            attend_head(q[row, group, head], keys, values, start, bias[row], scale, shares, out[row, group, head])


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
