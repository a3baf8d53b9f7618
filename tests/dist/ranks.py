"""Starts scripts of this folder in one or several processes, which train the same cases."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests import tiny

# rows a step, rows a micro-batch, dtype, steps: ragged; not divisible; one process without a row, where every third step has no target
CASES = [[12, 4, "float64", 50], [7, 3, "float64", 10], [1, 8, "float64", 6], [12, 12, "float32", 1], [5, 2, "float32", 1]]


def run(script: str, processes: int, out: Path, jobs: Sequence[Sequence[Any]]) -> list[list[dict[str, Any]]]:
    """What each process found: a list over the jobs."""
    out.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, str(Path(__file__).with_name(script)), str(out), json.dumps(jobs)]
    done = subprocess.run(
        command, cwd=tiny.ROOT, env={**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(out.glob(f"rank-*-of-{processes}.json"))]
