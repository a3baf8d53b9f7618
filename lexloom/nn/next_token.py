"""The head of a causal language model: scores of the next token, by the embedding's own matrix where it is tied."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NextTokenHead(nn.Module):
    """(…, D) states -> (…, V) scores, without a bias; `weight` is (V, D).

    Args:
        tied: whether it shares the embedding's matrix.
    """

    def __init__(self, vocabulary: int, width: int, *, tied: bool) -> None:
        super().__init__()
        self.weight: nn.Parameter | Tensor = nn.Parameter(torch.empty(vocabulary, width))
        self.tied = tied

    def tie(self, embedding: nn.Embedding) -> None:
        """Shares the embedding's matrix, unless the config unties them."""
        if self.tied:
            self.weight = embedding.weight

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight)
