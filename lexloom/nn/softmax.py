"""Adaptive softmax (Grave et al. 2017, "Efficient softmax approximation for GPUs"): rare words cost no more than they are worth.

Words are numbered by how often they occur. The most frequent ones stand in a short list, the others in clusters, each of which is one more
entry of the short list: p(w) = p(w in short list), or p(cluster) · p(w within it), an exact distribution over all words. Only tokens
whose word stands in a cluster go through it, from narrower states. Without clusters it is the full softmax.

Letters: N tokens, D width, V words, S words of the short list, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn.cross_entropy import summed_cross_entropy
from lexloom.nn.eager import eager

FULL_TO = 10_000
"""Words up to which a full softmax is as quick."""


def cutoffs(words: int) -> list[int]:
    """Where clusters begin: none to `FULL_TO` words, else at a 25th and a fifth of them, by which text is cut into about 80, 12 and 8 %."""
    return [] if words <= FULL_TO else [words // 25, words // 5]


class Cluster(nn.Module):
    """Rare words: (N, D) states, made narrower, -> (N, words) scores."""

    def __init__(self, width: int, narrow: int, words: int) -> None:
        super().__init__()
        self.down, self.words = nn.Linear(width, narrow, bias=False), nn.Linear(narrow, words)

    def forward(self, states: Tensor) -> Tensor:
        return self.words(self.down(states))


class AdaptiveSoftmax(nn.Module):
    """Probabilities of V words.

    Args:
        width: D. words: V.
        cutoffs: where clusters begin, rising, each between 0 and V; none for a full softmax.
        divide: states of the k-th cluster, counted from 1, are D / divide^k wide.
    """

    def __init__(self, width: int, words: int, cutoffs: Sequence[int], *, divide: float = 2.0) -> None:
        super().__init__()
        self.borders = [*cutoffs, words]
        self.head = nn.Linear(width, self.borders[0] + len(cutoffs))
        sizes = enumerate(pairwise(self.borders), start=1)
        self.clusters = nn.ModuleList(Cluster(width, max(1, int(width / divide**k)), end - begin) for k, (begin, end) in sizes)

    def forward(self, states: Tensor) -> Tensor:
        """Log-probabilities of all words: (…, D) -> (…, V)."""
        head = self.head(states).log_softmax(-1)
        short = self.borders[0]
        tails = [head[..., short + k : short + k + 1] + cluster(states).log_softmax(-1) for k, cluster in enumerate(self.clusters)]
        return torch.cat([head[..., :short], *tails], dim=-1)

    @eager  # how many tokens stand in a cluster differs from batch to batch
    def loss(self, states: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Σ weights · -log p(label): the scores of all tokens never stand in memory together.

        Args:
            states: (N, D). labels: (N,) int64, below V. weights: (N,), which get no gradient; tokens of weight 0 cost little.

        Returns:
            a scalar, in fp32 at least.
        """
        in_head = labels.clone()
        for k, begin in enumerate(self.borders[:-1]):
            in_head[labels >= begin] = self.borders[0] + k
        total = summed_cross_entropy(states, self.head.weight, self.head.bias, in_head, weights)
        for cluster, (begin, end) in zip(cast(Iterable[Cluster], self.clusters), pairwise(self.borders), strict=True):
            rows = _within(labels, weights, begin, end)
            narrow = F.linear(states.index_select(0, rows), cluster.down.weight)
            total = total + summed_cross_entropy(narrow, cluster.words.weight, cluster.words.bias, labels[rows] - begin, weights[rows])
        return total


def _within(labels: Tensor, weights: Tensor, begin: int, end: int) -> Tensor:
    """Which tokens count in a cluster. Without storage nobody knows: then all, which is what they take at most."""
    if labels.is_meta:
        return torch.arange(labels.shape[0], device="meta")
    return ((labels >= begin) & (labels < end) & (weights != 0)).nonzero()[:, 0]
