"""Products with weights of 8 bits, which stand so that one vector holds four numbers of each of several weight rows.

So no sum has to be added up across a vector, and a processor that multiplies whole numbers four at a time (VNNI, AMX) takes weights as they
lie in memory. Such a one takes activations as whole numbers of 24 bits, of which the largest of a row has the largest, in three parts of
8 bits: as exact as the float32 that others take them as.

Letters: B rows, D in, N out, S steps of four numbers of D, P parts, L lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import prange, types
from numba.core import cgutils
from torch import Tensor

from lexloom.compute import kernel, shared
from lexloom.nn import matrix_unit
from lexloom.nn.few_rows import BLOCK, WIDE, Floats
from lexloom.nn.instructions import bring_near, instruction
from lexloom.nn.tile import FAST, LANES, of_bits

Bytes = npt.NDArray[np.uint8]
_FEATURES = binding.get_host_cpu_features()
INTEGERS = bool(_FEATURES.get("avx512vnni" if LANES == 16 else "avxvnni"))
WAYS = ("floats", *(["integers"] if INTEGERS else []), *(["matrix"] if INTEGERS and LANES == 16 and matrix_unit.READY else []))
"""How this processor can multiply: activations as float32; as whole numbers, by vectors; several rows of these by its matrix unit."""
GROUP = 8  # rows that go through together
SIDE = 3  # blocks of weight rows that one row goes through together
_NEAR = 8 << 10  # bytes of weights that are asked for before they are needed
_PARTS = 3  # of an activation
_LARGEST = np.float32(8355584)  # 127 · 256² + 127 · 256: one more, as rounding may make it, still fits; float32 counts halves up to 2²³
_POSITIVE, _INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)  # the bits of a float32 but for its sign; those of infinity
_FLOAT, _WORD, _PLACE = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _WORDS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_WORD, LANES)


def pack(weight: Tensor) -> Bytes:
    """(N, D) int8 -> (N / L, S · L · 4) uint8, rounded up: 128 more than each weight, four numbers of each of L weight rows in turn."""
    n, d = weight.shape
    blocks, steps = -(-n // LANES), _padded(d) // 4
    found = torch.full((blocks * LANES, steps * 4), 128, dtype=torch.uint8)  # PyTorch's memory begins with a whole line, unlike NumPy's
    found[:n, :d] = weight.view(torch.uint8) ^ 128
    return found.view(blocks, LANES, steps, 4).transpose(1, 2).contiguous().view(blocks, -1).numpy()


def unpack(packed: Bytes, rows: int, wide: int) -> Tensor:
    """What `pack` was given: (N, D) int8."""
    found = torch.from_numpy(packed).view(len(packed), -1, LANES, 4).transpose(1, 2).reshape(len(packed) * LANES, -1)
    return (found[:rows, :wide] ^ 128).view(torch.int8)


def _padded(wide: int) -> int:
    """D in whole tiles of the matrix unit."""
    return -(-wide // 64) * 64


def room(rows: int, wide: int, *, way: str = WAYS[-1]) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Room for what `ready` makes of B rows: their numbers, in whole groups; and of each its scale and what is to be taken off its sums.

    Kernels are compiled for one of the ways by the type of the numbers: (B, D) float32, (B, P · D) int8, or for the matrix unit (B, P, D).
    """
    many, low = -(-rows // GROUP) * GROUP, _padded(wide)
    shape = {"floats": (many, low), "integers": (many, _PARTS * low), "matrix": (many, _PARTS, low)}[way]
    numbers = torch.empty(shape, dtype=torch.float32 if way == "floats" else torch.int8)
    return numbers.numpy(), torch.empty(many, 1 + _PARTS).numpy()


@kernel(**FAST)
def _largest(x):  # type: ignore[no-untyped-def]
    """The largest of |x|, NaN where one is no number or infinite. As bits, whose order is theirs: so many are compared at once."""
    bits, top = x.view(np.int32), np.int32(0)
    for k in range(x.size):
        top = max(top, np.int32(bits[k] & _POSITIVE))
    return of_bits(top) if top < _INFINITE else np.float32(np.nan)


@kernel(**FAST)
def _parted(x, highs, mids, lows, marks):  # type: ignore[no-untyped-def]
    """A row as whole numbers, 256² · high + 256 · mid + low."""
    top, wide = _largest(x), x.size
    factor = _LARGEST / top if top > 0 else np.float32(0)
    high_sum, mid_sum, low_sum = np.float32(0), np.float32(0), np.float32(0)
    for k in range(wide):
        whole = np.floor(x[k] * factor + np.float32(0.5))
        upper = np.floor(whole * np.float32(1 / 256) + np.float32(0.5))
        high = np.floor(upper * np.float32(1 / 256) + np.float32(0.5))
        mid, low = upper - np.float32(256) * high, whole - np.float32(256) * upper
        highs[k], mids[k], lows[k] = np.int8(np.int32(high)), np.int8(np.int32(mid)), np.int8(np.int32(low))
        high_sum += high
        mid_sum += mid
        low_sum += low
    highs[wide:], mids[wide:], lows[wide:] = 0, 0, 0
    marks[0], offset = top / _LARGEST, np.float32(128)
    marks[1], marks[2], marks[3] = offset * high_sum, offset * mid_sum, offset * low_sum


@kernel(**FAST)
def ready(x, wide, numbers, marks):  # type: ignore[no-untyped-def]
    """Has rows of D float32 stand as the product takes them, see `room`."""
    flat, whole = numbers.reshape(-1), numbers.itemsize == 1
    low = (wide + 63) // 64 * 64
    size = _PARTS * low if whole else low
    for i in range(x.shape[0]):
        row = flat[i * size : (i + 1) * size]
        if whole:
            _parted(x[i, :wide], row[:low], row[low : 2 * low], row[2 * low :], marks[i])
        else:
            for k in range(low):
                row[k] = x[i, k] if k < wide else np.float32(0)
            marks[i, 0] = 1


def tile(rows: int, blocks: int) -> Callable[..., Any]:
    """A function for kernels: `(numbers, marks, i, valid, w, wide, block, scales, bias, onto, y, at, n)`, rows i… by blocks of weights.

    Args of that function:
        numbers, marks: of `ready`. valid: how many of the rows are some. w: of `pack`. wide: D. block: the first of the blocks.
        scales, bias: (N,) float32, a product becomes product · scale + bias. onto: whether that is added to what stands there.
        y: (B, at + N or more) float32, of which the column `at` is that of the first weight row. n: N.
    """

    @instruction
    def product(
        typing: Any, numbers: Any, marks: Any, i: Any, valid: Any, w: Any, wide: Any, block: Any, scales: Any, bias: Any, onto: Any, y: Any,
        at: Any, n: Any,
    ) -> Any:  # fmt: skip
        """See `tile`."""

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            matrix = rows > 1 and signature.args[0].ndim == 3
            (_MatrixEmitter if matrix else _Emitter)(context, builder, signature.args, values, rows, blocks).write()
            return context.get_dummy_value()

        places = [types.int64] * 2
        kinds = [numbers, marks, *places, w, *places, scales, bias, types.boolean, y, *places]
        return types.void(*kinds), generate

    return product


class _Emitter:
    """Writes the instructions of one tile."""

    def __init__(self, context: Any, builder: Any, kinds: Any, values: Any, rows: int, blocks: int) -> None:
        self.builder, self.rows, self.blocks = builder, rows, blocks
        self.integers = kinds[0].dtype == types.int8
        arrays = {k: context.make_array(kinds[k])(context, builder, values[k]) for k in (0, 1, 4, 7, 8, 10)}
        self.numbers, self.marks, self.w, self.scales, self.bias, self.y = (array.data for array in arrays.values())
        self.y_wide = builder.extract_value(arrays[10].shape, 1)
        self.i, self.valid, self.block, self.onto, self.at, self.n = (values[k] for k in (2, 3, 6, 9, 11, 12))
        self.size = builder.and_(builder.add(values[5], _PLACE(63)), _PLACE(-64))  # D in whole tiles
        self.steps = builder.lshr(self.size, _PLACE(2))

    def write(self) -> None:
        sums = self._sums()
        for r in range(self.rows):
            with self._where(r):
                for c in range(self.blocks):
                    self._put(r, c, [self.builder.load(total) for total in sums[r][c]])

    def _blocks(self) -> list[Any]:
        """Where the weights of each block begin."""
        b, long = self.builder, self.builder.mul(self.steps, _PLACE(4 * LANES))
        return [b.gep(self.w, [b.mul(b.add(self.block, _PLACE(c)), long)]) for c in range(self.blocks)]

    def _sums(self) -> Any:
        """Where the sums of each row and block stand, one vector for every part."""
        b = self.builder
        parts = range(_PARTS if self.integers else 1)
        zero = _WORDS([0] * LANES) if self.integers else _FLOATS([0.0] * LANES)
        sums = [[[cgutils.alloca_once_value(b, zero) for _ in parts] for _ in range(self.blocks)] for _ in range(self.rows)]
        rows = [b.gep(self.numbers, [b.mul(b.add(self.i, _PLACE(r)), b.mul(self.size, _PLACE(len(parts))))]) for r in range(self.rows)]
        weights = self._blocks()
        together = self.rows == 1 or not self.integers  # else there are as many sums of one part as there are registers
        for some in [parts] if together else [[part] for part in parts]:
            with cgutils.for_range(b, self.steps) as loop:
                self._step(loop.index, rows, weights, sums, some)
        return sums

    def _step(self, k: Any, rows: Any, weights: Any, sums: Any, parts: Sequence[int]) -> None:
        b = self.builder
        four = b.mul(k, _PLACE(4))
        found = []
        for c, weight in enumerate(weights):
            if 0 in parts:
                line = b.add(b.mul(k, _PLACE(4 * LANES * self.blocks)), _PLACE(4 * LANES * c + _NEAR))
                bring_near(b, b.gep(weights[0], [line]), nearest=False)
            here = b.gep(weight, [b.mul(four, _PLACE(LANES))])
            found.append(b.load(b.bitcast(here, _WORDS.as_pointer()), align=1))
        if self.integers:
            self._whole(four, rows, found, sums, parts)
        else:
            self._floats(four, rows, found, sums)

    def _whole(self, four: Any, rows: Any, weights: Any, sums: Any, parts: Sequence[int]) -> None:
        b = self.builder
        name = f"llvm.x86.avx512.vpdpbusd.{LANES * 32}"
        multiply = cgutils.get_or_insert_function(b.module, ir.FunctionType(_WORDS, [_WORDS] * 3), name)
        for row, blocks in zip(rows, sums, strict=True):
            for part in parts:
                place = b.gep(row, [b.add(four, b.mul(self.size, _PLACE(part)))])
                x = self._spread(b.load(b.bitcast(place, _WORD.as_pointer()), align=1), _WORDS)
                for w, totals in zip(weights, blocks, strict=True):
                    b.store(b.call(multiply, [b.load(totals[part]), w, x]), totals[part])

    def _floats(self, four: Any, rows: Any, weights: Any, sums: Any) -> None:
        b = self.builder
        fused = cgutils.get_or_insert_function(b.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{LANES}f32")
        signed = [b.xor(w, _words(-0x7F7F7F80)) for w in weights]  # every byte by 128
        for j in range(4):
            parts = [b.sitofp(b.ashr(b.shl(w, _words(24 - 8 * j)), _words(24)), _FLOATS) for w in signed]
            for row, blocks in zip(rows, sums, strict=True):
                x = self._spread(b.load(b.gep(row, [b.add(four, _PLACE(j))])), _FLOATS)
                for part, totals in zip(parts, blocks, strict=True):
                    b.store(b.call(fused, [x, part, b.load(totals[0])]), totals[0])

    def _put(self, r: int, c: int, totals: Any) -> None:
        b = self.builder
        row = b.add(self.i, _PLACE(r))
        scale, *offs = (b.load(b.gep(self.marks, [b.add(b.mul(row, _PLACE(1 + _PARTS)), _PLACE(k))])) for k in range(1 + _PARTS))
        if self.integers:
            value = _FLOATS([0.0] * LANES)
            for total, off in zip(totals, offs, strict=True):
                part = b.sitofp(b.sub(total, self._spread(b.fptosi(off, _WORD), _WORDS)), _FLOATS)
                value = b.fadd(b.fmul(value, _FLOATS([256.0] * LANES)), part)
        else:
            value = totals[0]
        first = b.mul(b.add(self.block, _PLACE(c)), _PLACE(LANES))
        mask = self._mask(first)
        scales, bias = (self._masked(b.gep(array, [first]), mask) for array in (self.scales, self.bias))
        value = b.fadd(b.fmul(value, b.fmul(scales, self._spread(scale, _FLOATS))), bias)
        place = b.gep(self.y, [b.add(b.mul(row, self.y_wide), b.add(self.at, first))])
        old = b.select(self._spread(self.onto, ir.VectorType(ir.IntType(1), LANES)), self._masked(place, mask), _FLOATS([0.0] * LANES))
        self._store(b.fadd(value, old), place, mask)

    def _mask(self, first: Any) -> Any:
        """Which lanes are weight rows, of which there may be fewer than fill the last block."""
        b = self.builder
        left = self._spread(b.trunc(b.sub(self.n, first), _WORD), _WORDS)
        return b.icmp_signed(">", left, _WORDS(list(range(LANES))))

    def _masked(self, place: Any, mask: Any) -> Any:
        b = self.builder
        kind = ir.FunctionType(_FLOATS, [_FLOATS.as_pointer(), _WORD, mask.type, _FLOATS])
        load = cgutils.get_or_insert_function(b.module, kind, f"llvm.masked.load.v{LANES}f32.p0")
        return b.call(load, [b.bitcast(place, _FLOATS.as_pointer()), _WORD(4), mask, _FLOATS([0.0] * LANES)])

    def _store(self, value: Any, place: Any, mask: Any) -> None:
        b = self.builder
        kind = ir.FunctionType(ir.VoidType(), [_FLOATS, _FLOATS.as_pointer(), _WORD, mask.type])
        store = cgutils.get_or_insert_function(b.module, kind, f"llvm.masked.store.v{LANES}f32.p0")
        b.call(store, [value, b.bitcast(place, _FLOATS.as_pointer()), _WORD(4), mask])

    def _spread(self, value: Any, kind: Any) -> Any:
        one = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, _WORD(0))
        return self.builder.shuffle_vector(one, one, _WORDS([0] * LANES))

    @contextmanager
    def _where(self, r: int) -> Any:
        """Does the rest for rows that are some."""
        if self.rows == 1:
            yield
        else:
            with self.builder.if_then(self.builder.icmp_signed(">", self.valid, _PLACE(r))):
                yield


class _MatrixEmitter(_Emitter):
    """The same by the matrix unit, with a tile of sums for each half of the rows and each block of weights."""

    def _sums(self) -> Any:
        b, height = self.builder, self.rows * _PARTS // 2
        found, weights = cgutils.alloca_once(b, _WORDS, size=self.blocks * 2 * height), self._blocks()
        tiles = [(c, half, 2 * c + half) for c in range(self.blocks) for half in range(2)]
        unit = matrix_unit.Unit(b)
        for _, _, tile in tiles:
            unit.clear(tile)
        first = b.mul(b.mul(self.i, _PLACE(_PARTS)), self.size)
        with cgutils.for_range(b, b.lshr(self.size, _PLACE(6))) as loop:
            at, line = b.mul(loop.index, _PLACE(64)), b.mul(loop.index, _PLACE(64 * LANES))
            for c, half, tile in tiles:
                if half == 0:
                    here = b.gep(weights[c], [line])
                    self._ask_for(here)
                    unit.load(WEIGHTS, here, _PLACE(4 * LANES))
                place = b.add(b.add(first, b.mul(self.size, _PLACE(half * height))), at)
                unit.load(ROWS, b.gep(self.numbers, [place]), self.size)
                unit.multiply(tile, ROWS, WEIGHTS)
        for _, _, tile in tiles:
            unit.store(tile, b.gep(found, [_PLACE(tile * height)]), _PLACE(4 * LANES))
        places = [b.gep(found, [_PLACE(place)]) for place in range(self.blocks * 2 * height)]
        each = [places[at : at + _PARTS] for at in range(0, len(places), _PARTS)]
        return [[each[c * self.rows + r] for c in range(self.blocks)] for r in range(self.rows)]

    def _ask_for(self, weights: Any) -> None:
        for line in range(LANES):
            bring_near(self.builder, self.builder.gep(weights, [_PLACE(4 * LANES * line + _NEAR)]), nearest=False)


def _words(value: int) -> Any:
    return _WORDS([value] * LANES)


ROWS, WEIGHTS = 7, 6  # tiles; the first six are for sums


@instruction
def _begin(typing: Any, numbers: Any) -> Any:
    """Makes the matrix unit ready, where the numbers are for it."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if numbers.ndim == 3:
            height = GROUP * _PARTS // 2
            matrix_unit.Unit(builder).begin([height] * WEIGHTS + [LANES, height])
        return context.get_dummy_value()

    return types.void(numbers), generate


@instruction
def _end(typing: Any, numbers: Any) -> Any:
    """Lets go of the matrix unit."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if numbers.ndim == 3:
            matrix_unit.Unit(builder).end()
        return context.get_dummy_value()

    return types.void(numbers), generate


_group, _groups, _single, _singles = tile(GROUP, 1), tile(GROUP, SIDE), tile(1, 1), tile(1, SIDE)


@kernel(**FAST)
def multiply_packed(numbers, marks, rows, w, wide, scales, bias, begin, end, at, onto, y):  # type: ignore[no-untyped-def]
    """y ← (x · wᵀ) · scales + bias for the weight rows from `begin`, a multiple of L, to `end`; see `few_rows.multiply_rows`.

    Args:
        numbers, marks: what `ready` made of x. rows: B. w: of `pack`. wide: D.
    """
    first, last, n = begin // LANES, -(-end // LANES), scales.size
    side = last - (last - first) % SIDE
    if rows == 1:
        for block in range(first, side, SIDE):
            _singles(numbers, marks, 0, 1, w, wide, block, scales, bias, onto, y, at, n)
        for block in range(side, last):
            _single(numbers, marks, 0, 1, w, wide, block, scales, bias, onto, y, at, n)
    else:
        _begin(numbers)
        for i in range(0, rows, GROUP):
            for block in range(first, side, SIDE):
                _groups(numbers, marks, i, rows - i, w, wide, block, scales, bias, onto, y, at, n)
            for block in range(side, last):
                _group(numbers, marks, i, rows - i, w, wide, block, scales, bias, onto, y, at, n)
        _end(numbers)


def _product(x, numbers, marks, w, scales, bias, y):  # type: ignore[no-untyped-def]
    """y ← (x · wᵀ) · scales + bias: (B, N)."""
    rows, wide = x.shape
    for i in prange(rows):
        ready(x[i : i + 1], wide, numbers[i : i + 1], marks[i : i + 1])
    for block in prange(-(-scales.size // BLOCK)):
        begin = block * BLOCK
        multiply_packed(numbers, marks, rows, w, wide, scales, bias, begin, min(scales.size, begin + BLOCK), 0, False, y)


_multiplied = shared(_product, **FAST)


def product(x: Tensor, arrays: tuple[Bytes, Floats, Floats]) -> Tensor:
    """(…, D) float32 on a CPU times (N, D) weights as `pack` has them, their scales and a bias: (…, N)."""
    rows = x.reshape(-1, x.shape[-1]).contiguous().numpy()
    y = torch.empty(len(rows), len(arrays[1]))
    _multiplied(rows, *room(*rows.shape), *arrays, y.numpy(), wide=len(rows) * arrays[0].size >= WIDE)
    return y.view(*x.shape[:-1], -1)
