"""Numbers of compiled kernels as bits and back: NumPy has no bfloat16, so that its tensors come as uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor

Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint16] | Floats
"""bfloat16 as its 16 bits, or float32."""


def numbers(tensor: Tensor) -> npt.NDArray[Any]:
    """The same memory as NumPy's numbers, in the same shape; bfloat16 as its bits."""
    found = tensor.detach()
    return (found.view(torch.uint16) if found.dtype == torch.bfloat16 else found).numpy()


@intrinsic
def as_float(typing: Any, bits: Any) -> Any:
    """The float32 of these 32 bits."""
    return types.float32(types.uint32), lambda context, builder, signature, values: builder.bitcast(
        values[0], context.get_value_type(types.float32)
    )


@intrinsic
def as_bits(typing: Any, number: Any) -> Any:
    """The 32 bits of this float32."""
    return types.uint32(types.float32), lambda context, builder, signature, values: builder.bitcast(
        values[0], context.get_value_type(types.uint32)
    )


def read(numbers: Bits, i: int) -> Any:
    """Number `i` as float32."""
    raise NotImplementedError  # compiled code has the two below


@overload(read)
def _read(numbers, i):  # type: ignore[no-untyped-def]  # numba wants the parameters of what it returns
    if numbers.dtype == types.uint16:
        return lambda numbers, i: as_float(types.uint32(numbers[i]) << types.uint32(16))  # type: ignore[call-arg]
    return lambda numbers, i: numbers[i]


def write(numbers: Bits, i: int, value: float) -> None:
    """Number `i` becomes this float32; in bfloat16 the nearest, ties to even, as PyTorch rounds."""
    raise NotImplementedError


@overload(write)
def _write(numbers, i, value):  # type: ignore[no-untyped-def]
    if numbers.dtype == types.uint16:

        def rounded(numbers, i, value):  # type: ignore[no-untyped-def]
            bits: Any = as_bits(value)  # type: ignore[call-arg]
            numbers[i] = types.uint16((bits + types.uint32(0x7FFF) + ((bits >> types.uint32(16)) & types.uint32(1))) >> types.uint32(16))

        return rounded

    def kept(numbers, i, value):  # type: ignore[no-untyped-def]
        numbers[i] = value

    return kept
