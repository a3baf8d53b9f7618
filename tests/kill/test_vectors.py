"""Word vectors are the same after any number of kills, however many workers go on with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vectors.texts import topics

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
import sys
import lexloom
from lexloom.console import Console
from lexloom.vectors import training

training.CHUNK, training.INTERVAL = 400, 1
settings = {"words": "spaces", "min_count": 1, "dim": 30, "epochs": 5, "deterministic": True, "save_every_seconds": 0.0}
settings |= {"buckets": 300} if sys.argv[4] == "fasttext" else {}
lexloom.train_vectors(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), kind=sys.argv[4], console=Console(quiet=True), **settings)
"""

pytestmark = pytest.mark.kill


def started(text: Path, out: Path, workers: int, kind: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "8", "GOMP_SPINCOUNT": "0"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(text), str(out), str(workers), kind], env=environment)


@pytest.mark.parametrize("kind", ["skipgram", "fasttext", "glove"])
def test_killed_word_vectors_are_those_of_a_quiet_run(tmp_path: Path, kind: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(" ".join(sentence) + "\n" for sentence in topics(sentences=600)), encoding="utf-8")
    assert started(text, tmp_path / "quiet.bin", 1, kind).wait() == 0
    kills = 0
    for workers in (2, 8, 1, 8):
        process, folder = started(text, tmp_path / "killed.bin", workers, kind), tmp_path / "killed.bin.training" / "checkpoints"
        seen = sorted(path.name for path in folder.glob("step-*"))
        while process.poll() is None and kills < 2:
            time.sleep(0.01)
            if len({path.name for path in folder.glob("step-*")} - set(seen)) >= 2:
                process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if (tmp_path / "killed.bin").exists():
            break
    assert kills >= 1
    assert (tmp_path / "killed.bin").read_bytes() == (tmp_path / "quiet.bin").read_bytes()
