"""Attention of one new token of each row to the keys and values of a cache, on a CPU: one pass over what the row can see, and no more.

Letters: B rows, G groups of heads that share keys, R heads of a group, S slots, K head width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from lexloom.compute import kernel, shared

WIDE = 1 << 16  # keys times their width from which it is worth waking threads
_UNSEEN = np.float32(-1e4)  # a bias below this is that of a place that is not seen
_FAST: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}


@kernel(**_FAST)
def _head(q, keys, values, start, bias, scale, shares, out):  # type: ignore[no-untyped-def]
    """out ← softmax(q · keysᵀ · scale + bias) · values, over the slots behind `start` that are seen."""
    width, top, total = q.size, np.float32(-np.inf), np.float32(0)
    for s in range(bias.size):
        if bias[s] > _UNSEEN:
            key, score = keys[start + s * width : start + (s + 1) * width], np.float32(0)
            for k in range(width):
                score += q[k] * key[k]
            shares[s] = score * scale + bias[s]
            top = max(top, shares[s])
    for k in range(width):
        out[k] = 0
    for s in range(bias.size):
        if bias[s] > _UNSEEN:
            share, value = np.exp(shares[s] - top), values[start + s * width : start + (s + 1) * width]
            total += share
            for k in range(width):
                out[k] += share * value[k]
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
            _head(q[row, group, head], keys, values, start, bias[row], scale, shares, out[row, group, head])


_attended = shared(_attend, **_FAST)


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
