"""Checkpoints: whole or not there, damaged ones passed over and named, the newest few kept."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from lexloom import files
from lexloom.errors import CheckpointError, DiskFullError
from lexloom.train import checkpoint
from lexloom.train.optim import AdamW, OptimizerConfig


def optimizer(seed: int = 0) -> AdamW:
    torch.manual_seed(seed)
    found = AdamW(nn.Linear(4, 3).named_parameters(), OptimizerConfig())
    for gradient in found.gradients.values():
        gradient.normal_()
    found.step(0.1)
    return found


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    one, other = optimizer(1), optimizer(2)
    checkpoint.save(tmp_path, 7, one, {"best": {"value": 0.1}, "tokens": 12})
    found, complaints = checkpoint.latest(tmp_path)
    assert found is not None and not complaints
    assert (found.step, found.state["tokens"], found.state["best"]) == (7, 12, {"value": 0.1})
    checkpoint.restore(other, found)
    assert other.steps == one.steps
    for name, master in one.masters.items():
        assert torch.equal(master, other.masters[name])
        assert torch.equal(other.parameters[name].data, master)
    for name, moment in one.state().items():
        assert torch.equal(moment, other.state()[name])


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, step, optimizer(), {}, keep=2)
    assert [step for step, _ in checkpoint.whole(tmp_path)] == [20, 30]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_one_is_named_and_the_one_before_is_taken(name: str, harm: str, tmp_path: Path) -> None:
    for step in (10, 20):
        checkpoint.save(tmp_path, step, optimizer(step), {})
    path = tmp_path / "step-000000020" / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    found, complaints = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 10
    assert len(complaints) == 1 and name in complaints[0]
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load(tmp_path / "step-000000020")


def test_without_a_manifest_it_does_not_exist(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 10, optimizer(), {})
    (tmp_path / "step-000000010" / "manifest.json").unlink()
    assert checkpoint.whole(tmp_path) == [] and checkpoint.latest(tmp_path) == (None, [])


def one_of_two(folder: Path) -> Path:
    """Two checkpoints; the path of the newer."""
    for step in (10, 20):
        checkpoint.save(folder, step, optimizer(step), {"best": {}, "waited": 0, "tokens": 1, "seconds": 0.5})
    return folder / "step-000000020"


def check_damage_is_named(folder: Path, path: Path, said: str) -> None:
    """The damaged file is named with a digest or what was expected of it, and the checkpoint before it is taken."""
    found, complaints = checkpoint.latest(folder)
    assert found is not None and found.step == 10, said
    assert len(complaints) == 1 and str(path) in complaints[0], said
    assert torch.equal(found.masters["weight"], optimizer(10).masters["weight"])
    entry = files.read_manifest(path.parent)
    if entry is not None:
        assert entry["files"][path.name]["sha256"] in complaints[0], said
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint.load(path.parent)


@pytest.mark.parametrize(("flips", "cuts"), [(60, 20), pytest.param(1000, 200, marks=pytest.mark.slow)])
def test_every_flipped_bit_and_every_cut_is_seen_before_a_tensor_is_used(flips: int, cuts: int, tmp_path: Path) -> None:
    newer, dice = one_of_two(tmp_path), random.Random(5)
    contents = {path: path.read_bytes() for path in sorted(newer.iterdir())}
    assert len(contents) == 4
    for i in range(flips):
        path = dice.choice(list(contents))
        place = dice.randrange(8 * len(contents[path]))
        flipped = bytearray(contents[path])
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        check_damage_is_named(tmp_path, path, f"flip {i}: bit {place} of {path.name}")
        path.write_bytes(contents[path])
    for i in range(cuts):
        path = dice.choice(list(contents))
        size = dice.randrange(len(contents[path]) - (path.name == files.MANIFEST))  # without its last line break it says the same
        path.write_bytes(contents[path][:size])
        check_damage_is_named(tmp_path, path, f"cut {i}: {path.name} at {size}")
        path.write_bytes(contents[path])
    found, complaints = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 20 and complaints == []


def test_a_checkpoint_of_a_newer_format_is_refused_not_overwritten(tmp_path: Path) -> None:
    newer = one_of_two(tmp_path)
    files.write_json(newer / "state.json", {**files.read_json(newer / "state.json"), "format": 2})
    files.write_manifest(newer, step=20)
    with pytest.raises(files.FormatError, match="newer lexloom"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize("width", [4, 400])
@pytest.mark.parametrize("best", [False, True])
def test_the_size_told_before_is_the_size_written(width: int, best: bool, tmp_path: Path) -> None:
    found = AdamW(nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)).named_parameters(), OptimizerConfig())
    state = {"best": {"value": 0.25, "step": 3, "record": {"loss": 0.25, "parts": {"masked-lm": 0.25}}}, "waited": 1, "tokens": 10**9}
    kept = checkpoint.Best(3, dict(found.masters)) if best else None
    told = checkpoint.size(found, state, kept)
    checkpoint.save(tmp_path, 5, found, state, best=kept)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert abs(told - written) <= 0.05 * written


def test_the_best_weights_go_with_the_checkpoints_that_name_them(tmp_path: Path) -> None:
    best = checkpoint.Best(4, optimizer(4).masters)
    checkpoint.save(tmp_path, 5, optimizer(5), {}, best=best)
    assert best.weights is None, "they are on the disk, and no longer held"
    checkpoint.save(tmp_path, 10, optimizer(10), {}, best=best)
    checkpoint.save(tmp_path, 15, optimizer(15), {}, best=checkpoint.Best(12, optimizer(12).masters))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best-000000004",
        "best-000000012",
        "step-000000010",
        "step-000000015",
    ]
    found, _ = checkpoint.latest(tmp_path)
    assert found is not None and found.best == checkpoint.Best(12)
    assert torch.equal(checkpoint.load_best(tmp_path, 12)["weight"], optimizer(12).masters["weight"])
    checkpoint.save(tmp_path, 20, optimizer(20), {}, best=found.best, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-000000012", "step-000000020"]


def test_best_weights_of_the_first_version_are_found(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 10, optimizer(10), {}, best=checkpoint.Best(8, optimizer(8).masters))
    shutil.move(tmp_path / "best-000000008", tmp_path / "best")
    files.write_manifest(tmp_path / "step-000000010", step=10)
    found, complaints = checkpoint.latest(tmp_path)
    assert found is not None and found.best == checkpoint.Best(8) and complaints == []
    assert torch.equal(checkpoint.load_best(tmp_path, 8)["weight"], optimizer(8).masters["weight"])


def test_room_is_asked_for_before_the_first_step(tmp_path: Path) -> None:
    checkpoint.check_room(tmp_path / "new", optimizer(), {})

    class Vast(AdamW):
        def state(self) -> dict[str, torch.Tensor]:
            return {"first": torch.empty(1 << 50, device="meta")}

    vast = Vast(nn.Linear(2, 2).named_parameters(), OptimizerConfig())
    with pytest.raises(DiskFullError, match=r"bytes are missing") as caught:
        checkpoint.check_room(tmp_path / "new", vast, {})
    assert caught.value.missing == (caught.value.needed or 0) - caught.value.free > 1 << 50
    with pytest.raises(DiskFullError, match="the checkpoint of step 3"):
        checkpoint.save(tmp_path / "new", 3, vast, {})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_name(name: str, tmp_path: Path) -> None:
    whole = one_of_two(tmp_path)
    for tensor in load_file(whole / name):
        path = Path(shutil.copytree(whole, tmp_path / "less" / tensor / whole.name))
        tensors = load_file(path / name)
        del tensors[tensor]
        files.write_bytes(path / name, to_bytes(tensors))
        files.write_manifest(path, step=20)
        found, _ = checkpoint.latest(path.parent)
        assert found is not None
        with pytest.raises(CheckpointError, match=tensor):
            checkpoint.restore(optimizer(), found)


def test_who_looks_back_gets_the_newest_up_to_a_step_and_needs_no_best_weights(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, step, optimizer(step), {}, keep=9, best=checkpoint.Best(step, optimizer(step).masters))
    for step in (10, 20, 30):
        (tmp_path / f"best-{step:09d}" / "model.safetensors").write_bytes(b"")
    (tmp_path / "step-000000020" / "model.safetensors").write_bytes(b"")
    for most, expected, passed_over in ((35, 30, 0), (29, 10, 1), (10, 10, 0), (9, None, 0)):
        found, complaints = checkpoint.latest(tmp_path, at_most=most, with_best=False)
        assert (found.step if found else None, len(complaints)) == (expected, passed_over)
    with pytest.raises(CheckpointError, match="best evaluation are damaged"):
        checkpoint.latest(tmp_path)
