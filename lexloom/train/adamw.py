"""AdamW on a CPU in one pass over memory (Loshchilov and Hutter 2019, algorithm 2), which is what its time is spent on.

Separate passes read and write 52 bytes a weight: gradients to fp32, their norm, a look at the moments, the update, weights to bfloat16.
This one takes the gradients as they came, bfloat16 or float32, and does the rest in blocks that stay in the first cache: 30 bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange, types
from numba.extending import overload

from lexloom.compute import kernel, shared
from lexloom.nn.bits import Bits, Floats, as_bits, read, write

BLOCK = 1024  # weights at a time: moments, gradients and weights of so many fill half of a first-level cache
WIDE = 64 * BLOCK  # weights from which it is worth waking threads


def _write(numbers: Bits, i: int, value: float) -> None:
    raise NotImplementedError


@overload(_write)
def _write_of(numbers, i, value):  # type: ignore[no-untyped-def]
    if numbers.dtype == types.uint16:
        return lambda numbers, i, value: write(numbers, i, value)

    def nothing(numbers, i, value):  # type: ignore[no-untyped-def]
        """Weights in float32 are the masters themselves."""

    return nothing


@kernel(error_model="numpy")
def _block(p, m, v, g, w, found, scale, keep, beta1, beta2, step, spread, epsilon):  # type: ignore[no-untyped-def]  # as `update`
    one, endless, odd = np.float32(1), np.uint32(0x7F800000), np.uint32(0)  # an exponent of ones is Inf or NaN
    for i in range(p.size):
        gradient = read(g, i) * scale
        first = beta1 * m[i] + (one - beta1) * gradient
        second = beta2 * v[i] + (one - beta2) * gradient * gradient
        m[i], v[i] = first, second
        found[i] = keep * p[i] - step * first / (np.sqrt(second) * spread + epsilon)
    for i in range(p.size):
        a: Any = as_bits(m[i])  # type: ignore[call-arg]
        b: Any = as_bits(v[i])
        odd |= np.uint32((a & endless) == endless) | np.uint32((b & endless) == endless)
    if odd:
        return False
    for i in range(p.size):
        p[i] = found[i]
        _write(w, i, found[i])
    return True


def _update(
    p: Floats,
    m: Floats,
    v: Floats,
    g: Bits,
    w: Bits,
    scale: np.float32,
    keep: np.float32,
    beta1: np.float32,
    beta2: np.float32,
    step: np.float32,
    spread: np.float32,
    epsilon: np.float32,
) -> bool:
    """One step of some weights; False where moments were not finite, of which no weight of that block then heard.

    g ← scale · g;  m ← β₁ m + (1-β₁) g;  v ← β₂ v + (1-β₂) g²;  p ← keep · p - step · m / (√v · spread + ε);  w ← p

    Args:
        p, m, v: masters and moments, (N,). g: gradients. w: the network's weights where they are bfloat16; else whatever is float32.
        keep: 1 - learning rate · weight decay. step: learning rate / (1-β₁ᵗ). spread: 1 / √(1-β₂ᵗ).
    """
    odd = 0
    for block in prange(-(-p.size // BLOCK)):
        i, k, found = block * BLOCK, block * BLOCK + BLOCK, np.empty(BLOCK, np.float32)
        sound = _block(p[i:k], m[i:k], v[i:k], g[i:k], w[i:k], found, scale, keep, beta1, beta2, step, spread, epsilon)
        odd += 0 if sound else 1
    return odd == 0


def _squares(g: Bits) -> float:
    """Σ g², in float32 over a block and in float64 over the blocks: the same bits on any number of threads."""
    parts = np.empty(-(-g.size // BLOCK), np.float32)
    for block in prange(parts.size):
        parts[block] = _block_squares(g[block * BLOCK : (block + 1) * BLOCK])
    total: Any = 0.0
    for part in parts:
        total += part
    return total


@kernel(fastmath={"reassoc"})
def _block_squares(g):  # type: ignore[no-untyped-def]
    total: Any = np.float32(0)
    for i in range(g.size):
        total += read(g, i) * read(g, i)
    return total


_updated, _summed = shared(_update), shared(_squares)


def update(p: Floats, *rest: Any) -> bool:
    """See `_update`."""
    return bool(_updated(p, *rest, wide=p.size >= WIDE))


def squares(g: Bits) -> float:
    """See `_squares`."""
    return float(_summed(g, wide=g.size >= WIDE))
