"""Attention to the neighbourhood alone, block by block: what it costs grows with the length, not with its square.

A block of queries meets the keys of its own block and of the two beside it (Beltagy et al. 2020, "Longformer", section 3.1).

Letters: B rows, H heads, T tokens, K head width, N blocks of S tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lexloom.nn.attention import MASKED, attend, window_bias
from lexloom.nn.dropout import Dropout
from lexloom.nn.eager import once

BLOCK = 64  # the least: smaller products take a CPU as long
BLOCKS = 16
"""So many blocks and more are quicker one by one than all at once: at 8, and windows of 128, it was the same (docs/log.md)."""


def near_bias(length: int, reach: int, attention_mask: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What `attend_near` takes, where a key is seen from at most `reach` tokens away and no padding: 0, else a large negative number.

    Args:
        attention_mask: (B, T) bool, or None.

    Returns:
        of short rows `attention.window_bias`; of long ones (B, 1, N, S, 3 S), or (1, 1, N, S, 3 S) without a mask.
    """
    size = max(BLOCK, reach)
    if length < BLOCKS * size:
        return window_bias(length, reach, attention_mask, dtype, device)
    n = -(-length // size)
    starts = torch.arange(0, n * size, size, device=device)[:, None]
    queries, keys = starts + torch.arange(size, device=device), starts - size + torch.arange(3 * size, device=device)
    seen = (queries[:, :, None] - keys[:, None]).abs() <= reach
    seen = (seen & ((keys >= 0) & (keys < length))[:, None])[None]
    if attention_mask is not None:
        seen = seen & _beside(attention_mask, 1, n, size)[:, :, None]
    return once(torch.where(seen, 0.0, MASKED).to(dtype)[:, None])


def attend_near(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: Dropout, row_keys: Tensor | None) -> Tensor:
    """`attention.attend` of (B, H, T, K) queries to keys and values of that shape, by blocks where the bias is of blocks."""
    if bias is None or bias.dim() == 4:
        return attend(q, k, v, bias, dropout, row_keys)
    (b, h, t, width), (n, size) = q.shape, bias.shape[2:4]
    queries = F.pad(q * width**-0.5, (0, 0, 0, n * size - t)).view(b, h, n, size, width)
    shares = (queries @ _beside(k, 2, n, size) + bias).softmax(-1)
    found = dropout(shares, row_keys) @ _beside(v, 2, n, size).transpose(-1, -2)
    return found.reshape(b, h, n * size, width)[:, :, :t]


def _beside(x: Tensor, dim: int, n: int, size: int) -> Tensor:
    """For each block, what stands in it and in those beside it: (…, T, …) -> (…, N, …, 3 S), with zeros beyond both ends."""
    rest = [0, 0] * (x.dim() - 1 - dim)
    return F.pad(x, (*rest, size, (n + 1) * size - x.shape[dim])).unfold(dim, 3 * size, size)
