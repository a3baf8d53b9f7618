"""SIGKILL at random times: the run goes on by itself and ends with the losses and weights of a run that was never killed, to the bit."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from lexloom import files
from lexloom.train.log import read
from tests import tiny


def start(folder: Path, out: str, settings: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    command = [*tiny.COMMAND, "run", "recipe.yaml", "--out", out, "-q", *(word for one in settings for word in ("--set", one))]
    environment = {**tiny.ENVIRONMENT, "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


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


def logged(run: Path) -> int:
    """Steps in all logs."""
    return sum(log.read_bytes().count(b"\n") for log in run.rglob("metrics.jsonl"))


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(any(folder.glob(".*.part")) for folder in run.rglob("checkpoints"))


class Killer:
    """Kills runs of a recipe again and again, each on from where the one before it died.

    Args:
        whole_seconds: that a run takes which nothing disturbs.
    """

    def __init__(self, folder: Path, settings: Sequence[str], whole_seconds: float, dice: random.Random) -> None:
        self.folder, self.settings, self.whole_seconds, self.dice = folder, settings, whole_seconds, dice
        self.finished: list[Path] = []
        self.in_saves = 0

    def kill(self, times: int) -> None:
        """Kills so often, whatever comes to its end meanwhile being finished and followed by a fresh run; then lets the last one end."""
        hits = 0
        while hits < times:
            run, in_save = self._run(), False
            process = start(self.folder, run.name, self.settings)
            if hits % 3 == 0:  # at any time of the process
                time.sleep(self.dice.uniform(0.3, 1.0) * self.whole_seconds)
            else:  # some steps on, at the next save every other time
                aim = logged(run) + self.dice.randint(1, 30)
                while process.poll() is None and logged(run) < aim:
                    time.sleep(0.001)
                while hits % 3 == 2 and process.poll() is None and not in_save:
                    in_save = saving(run)
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), errors.decode()
            if process.returncode:
                hits, self.in_saves = hits + 1, self.in_saves + in_save
            else:
                self.finished.append(run)
        finish(start(self.folder, self._run().name, self.settings))
        self.finished.append(self._run())

    def _run(self) -> Path:
        """The run under way; its data are those of the undisturbed one."""
        run = self.folder / f"killed-{len(self.finished)}"
        if not run.exists():
            shutil.copytree(self.folder / "whole", run, ignore=shutil.ignore_patterns("pretrain", "finetune"))
        return run


COMPILED = [
    f"{stage}.train.{setting}"
    for stage in ("pretrain", "finetune.topics")
    for setting in ("compile=true", "dtype=bfloat16", "dropout=0.1", "micro_batch_tokens=128")
]


@pytest.mark.kill
@pytest.mark.parametrize(
    ("kills", "settings"), [(3, []), pytest.param(30, COMPILED, marks=pytest.mark.slow)], ids=["few", "thirty, compiled"]
)
def test_killed_runs_end_with_the_same_bits(kills: int, settings: list[str], tmp_path: Path) -> None:
    tiny.write(tmp_path)
    if settings:
        finish(start(tmp_path, "first", settings))  # compiles; the other runs take its kernels
    began = time.monotonic()
    finish(start(tmp_path, "whole", settings))
    whole = time.monotonic() - began
    expected = outcome(tmp_path / "whole")
    assert len(expected["pretrain"]) == 60  # type: ignore[arg-type]
    assert "finetune/topics/bundle/model.safetensors" in expected
    assert not settings or outcome(tmp_path / "first") == expected
    for chosen in (tmp_path / "whole").rglob("compute.json"):
        assert files.read_json(chosen)["compile"] is bool(settings)
    seed = random.SystemRandom().randrange(1 << 30)
    killer = Killer(tmp_path, settings, whole, random.Random(seed))
    killer.kill(kills)
    assert killer.in_saves >= kills // 6, f"seed of the kills: {seed}"
    for run in killer.finished:
        assert outcome(run) == expected, f"{run.name}, seed of the kills: {seed}"
