"""Products of few rows with a large matrix on a CPU: one step of a decoder, whose time is that of reading the weights once.

Libraries are tuned for many rows. Here every weight is read once, in the order of memory, while up to eight input rows are multiplied
with it, so that a step of few texts runs at the speed of memory, in float32 as well as with weights of 8 bits.

Letters: B rows, D in, N out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numba import prange
from torch import Tensor, nn

from lexloom import compute
from lexloom.compute import kernel, shared
from lexloom.nn import onednn
from lexloom.nn.tile import EIGHT, FAST, FOUR, ONE, tile_put

Floats = npt.NDArray[np.float32]
MOST = 32  # rows; beyond, a product computes more than it waits for memory, which libraries do as well
WIDE = 1 << 16  # weights from which it is worth waking threads
BLOCK = 48  # weight rows that a thread takes at once, or a multiple; whole tiles of all kinds
_NEAR = 24 << 10  # bytes of weights that are asked for before they are needed
_eight, _four, _one = tile_put(8, EIGHT), tile_put(4, FOUR), tile_put(1, ONE)
_eight_left, _four_left, _one_left = tile_put(8, 1), tile_put(4, 1), tile_put(1, 1)


@kernel(**FAST)
def multiply_rows(x, w, scales, bias, begin, end, at, onto, y):  # type: ignore[no-untyped-def]
    """y ← (x · wᵀ) · scales + bias for the weight rows from `begin` up to `end`, or all this added to y, in its columns from `at` on.

    What a row becomes does not depend on the rows beside it, to the bit.

    Args:
        x: (B, D or more) float32. w: (N, D) float32 or int8. scales, bias: (N,). y: (B, at + N or more).
    """
    rows, amount, ahead = x.shape[0], end - begin, _NEAR // (w.shape[1] * w.itemsize)
    eights, fours = rows - rows % 8, rows - rows % 4
    for i in range(0, eights, 8):
        for n in range(begin, end - amount % EIGHT, EIGHT):
            _eight(x, i, w, n, ahead, scales, bias, onto, y, at)
        for n in range(end - amount % EIGHT, end):
            _eight_left(x, i, w, n, ahead, scales, bias, onto, y, at)
    for i in range(eights, fours, 4):
        for n in range(begin, end - amount % FOUR, FOUR):
            _four(x, i, w, n, ahead, scales, bias, onto, y, at)
        for n in range(end - amount % FOUR, end):
            _four_left(x, i, w, n, ahead, scales, bias, onto, y, at)
    for i in range(fours, rows):
        for n in range(begin, end - amount % ONE, ONE):
            _one(x, i, w, n, ahead, scales, bias, onto, y, at)
        for n in range(end - amount % ONE, end):
            _one_left(x, i, w, n, ahead, scales, bias, onto, y, at)


def _product(x, w, scales, bias, y):  # type: ignore[no-untyped-def]
    """y ← (x · wᵀ) · scales + bias: (B, N), see `multiply_rows`."""
    most = w.shape[0]
    for block in prange(-(-most // BLOCK)):
        multiply_rows(x, w, scales, bias, block * BLOCK, min(most, (block + 1) * BLOCK), 0, False, y)


_multiplied = shared(_product, **FAST)


def product(x: Tensor, arrays: tuple[Floats, Floats, Floats]) -> Tensor:
    """(…, D) float32 times an (N, D) matrix: (…, N)."""
    rows = x.reshape(-1, x.shape[-1]).contiguous().numpy()
    y = torch.empty(len(rows), len(arrays[0]))
    _multiplied(rows, *arrays, y.numpy(), wide=arrays[0].size >= WIDE)
    return y.view(*x.shape[:-1], -1)


def few(x: Tensor) -> bool:
    """Whether (…, D) is float32 on a CPU with at most `MOST` rows, one at least, and nothing is learned."""
    return 0 < x.numel() <= MOST * x.shape[-1] and x.dtype == torch.float32 and x.device.type == "cpu" and not x.requires_grad


class FewRowsLinear(nn.Module):
    """A linear layer that shares its weights with another, for inference: few rows go through `product`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.out_features, self.in_features = weight.shape
        ones, zeros = torch.ones(len(weight)), torch.zeros(len(weight))
        low, high, offset = (array.detach().contiguous().numpy() for array in (weight, ones, zeros if bias is None else bias))
        self.arrays = (low, high, offset)
        self._many = onednn.linear if compute.onednn_pays() else F.linear

    def part(self, begin: int, end: int) -> tuple[Floats, Floats, Floats]:
        """The arrays of some weight rows, in the same memory."""
        weight, scales, bias = self.arrays
        return weight[begin:end], scales[begin:end], bias[begin:end]

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.arrays) if few(x) else self._many(x, self.weight, self.bias)
