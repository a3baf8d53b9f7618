"""What a second worker gains word vectors, beside what it gains a plain multiply-add loop, which shares nothing with the other.

    python benchmarks/vectors_scaling.py [TEXT] [--dim 100 --rounds 5]

Each round runs all four in turn; the share is of gains in the same round. Two cores of a shared machine rarely give twice of anything.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from _apart import Apart
from _paired import keep, paired, ratios
from numba import njit
from vectors_beside_gensim import prepared

_STEPS = 1_500_000_000


@njit(nogil=True)
def multiply_add(steps):  # type: ignore[no-untyped-def]
    """A chain of multiplications and additions, nothing of which leaves the registers."""
    a, b = np.float64(1.0), np.float64(0.0)
    for _ in range(steps):
        a, b = a * 0.999999 + b, b * 0.999999 + 1e-6
    return a + b


def loop(workers: int) -> float:
    """Seconds of the loop's steps, shared by the workers."""
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(multiply_add, [_STEPS // workers] * workers))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    _, ids, _ = prepared(options.text)
    multiply_add(1)
    sides: dict[str, Callable[[], float]] = {"loop, 1": partial(loop, 1), "loop, 2": partial(loop, 2)}
    for kind in ("skipgram", "cbow"):
        for workers in (1, 2):
            side = Apart("vectors_beside_gensim", "Ours", text=str(ids), kind=kind, dim=options.dim, workers=workers)
            sides[f"{kind}, {workers}"] = partial(side.steps, 1)
    times = paired(sides, rounds=options.rounds)
    plain = ratios(times, "loop, 2", "loop, 1")
    print(f"a plain loop gains {statistics.median(plain):.2f} × from a second worker ({min(plain):.2f} to {max(plain):.2f})")
    for kind in ("skipgram", "cbow"):
        gains = ratios(times, f"{kind}, 2", f"{kind}, 1")
        shares = [ours / theirs for ours, theirs in zip(gains, plain, strict=True)]
        spread = {"ratio": statistics.median(shares), "low": min(shares), "high": max(shares), "rounds": len(shares)}
        print(f"{kind} gains {statistics.median(gains):.2f} ×: {spread['ratio']:.0%} of it ({spread['low']:.0%} to {spread['high']:.0%})")
        rates = {"rate": statistics.median(gains), "peer_rate": statistics.median(plain), "unit": "times"}
        keep({"work": f"{kind}, a second worker", "ours": "lexloom", "peer": "a plain loop", **rates, **spread})


if __name__ == "__main__":
    main()
