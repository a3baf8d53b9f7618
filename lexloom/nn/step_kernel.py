"""A list of products and attentions, one after the other, in a single call, whose pieces threads share (`meeting.py`).

A list that ends with the choice of a token may be gone through several times in that call.

Letters: B rows, D in, N out, G groups of heads that share keys, K head width, S slots, T steps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray, prange, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import overload

from lexloom.compute import kernel, shared
from lexloom.nn.drawn import drawn_of, penalised
from lexloom.nn.few_rows import multiply_rows
from lexloom.nn.instructions import instruction
from lexloom.nn.likeliest import likeliest_of
from lexloom.nn.meeting import meet, take
from lexloom.nn.one_query import attend_head, exp
from lexloom.nn.packed import multiply_packed, ready
from lexloom.nn.tile import FAST

COLUMNS = (
    "kind",
    "weight",
    "scales",
    "bias",
    "gate",
    "gate_scales",
    "gate_bias",
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
    "size",
)
"""What a plan says of an entry: what it is; addresses of (N, D) weights and of (N,) scales and biases; those of a gate as large, or 0; N;
D; addresses of the norm of the input, or 0, and of its bias; whether that centres; which buffer is read and which written, from which
column on, and whether it is added; the activation; weight rows of a piece, or the layer of an attention. An embedding has its matrix as
the weights, and that of positions, or 0, as the bias. A norm by itself has only what a product says of the norm of its input."""
(
    KIND, WEIGHT, SCALES, BIAS, GATE, GATE_SCALES, GATE_BIAS, OUT, WIDE, NORM, NORM_BIAS, CENTRED, SOURCE, TARGET, AT, ONTO, ACT, SIZE,
) = range(len(COLUMNS))  # fmt: skip
PRODUCT, ATTENTION, ACROSS, EMBEDDING, NORMED, CHOICE = range(6)
NONE, GELU_TANH, SILU, RELU, GELU = range(5)
_JIT: Any = FAST


@instruction
def _pointer(typing: Any, address: Any) -> Any:
    """A number as a place in memory."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


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
def _norm(entry, eps, x, y):  # type: ignore[no-untyped-def]
    """y ← the norm of an entry, of each row."""
    weight, bias = _floats(entry[NORM], entry[WIDE]), _floats(entry[NORM_BIAS], entry[WIDE])
    _normed(x, weight, bias, eps, entry[CENTRED] != 0, y)


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
def _embed(entry, scale, ids, places, step, row, y):  # type: ignore[no-untyped-def]
    """A row of the embedding, times a scale, and that of positions where it has some, `step` places on."""
    wide = entry[WIDE]
    token = _floats(entry[WEIGHT] + 4 * wide * ids[row], wide)
    for k in range(wide):
        y[row, k] = token[k] * scale
    if entry[BIAS] != 0:
        position = _floats(entry[BIAS] + 4 * wide * (places[row] + step), wide)
        for k in range(wide):
            y[row, k] += position[k]


def _made_ready(like, x, wide, numbers, marks):  # type: ignore[no-untyped-def]
    """Has rows stand as weights of that kind want them."""


def _times(like, x, numbers, marks, weight, scales, bias, n, wide, begin, end, at, onto, y):  # type: ignore[no-untyped-def]
    """Rows times some weight rows, of either kind; see `few_rows.multiply_rows`."""


@overload(_made_ready, jit_options=_JIT)
def _how_ready(like, x, wide, numbers, marks):  # type: ignore[no-untyped-def]
    if like.dtype == types.float32:
        return lambda like, x, wide, numbers, marks: None
    return lambda like, x, wide, numbers, marks: ready(x, wide, numbers, marks)


