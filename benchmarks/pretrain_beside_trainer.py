"""Steps of masked-LM pre-training beside `transformers.Trainer`: the same network, rows, masked share and threads, in turn.

    python benchmarks/pretrain_beside_trainer.py [SIZE ...] [--tokens 4096 --rounds 5 --steps 5 --no-fp32 --no-bf16 --their-compile]

A SIZE is layers × width × length, such as 4x256x128, the default beside 6x512x128. *same work* has dropout 0.1 on both sides; *our recipe*
is ours without dropout. ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 before it, with --dtype float32 --no-bf16, shows a CPU
without more than AVX2. The Trainer runs in bf16 with either attention, if asked for compiled, and in its fp32 default. Compilation is not
counted (a minute, once).
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from _apart import Apart
from _bert import Size
from _paired import paired, show


def size_of(text: str, tokens: int, vocabulary: int) -> Size:
    """4x256x128 as a size whose steps have about `tokens` tokens."""
    layers, width, length = (int(part) for part in text.lower().split("x"))
    return Size(layers, width, vocabulary, length, max(1, tokens // length))


OURS = ("lexloom, same work", "lexloom, our recipe")


def sides_of(size: Size, options: argparse.Namespace) -> dict[str, Apart]:
    """Ours twice, the matrix products alone, and what the Trainer can do."""
    same, mine = dataclasses.asdict(size), dataclasses.asdict(dataclasses.replace(size, dropout=0.0))
    chosen = {"compile": options.compile, "dtype": options.dtype}
    sides = {name: Apart("_bert", "Ours", size=of, **chosen) for name, of in zip(OURS, (same, mine), strict=True)}
    if options.bf16:  # as they are computed
        sides["matrix products alone"] = Apart("_floor", "Floor", size=same)
        sides["matrix products alone, as they lie"] = Apart("_floor", "Floor", size=same, lie=True)
    for attention in ("sdpa", "eager") if options.bf16 else ():
        sides[f"Trainer bf16, {attention}"] = Apart("_bert", "TrainerPeer", size=same, bf16=True, attention=attention)
    if options.their_compile:
        sides["Trainer bf16, compiled"] = Apart("_bert", "TrainerPeer", size=same, bf16=True, compile=True, attention="eager")
    if options.fp32:
        sides["Trainer fp32"] = Apart("_bert", "TrainerPeer", size=same, bf16=False)
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
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--their-compile", action="store_true")
    options = parser.parse_args()
    for text in options.sizes:
        size = size_of(text, options.tokens, options.vocabulary)
        sides = sides_of(size, options)
        print(f"{size}; {sides[OURS[0]].about}", flush=True)
        times = paired({name: partial(side.steps, options.steps) for name, side in sides.items()}, rounds=options.rounds)
        limit = f", at most {isa}" if (isa := os.environ.get("ONEDNN_MAX_CPU_ISA")) else ""
        show(f"pre-training, {size}{limit}", times, OURS, amount=options.steps * size.tokens, unit="tokens")


if __name__ == "__main__":
    main()
