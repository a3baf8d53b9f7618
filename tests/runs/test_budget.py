"""Steps that fit into a time: the arithmetic, and that timing a few steps leaves no trace and the plan outlives a restart."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import pytest

import lexloom
from lexloom import files
from lexloom.errors import ConfigError
from lexloom.runs import budget
from lexloom.runs.budget import Plan
from lexloom.runs.training import EVALUATIONS
from lexloom.train.log import read
from lexloom.train.settings import FinetuneConfig, PretrainConfig
from tests import tiny
from tests.unfinished import unfinished


def test_the_steps_that_fit() -> None:
    found = budget.plan(1000.0, gone=90.0, step_seconds=0.5, evaluation_seconds=5.0, evaluations=20)
    assert found.steps == (990 - 90 - 100) / 0.5
    assert found.steps * found.step_seconds == pytest.approx(900)
    assert budget.plan(1.0, gone=5.0, step_seconds=0.5, evaluation_seconds=0.0, evaluations=0).steps == 1


@pytest.mark.parametrize(("spent", "rest"), [(800.0, 190), (880.0, 100), (720.0, 300), (400.0, 400)])
def test_the_fall_takes_what_is_left_of_the_time(spent: float, rest: int) -> None:
    """1,000 steps were planned for 1,000 seconds, the fall at step 800; then the machine was slower or quicker."""
    found = budget.again(Plan(1000.0, 1000, 1.0), 800, spent, 0.2)
    assert (found.fall, found.seconds) == (800, 1000.0)
    assert found.steps - 800 == pytest.approx(rest, abs=1)


def test_the_clock() -> None:
    now = datetime(2026, 3, 1, 22, 30)
    assert budget.seconds_until("23:00", now) == 1800
    assert budget.seconds_until("7:00", now) == 8.5 * 3600
    assert budget.seconds_until("22:30", now) == 24 * 3600


def test_one_amount_is_given() -> None:
    assert PretrainConfig.read({"budget": "2h"}).budget == 7200 and PretrainConfig.read({"until": "07:00"}).timed
    assert FinetuneConfig.read({"budget": "10m"}).timed
    for wrong in ({"budget": "2h", "steps": 5}, {"until": "25:00"}, {"budget": "0s"}, {"budget": "1h", "until": "7:00"}):
        with pytest.raises(ConfigError):
            PretrainConfig.read(wrong)
    with pytest.raises(ConfigError):
        FinetuneConfig.read({"epochs": 2, "budget": "1h"})


def losses(run: Path) -> list[str]:
    return [line["loss"].hex() for line in read(run)]


def test_a_plan_is_kept_and_timing_leaves_no_trace(tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path, tiny.RECIPE.replace("steps: 60, ", "budget: 6s, ").replace("evaluate_every: 20, ", ""))
    run = Path(str(lexloom.pretrain(recipe, out=tmp_path / "timed")))
    plan = budget.saved(run)
    assert plan is not None and plan.seconds == 6.0
    found = losses(run)
    assert len(found) == plan.steps == files.read_json(run / "summary.json")["steps"]
    assert sum("validation" in line for line in read(run)) >= min(EVALUATIONS, plan.steps)
    one = tiny.write(tmp_path / "other") if (tmp_path / "other").mkdir() is None else recipe
    plain = Path(str(lexloom.pretrain(one, out=tmp_path / "plain", settings=["pretrain.train.steps=1"])))
    assert losses(plain)[0] == found[0], "the steps that were timed changed the weights"


def test_a_restart_keeps_the_plan(tmp_path: Path) -> None:
    text = tiny.RECIPE.replace("steps: 60, ", "budget: 1h, schedule: wsd, ")
    recipe = tiny.write(tmp_path, text)
    run = Path(str(lexloom.pretrain(recipe, out=tmp_path / "run", settings=["pretrain.train.budget=4s"])))
    # As a run is that was killed before its first checkpoint, on a day when the machine had promised thirty steps.
    shutil.rmtree(run / "checkpoints")
    unfinished(run)
    Plan(3600.0, 30, 0.01).save(run)
    lexloom.pretrain(recipe, out=run, settings=["pretrain.train.budget=4s"])
    plan = budget.saved(run)
    assert plan is not None and plan.fall == 24
    assert len(losses(run)) == plan.steps == 24 + 12, "the fall is at most twice as long as it was to be"