@overload(_times, jit_options=_JIT)
def _how_times(like, x, numbers, marks, weight, scales, bias, n, wide, begin, end, at, onto, y):  # type: ignore[no-untyped-def]
    def floats(like, x, numbers, marks, weight, scales, bias, n, wide, begin, end, at, onto, y):  # type: ignore[no-untyped-def]
        w = carray(_pointer(weight), (n, wide), np.float32)
        multiply_rows(x, w, _floats(scales, n), _floats(bias, n), begin, end, at, onto, y)

    def packed(like, x, numbers, marks, weight, scales, bias, n, wide, begin, end, at, onto, y):  # type: ignore[no-untyped-def]
        w = carray(_pointer(weight), (n, wide), np.uint8)
        multiply_packed(numbers, marks, x.shape[0], w, wide, _floats(scales, n), _floats(bias, n), begin, end, at, onto, y)

    return floats if like.dtype == types.float32 else packed


@kernel(**FAST)
def _multiply(like, x, numbers, marks, entry, begin, y):  # type: ignore[no-untyped-def]
    """A piece of a product, with what belongs to its weight rows: scales, bias, activation and gate."""
    n, wide, at = entry[OUT], entry[WIDE], entry[AT]
    end = min(begin + entry[SIZE], n)
    _times(like, x, numbers, marks, entry[WEIGHT], entry[SCALES], entry[BIAS], n, wide, begin, end, at, entry[ONTO] != 0, y)
    if entry[ACT] != NONE:
        for i in range(x.shape[0]):
            _activate(entry[ACT], y[i, at + begin : at + end])
    if entry[GATE] != 0:
        _times(like, x, numbers, marks, entry[GATE], entry[GATE_SCALES], entry[GATE_BIAS], n, wide, begin, end, at + n, False, y)
        for i in range(x.shape[0]):
            for k in range(at + begin, at + end):
                y[i, k] *= y[i, n + k]


