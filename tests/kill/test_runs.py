"""Whole runs under faults: killed at a call of a save, on a full disk, with a part of their saved state taken away, two at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from lexloom import files
from lexloom.errors import BusyError
from lexloom.lock import locked
from lexloom.train import checkpoint
from lexloom.train.log import read
from tests import tiny
from tests.kill import rig
from tests.kill.rig import Disk, Done, Rig
from tests.kill.test_kill import outcome

RECIPE = """\
name: small
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}, split: {validation: 0.1}}
tokenizer: {kind: wordpiece, vocab_size: 300}
pretrain:
  model: {kind: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}
  objective: [masked-lm]
  train:
    {steps: 12, batch_tokens: 256, micro_batch_tokens: 128, length: 32, validation_tokens: 500, learning_rate: 1e-2,
     save_every: 4, evaluate_every: 3, keep: best}
"""
# Two evaluations, one worse, and then a last one that ends the run.
STUMBLING = [
    "steps=6",
    "schedule=constant",
    "warmup=2",
    "learning_rate=0.3",
    "patience=2",
    "evaluate_every=1",
    "save_every=1",
    "checkpoints=50",
]


class Runs:
    """A recipe whose data are prepared, and one run of it that nothing disturbed."""

    def __init__(self, faulty: Rig, folder: Path) -> None:
        self.rig, self.folder = faulty, folder
        tiny.write(folder, RECIPE)
        self.done = self.go("undisturbed", root=folder / "undisturbed")
        assert self.done.value == 0, self.done.output
        self.expected = outcome(folder / "undisturbed")
        self.n_calls = sum(self.saves in call.path.parents or self.saves in call.other.parents for call in self.done.calls)

    @property
    def saves(self) -> Path:
        return self.folder / "undisturbed" / "pretrain" / "checkpoints"

    def fresh(self, name: str) -> Path:
        """A run folder in which all before the training is done."""
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.folder / "undisturbed", run, ignore=shutil.ignore_patterns("pretrain"))
        return run

    def go(self, name: str, *settings: str, root: Path | None = None, **faults: int) -> Done:
        given = [word for setting in settings for word in ("--set", f"pretrain.train.{setting}")]
        return self.rig.do("run", root, arguments=["run", "recipe.yaml", "--out", name, *given], cwd=str(self.folder), **faults)


@pytest.fixture(scope="module")
def runs(faulty: Rig, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(faulty, tmp_path_factory.mktemp("runs"))


def test_every_file_of_a_run_reaches_the_disk_before_its_name(runs: Runs) -> None:
    disk = Disk().replay(runs.done.calls)
    assert disk.faults == []
    for place in ("corpus", "tokenizer", "shards", "pretrain/bundle"):
        assert (runs.folder / "undisturbed" / place / files.MANIFEST) in disk.written
    inside = {folder: names for folder, names in disk.entries.items() if names and folder != runs.folder}
    assert inside == {}, "names that are not on the disk"


def test_the_log_reaches_the_disk_before_the_checkpoint_that_counts_on_it(runs: Runs) -> None:
    assert rig.log_ahead(runs.done.calls, runs.folder / "undisturbed" / "pretrain" / "metrics.jsonl") == [4, 8, 12]


def some(runs: Runs, every: bool) -> list[int]:
    return list(range(1, runs.n_calls + 1)) if every else [runs.n_calls // 3, 2 * runs.n_calls // 3]


@pytest.mark.kill
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_call_of_a_save_ends_with_the_same_bits(every: bool, runs: Runs) -> None:
    assert runs.n_calls > 60
    for n in some(runs, every):
        run = runs.fresh("killed")
        checkpoints = run / "pretrain" / "checkpoints"
        assert runs.go("killed", root=checkpoints, kill=n).signal == signal.SIGKILL
        found, complaints = checkpoint.latest(checkpoints)
        assert complaints == []
        # The save that was killed may have begun an interval ago, while training went on.
        assert (found.step if found else 0) >= read(run / "pretrain")[-1]["step"] - 2 * 4, "more than two intervals are lost"
        assert runs.go("killed").value == 0
        assert outcome(run) == runs.expected, n
        assert sorted(path.name for path in checkpoints.iterdir()) == sorted(path.name for path in runs.saves.iterdir())


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_whose_disk_is_full_for_a_while_goes_on_and_says_so(every: bool, runs: Runs) -> None:
    told = 0
    for n in some(runs, every):
        run = runs.fresh("full")
        done = runs.go("full", root=run / "pretrain" / "checkpoints", full=n, times=1)
        if "goes on without it" in done.output:
            told += 1
            assert re.search(r"no room for the checkpoint of step \d", done.output)
        if done.value != 0:
            assert "no room for the checkpoint of step 12" in done.output
            assert runs.go("full").value == 0
        assert outcome(run) == runs.expected, n
    assert told


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_that_cannot_save_its_end_says_so_and_goes_on_once_there_is_room(every: bool, runs: Runs) -> None:
    for n in some(runs, every)[-1:] if not every else some(runs, every):
        run = runs.fresh("full")
        checkpoints = run / "pretrain" / "checkpoints"
        done = runs.go("full", root=checkpoints, full=n)
        if done.value:
            assert done.value == 1 and "no room for the checkpoint of step 12" in done.output and "bytes free" in done.output
            assert "Traceback" not in done.output
            assert list(checkpoints.glob(".*")) == []
            assert runs.go("full").value == 0
        assert outcome(run) == runs.expected, n


def test_a_run_without_room_for_one_checkpoint_is_refused_before_its_first_step(runs: Runs) -> None:
    run = runs.fresh("full")
    done = runs.go("full", root=run / "pretrain" / "checkpoints", free=0)
    assert done.value == 1 and "bytes are missing" in done.output
    assert read(run / "pretrain") == []


def on_a_small_disk(folder: Path) -> Callable[[], None] | str:
    """Mounts a disk of one MiB at a folder; what unmounts it, or why it cannot be."""
    if os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root may mount a small disk"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        return f"a small disk cannot be mounted here: {done.stderr.decode().strip()}"
    return lambda: subprocess.run(["umount", "-l", folder], check=True) and None


def test_a_small_disk_that_fills_up_while_training(runs: Runs) -> None:
    run = runs.fresh("small")
    (run / "pretrain").mkdir()
    unmount = on_a_small_disk(run / "pretrain")
    if isinstance(unmount, str):
        pytest.skip(unmount)
    try:
        filler = run / "pretrain" / "of another program"
        filler.write_bytes(b"\1" * (files.free(run / "pretrain") - 200_000))  # room for two checkpoints, not for four
        done = runs.go("small", "keep=last", "save_every=1", "checkpoints=9")
        assert done.value == 1 and "goes on without it" in done.output and "bytes are missing" in done.output, done.output
        sound = [checkpoint.load(path).step for _, path in checkpoint.whole(run / "pretrain" / "checkpoints")]
        assert sound and sound == list(range(1, len(sound) + 1))
        filler.unlink()
        assert runs.go("small", "keep=last", "save_every=1", "checkpoints=9").value == 0
        assert outcome(run)["pretrain"] == runs.expected["pretrain"]
    finally:
        unmount()


# Each entry of the saved state is needed.


@pytest.fixture(scope="module")
def stumbled(runs: Runs) -> Path:
    """A run that stopped early at step 4, as it was when it had just saved step 3."""
    run = runs.fresh("stumbled")
    assert runs.go("stumbled", *STUMBLING).value == 0
    assert len(read(run / "pretrain")) == 4
    shutil.copytree(run, runs.folder / "stumbled-to-its-end")
    for path in (run / "pretrain" / "bundle", run / "pretrain" / "checkpoints" / "step-000000004"):
        shutil.rmtree(path)
    stage = files.read_json(run / "pretrain" / "stage.json")
    files.write_json(run / "pretrain" / "stage.json", {**stage, "finished": False})
    state = files.read_json(run / "pretrain" / "checkpoints" / "step-000000003" / "state.json")
    assert (state["waited"], state["best"]["step"]) == (1, 2)
    return run


def resumed(runs: Runs, stumbled: Path, tamper: Callable[[Path], None]) -> tuple[dict[str, Any] | None, str]:
    """What comes of a run whose last checkpoint was tampered with, or None where it was refused; and what it said."""
    run = runs.folder / "tampered"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(stumbled, run)
    path = run / "pretrain" / "checkpoints" / "step-000000003"
    for older in ("step-000000001", "step-000000002"):
        shutil.rmtree(path.with_name(older))
    manifest = files.read_manifest(path) or {}
    tamper(path)
    files.write_manifest(path, **{name: value for name, value in manifest.items() if name not in ("files", "format", "digest")})
    done = runs.go("tampered", *STUMBLING[:-1], "checkpoints=50")
    if done.value != 0:
        assert "Traceback" not in done.output and "unexpected" not in done.output
        return None, done.output
    if "passed over a damaged checkpoint" in done.output:
        return None, done.output
    lines = read(run / "pretrain")
    seconds = [line["seconds"] for line in lines]
    return {**outcome(run), "tokens": [line["tokens"] for line in lines], "time goes on": seconds == sorted(seconds)}, done.output


def undisturbed(runs: Runs) -> dict[str, Any]:
    run = runs.folder / "stumbled-to-its-end"
    return {**outcome(run), "tokens": [line["tokens"] for line in read(run / "pretrain")], "time goes on": True}


def edited(name: str, value: Any) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        state = files.read_json(path / "state.json")
        state[name] = value
        files.write_json(path / "state.json", {key: inner for key, inner in state.items() if inner is not None})

    return tamper


def zeroed(name: str, tensor: str) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        tensors = load_file(path / name)
        files.write_bytes(path / name, to_bytes({**tensors, tensor: torch.zeros_like(tensors[tensor])}))

    return tamper


def test_a_resumed_run_ends_as_one_that_was_not_stopped(runs: Runs, stumbled: Path) -> None:
    found, said = resumed(runs, stumbled, lambda path: None)
    assert found == undisturbed(runs), said


EMPTY: dict[str, Any] = {"step": 2, "optimizer_steps": 0, "best": {}, "waited": 0, "tokens": 0, "seconds": 0.0, "cut": 2, "format": 2}
EMPTY |= {"evaluation_cut": 512}
NEEDED = sorted(set(EMPTY) - {"cut", "evaluation_cut"})  # without these, as the first version wrote them, nothing was cut


def test_every_entry_of_the_state_is_emptied_below(stumbled: Path) -> None:
    state = files.read_json(stumbled / "pretrain" / "checkpoints" / "step-000000003" / "state.json")
    assert state.keys() == EMPTY.keys()


@pytest.mark.parametrize("name", EMPTY)
def test_an_entry_of_the_state_that_is_emptied_is_missed(name: str, runs: Runs, stumbled: Path) -> None:
    found, said = resumed(runs, stumbled, edited(name, EMPTY[name]))
    assert found != undisturbed(runs)
    assert (found is None) == (name in ("format", "step")), said


@pytest.mark.parametrize("name", NEEDED)
def test_a_checkpoint_without_an_entry_is_named_and_not_gone_on_from(name: str, stumbled: Path, tmp_path: Path) -> None:
    checkpoints = shutil.copytree(stumbled / "pretrain" / "checkpoints", tmp_path / "c")
    path = checkpoints / "step-000000003"
    edited(name, None)(path)
    files.write_manifest(path, step=3, best=2)
    needs = [need for need in NEEDED if need != "format"]
    if name == "format":
        with pytest.raises(files.FormatError, match=r"state\.json"):
            checkpoint.latest(checkpoints, needs=needs)
        return
    found, complaints = checkpoint.latest(checkpoints, needs=needs)
    assert found is not None and found.step == 2
    assert len(complaints) == 1 and f"expected: {name}" in complaints[0] and "step-000000003/state.json" in complaints[0]


@pytest.mark.parametrize("group", ["model", "first", "second"])
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_tensor_that_is_emptied_is_missed(every: bool, group: str, runs: Runs, stumbled: Path) -> None:
    name = "model.safetensors" if group == "model" else "optimizer.safetensors"
    tensors = load_file(stumbled / "pretrain" / "checkpoints" / "step-000000003" / name)
    full = [n for n, t in tensors.items() if t.any() and (group == "model" or n.startswith(f"{group}."))]
    assert len(full) > 10
    for tensor in full if every else [n for n in full if n.endswith("embeddings.word.weight")] or full[:1]:
        found, said = resumed(runs, stumbled, zeroed(name, tensor))
        assert found != undisturbed(runs), f"{tensor}: {said}"


# One writer a run.


@pytest.mark.kill
def test_a_second_run_in_a_folder_is_refused_and_a_killed_one_leaves_it_free(runs: Runs) -> None:
    run = runs.fresh("shared")
    command = [
        *tiny.COMMAND,
        "run",
        "recipe.yaml",
        "--out",
        "shared",
        "-q",
        "--set",
        "pretrain.train.steps=900",
        "--set",
        "pretrain.train.save_every=300",
    ]
    first = subprocess.Popen(command, cwd=runs.folder, env=tiny.ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (run / "pretrain" / "metrics.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.05)
        second = runs.go("shared", "steps=900")
        assert second.value == 1 and f"process {first.pid} on {os.uname().nodename}" in second.output
        began = time.monotonic()
        with pytest.raises(BusyError, match=f"process {first.pid} on "), locked(run):
            pass
        assert time.monotonic() - began < 1, "the second waited"
    finally:
        first.kill()
        first.wait()
    with locked(run):
        pass
    lines = (run / "pretrain" / "metrics.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["step"] for line in lines[:-1]] == list(range(1, len(lines)))
