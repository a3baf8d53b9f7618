"""Scaled dot-product attention (Vaswani et al. 2017, equation 1), and which kernel computes it.

Letters: B rows, H heads, G groups of heads that share keys, T queries, S keys, K head width, D = H · K.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn.dropout import Dropout
from lexloom.nn.eager import once

ONE_QUERY_FROM = 256  # numbers of the queries of one step from which a kernel of its own is worth its compiling
MASKED = -3e4  # far below any score, finite in every dtype, so that a row of padding alone gives no NaN


def padding_bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, S) bool -> (B, 1, 1, S): 0 where a key may be seen, a large negative number where it is padding."""
    return once(torch.where(attention_mask, 0.0, MASKED).to(dtype)[:, None, None, :])


def window_bias(length: int, reach: int, attention_mask: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(B, 1, T, T), or (1, 1, T, T) without a mask: 0 where a key is at most `reach` tokens away and no padding, else a large negative."""
    places = torch.arange(length, device=device)
    seen = ((places[:, None] - places).abs() <= reach)[None]
    if attention_mask is not None:
        seen = seen & attention_mask[:, None, :]
    return once(torch.where(seen, 0.0, MASKED).to(dtype)[:, None])


def causal_bias(ids: Tensor, attention_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What the tokens of a decoder may see: themselves and what stands before them, without padding on either side.

    Args:
        ids: (B, T), for their shape and device.
        attention_mask: (B, T) bool, or None.

    Returns:
        (T, T) or (B, 1, T, T) of 0 and a large negative number; None where `attend(causal=True)` does without, which is where nothing is
        learned and no padding stands in front.
    """
    if not torch.is_grad_enabled() and not torch.compiler.is_compiling() and not _starts_with_padding(attention_mask):
        return None
    seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
    if attention_mask is not None:
        seen = seen & attention_mask[:, None, None, :]
    return once(torch.where(seen, 0.0, MASKED).to(dtype))


def _starts_with_padding(attention_mask: Tensor | None) -> bool:
    """Whether a token has padding before it: what stands behind it, it does not see anyway."""
    return attention_mask is not None and bool((attention_mask[:, 1:] & ~attention_mask[:, :-1]).any())


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    dropout: Dropout,
    row_keys: Tensor | None,
    *,
    scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """Attention of (B, H, T, K) queries to (B, G, S, K) keys and values: each of these is shared by H / G heads that stand side by side.

    The bias is added before the softmax, dropout comes after it. Written out when training: keyed dropout needs the
    probabilities, and the backward of PyTorch's CPU flash kernel is slow at short lengths.

    Args:
        bias: of the shape of the scores (B, H, T, S), or one that broadcasts to it.
        scale: what the scores are multiplied by, 1 / √K where None.
        causal: without a bias, a query sees no key behind its own place.
    """
    (b, h, t, width), shared = q.shape, k.shape[1]
    if row_keys is None and not q.requires_grad:
        bias = bias if bias is None else bias.to(q.dtype)  # finer where products alone are in fewer bits
        if t == 1 and q.numel() >= ONE_QUERY_FROM and q.device.type == "cpu":
            from lexloom.nn import one_query  # brings a compiler, which small networks can do without

            if one_query.fits(q, k, v, bias):
                assert bias is not None
                return one_query.attend(q, k, v, bias, width**-0.5 if scale is None else scale)
        if t == 1 and shared < h:  # heads of one key as its queries: keys are read once and not copied
            q = q.reshape(b, shared, -1, width)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale).reshape(b, h, t, width)
        if shared < h:
            k, v = k.repeat_interleave(h // shared, 1), v.repeat_interleave(h // shared, 1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale, is_causal=causal)
    q = q * (width**-0.5 if scale is None else scale)
    scores = (q.reshape(b, shared, -1, width) @ k.transpose(-1, -2)).view(b, h, t, -1)
    if bias is not None:
        scores = scores + bias
    elif causal:
        scores = scores + torch.full(scores.shape[-2:], MASKED, dtype=scores.dtype, device=scores.device).triu(1)
    shares = dropout(scores.softmax(-1), row_keys)
    return (shares.view(b, shared, -1, k.shape[2]) @ v).view(b, h, t, width)


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
