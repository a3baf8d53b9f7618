"""What kernels say to the processor that numba has no words for."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic

_WORD = ir.IntType(32)


def instruction(function: Any) -> Any:
    """numba's `intrinsic`, whose result kernels call with fewer arguments than its source has."""
    return intrinsic(function)


def bring_near(builder: Any, place: Any, *, nearest: bool = True) -> None:
    """Has the line of memory around a pointer brought near; one outside all memory does no harm.

    Args:
        nearest: to the nearest cache, which is small; else to the one behind it.
    """
    byte = ir.IntType(8).as_pointer()
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, _WORD, _WORD, _WORD]))
    builder.call(fetch, [builder.bitcast(place, byte), _WORD(0), _WORD(3 if nearest else 2), _WORD(1)])  # to read; data
