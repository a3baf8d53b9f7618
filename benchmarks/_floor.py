"""Every matrix product of a pre-training step, forward and both gradients: what no step can be faster than on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from _bert import Size

from lexloom import compute

Product = tuple[str, int, tuple[int, ...], tuple[int, ...]]


def products(size: Size) -> Iterator[Product]:
    """Name, how often in a step, left and right shape: of each linear layer three, of attention six batched ones."""
    n, d, m = size.tokens, size.width, size.rows * max(1, round(size.rate * size.length))
    linear = [("qkv", size.layers, n, d, 3 * d), ("attention out", size.layers, n, d, d), ("up", size.layers, n, d, 4 * d)]
    linear += [("down", size.layers, n, 4 * d, d), ("head dense", 1, m, d, d), ("head vocabulary", 1, m, d, size.vocabulary)]
    for name, times, rows, inner, outer in linear:
        yield f"{name}, forward", times, (rows, inner), (inner, outer)
        yield f"{name}, gradient of input", times, (rows, outer), (outer, inner)
        yield f"{name}, gradient of weight", times, (outer, rows), (rows, inner)
    groups, t, k = size.rows * size.heads, size.length, size.width // size.heads
    yield "scores and one like it", 2 * size.layers, (groups, t, k), (groups, k, t)
    yield "context and three like it", 4 * size.layers, (groups, t, t), (groups, t, k)


def milliseconds(left: tuple[int, ...], right: tuple[int, ...], dtype: torch.dtype, repeats: int = 15) -> float:
    """Median time of one product."""
    a, b = torch.randn(left, dtype=dtype), torch.randn(right, dtype=dtype)
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        a @ b
        found.append(time.perf_counter() - began)
    return 1e3 * statistics.median(found[3:])


class Floor:
    """The products of a step alone, one after the other."""

    def __init__(self, size: Mapping[str, Any]) -> None:
        chosen = compute.for_inference(dtype="auto")
        chosen.apply()
        self.work = [
            (times, torch.randn(left).to(chosen.torch_dtype), torch.randn(right).to(chosen.torch_dtype))
            for _, times, left, right in products(Size(**size))
        ]

    def steps(self, n: int) -> float:
        """Seconds of `n` steps' products."""
        began = time.perf_counter()
        for times, left, right in self.work:
            for _ in range(n * times):
                left @ right
        return time.perf_counter() - began
