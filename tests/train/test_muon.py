"""Muon beside PyTorch's own with AdamW for the rest, what it keeps, and a run that is stopped and gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import lexloom
from lexloom import files
from lexloom.errors import ConfigError
from lexloom.train import checkpoint, whole
from lexloom.train.muon import MOMENTUM, Muon
from lexloom.train.optim import OptimizerConfig
from lexloom.train.parallel import World
from lexloom.train.settings import TrainConfig
from tests import tiny
from tests.train.test_optim import gradients, network
from tests.unfinished import back_to

CONFIG = OptimizerConfig(learning_rate=0.01, weight_decay=0.1, clip=0.5)
HIDDEN = {"0.weight"}


def walked(optimizer: Muon, model: nn.Module, begin: int, end: int) -> None:
    for step in range(begin, end):
        gradients(model, step)
        optimizer.collect()
        assert optimizer.step(0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_walks_as_pytorchs_muon_and_adamw_do(dtype: torch.dtype) -> None:
    ours, theirs = network(dtype), network(dtype)
    walked(Muon(ours.named_parameters(), CONFIG, HIDDEN), ours, 0, 20)
    rest = {name: p for name, p in theirs.named_parameters() if name not in HIDDEN}
    groups = [
        {"params": [p for p in rest.values() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in rest.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01)
    muon = torch.optim.Muon([theirs[0].weight], lr=0.01, weight_decay=0.1, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
    for step in range(20):
        gradients(theirs, step)
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        adamw.step()
        muon.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_step_neglects_no_direction() -> None:
    """All singular values of an update are about alike, and it is as large as one of AdamW's: 0.2 in the root mean square."""
    model = nn.Sequential(nn.Linear(48, 32, bias=False)).double()
    optimizer = Muon(model.named_parameters(), OptimizerConfig(weight_decay=0.0), HIDDEN)
    before = model[0].weight.detach().clone()
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    model[0].weight.grad = rotation @ torch.diag(torch.logspace(0, 1.5, 32, dtype=torch.float64)) @ torch.eye(32, 48, dtype=torch.float64)
    optimizer.collect()
    assert optimizer.step(1.0)
    update = (before - model[0].weight.detach()) / (0.2 * 48**0.5)
    values = torch.linalg.svdvals(update)
    assert values[-1] > 0.5 and values[0] < 1.5  # Newton–Schulz stops where all are near 1; those of the gradient are 30 apart
    assert 0.1 < float((before - model[0].weight.detach()).square().mean().sqrt()) < 0.3


def test_its_state_goes_through_a_checkpoint(tmp_path: Path) -> None:
    straight, one, other = network(torch.bfloat16), network(torch.bfloat16), network(torch.bfloat16)
    walked(expected := Muon(straight.named_parameters(), CONFIG, HIDDEN), straight, 0, 8)
    walked(stopped := Muon(one.named_parameters(), CONFIG, HIDDEN), one, 0, 4)
    assert {name for name in stopped.state() if name.endswith("0.weight")} == {"first.0.weight"}
    checkpoint.save(tmp_path, 4, stopped, {})
    resumed = Muon(other.named_parameters(), CONFIG, HIDDEN)
    found, _ = checkpoint.latest(tmp_path)
    assert found is not None
    checkpoint.restore(resumed, found)
    walked(resumed, other, 4, 8)
    for name, tensor in {**expected.masters, **expected.state()}.items():
        assert torch.equal(tensor, {**resumed.masters, **resumed.state()}[name]), name
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), other.parameters(), strict=True))


def test_a_state_that_is_not_finite_reaches_no_weight() -> None:
    model = network()
    optimizer = Muon(model.named_parameters(), CONFIG, HIDDEN)
    walked(optimizer, model, 0, 2)
    before = {name: master.clone() for name, master in optimizer.masters.items()}
    optimizer.moments["0.weight"][0][0, 0] = float("nan")
    gradients(model, 2)
    optimizer.collect()
    assert not optimizer.step(0.01)
    assert all(torch.equal(before[name], master) for name, master in optimizer.masters.items())


def test_a_run_under_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path)
    settings = ["finetune={}", "pretrain.train.optimizer=muon"]
    run = lexloom.run(recipe, out=tmp_path / "run", settings=settings)
    weights = Path(run) / "pretrain" / "bundle" / "model.safetensors"
    expected = files.digest(weights)
    [saved, _] = [step for step, _ in checkpoint.whole(Path(run) / "pretrain" / "checkpoints")]
    back_to(Path(run) / "pretrain", saved)
    lexloom.run(recipe, out=tmp_path / "run", settings=settings)
    assert files.digest(weights) == expected


def test_it_needs_whole_matrices() -> None:
    config = TrainConfig.read({"optimizer": "muon", "shard": True})
    with pytest.raises(ConfigError, match="adamw"):
        whole.held(None, config, None, World(0, 2))  # type: ignore[arg-type]
