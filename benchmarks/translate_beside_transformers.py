"""Writing a text for a text beside `transformers.generate`: BART drawn at random, the same sources of ids, greedily and by four beams.

    python benchmarks/translate_beside_transformers.py [--size bart-mini bart-base] [--batch 1 8] [--beams 1 4]
                                                       [--source 24 --new 48 --rounds 5]

In float32 and with weights of 8 bits; each side has a process of its own. Also told: how many ids are equal.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

from _apart import Apart
from _paired import paired, show
from _translating import Ours, Peer

from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.text.tokenizer import TokenizerConfig, train_tokenizer

SIZES = {"bart-mini": (8192, 256), "bart-base": (50265, 1024)}
DTYPES = ("float32", "int8")


def new_model(folder: Path, size: str) -> Path:
    """A BART of that size, drawn at random, wide enough that ids differ; it has no end token, so that both sides write as much."""
    vocabulary, context = SIZES[size]
    kind = ARCHITECTURES.get("bart")
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "forced_eos_token_id"))
    sizes = {**kind.PRESETS[size], "vocab_size": vocabulary, "max_position_embeddings": context, "init_std": 0.1, **ends}
    tokenizer = train_tokenizer(["a few words for a tokenizer that nobody asks"] * 9, TokenizerConfig(kind="byte-bpe", vocab_size=300))
    return Bundle(Network.build(kind, kind.Config.read(sizes), ["seq-to-seq"], seed=1), tokenizer).save(folder / size)


def compare(model: Path, size: str, batch: int, beams: int, options: argparse.Namespace) -> None:
    """Times the sides at one size, batch and number of beams."""
    which = {"model": str(model), "batch": batch, "source": options.source, "new": options.new, "beams": beams}
    sides = {f"lexloom, {dtype}": Apart("_translating", "Ours", **which, dtype=dtype) for dtype in DTYPES}
    ours = list(sides)
    sides["transformers"] = Apart("_translating", "Peer", **which)
    lengths = f"{batch} sources of {options.source} tokens, {options.new} written for each, {beams} beams"
    print(f"{size}, {lengths}; {', '.join(side.about for side in sides.values())}", flush=True)
    times = paired({name: partial(side.steps, 1) for name, side in sides.items()}, rounds=options.rounds)
    show(f"writing for a source, {size}, batch {batch}, beams {beams}", times, ours, amount=batch * options.new, unit="tokens")
    theirs = Peer(**which).work()
    for dtype in DTYPES:
        equal = [
            a == b for row, other in zip(Ours(**which, dtype=dtype).work(), theirs, strict=True) for a, b in zip(row, other, strict=True)
        ]
        print(f"{dtype}: {sum(equal):,} of {len(equal):,} ids are those of transformers", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--beams", nargs="+", type=int, default=[1, 4])
    for name, default in (("source", 24), ("new", 48), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.size:
            model = new_model(Path(scratch), size)
            for batch in options.batch:
                for beams in options.beams:
                    compare(model, size, batch, beams, options)


if __name__ == "__main__":
    main()
