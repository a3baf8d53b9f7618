"""A run that kept all its checkpoints, with a head trained first and a baseline from scratch: for what looks back into runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import lexloom
from tests import tiny

SETTINGS = [
    "pretrain.train.checkpoints=100",
    "finetune.topics.train.epochs=2",
    "finetune.topics.train.head_epochs=1",
    "finetune.topics.train.checkpoints=100",
    "finetune.topics.baselines=[majority, from-scratch]",
]


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; it is read only, tests change a copy."""
    folder = tmp_path_factory.mktemp("kept")
    return Path(str(lexloom.run(tiny.write(folder), out=folder / "run", settings=SETTINGS)))
