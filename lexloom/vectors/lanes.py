"""Sixteen float32 that kernels hold in a vector register, one line of memory at a time: loads, sums and products as numba has no words for.

What is written with them is computed just so: a product and its sum are rounded once wherever the machine can, sums are taken in the order
that stands here, and nothing depends on the loop around it. So two kernels that share a function of lanes agree to the bit.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from lexloom.nn.instructions import bring_near, instruction

WIDTH = 16
LINE = 64  # bytes
_FLOAT, _WORD = ir.FloatType(), ir.IntType(32)
_VECTOR, _WORDS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_WORD, WIDTH)


class Lanes(types.Type):
    """The numba type."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


LANES = Lanes()


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    """One value of LLVM's vector type."""

    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _VECTOR)


def _operator(of: Any, name: str) -> None:
    @infer_global(of)
    class Typing(ConcreteTemplate):
        """Lanes with lanes give lanes."""

        cases = [signature(LANES, LANES, LANES)]

    @lower_builtin(of, Lanes, Lanes)  # type: ignore[untyped-decorator]
    def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return getattr(builder, name)(*values)


for _of, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _operator(_of, _name)


def table(rows: int, width: int) -> npt.NDArray[np.float32]:
    """Zeros for `rows` rows of `width` numbers and what is missing to a multiple of 16, each row at the start of a line of memory."""
    full = -(-width // WIDTH) * WIDTH
    memory = np.zeros(rows * full + LINE // 4, dtype=np.float32)
    start = -memory.ctypes.data % LINE // 4
    return memory[start : start + rows * full].reshape(rows, full)


@instruction
def pointer(typing: Any, array: Any) -> Any:
    """Where the first number of an array stands. Held by kernels in its place, it is not counted, which numba does at every assignment of
    an array: two locked additions to memory that all threads share. The array has to outlive it.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, values[0]).data

    return types.CPointer(array.dtype)(array), generate


@instruction
def further(typing: Any, numbers: Any, at: Any) -> Any:
    """The pointer to numbers[at]."""
    return numbers(numbers, types.int64), lambda context, builder, signature, values: builder.gep(values[0], [values[1]])


def _vector(builder: Any, numbers: Any, at: Any) -> Any:
    return builder.bitcast(builder.gep(numbers, [at]), _VECTOR.as_pointer())


@instruction
def load(typing: Any, numbers: Any, at: Any) -> Any:
    """numbers[at : at + 16], of a pointer to float32."""
    return LANES(numbers, types.int64), lambda context, builder, signature, values: builder.load(_vector(builder, *values), align=4)


@instruction
def store(typing: Any, numbers: Any, at: Any, value: Any) -> Any:
    """numbers[at : at + 16] ← value."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _vector(builder, *values[:2]), align=4)
        return context.get_dummy_value()

    return types.void(numbers, types.int64, LANES), generate


@instruction
def fetch(typing: Any, numbers: Any, at: Any) -> Any:
    """Has the line of memory around numbers[at] brought near."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bring_near(builder, builder.gep(values[0], [values[1]]))
        return context.get_dummy_value()

    return types.void(numbers, types.int64), generate


@instruction
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c."""
    return LANES(LANES, LANES, LANES), _call("llvm.fmuladd", 3)


@instruction
def absolute(typing: Any, a: Any) -> Any:
    """|a|"""
    return LANES(LANES), _call("llvm.fabs", 1)


@instruction
def floor(typing: Any, a: Any) -> Any:
    """The integers at or below."""
    return LANES(LANES), _call("llvm.floor", 1)


@instruction
def root(typing: Any, a: Any) -> Any:
    """√a"""
    return LANES(LANES), _call("llvm.sqrt", 1)


@instruction
def larger(typing: Any, a: Any, b: Any) -> Any:
    """max(a, b)"""
    return LANES(LANES, LANES), _call("llvm.maxnum", 2)


def _call(name: str, arguments: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * arguments)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"{name}.v{WIDTH}f32"), values)

    return generate


def _spread(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, _WORD(0))
    return builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * WIDTH))


@instruction
def spread(typing: Any, value: Any) -> Any:
    """The same number in all lanes."""
    return LANES(types.float32), lambda context, builder, signature, values: _spread(builder, values[0])


@instruction
def where_above_zero(typing: Any, condition: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where the condition is above 0, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        above = builder.fcmp_ordered(">", values[0], ir.Constant(_VECTOR, [0.0] * WIDTH))
        return builder.select(above, values[1], values[2])

    return LANES(LANES, LANES, LANES), generate


@instruction
def power_of_two(typing: Any, exponent: Any) -> Any:
    """2ⁿ of whole numbers from -126 to 127."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole = builder.fptosi(values[0], _WORDS)
        shifted = builder.shl(builder.add(whole, ir.Constant(_WORDS, [127] * WIDTH)), ir.Constant(_WORDS, [23] * WIDTH))
        return builder.bitcast(shifted, _VECTOR)

    return LANES(LANES), generate


def _shuffled(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_WORD, len(places)), places))


def _folded(builder: Any, found: Any, width: int) -> Any:
    """The halves of a vector added until `width` lanes are left."""
    size = found.type.count
    while size > width:
        size //= 2
        low, high = _shuffled(builder, found, found, list(range(size))), _shuffled(builder, found, found, list(range(size, 2 * size)))
        found = builder.fadd(low, high)
    return found


@instruction
def total(typing: Any, a: Any) -> Any:
    """The sum of all lanes."""
    return types.float32(LANES), lambda context, builder, signature, values: builder.extract_element(
        _folded(builder, values[0], 1), _WORD(0)
    )


@instruction
def store_totals(typing: Any, numbers: Any, at: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """numbers[at : at + 4] ← the sums of the lanes of a, b, c and d: together they take a third of the time of four times `total`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        # within each group of four lanes: a0 b0 a1 b1 + a2 b2 a3 b3, and then a b c d
        low = [4 * g + i + o for g in range(4) for i, o in ((0, 0), (0, WIDTH), (1, 0), (1, WIDTH))]
        first = [4 * g + i + o for g in range(4) for o in (0, WIDTH) for i in (0, 1)]
        a, b, c, d = values[2:]
        found = _folded(builder, _crossed(builder, _crossed(builder, a, b, low), _crossed(builder, c, d, low), first), 4)
        builder.store(found, builder.bitcast(builder.gep(values[0], [values[1]]), found.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(numbers, types.int64, LANES, LANES, LANES, LANES), generate


def _crossed(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    """The sum of some lanes of both and of those two further on."""
    return builder.fadd(_shuffled(builder, a, b, places), _shuffled(builder, a, b, [place + 2 for place in places]))
