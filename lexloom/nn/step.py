"""What one step of a decoder is made of, for who computes it in one go: the parts that pre-norm decoders have in common.

Letters: H heads, G groups of heads that share keys and values, K head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class BlockStep:
    """A block: norm, attention and add; norm, feed-forward and add.

    Attributes:
        projections: linear layers whose outputs side by side are queries (H · K), keys and values (G · K each).
        gated: whether the inner values are two halves, act(a) · b.
        scale: what scores are multiplied by.
    """

    attention_norm: nn.Module
    projections: Sequence[nn.Module]
    out: nn.Module
    norm: nn.Module
    up: nn.Module
    down: nn.Module
    act: Callable[[Tensor], Tensor]
    gated: bool
    scale: float


@dataclass(frozen=True)
class DecoderStep:
    """A whole decoder without its head.

    Attributes:
        positions: what is added for a place, or None.
        turned: places (B, 1) -> cosines and sines, each (B, 1, 1, K), of rotary positions, or None.
    """

    blocks: Sequence[BlockStep]
    embedding: nn.Embedding
    positions: nn.Embedding | None
    turned: Callable[[Tensor], tuple[Tensor, Tensor]] | None
    norm: nn.Module
    heads: int
    groups: int
    head_width: int
