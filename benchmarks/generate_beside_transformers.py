"""Greedy generation beside `transformers.generate`, from the same bundle and prompts of ids, in float32 and with weights of 8 bits.

    python benchmarks/generate_beside_transformers.py [--size 6x384 gpt2-small] [--batch 1 8] [--prompt 32 --new 128 --rounds 5]
                                                      [--model BUNDLE --text FILE]

Without --model the networks are drawn at random, wide enough that ids differ. Each side has a process of its own. Beside both stands the
reading of all weights once a step. Also told: how many ids are equal, and with --text by how much 8 bits raise the perplexity on a text.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch
from _apart import Apart
from _generating import Ours, Peer, perplexity
from _paired import paired, show

from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.text.tokenizer import TokenizerConfig, train_tokenizer

SIZES = {"6x384": ("gpt-mini", 8192, 512), "gpt2-small": ("gpt2-small", 50257, 1024)}
DTYPES = ("float32", "int8")


def new_model(folder: Path, size: str) -> Path:
    """A GPT-2 of that size, drawn at random."""
    preset, vocabulary, context = SIZES[size]
    kind = ARCHITECTURES.get("gpt2")
    sizes = {**kind.PRESETS[preset], "vocab_size": vocabulary, "n_positions": context, "initializer_range": 0.1}
    config = kind.Config.read({**sizes, "bos_token_id": None, "eos_token_id": None})
    tokenizer = train_tokenizer(["a few words for a tokenizer that nobody asks"] * 9, TokenizerConfig(kind="byte-bpe", vocab_size=300))
    return Bundle(Network.build(kind, config, ["causal-lm"], seed=1), tokenizer).save(folder / size)


def compare(model: Path, size: str, batch: int, prompt: int, new: int, rounds: int) -> None:
    """Times the sides at one size and batch."""
    which = {"model": str(model), "batch": batch, "prompt": prompt, "new": new}
    sides = {f"lexloom, {dtype}": Apart("_generating", "Ours", **which, dtype=dtype) for dtype in DTYPES}
    ours = list(sides)
    sides["transformers"] = Apart("_generating", "Peer", **which)
    weights = sum(p.numel() for p in Bundle.load(model).network.parameters())
    sides["reading the weights"] = Apart("_generating", "Reading", weights=weights, new=new)
    print(f"{size}, {batch} prompts of {prompt} tokens, {new} more each; {', '.join(side.about for side in sides.values())}", flush=True)
    times = paired({name: partial(side.steps, 1) for name, side in sides.items()}, rounds=rounds)
    show(f"generation, {size}, batch {batch}", times, ours, amount=batch * new, unit="tokens")
    theirs = Peer(**which).work()
    for dtype in DTYPES:
        equal = [
            a == b for row, other in zip(Ours(**which, dtype=dtype).work(), theirs, strict=True) for a, b in zip(row, other, strict=True)
        ]
        print(f"{dtype}: {sum(equal):,} of {len(equal):,} ids are those of transformers", flush=True)


def rise(model: Path, text: Path) -> None:
    """How much worse weights of 8 bits predict a text."""
    bundle = Bundle.load(model)
    length = bundle.max_length
    ids = torch.from_numpy(bundle.tokenizer.encode_plain([text.read_text(encoding="utf-8")[:400_000]])[0]).long()
    rows = ids[: len(ids) // length * length].view(-1, length)
    whole, low = (perplexity(bundle.to("cpu", dtype=dtype)._answering(), rows) for dtype in DTYPES)
    print(f"perplexity over {rows.numel():,} tokens: {whole:.4f}, with weights of 8 bits {low:.4f} ({100 * (low / whole - 1):+.3f} %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    for name, default in (("prompt", 32), ("new", 128), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        models = {options.model.name: options.model} if options.model else {size: new_model(Path(scratch), size) for size in options.size}
        for size, model in models.items():
            for batch in options.batch:
                compare(model, size, batch, options.prompt, options.new, options.rounds)
    if options.text is not None and options.model is not None:
        rise(options.model, options.text)


if __name__ == "__main__":
    main()
