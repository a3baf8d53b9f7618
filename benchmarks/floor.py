"""The floor of a pre-training step: every matrix product of it, forward and both gradients, timed alone.

    python benchmarks/floor.py [--layers 4 --width 256 --length 128 --rows 32 --dtype bfloat16]

Prints a line a product: what it is, its shape, how often, milliseconds, and the rate; then the sum, and tokens/s if nothing else took time.
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
