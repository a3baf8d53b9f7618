"""Scaled dot-product attention (Vaswani et al. 2017, equation 1), and which kernel computes it.

Letters: B rows, H heads, T queries, S keys, K head width, D = H · K.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn.dropout import Dropout

MASKED = -3e4  # far below any score, finite in every dtype, so that a row of padding alone gives no NaN


def padding_bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, S) bool -> (B, 1, 1, S): 0 where a key may be seen, a large negative number where it is padding."""
    return torch.where(attention_mask, 0.0, MASKED).to(dtype)[:, None, None, :]


def window_bias(length: int, reach: int, attention_mask: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(B, 1, T, T), or (1, 1, T, T) without a mask: 0 where a key is at most `reach` tokens away and no padding, else a large negative."""
    places = torch.arange(length, device=device)
    seen = ((places[:, None] - places).abs() <= reach)[None]
    if attention_mask is not None:
        seen = seen & attention_mask[:, None, :]
    return torch.where(seen, 0.0, MASKED).to(dtype)[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: Dropout, row_keys: Tensor | None) -> Tensor:
    """Attention of (B, H, T, K) queries to (B, H, S, K) keys and values.

    The bias is added before the softmax, dropout comes after it. Written out when training: keyed dropout needs the
    probabilities, and the backward of PyTorch's CPU flash kernel is slow at short lengths.
    """
    if row_keys is None and not q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return dropout(scores.softmax(-1), row_keys) @ v


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values."""

    def __init__(self, width: int, heads: int, *, dropout: float, site: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout, site)

    def forward(self, x: Tensor, bias: Tensor | None, row_keys: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(attend(q, k, v, bias, self.dropout, row_keys).transpose(1, 2).reshape(b, t, d))
