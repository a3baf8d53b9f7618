"""SIGKILL at random times: the run goes on by itself and ends with the losses and weights of a run that was never killed, to the bit."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lexloom import files
from lexloom.train.log import read
from tests import tiny


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    command = [*tiny.COMMAND, "run", "recipe.yaml", "--out", out, "-q"]
    return subprocess.Popen(command, cwd=folder, env=tiny.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()


def outcome(run: Path) -> dict[str, object]:
    """Every logged loss as hex, and the digest of every bundle's weights."""
    found: dict[str, object] = {}
    for log in sorted(run.rglob("metrics.jsonl")):
        name = log.parent.relative_to(run).as_posix()
        lines = read(log.parent)
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1)), f"{name}: a gap or a double step"
        found[name] = [(line["loss"].hex(), line["gradient_norm"].hex(), str(line.get("validation"))) for line in lines]
    for weights in sorted(run.rglob("bundle/model.safetensors")):
        found[weights.relative_to(run).as_posix()] = files.digest(weights)
    return found


def killed_run(folder: Path, out: str, kills: int, whole_seconds: float, dice: random.Random) -> int:
    """Runs to the end through `kills` SIGKILLs at random times; returns how many of them hit."""
    hits = 0
    for _ in range(kills):
        process = start(folder, out)
        time.sleep(dice.uniform(0.3, 1.0) * whole_seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        hits += process.returncode == -signal.SIGKILL
    finish(start(folder, out))
    return hits


@pytest.mark.kill
@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bits(kills: int, tmp_path: Path) -> None:
    tiny.write(tmp_path)
    began = time.monotonic()
    finish(start(tmp_path, "whole"))
    whole = time.monotonic() - began
    expected = outcome(tmp_path / "whole")
    assert len(expected["pretrain"]) == 60  # type: ignore[arg-type]
    assert "finetune/topics/bundle/model.safetensors" in expected
    seed = random.SystemRandom().randrange(1 << 30)
    hits = killed_run(tmp_path, "killed", kills, whole, random.Random(seed))
    assert hits > 0, "no kill came before the end"
    assert outcome(tmp_path / "killed") == expected, f"seed of the kills: {seed}"
