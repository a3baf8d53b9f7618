"""The floor of a pre-training step: every matrix product of it, forward and both gradients, timed alone.

    python benchmarks/floor.py [--layers 4 --width 256 --length 128 --rows 32 --dtype bfloat16]

Prints a line a product: what it is, its shape, how often, milliseconds, and the rate; then the sum, and tokens/s if nothing else took time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 4), ("width", 256), ("vocabulary", 30522), ("length", 128), ("rows", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    options = parser.parse_args()
    size = Size(options.layers, options.width, options.vocabulary, options.length, options.rows)
    chosen = compute.choose(compute.ComputeConfig(dtype=options.dtype, compile=False), steps=1)
    chosen.apply()
    total = flops = 0.0
    for name, times, left, right in products(size):
        took = milliseconds(left, right, chosen.torch_dtype)
        work = 2.0 * torch.Size(left).numel() * right[-1]
        total, flops = total + times * took, flops + times * work
        print(f"{name:<32} {times:>3} × {left!s:>18} @ {right!s:<18} {took:8.3f} ms {work / took / 1e6:8.0f} GFLOP/s")
    print(f"{size}, {chosen.dtype}, {chosen.threads} threads")
    print(f"all products: {total:.1f} ms a step, {flops / total / 1e6:.0f} GFLOP/s; the floor is {size.tokens / total * 1e3:,.0f} tokens/s")


if __name__ == "__main__":
    main()
