"""A network whose linear layers are computed otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn.encoder_decoder import TargetHead
from lexloom.nn.next_token import NextTokenHead

N = TypeVar("N", bound=nn.Module)


class LowLinear(nn.Linear):
    """A linear layer that multiplies in fewer bits than the states around it, for inference. (…, D) -> (…, N) in its own dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, dtype: torch.dtype) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias is not None, device="meta")
        self.weight = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        self.bias = cast(nn.Parameter, None if bias is None else nn.Parameter(bias.detach().to(dtype), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


def sharing(network: N) -> N:
    """A copy of a network with the same weights in the same memory, in which modules may be replaced."""
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, dict(tensors))


def with_linears(network: N, make: Callable[[Tensor, Tensor | None], nn.Module]) -> N:
    """A copy of a network for inference in which other modules stand where linear layers and heads of the next token do.

    All other weights are the network's own, in the same memory.

    Args:
        make: of a layer's weight (N, D) and bias.
    """
    found = sharing(network)
    for parent in list(found.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear | NextTokenHead | TargetHead):
                setattr(parent, name, make(child.weight, getattr(child, "bias", None)))
    return found
