"""R10: three processes with other hash seeds, in other folders, with other temporary folders: the same weights to the bit."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from lexloom import files
from tests import tiny
from tests.kill.test_kill import outcome

SETTINGS = [
    "pretrain.train.steps=25",
    "finetune.topics.train.epochs=2",
    "finetune.topics.train.head_epochs=1",
    "finetune.topics.baselines=[majority, tfidf, from-scratch]",
]


def start(place: Path, hash_seed: int) -> subprocess.Popen[str]:
    """`lexloom run` in a folder of its own, on data and a recipe of its own."""
    home, elsewhere, temporary = place / "data", place / "started from here", place / "temporary"
    for folder in (home, elsewhere, temporary):
        folder.mkdir(parents=True)
    environment = {**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(hash_seed), "TMPDIR": str(temporary)}
    recipe = os.path.relpath(tiny.write(home), elsewhere)
    given = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [*tiny.COMMAND, "run", recipe, "--out", os.path.relpath(place / "run", elsewhere), "-q", *given]
    return subprocess.Popen(command, cwd=elsewhere, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_hash_seeds_and_folders_change_no_bit(tmp_path: Path) -> None:
    seeds = random.SystemRandom().sample(range(1, 1 << 32), 3)
    processes = {tmp_path / str(seed): start(tmp_path / str(seed), seed) for seed in seeds}
    for process in processes.values():
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]
    first, *others = [made(place / "run") for place in processes]
    for name in ("pretrain/bundle/model.safetensors", "finetune/topics/bundle/model.safetensors", "tokenizer/tokenizer.json"):
        assert name in first
    assert sum("from-scratch" in name for name in first) >= 2 and any(name.endswith("lexloom.safetensors") for name in first)
    for other in others:
        assert other == first, f"PYTHONHASHSEED {seeds}"
    # R09: the whole state of a run but its tensors
    for state in (next(iter(processes)) / "run").rglob("state.json"):
        assert state.stat().st_size <= 64 << 10


def made(run: Path) -> dict[str, object]:
    """Every logged loss, and the digests of what is a function of text, recipe and seed alone."""
    kept = [*run.rglob("*.safetensors"), *run.rglob("tokenizer.json"), *run.rglob("*.bin"), *run.glob("corpus/*.parquet")]
    return outcome(run) | {path.relative_to(run).as_posix(): files.digest(path) for path in sorted(kept)}
