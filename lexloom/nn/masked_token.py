"""The head of a masked language model: scores of the token behind a mask, by the embedding's own matrix where it is tied."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn.block import activation


class MaskedLMHead(nn.Module):
    """Dense, activation, norm, then scores over the vocabulary (Devlin et al. 2018): (N, D) -> (N, V); `weight` is (V, D).

    Args:
        act: name of the activation.
        tied: whether it shares the embedding's matrix.
    """

    def __init__(self, vocabulary: int, width: int, *, act: str, eps: float, tied: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.weight: nn.Parameter | Tensor = nn.Parameter(torch.empty(vocabulary, width))
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.act, self.tied = activation(act), tied

    def tie(self, embedding: nn.Embedding) -> None:
        """Shares the embedding's matrix, unless the config unties them."""
        if self.tied:
            self.weight = embedding.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) states of the positions to predict -> (N, V) logits."""
        return F.linear(self.norm(self.act(self.dense(hidden))), self.weight, self.bias)
