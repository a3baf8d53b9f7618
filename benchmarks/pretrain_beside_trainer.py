"""Steps of pre-training beside `transformers.Trainer`: the same network, rows, share that is predicted and threads, in turn.

    python benchmarks/pretrain_beside_trainer.py [SIZE ...] [--model bert gpt --tokens 4096 --rounds 5 --steps 5 --no-fp32 --no-bf16
                                                 --their-compile --dropout 0.1 --shards FOLDER --losses 0]

*bert* learns by masked LM, *gpt* is GPT-2 and learns by causal LM. A SIZE is layers × width × length, such as 4x256x128; without one,
4x256x128 and 6x512x128 for *bert* and 6x384x256 for *gpt*. *same work* has dropout on both sides; *our recipe* is ours without dropout.
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 before it, with --dtype float32 --no-bf16, shows a CPU without more than AVX2. The
Trainer runs in bf16 with either attention, if asked for compiled, and in its fp32 default. Compilation is not counted (a minute, once).
For *gpt*, --shards takes rows of a run's text instead of random ones, and --losses N shows what both learn in N steps (rate 1e-3) without
dropout from the same weights and rows in the same order.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
from functools import partial
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from _apart import Apart
from _paired import paired, show

SIZES = {"bert": ["4x256x128", "6x512x128"], "gpt": ["6x384x256"]}
OURS = ("lexloom, same work", "lexloom, our recipe")
LEARNING_RATE = 1e-3


def size_of(text: str, model: str, options: argparse.Namespace) -> Any:
    """4x256x128 as a size whose steps have about as many tokens as were asked for."""
    layers, width, length = (int(part) for part in text.lower().split("x"))
    given = {"vocabulary": options.vocabulary, "shards": options.shards if model == "gpt" else None}
    rows = max(1, options.tokens // length)
    kind = importlib.import_module(f"_{model}").Size
    return kind(layers, width, length=length, rows=rows, dropout=options.dropout, **{name: value for name, value in given.items() if value})


def sides_of(size: Any, model: str, options: argparse.Namespace) -> dict[str, Apart]:
    """Ours with dropout and without, the matrix products alone, and what the Trainer can do."""
    module, same, mine = f"_{model}", dataclasses.asdict(size), dataclasses.asdict(dataclasses.replace(size, dropout=0.0))
    chosen = {"compile": options.compile, "dtype": options.dtype}
    works = zip(OURS, [same, mine] if size.dropout else [same], strict=False)
    sides = {name: Apart(module, "Ours", size=of, **chosen) for name, of in works}
    if options.bf16:  # as they are computed
        sides["matrix products alone"] = Apart("_floor", "Floor", size=same, sized=module)
        sides["matrix products alone, as they lie"] = Apart("_floor", "Floor", size=same, sized=module, lie=True)
    for attention in ("sdpa", "eager") if options.bf16 else ():
        sides[f"Trainer bf16, {attention}"] = Apart(module, "TrainerPeer", size=same, bf16=True, attention=attention)
    if options.their_compile:
        sides["Trainer bf16, compiled"] = Apart(module, "TrainerPeer", size=same, bf16=True, compile=True, attention="eager")
    if options.fp32:
        sides["Trainer fp32"] = Apart(module, "TrainerPeer", size=same, bf16=False)
    return sides


def compare(size: Any, model: str, options: argparse.Namespace) -> None:
    """Times the sides."""
    sides = sides_of(size, model, options)
    print(f"{size}; {sides[OURS[0]].about}", flush=True)
    times = paired({name: partial(side.steps, options.steps) for name, side in sides.items()}, rounds=options.rounds)
    limit = f", at most {isa}" if (isa := os.environ.get("ONEDNN_MAX_CPU_ISA")) else ""
    ours = [name for name in OURS if name in times]
    show(f"pre-training, {size}{limit}", times, ours, amount=options.steps * size.tokens, unit="tokens")


def learn(size: Any, steps: int) -> None:
    """A line for every tenth of the steps: the mean loss since the line before, ours and the Trainer's in bf16."""
    from _gpt import Ours, TrainerPeer

    of = dataclasses.asdict(dataclasses.replace(size, dropout=0.0))
    loop = Ours(of, compile=False)
    theirs = TrainerPeer(of, bf16=True, order=loop.order(steps)).losses(steps, LEARNING_RATE)
    ours, every = loop.losses(steps, LEARNING_RATE), max(1, steps // 10)
    for end in range(every, steps + 1, every):
        a, b = (sum(losses[end - every : end]) / every for losses in (ours, theirs))
        print(f"loss, {end * size.tokens:>9,} tokens: lexloom {a:.4f}, Trainer {b:.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*")
    parser.add_argument("--model", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--shards")
    parser.add_argument("--losses", type=int, default=0)
    parser.add_argument("--fp32", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--their-compile", action="store_true")
    options = parser.parse_args()
    for model in options.model:
        for text in options.sizes or SIZES[model]:
            size = size_of(text, model, options)
            if options.rounds:
                compare(size, model, options)
            if options.losses and model == "gpt":
                learn(size, options.losses)


if __name__ == "__main__":
    main()
