"""Steps of ELMo's pre-training beside the same network in plain PyTorch with a full softmax, in turn.

    python benchmarks/elmo_beside_full_softmax.py [--preset elmo-small --vocabulary 50000 --length 64 --rows 32 --rounds 5 --steps 3]

Ours reads each different word of a batch once, has its own LSTM step and an adaptive softmax. *ours, full softmax* is what the first two
alone give. The peer reads every word, with `nn.LSTM(proj_size=…)`, in fp32 and under bf16 autocast.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial

from _apart import Apart
from _elmo import Size
from _paired import paired, show

OURS = ("lexloom, adaptive softmax", "lexloom, full softmax")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="elmo-small")
    parser.add_argument("--vocabulary", type=int, default=50_000)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    size = Size(options.preset, options.vocabulary, options.length, options.rows)
    same = dataclasses.asdict(size)
    sides = {name: Apart("_elmo", "Ours", size=same, full=name == OURS[1], dtype=options.dtype) for name in OURS}
    sides |= {f"PyTorch {name}, full softmax": Apart("_elmo", "PlainPeer", size=same, bf16=name == "bf16") for name in ("bf16", "fp32")}
    print(f"{size}; {sides[OURS[0]].about}", flush=True)
    times = paired({name: partial(side.steps, options.steps) for name, side in sides.items()}, rounds=options.rounds)
    show(f"ELMo pre-training, {size}", times, OURS, amount=options.steps * size.tokens, unit="tokens")


if __name__ == "__main__":
    main()
