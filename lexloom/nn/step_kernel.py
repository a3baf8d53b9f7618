"""A list of products and attentions, one after the other, in a single call: threads take pieces of each from a common counter.

A thread that is late, or that the machine has put aside, holds up no more than the piece in its hands; and nothing is started or joined
between the many small parts of a step.

Letters: B rows, D in, N out, G groups of heads that share keys, K head width, S slots.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, prange, types  # type: ignore[attr-defined]
from numba.core import cgutils

from lexloom.compute import kernel, shared
from lexloom.nn.few_rows import FAST, multiply_rows
from lexloom.nn.instructions import instruction
from lexloom.nn.one_query import attend_head, exp

COLUMNS = (
    "weight",
    "scales",
    "bias",
    "out",
    "wide",
    "norm",
    "norm_bias",
    "centred",
    "source",
    "target",
    "at",
    "onto",
    "act",
    "gated",
    "size",
)
"""What a plan says of an entry: addresses of (N, D) weights, 0 for attention, and of (N,) scales and biases; N; D; addresses of the norm of
the input, or 0, and of its bias; whether that centres; which buffer is read and which written, from which column on, and whether it is
added; the activation; whether the second half of the weights is its gate; weight rows of a piece, or the layer of the attention."""
WEIGHT, SCALES, BIAS, OUT, WIDE, NORM, NORM_BIAS, CENTRED, SOURCE, TARGET, AT, ONTO, ACT, GATED, SIZE = range(len(COLUMNS))
NONE, GELU_TANH, SILU, RELU, GELU = range(5)
_SPINS = 4000  # looks at a counter before other programs get a turn
_yield: Any = types.ExternalFunction("sched_yield", types.int32()) if os.name == "posix" else None
_PATIENT = _yield is not None


@instruction
def _pointer(typing: Any, address: Any) -> Any:
    """A number as a place in memory."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@instruction
def _counted(typing: Any, counters: Any, i: Any, j: Any) -> Any:
    """Adds 1 to a counter that threads share; its value before."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(context, builder, signature, values)
        return builder.atomic_rmw("add", place, ir.IntType(64)(1), "acq_rel")

    return types.int64(counters, types.int64, types.int64), generate


@instruction
def _read(typing: Any, counters: Any, i: Any, j: Any) -> Any:
    """The value of a counter that threads share, and all that was written before it was counted."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, values), "acquire", 8)

    return types.int64(counters, types.int64, types.int64), generate


def _place(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, values[0])
    return cgutils.get_item_pointer(context, builder, signature.args[0], array, list(values[1:]), wraparound=False)


@kernel(**FAST)
def _floats(address, n):  # type: ignore[no-untyped-def]
    return carray(_pointer(address), (n,), np.float32)


@kernel(**FAST)
def _table(buffer, rows):  # type: ignore[no-untyped-def]
    return carray(_pointer(buffer[0]), (rows, buffer[1]), np.float32)


@kernel(**FAST)
def _normed(x, weight, bias, eps, centred, y):  # type: ignore[no-untyped-def]
    """y ← the layer norm of each row, or where not `centred` its RMS norm."""
    width = x.shape[1]
    for i in range(x.shape[0]):
        mean, square = np.float32(0), np.float32(0)
        if centred:
            for k in range(width):
                mean += x[i, k]
            mean /= np.float32(width)
        for k in range(width):
            square += (x[i, k] - mean) * (x[i, k] - mean)
        factor = np.float32(1) / np.sqrt(square / np.float32(width) + eps)
        for k in range(width):
            y[i, k] = (x[i, k] - mean) * factor * weight[k] + bias[k]


@kernel(**FAST)
def _sigmoid(x):  # type: ignore[no-untyped-def]
    small = exp(-abs(x))
    return (np.float32(1) if x >= 0 else small) / (np.float32(1) + small)


@kernel(**FAST)
def _activate(kind, x):  # type: ignore[no-untyped-def]
    """x ← its activation, number by number. The tanh of GELU's approximation is a sigmoid: 1 + tanh(u) = 2 σ(2u)."""
    if kind == GELU_TANH:
        for k in range(x.size):
            u = np.float32(1.5957691216) * (x[k] + np.float32(0.044715) * x[k] * x[k] * x[k])
            x[k] *= _sigmoid(u)
    elif kind == SILU:
        for k in range(x.size):
            x[k] *= _sigmoid(x[k])
    elif kind == RELU:
        for k in range(x.size):
            x[k] = max(x[k], np.float32(0))
    elif kind == GELU:
        for k in range(x.size):
            x[k] *= np.float32(0.5) * np.float32(1 + math.erf(x[k] * 0.7071067811865476))


