"""Sentences of mixed length to try models on: lines of a file, or docstrings of this Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lexloom import keys
from lexloom.runs.documentation import read_library


def sentences(path: Path | None, n: int) -> list[str]:
    """`n` lines of a file, or `n` stretches of 3 to 60 words out of docstrings, always the same ones."""
    if path is not None:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:n]
    words = [word for module in read_library().modules for docstring in module.docstrings for word in docstring.split()]
    lengths = (3 * 20.0 ** keys.uniform(keys.key(1, "lengths"), n)).astype(np.int64)
    starts = (keys.uniform(keys.key(1, "starts"), n) * (len(words) - 60)).astype(np.int64)
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
