"""A machine that cannot do what was asked for or chosen says so before work is lost, and --rechoose goes on with what it can do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import lexloom
from lexloom import cli, files
from lexloom.compute import Compute
from lexloom.console import Console
from lexloom.errors import CheckpointError, ConfigError
from lexloom.runs.machine import Machine
from lexloom.train.log import read
from tests import tiny
from tests.unfinished import back_to

QUIET = Console(quiet=True)
SETTINGS = ["pretrain.train={steps: 9, batch_tokens: 256, length: 32, save_every: 3, checkpoints: 9}", "finetune={}"]
BARE = Machine(gpus=(), compiler=False, cores=2)


@pytest.mark.parametrize(
    ("chosen", "machine", "problem"),
    [
        (Compute("cpu", "bfloat16", 2, False), BARE, ""),
        (Compute("cpu", "float32", 2, True), BARE, "no C++ compiler"),
        (Compute("cpu", "float32", 2, True), Machine((), True, 2), ""),
        (Compute("cuda", "float32", 2, False), BARE, "no such GPU"),
        (Compute("cuda", "bfloat16", 2, True), Machine((True,), False, 2), ""),
        (Compute("cuda:1", "float32", 2, False), Machine((True,), True, 2), "no such GPU"),
        (Compute("cuda:1", "bfloat16", 2, False), Machine((True, False), True, 2), "no native bfloat16"),
        (Compute("cuda:1", "float32", 2, False), Machine((True, False), True, 2), ""),
    ],
)
def test_what_a_machine_lacks(chosen: Compute, machine: Machine, problem: str) -> None:
    assert problem in machine.lacks(chosen) and bool(problem) == bool(machine.lacks(chosen))


def test_this_machine() -> None:
    here = Machine.here()
    assert here.cores >= 1 and len(here.gpus) == torch.cuda.device_count()
    assert here.lacks(Compute("cuda:99", "float32", 1, False))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which a training of nine steps was finished."""
    folder = tmp_path_factory.mktemp("machine")
    return Path(str(lexloom.run(tiny.write(folder), out=folder / "whole", settings=SETTINGS, console=QUIET)))


@pytest.fixture
def begun(whole: Path) -> Iterator[Path]:
    """The run as it was when it had just saved step 6."""
    out = Path(shutil.copytree(whole, whole.with_name("begun")))
    back_to(out / "pretrain", 6)
    yield out
    shutil.rmtree(out)


def go(out: Path, *settings: str, **options: Any) -> None:
    lexloom.run(out.parent / "recipe.yaml", out=out, settings=[*SETTINGS, *settings], console=QUIET, **options)


def state(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): files.digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def choose(out: Path, **changes: Any) -> dict[str, Any]:
    path = out / "pretrain/compute.json"
    found = {**files.read_json(path), **changes}
    files.write_json(path, found)
    return found


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"device": "cuda:63"}, "there is no such GPU here"), ({"threads": 4096}, r"there are \d+ cores here for 4096 threads")],
)
def test_a_machine_that_lacks_what_was_chosen_loses_nothing_and_names_the_way_on(
    changes: dict[str, Any], problem: str, begun: Path
) -> None:
    choose(begun, **changes)
    before = state(begun / "pretrain")
    with pytest.raises(ConfigError, match=problem) as caught:
        go(begun)
    assert "--rechoose" in str(caught.value.hint) and str(caught.value.where).endswith("pretrain/compute.json")
    assert state(begun / "pretrain") == before
    assert lexloom.run(begun.parent / "recipe.yaml", out=begun, settings=SETTINGS, dry_run=True)


