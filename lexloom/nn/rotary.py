"""Rotary positions (Su et al. 2021, "RoFormer"): queries and keys are turned by angles that grow with their place.

A score then depends on the distance of two tokens alone. Pairs are (i, i + K/2), the half-split order of published weights.

Letters: B rows, H heads, T tokens, K head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frequencies(width: int, base: float, device: torch.device | None = None) -> Tensor:
    """The angle that each pair turns by from one token to the next: (K/2,) float32, `base^(-2i/K)`; K is even."""
    # In float32 and as a quotient: what published models were trained with, to the last bit.
    return 1.0 / (base ** (torch.arange(0, width, 2, dtype=torch.float32, device=device) / width))


def tables(positions: Tensor, turns: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines for tokens at these positions.

    Args:
        positions: (T,) int64 where all rows count alike, else (B, T).
        turns: (K/2,) float32, `frequencies` or what a scaling rule made of them.
        scale: what both tables are multiplied by, as some scaling rules ask for.

    Returns:
        cos and sin, float32: (T, K), or (B, 1, T, K).
    """
    angles = positions[..., None].float() * turns
    angles = torch.cat([angles, angles], dim=-1)
    if angles.dim() == 3:
        angles = angles.unsqueeze(1)
    return angles.cos() * scale, angles.sin() * scale


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns (B, H, T, K) by the tables: computed in float32 at least, returned in the dtype of `x`."""
    high = x if x.dtype == torch.float64 else x.float()
    first, second = high.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (high * cos + turned * sin).to(x.dtype)
