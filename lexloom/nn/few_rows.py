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
import numpy.typing as npt
import torch
import torch.nn.functional as F
from llvmlite import ir  # type: ignore[import-untyped]
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor, nn

from lexloom.compute import kernel, shared
from lexloom.nn.encoder_decoder import TargetHead
from lexloom.nn.next_token import NextTokenHead

Floats = npt.NDArray[np.float32]
N = TypeVar("N", bound=nn.Module)
MOST = 16  # rows; with more a product computes longer than it reads
WIDE = 1 << 16  # weights from which it is worth waking threads
_BLOCK = 16  # weight rows that a thread takes at once
_AHEAD, _LINE = 8, 64  # weight rows that are asked for before they are needed, in bytes that come at once
# Sums may be taken in another order, or no vector instructions are used; NaN and infinity stay what they are.
FAST: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}


@intrinsic
def _prefetch(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """Has the memory around array[row, column] brought near."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        made = context.make_array(signature.args[0])(context, builder, values[0])
        place = cgutils.get_item_pointer(context, builder, signature.args[0], made, list(values[1:]), wraparound=False)
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word]))
        builder.call(fetch, [builder.bitcast(place, byte), word(0), word(3), word(1)])  # to read, to the nearest cache, data
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


@kernel(**FAST)
def _by_eight(x, i, w):  # type: ignore[no-untyped-def]
    """Rows i to i + 7 with one weight row: more sums at a time do not fit into registers."""
    x0, x1, x2, x3, x4, x5, x6, x7 = x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5], x[i + 6], x[i + 7]
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.float32(0)
    for k in range(x0.size):
        u = np.float32(w[k])
        a0 += u * x0[k]
        a1 += u * x1[k]
        a2 += u * x2[k]
        a3 += u * x3[k]
        a4 += u * x4[k]
        a5 += u * x5[k]
        a6 += u * x6[k]
        a7 += u * x7[k]
    return a0, a1, a2, a3, a4, a5, a6, a7


@kernel(**FAST)
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


@kernel(**FAST)
def _alone(x0, w0, w1):  # type: ignore[no-untyped-def]
    """One row with two weight rows."""
    a = b = np.float32(0)
    for k in range(x0.size):
        a += np.float32(w0[k]) * x0[k]
        b += np.float32(w1[k]) * x0[k]
    return a, b


@kernel(**FAST)
def _put(y, i, n, value, onto):  # type: ignore[no-untyped-def]
    if onto:
        y[i, n] += value
    else:
        y[i, n] = value


def _product(x, w, scales, bias, at, onto, y):  # type: ignore[no-untyped-def]
    """y ← (x · wᵀ) · scales + bias, or all this added to y, in the columns of y from `at` on.

    Args:
        x: (B, D) float32. w: (N, D) float32 or int8, N being 2 or more. scales, bias: (N,). y: (B, at + N or more).
        onto: whether it is added; N is then even.
    """
    rows, most, line = x.shape[0], w.shape[0], _LINE // w.itemsize
    eights, fours = rows - rows % 8, rows - rows % 4
    ahead = most if rows == 1 and w.itemsize > 1 else _AHEAD  # one row of float32 waits for memory in any case
    for block in prange(-(-most // _BLOCK)):
        for pair in range(block * _BLOCK, min(most, (block + 1) * _BLOCK), 2):
            n = min(pair, most - 2)  # of an odd number the last but one is computed twice
            if n + ahead + 1 < most:
                for k in range(0, w.shape[1], line):
                    _prefetch(w, n + ahead, k)  # type: ignore[call-arg]
                    _prefetch(w, n + ahead + 1, k)
            p, q, c, d, m = scales[n], scales[n + 1], bias[n], bias[n + 1], at + n
            for i in range(0, eights, 8):
                for j, a in enumerate(_by_eight(x, i, w[n])):
                    _put(y, i + j, m, a * p + c, onto)
                for j, b in enumerate(_by_eight(x, i, w[n + 1])):
                    _put(y, i + j, m + 1, b * q + d, onto)
            for i in range(eights, fours, 4):
                a0, a1, a2, a3, b0, b1, b2, b3 = _by_four(x[i], x[i + 1], x[i + 2], x[i + 3], w[n], w[n + 1])
                for j, a, b in ((0, a0, b0), (1, a1, b1), (2, a2, b2), (3, a3, b3)):
                    _put(y, i + j, m, a * p + c, onto)
                    _put(y, i + j, m + 1, b * q + d, onto)
            for i in range(fours, rows):
                a, b = _alone(x[i], w[n], w[n + 1])
                _put(y, i, m, a * p + c, onto)
                _put(y, i, m + 1, b * q + d, onto)


_multiplied = shared(_product, **FAST)


def multiply(x: Floats, arrays: tuple[Any, Floats, Floats], y: Floats, *, at: int = 0, onto: bool = False) -> None:
    """See `_product`; `arrays` are weight, scales and bias."""
    _multiplied(x, *arrays, at, onto, y, wide=arrays[0].size >= WIDE)


def product(x: Tensor, arrays: tuple[Any, Floats, Floats]) -> Tensor:
    """(…, D) float32 times an (N, D) matrix: (…, N)."""
    rows = x.reshape(-1, x.shape[-1]).contiguous().numpy()
    y = np.empty((len(rows), len(arrays[0])), np.float32)
    multiply(rows, arrays, y)
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
        low, high, offset = (array.detach().contiguous().numpy() for array in (weight, ones, zeros if bias is None else bias))
        self.arrays = (low, high, offset)

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.arrays) if few(x) else F.linear(x, self.weight, self.bias)


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
            if isinstance(child, nn.Linear | NextTokenHead | TargetHead) and len(child.weight) > 1:
                setattr(parent, name, make(child.weight, getattr(child, "bias", None)))
    return found
