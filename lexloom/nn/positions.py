"""Position codes."""

from __future__ import annotations

import torch
from torch import Tensor


def sinusoids(length: int, width: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5): `PE(pos, 2i) = sin(pos / 10000^(2i/D))`, the cosine at 2i + 1.

    Returns:
        (T, D) float32; an odd width ends with a sine.
    """
    places = torch.arange(length, dtype=torch.float64)[:, None]
    angles = places * frequencies(width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].float()


def frequencies(width: int) -> Tensor:
    """The angle that each pair of dimensions turns by from one position to the next: (⌈D/2⌉,) float64."""
    return 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
