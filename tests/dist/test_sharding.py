"""Two processes with half of the weights each take the steps of one with all of them, and what they save can be read by any number."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexloom.train import checkpoint, slices
from tests import tiny
from tests.train.test_slices import saved

# rows a step, rows a micro-batch, dtype, steps: ragged; not divisible; one process without a row, where every third step has no target
CASES = [[12, 4, "float64", 50], [7, 3, "float64", 10], [1, 8, "float64", 6], [12, 12, "float32", 1], [5, 2, "float32", 1]]
CASES += [[7, 3, "float64", 10, "roberta"], [7, 3, "float64", 10, "modernbert"]]


def run(processes: int, out: Path, jobs: list[list[Any]]) -> list[list[dict[str, Any]]]:
    """What each process found: a list over the jobs."""
    out.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, str(Path(__file__).with_name("shards.py")), str(out), json.dumps(jobs)]
    done = subprocess.run(
        command, cwd=tiny.ROOT, env={**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(path.read_text()) for path in sorted(out.glob(f"rank-*-of-{processes}.json"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[dict[str, Any]]:
    """One process: the cases, and a checkpoint at step 4."""
    return run(1, folder / "alone", [*(["train", *case] for case in CASES), ["save", str(folder / "by-one"), None, 4]])[0]


@pytest.fixture(scope="module")
def two(folder: Path, alone: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Two: the cases; nine steps in one go; four, saved, and then the rest; and four by one process, taken over."""
    saves = [("straight", None, 9), ("by-two", None, 4), ("resumed", "by-two", 9), ("taken-over", "by-one", 4)]
    jobs = [["save", str(folder / name), begin and str(folder / begin), to] for name, begin, to in saves]
    saved(folder / "foreign", 4)
    jobs += [["full", str(folder / "full")], ["poison"], ["foreign", str(folder / "foreign")]]
    return run(2, folder / "two", [*(["train", *case] for case in CASES), *jobs])


def test_two_processes_with_half_the_weights_take_the_steps_of_one(alone: list[dict[str, Any]], two: list[list[dict[str, Any]]]) -> None:
    for case, expected, first, second in zip(CASES, alone, *two, strict=False):
        assert first["losses"] == second["losses"] and first["gradient"] == second["gradient"], "the processes differ from each other"
        assert first["held"] + second["held"] == expected["held"] and second["held"] < 0.55 * expected["held"]
        assert second["weights"] == [], "only the first gathers all"
        gradients, weights = (np.array([first[name], expected[name]]) for name in ("gradient", "weights"))
        if case[2] == "float32":
            assert np.abs(gradients[0] - gradients[1]).max() <= 1e-6 * np.abs(gradients[1]).max()
            assert first["losses"][0][0] == pytest.approx(expected["losses"][0][0], rel=1e-6)
        else:
            assert np.abs(weights[0] - weights[1]).max() <= 1e-9
            assert np.allclose(first["losses"], expected["losses"], rtol=0, atol=1e-9)


def read(folder: Path) -> checkpoint.Checkpoint:
    found, complaints = checkpoint.latest(folder)
    assert found is not None and complaints == []
    return found


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_go_on_from_their_checkpoint_to_the_bit(folder: Path, two: list[list[dict[str, Any]]]) -> None:
    straight, resumed, before = (read(folder / name) for name in ("straight", "resumed", "by-two"))
    assert (straight.step, before.step, straight.state["optimizer_steps"]) == (9, 4, 9)
    assert equal(straight.masters, resumed.masters) and equal(straight.moments, resumed.moments)
    assert not equal(straight.masters, before.masters)


def test_a_checkpoint_of_one_is_taken_over_by_two(folder: Path, two: list[list[dict[str, Any]]]) -> None:
    one, taken = read(folder / "by-one"), read(folder / "taken-over")
    assert (folder / "by-one" / "step-000000004" / checkpoint.MODEL).is_file()
    assert (folder / "taken-over" / "step-000000004" / slices.INDEX).is_file()
    assert equal(one.masters, taken.masters) and equal(one.moments, taken.moments)


@pytest.mark.parametrize("processes", [1, 3])
def test_a_checkpoint_of_two_is_read_by_any_number(processes: int, folder: Path, two: list[list[dict[str, Any]]]) -> None:
    there = f"by-{processes}-again"
    ranks = run(processes, folder / f"read-by-{processes}", [["save", str(folder / there), str(folder / "by-two"), 4]])
    assert len(ranks) == processes
    before, after = read(folder / "by-two"), read(folder / there)
    assert equal(before.masters, after.masters) and equal(before.moments, after.moments)
    assert {name: torch.tensor(value).tolist() for name, value in ranks[0][0]["weights"].items()} == {
        name: master.tolist() for name, master in before.masters.items()
    }


def test_a_save_that_fails_in_one_process_fails_in_all_and_leaves_the_last_one(folder: Path, two: list[list[dict[str, Any]]]) -> None:
    first, second = (found[-3] for found in two)
    assert "process 2 could not do its part of a checkpoint" in first["told"] and "File too large" in second["told"]
    assert first["there"] == second["there"] == ["step-000000001"], "what was half made is gone"
    assert read(folder / "full").step == 3, "the next one goes well"


def test_a_number_that_is_not_finite_stops_all_processes_before_it_reaches_the_weights(two: list[list[dict[str, Any]]]) -> None:
    first, second = (found[-2] for found in two)
    assert first == second and first["same"]
    assert "backbone.blocks.0.up.weight" in first["parameters"] and "not finite at step 1" in first["error"]


def test_a_checkpoint_of_another_network_is_no_damaged_one(two: list[list[dict[str, Any]]]) -> None:
    """It would be passed over, and its run begun anew."""
    assert all("this checkpoint is of another network" in found[-1]["told"] for found in two)
