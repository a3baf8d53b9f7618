"""Bundles on both sides: what `transformers`, in a process of its own, makes of a folder, and what we write back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

LINES = ["the cat sat on the mat", "a dog and a cat", "深度学习", "quotes and the mat and the dog"] * 30
"""What tokenizers are trained on."""


def in_their_hands(folders: Mapping[str, Path], texts: Sequence[str]) -> dict[str, Any]:
    """What `oracle_bundle.py` says of folders, by their names, which end in what each is opened as."""
    command = [sys.executable, str(Path(__file__).with_name("oracle_bundle.py"))]
    command += [json.dumps({name: str(path) for name, path in folders.items()}), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def same_bytes(again: Path, folder: Path, but: Collection[str] = ("README.md",)) -> None:
    """Every file of a folder stands in the other, byte for byte."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in but:
            assert (again / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name
