"""R07, and R08 between processes: one of two that train together is killed, or their number changes, and the curve goes on as it was."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from lexloom.train import checkpoint
from lexloom.train.log import read
from tests import tiny
from tests.kill.test_kill import outcome

STEPS = 200
SETTINGS = [f"steps={STEPS}", "save_every=20", "evaluate_every=50"]
ENVIRONMENT = {**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1"}


def start(folder: Path, out: str, devices: int = 2, settings: list[str] = SETTINGS) -> subprocess.Popen[str]:
    given = [word for setting in settings for word in ("--set", f"pretrain.train.{setting}")]
    command = [*tiny.COMMAND, "pretrain", "recipe.yaml", "--out", out, "--devices", str(devices), "-q", *given]
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]


def steps(run: Path) -> int:
    log = run / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def ranks(launcher: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train, below the one that was started and `torchrun`."""
    found = {}
    for process in psutil.Process(launcher.pid).children(recursive=True):
        try:
            rank = process.environ().get("LOCAL_RANK")
        except psutil.Error:
            continue
        if rank is not None:
            found[rank] = process
    return [found[rank] for rank in sorted(found)]


def wait_for_step(launcher: subprocess.Popen[str], run: Path, step: int) -> bool:
    """Waits until a step is logged; False where the run ended first."""
    while steps(run) < step:
        if launcher.poll() is not None:
            return False
        time.sleep(0.005)
    return launcher.poll() is None


def kill_one(folder: Path, out: str, dice: random.Random) -> bool:
    """Goes on with a run, and kills one of its two processes once it made some steps; whether the kill came before the end."""
    at = min(steps(folder / out) + dice.randint(1, STEPS // 3), STEPS - 5)
    launcher = start(folder, out)
    if not wait_for_step(launcher, folder / out, at):
        finish(launcher)
        return False
    both = ranks(launcher)
    assert len(both) == 2
    victim = dice.choice(both)
    victim.send_signal(signal.SIGKILL)
    launcher.communicate(timeout=120)
    if launcher.returncode == 0:
        return False  # it was at its end
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in both), "the other is still there"
    return True


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("kills", [10])
def test_two_processes_of_which_one_is_killed_go_on_to_the_same_bits(kills: int, tmp_path: Path) -> None:
    """R07: no step is lost or comes twice, and losses, gradient norms, tokens and weights are those of a run that nobody killed."""
    tiny.write(tmp_path)
    finish(start(tmp_path, "whole"))
    expected, tokens = outcome(tmp_path / "whole"), [line["tokens"] for line in read(tmp_path / "whole")]
    seed = random.SystemRandom().randrange(1 << 30)
    dice, hits, out = random.Random(seed), 0, "killed"
    for number in range(3 * kills):
        if hits == kills:
            break
        if steps(tmp_path / out) >= STEPS - 10:
            finish(start(tmp_path, out))
            assert outcome(tmp_path / out) == expected, f"seed of the kills: {seed}"
            out = f"killed-{number}"
        hits += kill_one(tmp_path, out, dice)
        found, complaints = checkpoint.latest(tmp_path / out / "checkpoints")
        assert complaints == [] and (found.step if found else 0) >= steps(tmp_path / out) - 20 - 1, "more than an interval is lost"
    assert hits == kills, "no kill came before the end"
    finish(start(tmp_path, out))
    assert outcome(tmp_path / out) == expected, f"seed of the kills: {seed}"
    assert [line["tokens"] for line in read(tmp_path / out)] == tokens


@pytest.mark.kill
@pytest.mark.slow
def test_a_run_goes_from_two_processes_to_one_and_back(tmp_path: Path) -> None:
    """R08: in float64, where roundings do not grow, each loss is the one of a run whose number of processes never changed."""
    tiny.write(tmp_path)
    settings = [*SETTINGS, "dtype=float64"]
    finish(start(tmp_path, "one", 1, settings))
    expected = read(tmp_path / "one")
    dice = random.Random(random.SystemRandom().randrange(1 << 30))
    at = sorted(dice.sample(range(5, STEPS - 40), 2))
    for devices, stop in ((2, at[0]), (1, at[1])):
        launcher = start(tmp_path, "changing", devices, settings)
        assert wait_for_step(launcher, tmp_path / "changing", stop)
        for process in ranks(launcher) if devices > 1 else [psutil.Process(launcher.pid)]:
            process.send_signal(signal.SIGTERM)
        launcher.communicate(timeout=120)
        assert launcher.returncode != 0
    finish(start(tmp_path, "changing", 2, settings))
    found = read(tmp_path / "changing")
    assert [line["step"] for line in found] == list(range(1, STEPS + 1))
    assert [line["tokens"] for line in found] == [line["tokens"] for line in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_stops_both_processes_at_a_step_and_saves(number: signal.Signals, tmp_path: Path) -> None:
    """R06 with two processes: the command that started them passes it on once, and waits for their checkpoint."""
    tiny.write(tmp_path)
    launcher = start(tmp_path, "run")
    assert wait_for_step(launcher, tmp_path / "run", 30)
    both = ranks(launcher)
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode == 128 + number, said[-3000:]
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in both)
    found, complaints = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is not None and complaints == [] and 30 <= found.step == steps(tmp_path / "run") < STEPS
    assert f"stopped at step {found.step} of {STEPS}; the checkpoint is saved" in said