@kernel(**FAST)
def _turn(x, start, cos, sin):  # type: ignore[no-untyped-def]
    """Turns the head at `start` of a row by its place; as `rotary.rotate`."""
    half = cos.size // 2
    for k in range(half):
        a, b = x[start + k], x[start + half + k]
        x[start + k] = a * cos[k] - b * sin[k]
        x[start + half + k] = b * cos[half + k] + a * sin[half + k]


@kernel(**FAST)
def _attend(new, keys, values, group, place, cos, sin, scale, y):  # type: ignore[no-untyped-def]
    """Puts keys and values of a row's new token into the cache of a group, and attends to what is there with the heads of the group.

    Args:
        new: ((H + 2 G) K,) queries, keys and values. keys, values: (G, S, K). cos, sin: (K,), or (0,) for none. y: (H K,).
    """
    groups, _, width = keys.shape
    heads = y.size // width
    each, key, value = heads // groups, (heads + group) * width, (heads + groups + group) * width
    if cos.size:
        _turn(new, key, cos, sin)
    for k in range(width):
        keys[group, place, k] = new[key + k]
        values[group, place, k] = new[value + k]
    shares, seen, queries = np.empty(place + 1, np.float32), np.zeros(place + 1, np.float32), new[: heads * width].reshape(heads, width)
    for head in range(group * each, (group + 1) * each):
        if cos.size:
            _turn(new, head * width, cos, sin)
        attend_head(queries, head, keys[group], values[group], seen, scale, shares, y[head * width : (head + 1) * width])


@kernel(**FAST)
def _multiply(x, w, entry, begin, y):  # type: ignore[no-untyped-def]
    """A piece of a product, with what belongs to its weight rows: scales, bias, activation and gate."""
    scales, bias = _floats(entry[SCALES], w.shape[0]), _floats(entry[BIAS], w.shape[0])
    half = w.shape[0] // 2 if entry[GATED] else w.shape[0]
    end, at = min(begin + entry[SIZE], half), entry[AT]
    multiply_rows(x, w, scales, bias, begin, end, at, entry[ONTO] != 0, y)
    if entry[GATED]:
        multiply_rows(x, w, scales, bias, half + begin, half + end, at, False, y)
    if entry[ACT] != NONE:
        for i in range(x.shape[0]):
            _activate(entry[ACT], y[i, at + begin : at + end])
    if entry[GATED]:
        for i in range(x.shape[0]):
            for n in range(at + begin, at + end):
                y[i, n] *= y[i, half + n]


def _run(plan, numbers, like, buffers, scratch, caches, shape, places, cos, sin, counters):  # type: ignore[no-untyped-def]
    """All entries of a plan, in their order.

    Args:
        plan: (entries, 15), see `COLUMNS`. numbers: (entries, 2), of the norm its eps, and what scores are multiplied by.
        like: an array of the dtype of the weights. buffers: (n, 2), address and width of (B, width) float32 arrays.
        scratch: (threads, B, D) float32.
        caches: (layers, 2), addresses of keys and values. shape: G, S and K of these.
        places: (B,), slots of the new tokens. cos, sin: (B, K), or (B, 0) for none.
        counters: (entries, 2) zeros: pieces of an entry that were taken, and that are done.
    """
    rows, (groups, slots, width) = places.size, shape
    each = groups * slots * width
    for thread in prange(scratch.shape[0]):
        own = scratch[thread]
        for e in range(plan.shape[0]):
            entry, multiplies = plan[e], plan[e, WEIGHT] != 0
            x, y = _table(buffers[entry[SOURCE]], rows), _table(buffers[entry[TARGET]], rows)
            amount = entry[OUT] // (2 if entry[GATED] else 1)
            pieces = (amount + entry[SIZE] - 1) // entry[SIZE] if multiplies else rows * groups
            if entry[NORM] != 0 and _read(counters, e, 0) < pieces:
                weight, bias = _floats(entry[NORM], entry[WIDE]), _floats(entry[NORM_BIAS], entry[WIDE])
                _normed(x, weight, bias, numbers[e, 0], entry[CENTRED] != 0, own)
                x = own
            while True:
                piece = _counted(counters, e, 0)
                if piece >= pieces:
                    break
                if multiplies:
                    w = carray(_pointer(entry[WEIGHT]), (entry[OUT], entry[WIDE]), like.dtype)
                    _multiply(x, w, entry, piece * entry[SIZE], y)
                else:
                    row, group = piece // groups, piece % groups
                    keys = _floats(caches[entry[SIZE], 0], rows * each).reshape(rows, groups, slots, width)[row]
                    values = _floats(caches[entry[SIZE], 1], rows * each).reshape(rows, groups, slots, width)[row]
                    _attend(x[row], keys, values, group, places[row], cos[row], sin[row], numbers[e, 1], y[row])
                _counted(counters, e, 1)
            spins = 0
            while _read(counters, e, 1) < pieces:
                spins += 1
                if _PATIENT and spins > _SPINS:
                    _yield()


run = shared(_run, **FAST)
