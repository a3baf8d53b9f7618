"""The learned mix of a network's layers (Peters et al. 2018, equation 1): γ Σ softmax(s)_j h_j."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LayerMix(nn.Module):
    """J tensors of one shape -> one; at the start, with s = 0 and γ = 1, their mean."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.scores, self.gamma = nn.Parameter(torch.empty(layers)), nn.Parameter(torch.empty(1))

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        shares = self.gamma * self.scores.softmax(0)
        mixed = shares[0] * layers[0]
        for share, layer in zip(shares[1:], layers[1:], strict=True):
            mixed = mixed + share * layer
        return mixed
