"""Products of few rows with a large matrix on a CPU: one step of a decoder, whose time is that of reading the weights once.

Libraries are tuned for many rows. Here a pair of weight rows is read while up to four rows of the input are multiplied with it, so that a
step of one to sixteen texts runs at the speed of memory, in float32 as well as with weights of 8 bits.

Letters: B rows, D in, N out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numba import prange
from torch import Tensor, nn

from lexloom.compute import kernel, shared
from lexloom.nn.next_token import NextTokenHead

N = TypeVar("N", bound=nn.Module)
MOST = 16  # rows; with more a product computes longer than it reads
WIDE = 1 << 16  # weights from which it is worth waking threads
_BLOCK = 16  # weight rows that a thread takes at once
# Sums may be taken in another order, or no vector instructions are used; NaN and infinity stay what they are.
_FAST: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}


@kernel(**_FAST)
def _by_four(x0, x1, x2, x3, w0, w1):  # type: ignore[no-untyped-def]
    """Four rows with two weight rows."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
    for k in range(x0.size):
        u, v = np.float32(w0[k]), np.float32(w1[k])
        a0 += u * x0[k]
        a1 += u * x1[k]
        a2 += u * x2[k]
        a3 += u * x3[k]
        b0 += v * x0[k]
        b1 += v * x1[k]
        b2 += v * x2[k]
        b3 += v * x3[k]
    return a0, a1, a2, a3, b0, b1, b2, b3


@kernel(**_FAST)
def _alone(x0, w0, w1):  # type: ignore[no-untyped-def]
    """One row with two weight rows."""
    a = b = np.float32(0)
    for k in range(x0.size):
        a += np.float32(w0[k]) * x0[k]
        b += np.float32(w1[k]) * x0[k]
    return a, b


def _product(x, w, scales, bias, y):  # type: ignore[no-untyped-def]
    """y ← (x · wᵀ) · scales + bias

    Args:
        x: (B, D) float32. w: (N, D) float32 or int8, N being 2 or more. scales, bias: (N,). y: (B, N).
    """
    rows, most = x.shape[0], w.shape[0]
    fours = rows - rows % 4
    for block in prange(-(-most // _BLOCK)):
        for pair in range(block * _BLOCK, min(most, (block + 1) * _BLOCK), 2):
            n = min(pair, most - 2)  # of an odd number the last but one is computed twice
            p, q, c, d = scales[n], scales[n + 1], bias[n], bias[n + 1]
            for i in range(0, fours, 4):
                a0, a1, a2, a3, b0, b1, b2, b3 = _by_four(x[i], x[i + 1], x[i + 2], x[i + 3], w[n], w[n + 1])
                y[i, n], y[i + 1, n], y[i + 2, n], y[i + 3, n] = a0 * p + c, a1 * p + c, a2 * p + c, a3 * p + c
                y[i, n + 1], y[i + 1, n + 1], y[i + 2, n + 1], y[i + 3, n + 1] = b0 * q + d, b1 * q + d, b2 * q + d, b3 * q + d
            for i in range(fours, rows):
                a, b = _alone(x[i], w[n], w[n + 1])
                y[i, n], y[i, n + 1] = a * p + c, b * q + d


_multiplied = shared(_product, **_FAST)


def product(x: Tensor, weight: Any, scales: Any, bias: Any) -> Tensor:
    """(…, D) float32 times an (N, D) matrix: (…, N). See `_product`; weight, scales and bias are NumPy arrays."""
    rows = x.reshape(-1, x.shape[-1]).contiguous().numpy()
    y = np.empty((len(rows), len(weight)), np.float32)
    _multiplied(rows, weight, scales, bias, y, wide=weight.size >= WIDE)
    return torch.from_numpy(y).view(*x.shape[:-1], -1)


def few(x: Tensor) -> bool:
    """Whether (…, D) is float32 on a CPU with at most `MOST` rows, one at least, and nothing is learned."""
    return 0 < x.numel() <= MOST * x.shape[-1] and x.dtype == torch.float32 and x.device.type == "cpu" and not x.requires_grad


class FewRowsLinear(nn.Module):
    """A linear layer that shares its weights with another, for inference: few rows go through `product`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight))
        arrays = (weight, ones, zeros if bias is None else bias)
        self._arrays = tuple(array.detach().contiguous().numpy() for array in arrays)

    def forward(self, x: Tensor) -> Tensor:
        return product(x, *self._arrays) if few(x) else F.linear(x, self.weight, self.bias)


def with_linears(network: N, make: Callable[[Tensor, Tensor | None], nn.Module]) -> N:
    """A copy of a network for inference in which other modules stand where linear layers and heads of the next token do.

    All other weights are the network's own, in the same memory.

    Args:
        make: of a layer's weight (N, D) and bias, N being 2 or more.
    """
    shared_tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    found = copy.deepcopy(network, dict(shared_tensors))
    for parent in list(found.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear | NextTokenHead) and len(child.weight) > 1:
                setattr(parent, name, make(child.weight, getattr(child, "bias", None)))
    return found
