"""Recipes whose weights are sharded over two processes: the run of one, killed at any moment, timed, or refused."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from lexloom import files
from lexloom.runs import budget
from lexloom.runs.budget import Plan
from lexloom.runs.training import EVALUATIONS
from lexloom.train import checkpoint, slices
from lexloom.train.log import read
from tests import tiny
from tests.unfinished import unfinished
from tests.dist.test_ranks import finish, ranks, start, wait_for_step
from tests.kill.test_kill import outcome

STEPS = 50
SETTINGS = [f"steps={STEPS}", "save_every=10", "evaluate_every=20", "keep=best", "dtype=float64"]


@pytest.mark.kill
def test_a_sharded_run_is_that_of_one_process_and_survives_its_kill_to_the_bit(tmp_path: Path) -> None:
    """Fifty steps in float64 within 1e-9; both processes killed at a random step, the rest in two, and all of it in one."""
    tiny.write(tmp_path)
    sharded = [*SETTINGS, "shard=true", "recompute=true"]
    finish(start(tmp_path, "one", 1, SETTINGS))
    finish(start(tmp_path, "two", 2, sharded))
    one, two = (load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-9
    at = random.SystemRandom().randint(5, STEPS - 15)
    launcher = start(tmp_path, "killed", 2, sharded)
    assert wait_for_step(launcher, tmp_path / "killed", at)
    for process in (psutil.Process(launcher.pid), *ranks(launcher)):
        process.kill()
    launcher.communicate(timeout=120)
    found, complaints = checkpoint.latest(tmp_path / "killed" / "checkpoints")
    assert complaints == [] and (found.step if found else 0) >= at - 20 - 1
    finish(start(tmp_path, "killed", 2, sharded))
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "two"), f"killed at step {at}"
    last = tmp_path / "killed" / "checkpoints" / f"step-{STEPS:09d}"
    assert (last / slices.INDEX).is_file() and not (last / checkpoint.MODEL).exists()


def test_a_time_budget_holds_for_two_processes(tmp_path: Path) -> None:
    """Both time the same steps, put everything back, and follow the plan of the first, at the start and where the rate begins to fall."""
    tiny.write(tmp_path, tiny.RECIPE.replace("steps: 60, ", "budget: 1h, schedule: wsd, ").replace("evaluate_every: 20, ", ""))
    settings, run = ["budget=4s", "shard=true"], tmp_path / "run"
    finish(start(tmp_path, "run", 2, settings))
    plan = budget.saved(run)
    assert plan is not None and plan.seconds == 4.0 and len(read(run)) == plan.steps
    assert sum("validation" in line for line in read(run)) >= min(EVALUATIONS, plan.steps)
    # As a run is that was killed before its first checkpoint, on a day when the machine had promised thirty steps.
    shutil.rmtree(run / "checkpoints")
    unfinished(run)
    Plan(3600.0, 30, 0.01).save(run)
    finish(start(tmp_path, "run", 2, settings))
    plan = budget.saved(run)
    assert plan is not None and plan.fall == 24 and len(read(run)) == plan.steps == 24 + 12


def test_more_processes_than_rows_are_refused_before_work_is_lost(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    launcher = start(tmp_path, "run", 2, ["batch_tokens=32"])
    _, said = launcher.communicate(timeout=120)
    assert launcher.returncode != 0 and "more processes than a step has rows" in said and "at most 1" in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
