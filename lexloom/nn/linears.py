"""A network whose linear layers are computed otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from lexloom.nn.encoder_decoder import TargetHead
from lexloom.nn.next_token import NextTokenHead

N = TypeVar("N", bound=nn.Module)


def with_linears(network: N, make: Callable[[Tensor, Tensor | None], nn.Module]) -> N:
    """A copy of a network for inference in which other modules stand where linear layers and heads of the next token do.

    All other weights are the network's own, in the same memory.

    Args:
        make: of a layer's weight (N, D) and bias.
    """
    shared_tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    found = copy.deepcopy(network, dict(shared_tensors))
    for parent in list(found.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear | NextTokenHead | TargetHead):
                setattr(parent, name, make(child.weight, getattr(child, "bias", None)))
    return found
