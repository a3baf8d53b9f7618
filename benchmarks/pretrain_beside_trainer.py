"""Steps of masked-LM pre-training beside `transformers.Trainer`: the same network, rows, masked share and threads, in turn.

    python benchmarks/pretrain_beside_trainer.py [SIZE ...] [--tokens 4096 --rounds 5 --steps 5 --no-fp32 --their-compile]

A SIZE is layers × width × length, such as 4x256x128, the default beside 6x512x128. *same work* has dropout 0.1 on both sides; *our recipe*
is ours without dropout. The Trainer runs in bf16 with either attention, if asked for compiled, and in its fp32 default. Compilation is not
counted (a minute, once).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from _bert import Ours, Size, TrainerPeer
from _floor import Floor
from _paired import paired, show

from lexloom import compute


def size_of(text: str, tokens: int, vocabulary: int) -> Size:
    """4x256x128 as a size whose steps have about `tokens` tokens."""
    layers, width, length = (int(part) for part in text.lower().split("x"))
    return Size(layers, width, vocabulary, length, max(1, tokens // length))


def sides_of(size: Size, options: argparse.Namespace) -> dict[str, Ours | TrainerPeer | Floor]:
    """Ours twice, what the Trainer can do, and the matrix products alone."""
    sides: dict[str, Ours | TrainerPeer | Floor] = {
        "lexloom, same work": Ours(size, compile=options.compile, dtype=options.dtype),
        "lexloom, our recipe": Ours(dataclasses.replace(size, dropout=0.0), compile=options.compile, dtype=options.dtype),
        "matrix products alone": Floor(size, compute.DTYPES[compute.for_inference(dtype="auto").dtype]),
        "Trainer bf16, sdpa": TrainerPeer(size, bf16=True, attention="sdpa"),
        "Trainer bf16, eager": TrainerPeer(size, bf16=True, attention="eager"),
    }
    if options.their_compile:
        sides["Trainer bf16, compiled"] = TrainerPeer(size, bf16=True, compile=True, attention="eager")
    if options.fp32:
        sides["Trainer fp32"] = TrainerPeer(size, bf16=False)
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["4x256x128", "6x512x128"])
    parser.add_argument("--vocabulary", type=int, default=30522)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--fp32", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--their-compile", action="store_true")
    options = parser.parse_args()
    for text in options.sizes:
        size = size_of(text, options.tokens, options.vocabulary)
        sides = sides_of(size, options)
        ours = [name for name, side in sides.items() if isinstance(side, Ours)]
        chosen = next(side for side in sides.values() if isinstance(side, Ours)).chosen
        print(f"{size}; {compute.cores()} threads, {chosen.line()}")
        times = paired({name: partial(side.steps, options.steps) for name, side in sides.items()}, rounds=options.rounds)
        show(f"pre-training, {size}", times, ours, amount=options.steps * size.tokens, unit="tokens")


if __name__ == "__main__":
    main()
