"""The masks of keyed dropout on a CPU: the numbers of `nn.dropout`, in one pass over memory instead of fifteen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import prange
from torch import Tensor

from lexloom.compute import kernel, shared

Words = npt.NDArray[np.uint32]


@kernel()
def _mixed(x):  # type: ignore[no-untyped-def]
    """`nn.dropout.mix32`; compiled, each operation is made in 64 bits and has to be cut."""
    x = np.uint32((x ^ (x >> 16)) * np.uint32(0x85EBCA6B))
    x = np.uint32((x ^ (x >> 13)) * np.uint32(0xC2B2AE35))
    return np.uint32(x ^ (x >> 16))


@kernel()
def _row(kept, start, second, least, one):  # type: ignore[no-untyped-def]
    for place in range(kept.size):
        hashed = _mixed(np.uint32(_mixed(np.uint32(np.uint32(place) * np.uint32(0x9E3779B9) + start)) + second))
        kept[place] = one if (hashed >> 8) >= least else 0


def _fill(kept: npt.NDArray[Any], keys: Words, offset: np.uint32, least: np.uint32, one: Any) -> None:
    """Which values stay.

    Args:
        kept: (B, N), what is written: `one`, or 0. keys: (B, 2), two words a row. offset: of the site. least: of 24 bits, those below
            are dropped.
    """
    for row in prange(kept.shape[0]):
        _row(kept[row], _mixed(np.uint32(keys[row, 0] + offset)), keys[row, 1], least, one)


_filled = shared(_fill)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # which NumPy has, where it has no bfloat16


@torch.library.custom_op("lexloom::keep_mask", mutates_args=(), device_types="cpu")
def compiled(keys: Tensor, offset: int, size: int, least: int, dtype: torch.dtype) -> Tensor:
    """`kept`, for graphs of the compiler, which would else work the masks out twice, in the backward pass again."""
    return kept(keys, offset, size, least, dtype)


@compiled.register_fake
def _shape(keys: Tensor, offset: int, size: int, least: int, dtype: torch.dtype) -> Tensor:
    return keys.new_empty((keys.shape[0], size), dtype=dtype)


def kept(keys: Tensor, offset: int, size: int, least: int, dtype: torch.dtype = torch.bool) -> Tensor:
    """As `nn.dropout.keep_mask` over `size` values a row: (B, 2) int32 -> (B, N) of 1 and 0."""
    found, words = torch.empty(len(keys), size, dtype=dtype), keys.contiguous().numpy().view(np.uint32)
    bits = _BITS[dtype.itemsize]
    one = torch.ones(1, dtype=dtype).view(bits).numpy()[0]
    _filled(found.view(bits).numpy(), words, np.uint32(offset), np.uint32(least), one)
    return found
