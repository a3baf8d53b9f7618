"""Steps of masked-LM pre-training beside `transformers.Trainer`: the same network, rows, masked share and threads, in turn.

    python benchmarks/pretrain_beside_trainer.py [--layers 4 --width 256 --length 128 --rows 32 --rounds 5 --steps 5 --no-fp32]

*same work* has dropout 0.1 on both sides; *our recipe* is ours without dropout. The Trainer runs in bf16 with its better attention and, if
asked for, in its fp32 default. Compilation is not counted (a minute, once). Figures go to docs/performance.md with the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from _bert import Ours, Size, TrainerPeer
from _paired import paired, show

from lexloom import compute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 4), ("width", 256), ("vocabulary", 30522), ("length", 128), ("rows", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--fp32", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    size = Size(options.layers, options.width, options.vocabulary, options.length, options.rows)
    sides = {
        "lexloom, same work": Ours(size, compile=options.compile, dtype=options.dtype),
        "lexloom, our recipe": Ours(dataclasses.replace(size, dropout=0.0), compile=options.compile, dtype=options.dtype),
        "Trainer bf16, sdpa": TrainerPeer(size, bf16=True, attention="sdpa"),
        "Trainer bf16, eager": TrainerPeer(size, bf16=True, attention="eager"),
    }
    if options.fp32:
        sides["Trainer fp32"] = TrainerPeer(size, bf16=False)
    print(f"{size}; {compute.cores()} threads, {sides['lexloom, same work'].chosen.line()}")
    times = paired({name: partial(side.steps, options.steps) for name, side in sides.items()}, rounds=options.rounds)
    amount = options.steps * size.tokens
    show(times, "lexloom, same work", amount=amount, unit="tokens")
    show({name: took for name, took in times.items() if name != "lexloom, same work"}, "lexloom, our recipe", amount=amount, unit="tokens")


if __name__ == "__main__":
    main()
