"""What one step of a decoder is made of, for who computes it in one go: the parts that decoders have in common.

Letters: H heads, G groups of heads that share keys and values, K head width, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class CrossStep:
    """Attention to a source, whose keys and values a cache holds.

    Attributes:
        query: the linear layer whose outputs are queries (H · K).
    """

    query: nn.Module
    out: nn.Module
    norm: nn.Module


@dataclass(frozen=True)
class BlockStep:
    """A block: attention, perhaps attention to a source, and feed-forward, each with its norm and added to the states.

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
    cross: CrossStep | None = None


@dataclass(frozen=True)
class DecoderStep:
    """A whole decoder without its head.

    Attributes:
        positions: (places, D), what is added for a place, or None.
        turned: places (B, 1) -> cosines and sines, each (B, 1, 1, K), of rotary positions, or None.
        norm: of the last states; None where norms come after what is added, as in Vaswani et al. 2017, and not before a sub-layer.
        embedding_scale: what the embedding's rows are multiplied by, before positions are added.
        embedding_norm: of what the first block reads, or None.
    """

    blocks: Sequence[BlockStep]
    embedding: nn.Embedding
    positions: Tensor | None
    turned: Callable[[Tensor], tuple[Tensor, Tensor]] | None
    norm: nn.Module | None
    heads: int
    groups: int
    head_width: int
    embedding_scale: float = 1.0
    embedding_norm: nn.Module | None = None
