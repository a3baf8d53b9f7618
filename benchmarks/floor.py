"""The floor of a pre-training step: every matrix product of it, forward and both gradients, timed alone.

    python benchmarks/floor.py [--layers 4 --width 256 --length 128 --rows 32 --dtype bfloat16]

Prints a line a product: what it is, its shape, how often, milliseconds and the rate with both operands contiguous, and milliseconds with
operands as they lie in a step, where the gradient of a weight reads one transposed; then the sums, and tokens/s if nothing else took time.
"""

from __future__ import annotations

import argparse

import torch
from _bert import Size
from _floor import milliseconds, products

from lexloom import compute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 4), ("width", 256), ("vocabulary", 30522), ("length", 128), ("rows", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    options = parser.parse_args()
    size = Size(options.layers, options.width, options.vocabulary, options.length, options.rows)
    chosen = compute.choose(compute.ComputeConfig(dtype=options.dtype, compile=False), steps=1)
    chosen.apply()
    totals, flops = [0.0, 0.0], 0.0
    for product in products(size):
        took = [milliseconds(product, chosen.torch_dtype, lie=lie) for lie in (False, True)]
        work = 2.0 * torch.Size(product.left).numel() * product.right[-1]
        flops += product.times * work
        totals = [total + product.times * one for total, one in zip(totals, took, strict=True)]
        shapes = f"{product.name:<32} {product.times:>3} × {product.left!s:>18} @ {product.right!s:<18}"
        print(f"{shapes} {took[0]:8.3f} ms {work / took[0] / 1e6:8.0f} GFLOP/s, as they lie {took[1]:8.3f} ms")
    print(f"{size}, {chosen.dtype}, {chosen.threads} threads")
    for name, total in zip(("contiguous", "as they lie"), totals, strict=True):
        print(f"{name}: {total:.1f} ms a step, {flops / total / 1e6:.0f} GFLOP/s; the floor is {size.tokens / total * 1e3:,.0f} tokens/s")


if __name__ == "__main__":
    main()
