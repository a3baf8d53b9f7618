"""Position codes."""

from __future__ import annotations

import torch
from torch import Tensor

from lexloom.errors import LexloomError


def places(ids: Tensor, attention_mask: Tensor | None, most: int) -> Tensor:
    """The place of each token in its text, padding in front not counted, as generation in `transformers` counts.

    Args:
        ids: (B, T), for their shape and device.
        attention_mask: (B, T) bool, or None where nothing is padding.
        most: the longest text that the network takes.

    Returns:
        (B, T) int64, or (T,) where all rows count alike. Padding in front stands at 0.

    Raises:
        LexloomError: the rows are longer.
    """
    if ids.shape[1] > most:
        raise LexloomError("a text is longer than the model's context", expected=f"at most {most} tokens", got=str(ids.shape[1]))
    if attention_mask is None:
        return torch.arange(ids.shape[1], device=ids.device)
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)


def sinusoids(length: int, width: int) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5): `PE(pos, 2i) = sin(pos / 10000^(2i/D))`, the cosine at 2i + 1.

    Returns:
        (T, D) float32; an odd width ends with a sine.
    """
    places = torch.arange(length, dtype=torch.float64)[:, None]
    angles = places * frequencies(width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].float()


def halved_sinusoids(places: Tensor, width: int) -> Tensor:
    """The same values at any places, all sines before all cosines, as Marian and `transformers` lay them out.

    Args:
        places: int64 of any shape.

    Returns:
        (…, D) float32; of an odd width one more sine than cosines.
    """
    angles = places[..., None] * frequencies(width).to(places.device)
    return torch.cat([angles.sin(), angles.cos()[..., : width // 2]], dim=-1).float()


def frequencies(width: int) -> Tensor:
    """The angle that each pair of dimensions turns by from one position to the next: (⌈D/2⌉,) float64."""
    return 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
