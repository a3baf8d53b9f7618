"""The heart of products with few rows: a tile of rows times weight rows, whose sums stay in the registers of the processor.

Written as vector instructions, since compilers take such loops apart: one sum at a time, or half as wide as the machine is.

Letters: R rows, C weight rows, D their length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils

from lexloom.nn.instructions import bring_near, instruction

LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # float32 numbers that are worked on at once
EIGHT, FOUR, ONE = (3, 6, 4) if LANES == 16 else (1, 2, 4)  # weight rows of a tile of 8, 4 and 1 rows, whose sums fill the registers
# Sums may be taken in another order, or no vector instructions are used; NaN and infinity stay what they are.
FAST: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
_FLOAT, _WORD, _PLACE = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS = ir.VectorType(_FLOAT, LANES)


def tile(rows: int, columns: int) -> Callable[..., Any]:
    """A function for kernels: `(x, i, w, n, ahead)` -> the R · C products of rows i… of x and n… of w, those of a row side by side.

    Args of that function:
        x: (B, D or more) float32. w: (N, D) float32 or int8. Both with rows of numbers side by side.
        ahead: the weights so many rows from here will be needed soon, and are asked for from memory.
    """

    @instruction
    def product(typing: Any, x: Any, i: Any, w: Any, n: Any, ahead: Any) -> Any:
        """See `tile`."""

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            found = _Emitter(context, builder, signature.args, values).sums(rows, columns)
            return context.make_tuple(builder, signature.return_type, found)

        return types.UniTuple(types.float32, rows * columns)(x, types.int64, w, types.int64, types.int64), generate

    return product


def tile_put(rows: int, columns: int) -> Callable[..., Any]:
    """A function for kernels: `(x, i, w, n, ahead, scales, bias, onto, y, at)`, which puts the products of `tile` into rows i… of y.

    Args of that function, beside those of `tile`:
        scales, bias: (N,) float32, a product becomes product · scale + bias. onto: whether that is added to what stands there.
        y: (B, at + N or more), whose column `at` is that of the first weight row.
    """

    @instruction
    def product(typing: Any, x: Any, i: Any, w: Any, n: Any, ahead: Any, scales: Any, bias: Any, onto: Any, y: Any, at: Any) -> Any:
        """See `tile_put`."""

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            found = _Emitter(context, builder, signature.args[:5], values[:5]).sums(rows, columns)
            _Finish(context, builder, signature.args, values).put(found, columns)
            return context.get_dummy_value()

        return types.void(x, types.int64, w, types.int64, types.int64, scales, bias, types.boolean, y, types.int64), generate

    return product


def weighted(vectors: int) -> Callable[..., Any]:
    """A function for kernels: `(shares, values, n, k, out, soon)`: out[k…] ← Σ shares[s] · values[s, k…], s below n, some vectors wide.

    Args of that function:
        shares: (n or more,) float32. values: (n or more, K) float32, with rows of numbers side by side. out: (K,) float32.
        soon: of the shape of values, an address of what is asked for from memory meanwhile.
    """

    @instruction
    def product(typing: Any, shares: Any, values: Any, n: Any, k: Any, out: Any, soon: Any) -> Any:
        """See `weighted`."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            b: Any = builder
            n, k = arguments[2:4]
            shares, values, out = (context.make_array(signature.args[j])(context, b, arguments[j]) for j in (0, 1, 4))
            width = b.extract_value(values.shape, 1)
            totals = [[cgutils.alloca_once_value(b, _FLOATS([0.0] * LANES)) for _ in range(vectors)] for _ in range(2)]
            fused = cgutils.get_or_insert_function(b.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{LANES}f32")

            later = b.inttoptr(arguments[5], _FLOAT.as_pointer())

            def add(s: Any, sums: Any) -> None:
                share, at = _spread(b, b.load(b.gep(shares.data, [s]))), b.add(b.mul(s, width), k)
                row = b.gep(values.data, [at])
                for c, total in enumerate(sums):
                    bring_near(b, b.gep(later, [b.add(at, _PLACE(c * LANES))]), nearest=False)
                    b.store(b.call(fused, [share, _load(b, row, c), b.load(total)]), total)

            pairs = b.and_(n, _PLACE(-2))
            with cgutils.for_range_slice(b, _PLACE(0), pairs, _PLACE(2), _PLACE) as (s, _):
                add(s, totals[0])
                add(b.add(s, _PLACE(1)), totals[1])  # sums of their own, so that neither waits for the other
            with b.if_then(b.icmp_signed(">", n, pairs)):
                add(pairs, totals[0])
            for c in range(vectors):
                place = b.bitcast(b.gep(out.data, [b.add(k, _PLACE(c * LANES))]), _FLOATS.as_pointer())
                b.store(b.fadd(*(b.load(sums[c]) for sums in totals)), place, align=4)
            return context.get_dummy_value()

        return types.void(shares, values, types.int64, types.int64, out, types.int64), generate

    return product


def _load(builder: Any, row: Any, c: int) -> Any:
    return builder.load(builder.bitcast(builder.gep(row, [_PLACE(c * LANES)]), _FLOATS.as_pointer()), align=4)


def _spread(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, _WORD(0))
    return builder.shuffle_vector(one, one, ir.VectorType(_WORD, LANES)([0] * LANES))


@instruction
def fetch(typing: Any, array: Any, place: Any) -> Any:
    """For kernels: has the memory around `array[place]` brought near, of an array of one dimension."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        bring_near(builder, builder.gep(data, [values[1]]), nearest=False)
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@instruction
def of_bits(typing: Any, bits: Any) -> Any:
    """For kernels: the float32 that has the bits of an int32."""
    return types.float32(types.int32), lambda context, builder, signature, values: builder.bitcast(values[0], _FLOAT)


@instruction
def power_of_two(typing: Any, n: Any) -> Any:
    """For kernels: 2ⁿ as float32, of a whole number from -126 to 127; made of its bits, so that many are made at once."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(builder.shl(builder.add(values[0], _WORD(127)), _WORD(23)), _FLOAT)

    return types.float32(types.int32), generate


class _Finish:
    """Writes the instructions that put sums where they belong."""

    def __init__(self, context: Any, builder: Any, kinds: Any, values: Any) -> None:
        self.context, self.builder = context, builder
        self.i, self.n, self.onto, self.at = values[1], values[3], values[7], values[9]
        self.scales, self.bias, self.y = ((kinds[k], context.make_array(kinds[k])(context, builder, values[k])) for k in (5, 6, 8))

    def put(self, sums: Sequence[Any], columns: int) -> None:
        """R · C sums, those of a row side by side."""
        b = self.builder
        factors = [[b.load(self._place(*table, [b.add(self.n, _PLACE(c))])) for c in range(columns)] for table in (self.scales, self.bias)]
        found = [b.fadd(b.fmul(value, factors[0][j % columns]), factors[1][j % columns]) for j, value in enumerate(sums)]
        column = b.add(self.at, self.n)
        places = [self._place(*self.y, [b.add(self.i, _PLACE(j // columns)), b.add(column, _PLACE(j % columns))]) for j in range(len(sums))]
        with b.if_else(self.onto) as (then, otherwise):
            with then:
                for place, value in zip(places, found, strict=True):
                    b.store(b.fadd(b.load(place), value), place)
            with otherwise:
                for place, value in zip(places, found, strict=True):
                    b.store(value, place)

    def _place(self, kind: Any, array: Any, at: Sequence[Any]) -> Any:
        return cgutils.get_item_pointer(self.context, self.builder, kind, array, list(at), wraparound=False)


class _Emitter:
    """Writes the instructions of one tile."""

    def __init__(self, context: Any, builder: Any, kinds: Any, values: Any) -> None:
        self.context, self.builder, self.types = context, builder, kinds
        x, self.i, w, self.n, self.ahead = values
        self.x, self.w = (context.make_array(kind)(context, builder, value) for kind, value in ((kinds[0], x), (kinds[2], w)))
        self.width = builder.extract_value(self.w.shape, 1)
        self.whole = self.types[2].dtype == types.float32

    def sums(self, rows: int, columns: int) -> list[Any]:
        """The R · C products."""
        b = self.builder
        totals = [[cgutils.alloca_once_value(b, _FLOATS([0.0] * LANES)) for _ in range(columns)] for _ in range(rows)]
        xs = [self._row(self.types[0], self.x, b.add(self.i, _PLACE(r))) for r in range(rows)]
        ws = [self._row(self.types[2], self.w, b.add(self.n, _PLACE(c))) for c in range(columns)]
        full = b.and_(self.width, _PLACE(-LANES))
        soon = b.gep(ws[0], [b.mul(self.ahead, self.width)])
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        fused = cgutils.get_or_insert_function(b.module, kind, f"llvm.fma.v{LANES}f32")
        with cgutils.for_range_slice(b, _PLACE(0), full, _PLACE(LANES), _PLACE) as (k, _):
            for c in range(columns):  # one line after the other, as memory likes it, not row by row
                bring_near(b, b.gep(soon, [b.add(b.mul(k, _PLACE(columns)), _PLACE(c * LANES))]), nearest=False)
            left = [self._floats(w, k, self.whole) for w in ws]
            for row, x in zip(totals, xs, strict=True):
                right = self._floats(x, k, True)
                for total, w in zip(row, left, strict=True):
                    b.store(b.call(fused, [right, w, b.load(total)]), total)
        with cgutils.for_range_slice(b, full, self.width, _PLACE(1), _PLACE) as (k, _):  # what is left of a row, number by number
            for row, x in zip(totals, xs, strict=True):
                for total, w in zip(row, ws, strict=True):
                    self._add(total, b.fmul(self._one(x, k, True), self._one(w, k, self.whole)))
        return self._summed([b.load(total) for row in totals for total in row])[: rows * columns]

    def _row(self, kind: Any, array: Any, row: Any) -> Any:
        return cgutils.get_item_pointer(self.context, self.builder, kind, array, [row, _PLACE(0)], wraparound=False)

    def _floats(self, row: Any, k: Any, whole: bool) -> Any:
        b = self.builder
        kind = _FLOATS if whole else ir.VectorType(ir.IntType(8), LANES)
        found = b.load(b.bitcast(b.gep(row, [k]), kind.as_pointer()), align=4 if whole else 1)
        return found if whole else b.sitofp(b.sext(found, ir.VectorType(_WORD, LANES)), _FLOATS)

    def _one(self, row: Any, k: Any, whole: bool) -> Any:
        found = self.builder.load(self.builder.gep(row, [k]))
        return found if whole else self.builder.sitofp(found, _FLOAT)

    def _add(self, total: Any, value: Any) -> None:
        b = self.builder
        now = b.load(total)
        b.store(b.insert_element(now, b.fadd(b.extract_element(now, _WORD(0)), value), _WORD(0)), total)

    def _summed(self, vectors: Sequence[Any]) -> list[Any]:
        """Adds neighbours in all vectors until each is one number; they stand side by side then."""
        lanes, found = LANES, list(vectors)
        each = lanes
        while each > 1:
            if len(found) > 1:
                found += [_FLOATS([0.0] * lanes)] * (len(found) % 2)
                found = [self._halved(a, b, lanes, lanes) for a, b in zip(found[::2], found[1::2], strict=True)]
            else:
                found, lanes = [self._halved(found[0], found[0], lanes, lanes // 2)], lanes // 2
            each //= 2
        return [self.builder.extract_element(vector, _WORD(k)) for vector in found for k in range(lanes)]

    def _halved(self, a: Any, b: Any, lanes: int, kept: int) -> Any:
        kind = ir.VectorType(_WORD, kept)
        even, odd = (self.builder.shuffle_vector(a, b, kind(list(range(start, 2 * kept, 2)))) for start in (0, 1))
        return self.builder.fadd(even, odd)
