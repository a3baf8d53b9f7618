"""AdamW beside PyTorch's own, masters, and the shapes of the schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lexloom.errors import CheckpointError
from lexloom.train.optim import AdamW, OptimizerConfig, rate


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3)).to(dtype)


def gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def test_it_walks_as_pytorchs_adamw_does() -> None:
    config = OptimizerConfig(learning_rate=0.01, weight_decay=0.1, clip=0.5, epsilon=1e-6, beta2=0.98)
    ours, theirs = network(), network()
    optimizer = AdamW(ours.named_parameters(), config)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    oracle = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6, foreach=False)
    for step in range(20):
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.collect()
        norm = optimizer.norm()
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        torch.testing.assert_close(norm, expected, rtol=1e-6, atol=0)
        optimizer.step(0.01, norm)
        oracle.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_masters_keep_what_bfloat16_would_lose() -> None:
    """Steps far below the spacing of bfloat16 add up in the masters, and the network follows."""
    model = network(torch.bfloat16)
    optimizer = AdamW(model.named_parameters(), OptimizerConfig(weight_decay=0.0))
    before = {n: m.clone() for n, m in optimizer.masters.items()}
    for _ in range(400):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.collect()
        optimizer.step(1e-5)
    for name, master in optimizer.masters.items():
        assert master.dtype == torch.float32
        # 400 roundings at the spacing of fp32 near 1, 6e-8 each
        torch.testing.assert_close(before[name] - master, torch.full_like(master, 4e-3), rtol=0, atol=2.4e-5)
        assert torch.equal(dict(model.named_parameters())[name], master.bfloat16())


def test_gradients_of_micro_batches_add_up_in_fp32() -> None:
    model = network(torch.bfloat16)
    optimizer = AdamW(model.named_parameters(), OptimizerConfig())
    for _ in range(1000):  # in bfloat16 this sum would stop growing at 256
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.collect()
    assert all(bool((g == 1000).all()) for g in optimizer.gradients.values())
    assert all(p.grad is None for p in model.parameters())


def test_a_state_of_another_network_is_refused() -> None:
    one = AdamW(network().named_parameters(), OptimizerConfig())
    other = AdamW(nn.Linear(7, 4).named_parameters(), OptimizerConfig())
    with pytest.raises(CheckpointError, match="another network"):
        other.load(one.masters, one.state(), 1)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd", "constant"])
def test_schedules(schedule: str) -> None:
    config = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup=0.1, decay=0.2)  # type: ignore[arg-type]
    rates = [rate(config, step, 1000) for step in range(1000)]
    assert 0 < rates[0] < 0.02 and max(rates) <= 1.0
    assert rates[:100] == sorted(rates[:100])
    assert rates[100] == pytest.approx(1.0)
    halfway = {"linear": 0.5, "cosine": 0.5, "wsd": 1.0, "constant": 1.0}[schedule]
    assert rates[550] == pytest.approx(halfway, abs=0.01)
    if schedule == "wsd":
        assert rates[799] == 1.0 and rates[900] == pytest.approx(0.5)
    if schedule != "constant":
        assert rates[100:] == sorted(rates[100:], reverse=True)
        assert 0 < rates[-1] < 0.01
    steps = OptimizerConfig(learning_rate=1.0, schedule=schedule, warmup=50)  # type: ignore[arg-type]
    assert rate(steps, 24, 1000) == pytest.approx(25 / 51)
    assert rate(OptimizerConfig(learning_rate=1.0, warmup=0), 0, 10) == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_gradients_of_a_step_are_those_of_its_micro_batches_alone(dtype: torch.dtype) -> None:
    """What the step before left is overwritten, also for a parameter that gets no gradient this time."""
    model = network(dtype)
    optimizer = AdamW(model.named_parameters(), OptimizerConfig(clip=1e-3))
    for _ in range(2):
        gradients(model, 1)
        optimizer.collect()
        optimizer.step(0.01)
    first, *others = model.parameters()
    for parameter in others:
        parameter.grad = torch.ones_like(parameter)
    optimizer.collect()
    assert [float(g.sum()) for g in optimizer.gradients.values()] == [0.0, *(float(p.numel()) for p in others)]
    first.grad = torch.ones_like(first)
    optimizer.collect()
    assert float(optimizer.gradients["0.weight"].sum()) == first.numel()
    assert float(optimizer.norm()) == pytest.approx(sum(p.numel() for p in model.parameters()) ** 0.5)