def test_a_compiler_that_is_gone_is_missed(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(begun, compile=True)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler here"):
        go(begun)


def test_rechoosing_goes_on_and_is_told_ever_after(begun: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = choose(begun, device="cuda:63", dtype="float64")
    go(begun, rechoose=True)
    about = files.read_json(begun / "pretrain/compute.json")
    assert about["device"] == files.read_json(whole / "pretrain/compute.json")["device"]
    assert about["before"] == [{"until": 6, **{name: value for name, value in chosen.items() if name != "format"}}]
    lines = read(begun / "pretrain")
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert [line["loss"] for line in lines] == [line["loss"] for line in read(whole / "pretrain")], "it was chosen as before, after all"
    found = lexloom.verify(begun, console=QUIET)
    assert found["agrees"] and found["steps_again"] == 3
    assert ["before --rechoose" in one["skipped"] for one in found["trainings"][0]["intervals"]] == [True, True, False]
    assert lexloom.replay(begun, step=8, console=QUIET)["agrees"]
    with pytest.raises(ConfigError, match="before --rechoose"):
        lexloom.replay(begun, step=5, console=QUIET)
    go(begun, rechoose=True)  # a finished stage stays what it is
    assert files.read_json(begun / "pretrain/compute.json") == about


def test_a_run_that_was_not_gone_on_with_cannot_be_looked_back_into(begun: Path) -> None:
    files.write_json(begun / "pretrain/compute.json", {"format": 1, "before": []})
    with pytest.raises(CheckpointError, match="nothing was chosen yet"):
        lexloom.replay(begun, step=2, console=QUIET)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_recipe_that_asks_for_a_gpu_is_refused_before_anything_is_prepared(tmp_path: Path, begun: Path) -> None:
    recipe = tiny.write(tmp_path)
    with pytest.raises(ConfigError, match="no CUDA device here") as caught:
        lexloom.run(recipe, out=tmp_path / "run", settings=["finetune.topics.train.device=cuda"], console=QUIET)
    assert "finetune.topics.train.device" in str(caught.value.where) and "auto" in str(caught.value.hint)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="no CUDA device here") as caught:
        go(begun, "pretrain.train.device=cuda")
    assert "--rechoose" in str(caught.value.hint)


def test_the_command_line_knows_the_way_on(begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    choose(begun, device="cuda:63")
    command = ["lexloom", "run", str(begun.parent / "recipe.yaml"), "--out", str(begun), "-q", "--json"]
    command += [word for one in SETTINGS for word in ("--set", one)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "--rechoose" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*command, "--rechoose"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code and json.loads(capsys.readouterr().out)["run"] == str(begun)


# Other bad input of a run that goes on.


def test_a_checkpoint_of_another_model_is_refused(begun: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    lexloom.run(begun.parent / "recipe.yaml", out=wide, settings=[*SETTINGS, "pretrain.model.hidden_size=64"], console=QUIET)
    for step in (3, 6, 9):
        name = f"pretrain/checkpoints/step-{step:09d}"
        shutil.rmtree(begun / name, ignore_errors=True)
        shutil.copytree(wide / name, begun / name)
    before = state(begun / "pretrain/checkpoints")
    with pytest.raises(CheckpointError, match="another network"):
        go(begun)
    assert state(begun / "pretrain/checkpoints") == before


def test_a_checkpoint_beyond_the_recipe_is_refused(begun: Path) -> None:
    path = begun / "pretrain/checkpoints/step-000000006"
    further = shutil.copytree(path, path.with_name("step-000000060"))
    files.write_json(further / "state.json", {**files.read_json(further / "state.json"), "step": 60})
    files.write_manifest(further, step=60, best=None)
    with pytest.raises(CheckpointError, match="beyond the end of this run"):
        go(begun)


def test_a_checkpoint_of_a_newer_version_is_refused(begun: Path) -> None:
    path = begun / "pretrain/checkpoints/step-000000006"
    files.write_json(path / "state.json", {**files.read_json(path / "state.json"), "format": 2})
    files.write_manifest(path, step=6, best=None)
    before = state(begun / "pretrain/checkpoints")
    with pytest.raises(files.FormatError, match=r"state\.json"):
        go(begun)
    assert state(begun / "pretrain/checkpoints") == before


def test_a_disk_that_cannot_be_written_to_is_said_before_the_first_step(begun: Path) -> None:
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    mounted = subprocess.run(["mount", "--bind", begun, begun], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", begun], check=True, capture_output=True)
        before = state(begun)
        done = subprocess.run(
            [*tiny.COMMAND, "run", "recipe.yaml", "--out", begun, "-q", *(word for one in SETTINGS for word in ("--set", one))],
            cwd=begun.parent,
            env=tiny.ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and "Read-only file system" in done.stderr and "Traceback" not in done.stderr
        assert "fault of lexloom" not in done.stderr
        assert state(begun) == before
    finally:
        subprocess.run(["umount", "-l", begun], check=True)
    go(begun)
    assert len(read(begun / "pretrain")) == 9
