"""SIGKILL at random times: the run goes on by itself and ends with the losses and weights of a run that was never killed, to the bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from lexloom import files
from lexloom.train.log import read
from tests import tiny
from tests.kill.runner import Runner


def start(folder: Path, out: str, settings: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    command = [*tiny.COMMAND, "run", "recipe.yaml", "--out", out, "-q", *(word for one in settings for word in ("--set", one))]
    environment = {**tiny.ENVIRONMENT, "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=3600)
    assert process.returncode == 0, errors.decode()


def outcome(run: Path) -> dict[str, object]:
    """Every logged loss as hex, and the digest of every bundle's weights, whether or not `transformers` has the network."""
    found: dict[str, object] = {}
    for log in sorted(run.rglob("metrics.jsonl")):
        name = log.parent.relative_to(run).as_posix()
        lines = read(log.parent)
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1)), f"{name}: a gap or a double step"
        found[name] = [(line["loss"].hex(), line["gradient_norm"].hex(), str(line.get("validation"))) for line in lines]
    for weights in sorted(run.rglob("bundle/*.safetensors")):
        found[weights.relative_to(run).as_posix()] = files.digest(weights)
    return found


def logged(run: Path) -> int:
    """Steps in all logs. Old checkpoints go while this looks, at which `os.walk` passes over them and `Path.rglob` raises."""
    logs = [Path(folder, "metrics.jsonl") for folder, _, names in os.walk(run) if "metrics.jsonl" in names]
    return sum(log.read_bytes().count(b"\n") for log in logs)


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(
        name.startswith(".") and name.endswith(".part")
        for folder, folders, _ in os.walk(run)
        if Path(folder).name == "checkpoints"
        for name in folders
    )


class Process:
    """A run in a process of its own."""

    def __init__(self, folder: Path, out: str, settings: Sequence[str]) -> None:
        self.process = start(folder, out, settings)

    def is_there(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def end(self) -> tuple[int, str]:
        """The exit status, negative where a signal ended it, and what was said."""
        _, errors = self.process.communicate()
        return self.process.returncode, errors.decode()


class Forked:
    """A run in a forked child: as dead after a SIGKILL, and started in a moment."""

    def __init__(self, runner: Runner, out: str, settings: Sequence[str] = (), recipe: str = "recipe.yaml") -> None:
        self.runner, self.number = runner, runner.start(out, *settings, recipe=recipe)

    def is_there(self) -> bool:
        return psutil.pid_exists(self.number)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGKILL)

    def end(self) -> tuple[int, str]:
        return self.runner.end(), self.runner.said


class Killer:
    """Kills runs of a recipe again and again, each on from where the one before it died.

    Args:
        begin: starts a run in a folder of that name.
        whole_seconds: that a run takes which nothing disturbs.
    """

    def __init__(self, folder: Path, begin: Callable[[str], Process | Forked], whole_seconds: float, dice: random.Random) -> None:
        self.folder, self.begin, self.whole_seconds, self.dice = folder, begin, whole_seconds, dice
        self.finished: list[Path] = []
        self.in_saves = 0

    def kill(self, times: int) -> None:
        """Kills so often, whatever comes to its end meanwhile being finished and followed by a fresh run; then lets the last one end."""
        hits = 0
        while hits < times:
            run, in_save = self._run(), False
            process = self.begin(run.name)
            if hits % 3 == 0:  # at any time of the process
                time.sleep(self.dice.uniform(0.3, 1.0) * self.whole_seconds)
            else:  # some steps on, at the next save every other time
                aim = logged(run) + self.dice.randint(1, 30)
                while process.is_there() and logged(run) < aim:
                    time.sleep(0.001)
                while hits % 3 == 2 and process.is_there() and not in_save:
                    in_save = saving(run)
            process.kill()
            status, said = process.end()
            assert status in (0, -signal.SIGKILL), said
            if status:
                hits, self.in_saves = hits + 1, self.in_saves + in_save
            else:
                self.finished.append(run)
        run = self._run()
        status, said = self.begin(run.name).end()
        assert status == 0, said
        self.finished.append(run)

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
def test_killed_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    runner = Runner(tmp_path)
    try:
        expected = killed(tmp_path, 3, lambda out: Forked(runner, out))
    finally:
        runner.close()
    assert len(expected["pretrain"]) == 60  # type: ignore[arg-type]
    assert "finetune/topics/bundle/model.safetensors" in expected


@pytest.mark.kill
@pytest.mark.slow
def test_thirty_kills_of_compiled_training_in_bfloat16(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    finish(start(tmp_path, "first", COMPILED))  # compiles; the other runs take its kernels
    expected = killed(tmp_path, 30, lambda out: Process(tmp_path, out, COMPILED))
    assert outcome(tmp_path / "first") == expected
    assert all(files.read_json(chosen)["compile"] for chosen in (tmp_path / "whole").rglob("compute.json"))


def killed(folder: Path, times: int, begin: Callable[[str], Process | Forked]) -> dict[str, object]:
    """Holds runs that are killed against one that is not, whose outcome this is."""
    began = time.monotonic()
    status, said = begin("whole").end()
    assert status == 0, said
    whole_seconds, expected = time.monotonic() - began, outcome(folder / "whole")
    seed = random.SystemRandom().randrange(1 << 30)
    killer = Killer(folder, begin, whole_seconds, random.Random(seed))
    killer.kill(times)
    assert killer.in_saves >= times // 6, f"seed of the kills: {seed}"
    for run in killer.finished:
        assert outcome(run) == expected, f"{run.name}, seed of the kills: {seed}"
    return expected
