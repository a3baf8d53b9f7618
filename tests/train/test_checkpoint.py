"""Checkpoints: whole or not there, damaged ones passed over and named, the newest few kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lexloom.errors import CheckpointError
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
