"""Starting values for attention that imitate what trained encoders have in common.

Post-norm encoders that start from plain noise sit for long at the loss that word frequencies alone give: at the start attention is
nearly uniform, its output a faint mean of the whole text. Small networks on little text never leave. Trained networks are alike in that the
product of value and output matrices leans to a negative multiple of the identity (Trockman and Kolter 2023, "Mimetic Initialization of
Self-Attention Layers") and that some heads of the first layers look at the token before or after. Starting there costs nothing.

Letters: D width, H heads, K head width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lexloom import keys
from lexloom.nn.attention import SelfAttention
from lexloom.nn.positions import frequencies

OFFSETS = (-1, 1, -2, 2)
SHARPNESS = 2.0
QUIET = 0.25
VALUE_GAIN, IDENTITY, NOISE = 0.7, 0.4, 0.4


@torch.no_grad()
def contrast(attention: SelfAttention, key: keys.Keys) -> None:
    """Output · value becomes NOISE · Z - IDENTITY · I, Z of variance 1 / D: a token is set off against the mean of what it sees.

    Args:
        key: what the random parts are drawn from.
    """
    d = attention.out.weight.shape[0]
    turn, _ = np.linalg.qr(keys.normal(keys.key(key, "turn"), d * d).reshape(d, d))
    noise = keys.normal(keys.key(key, "noise"), d * d).reshape(d, d) / np.sqrt(d)
    product = NOISE * noise - IDENTITY * np.eye(d)
    attention.qkv.weight[2 * d :].copy_(_tensor(VALUE_GAIN * turn))
    attention.out.weight.copy_(_tensor(product @ turn.T / VALUE_GAIN))


@torch.no_grad()
def look_beside(attention: SelfAttention, embedding: nn.Embedding, offsets: tuple[int, ...] = OFFSETS) -> None:
    """Head h starts by looking at the token `offsets[h % len(offsets)]` places on; needs positions that start as sinusoids.

    The key reads the fastest sinusoids, K of them or D / 4, the query the same turned by the offset: their product is largest at that
    distance. Tokens are made quiet in those dimensions, or each would mostly find itself.
    """
    d, heads = attention.out.weight.shape[0], attention.heads
    width = min(d // heads, d // 4) // 2 * 2
    angles = frequencies(d)[: width // 2]
    embedding.weight[:, :width].mul_(QUIET)
    for head in range(heads):
        start = head * (d // heads)
        query, key = torch.zeros(d // heads, d), torch.zeros(d // heads, d)
        key[:width, :width] = torch.eye(width)
        query[:width, :width] = _turned(angles * offsets[head % len(offsets)])
        attention.qkv.weight[start : start + d // heads].copy_(SHARPNESS**0.5 * query)
        attention.qkv.weight[d + start : d + start + d // heads].copy_(SHARPNESS**0.5 * key)


def _turned(angles: Tensor) -> Tensor:
    """(n,) angles -> (2n, 2n): rotations of pairs (sine, cosine) by them."""
    cos, sin = angles.cos().float(), angles.sin().float()
    return torch.block_diag(*(torch.stack([torch.stack([c, s]), torch.stack([-s, c])]) for c, s in zip(cos, sin, strict=True)))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
