"""The matrix unit of a processor (AMX): eight tiles of up to 16 rows of 64 bytes, and sums of products of two of them in a third.

Intel's instructions as LLVM has them; see chapter 3 of "Intel Architecture Instruction Set Extensions Programming Reference". A thread's
tiles are there from `begin` to `end`. The system has to allow their use, once a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba.core import cgutils

_FEATURES = binding.get_host_cpu_features()
READY: bool = bool(_FEATURES.get("amx-int8")) and bool(getattr(torch.cpu, "_init_amx", bool)())
"""Whether this processor has one, and the system lets this process use it."""
_BYTE, _PLACE = ir.IntType(8), ir.IntType(64)
_POINTER = _BYTE.as_pointer()


class Unit:
    """Writes its instructions; tiles are told by their number."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def begin(self, rows: Sequence[int]) -> None:
        """Tiles of so many rows of 64 bytes."""
        sizes = [64 if tile < len(rows) else 0 for tile in range(16)]
        config = bytearray([1, *[0] * 15, *(byte for size in sizes for byte in (size, 0)), *rows, *[0] * (16 - len(rows))])
        where = cgutils.global_constant(self.builder, "matrix_unit.tiles", ir.Constant(ir.ArrayType(_BYTE, len(config)), config))
        self._call("ldtilecfg", self._place(where))

    def end(self) -> None:
        """Tiles are no more."""
        self._call("tilerelease")

    def clear(self, tile: int) -> None:
        """tile ← 0"""
        self._call("tilezero", _BYTE(tile))

    def load(self, tile: int, place: Any, stride: Any) -> None:
        """tile ← rows of 64 bytes, `stride` bytes apart."""
        self._call("tileloadd64", _BYTE(tile), self._place(place), stride)

    def store(self, tile: int, place: Any, stride: Any) -> None:
        """Rows of 64 bytes, `stride` bytes apart, ← tile."""
        self._call("tilestored64", _BYTE(tile), self._place(place), stride)

    def multiply(self, sums: int, signed: int, unsigned: int) -> None:
        """sums_mn ← sums_mn + Σ_kj signed_m,4k+j · unsigned_k,4n+j: bytes, summed up as int32."""
        self._call("tdpbsud", _BYTE(sums), _BYTE(signed), _BYTE(unsigned))

    def _place(self, pointer: Any) -> Any:
        return self.builder.bitcast(pointer, _POINTER)

    def _call(self, name: str, *values: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.x86.{name}"), values)
