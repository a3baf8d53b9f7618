"""Linear layers in float32 through oneDNN, for answers on a CPU where that is faster than what PyTorch takes by itself.

PyTorch multiplies float32 matrices with MKL, which stays at vectors of 256 bits on processors that are not Intel's (docs/log.md).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn.linears import N, with_linears


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(…, D) float32 times (N, D) weights -> (…, N); with gradients, or of another dtype, as PyTorch does it."""
    if torch.is_grad_enabled() or x.dtype != torch.float32 or not x.numel():
        return F.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class OneDnnLinear(nn.Linear):
    """A linear layer that shares its weights with another, for inference. (…, D) float32 -> (…, N); with gradients as ever."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        self.weight, self.bias = cast(nn.Parameter, weight), cast(nn.Parameter, bias)  # None stays None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def through_onednn(network: N) -> N:
    """A copy of a network with the same weights whose linear layers multiply through oneDNN."""
    return with_linears(network, OneDnnLinear)
