"""Two and three processes take the steps that one takes: ragged rows, rows that do not divide, a process with nothing to predict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexloom.errors import ConfigError
from lexloom.train.log import read
from lexloom.train.parallel import wanted
from tests import tiny
from tests.dist.ranks import CASES, run

@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run("worker.py", 1, tmp_path_factory.mktemp("alone"), CASES)[0]


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_take_the_steps_of_one(processes: int, alone: list[dict[str, Any]], tmp_path: Path) -> None:
    ranks = run("worker.py", processes, tmp_path, CASES)
    assert len(ranks) == processes
    for case, expected, *found in zip(CASES, alone, *ranks, strict=True):
        for other in found[1:]:
            assert other == found[0], "the processes differ from each other"
        assert [tokens for _, _, tokens in found[0]["losses"]] == [tokens for _, _, tokens in expected["losses"]]
        gradients, weights = (np.array([found[0][name], expected[name]]) for name in ("gradient", "weights"))
        scale = np.abs(gradients[1]).max()
        if case[2] == "float32":
            assert np.abs(gradients[0] - gradients[1]).max() <= 1e-6 * scale
            assert found[0]["losses"][0][0] == pytest.approx(expected["losses"][0][0], rel=1e-6)
        else:
            assert np.abs(weights[0] - weights[1]).max() <= 1e-9
            assert np.allclose(found[0]["losses"], expected["losses"], rtol=0, atol=1e-9)


def test_a_recipe_runs_in_two_processes(tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path)
    command = [*tiny.COMMAND, "pretrain", str(recipe), "--set", "pretrain.train.dtype=float32", "--set", "pretrain.train.steps=30"]
    found = {}
    for name, more in (("one", []), ("two", ["--devices", "2"])):
        done = subprocess.run(
            [*command, "--out", str(tmp_path / name), *more],
            cwd=tiny.ROOT,
            env={**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("was pre-trained to") == 1, "one process alone tells the result"
        found[name] = [(line["step"], line["loss"], line["tokens"]) for line in read(tmp_path / name)]
        assert (tmp_path / name / "bundle" / "model.safetensors").is_file() and (tmp_path / name / "report.html").is_file()
    assert [step for step, _, _ in found["two"]] == list(range(1, 31))
    assert np.allclose(found["one"], found["two"], rtol=1e-3)


@pytest.mark.parametrize("devices", ["0", "two", "-1"])
def test_devices_is_a_number_or_all(devices: str) -> None:
    with pytest.raises(ConfigError, match="--devices"):
        wanted(devices)
    assert wanted(None) == 1 and wanted("all") >= 1


def test_a_mistake_in_a_recipe_is_told_once(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    command = [*tiny.COMMAND, "run", "recipe.yaml", "--out", "run", "--devices", "2", "--set", "pretrain.train.lenght=8"]
    done = subprocess.run(command, cwd=tmp_path, env=tiny.ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.count("error:") == 1 and "lenght" in done.stderr
    assert not (tmp_path / "run").exists()
