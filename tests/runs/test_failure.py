"""A step that is not finite: the weights stay, the rows that did it are named, the batch is kept, and the run can go on from before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lexloom
from lexloom import files
from lexloom.errors import LexloomError
from lexloom.text.shards import Shards
from lexloom.train import checkpoint
from lexloom.train.log import read
from tests import tiny

STEPS = ["pretrain.train.steps=20", "pretrain.train.save_every=5"]


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Path, LexloomError]:
    """A run whose weights got a NaN in the embedding of one word after step 10, as by a fault of memory."""
    out = tmp_path / "run"
    recipe = tiny.write(tmp_path)
    lexloom.pretrain(recipe, out=out, settings=[*STEPS, "pretrain.train.checkpoints=9"])
    for path in (out / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > 10:
            files.remove(path)
    damage(out / "checkpoints" / "step-000000010", word(out))
    about = files.read_json(out / "stage.json")
    files.write_json(out / "stage.json", {**about, "finished": False})
    with pytest.raises(LexloomError) as caught:
        lexloom.pretrain(recipe, out=out, settings=[*STEPS, "pretrain.train.checkpoints=9"])
    return out, caught.value


def word(out: Path) -> int:
    """A token that stands in some rows of a step and not in all."""
    shards = Shards.open(next(out.parent.rglob("shards.json")).parent)
    counts = torch.bincount(torch.from_numpy(shards.split("train").tokens.astype("int64")))
    return int((counts[5:] > 0).nonzero()[0]) + 5


def damage(folder: Path, token: int) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.embedding.weight"][token] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    files.write_manifest(folder, step=10)


def test_the_step_is_kept_and_its_rows_are_named(stopped: tuple[Path, LexloomError]) -> None:
    out, error = stopped
    assert "not finite at step 11" in error.problem and "document" in str(error.got)
    (kept,) = out.glob("failed-step-*")
    assert kept.name == "failed-step-000000011" and str(kept) == error.where
    files.verify(kept)
    told: dict[str, Any] = json.loads((kept / "failure.json").read_text())
    batches = [load_file(path) for path in sorted(kept.glob("batch-*.safetensors"))]
    assert len(told["rows"]) == sum(len(batch["input_ids"]) for batch in batches) == 16
    assert told["not_finite_rows"] and told["parameters"]
    assert set(told["not_finite_rows"]) <= set(told["rows"])


def test_nothing_of_it_was_saved(stopped: tuple[Path, LexloomError]) -> None:
    out, _ = stopped
    assert [step for step, _ in checkpoint.whole(out / "checkpoints")] == [5, 10]
    files.remove(out / "checkpoints" / "step-000000010")
    run = lexloom.pretrain(out.parent / "recipe.yaml", out=out, settings=[*STEPS, "pretrain.train.checkpoints=9"])
    weights = load_file(Path(str(run)) / "bundle" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


MEMORY = """
import resource, sys
from pathlib import Path
import lexloom
from tests import tiny

recipe, room = Path(sys.argv[1]), int(sys.argv[2])
sizes = {"steps": 3, "batch_tokens": 131072, "micro_batch_tokens": 131072, "dtype": "float32"}
settings = [f"pretrain.train.{name}={value}" for name, value in sizes.items()]
lexloom.pretrain(recipe, out=recipe.parent / "small", settings=["pretrain.train.steps=1"])  # libraries and threads are there now
if room:
    held = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) << 10
    resource.setrlimit(resource.RLIMIT_AS, (held + (room << 20), held + (room << 20)))
lexloom.pretrain(recipe, out=recipe.parent / f"room-{room}", settings=settings)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the size of a process from /proc")
def test_a_step_that_does_not_fit_is_done_in_smaller_micro_batches(tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path)
    found = {}
    for room in (0, 900):
        command = [sys.executable, "-c", MEMORY, str(recipe), str(room)]
        done = subprocess.run(command, cwd=tiny.ROOT, env={**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert ("out of memory at step 1; micro-batches are halved" in done.stderr) is (room > 0)
        found[room] = [line["loss"] for line in read(tmp_path / f"room-{room}")]
    assert found[900] == pytest.approx(found[0], rel=1e-5)