@kernel(**FAST)
def _amount(entry, rows, groups):  # type: ignore[no-untyped-def]
    """How many pieces an entry has."""
    if entry[KIND] == PRODUCT:
        return -(-entry[OUT] // entry[SIZE])
    return rows * groups if entry[KIND] in (ATTENTION, ACROSS) else rows


@kernel(**FAST)
def _over(ids, step, ends):  # type: ignore[no-untyped-def]
    """Whether one of the new tokens of a step is an end."""
    for i in range(ids.shape[1]):
        for end in ends:
            if ids[step, i] == end:
                return True
    return False


@kernel(**FAST)
def _look(entry, scale, x, caches, shape, places, turns, step, piece, y):  # type: ignore[no-untyped-def]
    """A piece of an attention: a row and a group."""
    (groups, slots, width), (cos, sin), rows = shape, turns, places.size
    row, group, each = piece // groups, piece % groups, groups * slots * width
    keys = _floats(caches[entry[SIZE], 0], rows * each).reshape(rows, groups, slots, width)[row]
    values = _floats(caches[entry[SIZE], 1], rows * each).reshape(rows, groups, slots, width)[row]
    _attend(x[row], keys, values, group, places[row] + step, cos[step, row], sin[step, row], scale, y[row])


@kernel(**FAST)
def _look_across(entry, scale, x, sources, shape, piece, y):  # type: ignore[no-untyped-def]
    """A piece of an attention to the source: a row and a group."""
    (groups, _, width), (where, bias) = shape, sources
    row, group, place = piece // groups, piece % groups, where[entry[SIZE]]
    start, seen = 4 * (row * place[2] + group * place[3]), bias.shape[1]
    keys = _floats(place[0] + start, seen * width).reshape(seen, width)
    values = _floats(place[1] + start, seen * width).reshape(seen, width)
    heads, shares = y.shape[1] // width, np.empty(seen, np.float32)
    queries, each = x[row, : heads * width].reshape(heads, width), heads // groups
    for head in range(group * each, (group + 1) * each):
        attend_head(queries, head, keys, values, bias[row], scale, shares, y[row, head * width : (head + 1) * width])


@kernel(**FAST)
def _choose(x, ids, logprobs, choice, weights, step, row):  # type: ignore[no-untyped-def]
    """What a row goes on with."""
    (rules, uniforms, _, before, lengths), scores = choice, x[row]
    token, top, norm = likeliest_of(scores)
    if rules[row, 4] != 1:
        penalty, scores = np.float32(rules[row, 4]), weights[1]
        scores[:] = x[row]
        penalised(x[row], before[row, : lengths[row]], penalty, scores)
        penalised(x[row], ids[1 : step + 1, row], penalty, scores)
        token, top, _ = likeliest_of(scores)
    if rules[row, 0] > 0:
        token = drawn_of(scores, top, rules[row], uniforms[step, row], weights[0])
    ids[step + 1, row], logprobs[step, row] = token, x[row, token] - norm


def _run(  # type: ignore[no-untyped-def]
    plan, reals, like, buffers, own, numbers, marks, weights, caches, sources, shape, ids, places, turns, choice, logprobs, counters,
):  # fmt: skip
    """All entries of a plan, in their order, once for each step.

    Args:
        plan: (entries, 18), see `COLUMNS`. reals: (entries, 2), of the norm its eps, and what scores are multiplied by.
        like: an array of the dtype of the weights, float32 or, as `packed.pack` has them, uint8.
        buffers: (n, 2), address and width of (B, width) float32 arrays. own: (threads, B, D) float32.
        numbers, marks: what `packed.room` gives, one for each thread. weights: (threads, 2, V) float32, to draw with.
        caches: (layers, 2), addresses of keys and values. shape: G, S and K of these. sources: see `Cache.source_places`.
        ids: (T + 1, B), of which the first are the new tokens; those that a step chooses come behind them.
        places: (B,), the slots of the new tokens. turns: cosines and sines, each (T, B, K), or (T, B, 0) for none.
        choice: the arrays of a `decoding.drawing.Choice`, in their order. logprobs: (T, B), of what is chosen.
        counters: (T · entries, (threads + 1) · 8) zeros, see `meeting.py`.

    Returns: how many steps were made.
    """
    rows, threads, entries, ends = places.size, own.shape[0], plan.shape[0], choice[2]
    for number in prange(threads):
        thread = np.int64(number)
        for phase in range(logprobs.shape[0] * entries):
            step, e = phase // entries, phase % entries
            if e == 0 and step > 0 and _over(ids, step, ends):
                break
            entry, pieces, done = plan[e], _amount(plan[e], rows, shape[0]), 0
            x, y = _table(buffers[entry[SOURCE]], rows), _table(buffers[entry[TARGET]], rows)
            piece = take(counters, phase, thread, threads, pieces)
            if piece >= 0 and entry[KIND] == PRODUCT and entry[NORM] != 0:
                _norm(entry, reals[e, 0], x, own[thread])
                x = own[thread]
            if piece >= 0 and entry[KIND] == PRODUCT:
                _made_ready(like, x, entry[WIDE], numbers[thread], marks[thread])
            while piece >= 0:
                if entry[KIND] == PRODUCT:
                    _multiply(like, x, numbers[thread], marks[thread], entry, piece * entry[SIZE], y)
                elif entry[KIND] == ATTENTION:
                    _look(entry, reals[e, 1], x, caches, shape, places, turns, step, piece, y)
                elif entry[KIND] == ACROSS:
                    _look_across(entry, reals[e, 1], x, sources, shape, piece, y)
                elif entry[KIND] == NORMED:
                    _norm(entry, reals[e, 0], x[piece : piece + 1], y[piece : piece + 1])
                elif entry[KIND] == CHOICE:
                    _choose(x, ids, logprobs, choice, weights[thread], step, piece)
                else:
                    _embed(entry, reals[e, 1], ids[step], places, step, piece, y)
                done += 1
                piece = take(counters, phase, thread, threads, pieces)
            meet(counters, phase, threads, pieces, done)
    made = 1
    while made < logprobs.shape[0] and not _over(ids, made, ends):
        made += 1
    return made


run = shared(_run, **FAST)
