"""The update in one pass: the equations of the paper, PyTorch's own AdamW, the same bits on any number of threads, no step from NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lexloom.train import adamw
from lexloom.train.optim import ONE_PASS_FROM, AdamW, OptimizerConfig

SIZES = [(1100, 1000), (7,), (3, adamw.BLOCK), (adamw.WIDE + 1,)]
CONFIG = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, beta2=0.98, clip=1.0, epsilon=1e-6)


def weights(dtype: torch.dtype) -> list[nn.Parameter]:
    """Random ones, enough of them for the pass."""
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(size, generator=generator).to(dtype)) for size in SIZES]


def named(parameters: Sequence[nn.Parameter]) -> list[tuple[str, nn.Parameter]]:
    return [(str(i), p) for i, p in enumerate(parameters)]


def gradients(step: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [(torch.randn(size, generator=generator) * 10.0 ** (step % 3 - 3)).to(dtype) for size in SIZES]


def trained(parameters: Sequence[nn.Parameter], optimizer: AdamW, steps: int, *, parts: int = 1) -> None:
    for step in range(steps):
        for _ in range(parts):
            for parameter, gradient in zip(parameters, gradients(step, parameters[0].dtype), strict=True):
                parameter.grad = gradient / parts
            optimizer.collect()
        assert optimizer.step(1e-2 / (1 + step))


@pytest.mark.parametrize("parts", [1, 2])
def test_it_is_the_adamw_of_pytorch(parts: int) -> None:
    ours, theirs = weights(torch.float32), weights(torch.float32)
    assert sum(p.numel() for p in ours) >= ONE_PASS_FROM
    trained(ours, AdamW(named(ours), CONFIG), 12, parts=parts)
    groups = [{"params": [p for p in theirs if (p.ndim > 1) == decayed], "weight_decay": 0.1 * decayed} for decayed in (True, False)]
    peer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98), eps=1e-6)
    for step in range(12):
        for parameter, gradient in zip(theirs, gradients(step, torch.float32), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(theirs, 1.0)
        for group in peer.param_groups:
            group["lr"] = 1e-2 / (1 + step)
        peer.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-6, atol=2e-6)


def test_bfloat16_networks_hold_their_masters_rounded() -> None:
    parameters = weights(torch.bfloat16)
    optimizer = AdamW(named(parameters), CONFIG)
    trained(parameters, optimizer, 3)
    for name, parameter in named(parameters):
        assert torch.equal(parameter.data, optimizer.masters[name].bfloat16())
        assert not torch.equal(parameter.data.float(), optimizer.masters[name])


def test_a_gradient_held_is_a_gradient_summed() -> None:
    one, two = weights(torch.bfloat16), weights(torch.bfloat16)
    held, summed = AdamW(named(one), CONFIG), AdamW(named(two), CONFIG)
    for step in range(4):
        for parameters, optimizer in ((one, held), (two, summed)):
            for parameter, gradient in zip(parameters, gradients(step, torch.bfloat16), strict=True):
                parameter.grad = gradient
            optimizer.collect()
        assert summed.sums.dtype == torch.float32
        assert held.gradients["0"].dtype == torch.bfloat16
        assert held.norm() == summed.norm()
        assert held.step(1e-2)
        assert summed.step(1e-2)
    for name in held.masters:
        assert torch.equal(held.masters[name], summed.masters[name])


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many there are, until the test is over."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_change_nothing(threads: Callable[[int], None]) -> None:
    found = []
    for n in (1, 2, 3):
        threads(n)
        parameters = weights(torch.bfloat16)
        optimizer = AdamW(named(parameters), CONFIG)
        trained(parameters, optimizer, 3)
        found.append((optimizer.norm(), [m.clone() for m in optimizer.masters.values()]))
    for norm, masters in found[1:]:
        assert norm == found[0][0]
        assert all(map(torch.equal, masters, found[0][1]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("moment", [0, 1])
def test_no_weight_hears_of_a_broken_moment(moment: int, value: float) -> None:
    parameters = weights(torch.bfloat16)
    optimizer = AdamW(named(parameters), CONFIG)
    trained(parameters, optimizer, 1)
    optimizer.moments["2"][moment][1, 3] = value
    before = optimizer.masters["2"][1].clone()
    for parameter, gradient in zip(parameters, gradients(1, torch.bfloat16), strict=True):
        parameter.grad = gradient
    optimizer.collect()
    assert not optimizer.step(1e-2)
    assert torch.equal(optimizer.masters["2"][1], before)
    assert all(master.isfinite().all() for master in optimizer.masters.values())


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=50))
def test_rounding_is_that_of_pytorch(values: list[float]) -> None:
    p = np.array(values, dtype=np.float32)
    m, v, w = np.zeros_like(p), np.zeros_like(p), np.zeros(len(p), dtype=np.uint16)
    one, none = np.float32(1), np.float32(0)
    assert adamw.update(p, m, v, w.copy(), w, one, one, one, one, none, one, one)
    assert torch.equal(torch.from_numpy(w).view(torch.bfloat16), torch.from_numpy(p).bfloat16())


def test_the_equations() -> None:
    """Against the paper's algorithm 2 in double precision."""
    rng = np.random.Generator(np.random.PCG64(3))
    p, m, g = (rng.standard_normal(5000).astype(np.float32) for _ in range(3))
    v = rng.random(5000).astype(np.float32)
    scale, keep, b1, b2, step, spread, epsilon = 0.5, 0.999, 0.9, 0.98, 1e-2, 1.2, 1e-8
    wanted_m, wanted_v = b1 * m + (1 - b1) * scale * g.astype(np.float64), b2 * v + (1 - b2) * (scale * g.astype(np.float64)) ** 2
    wanted_p = keep * p - step * wanted_m / (np.sqrt(wanted_v) * spread + epsilon)
    settings = [np.float32(x) for x in (scale, keep, b1, b2, step, spread, epsilon)]
    assert adamw.update(p, m, v, g, p, *settings)
    for found, wanted in ((p, wanted_p), (m, wanted_m), (v, wanted_v)):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-7)
    assert adamw.squares(g) == pytest.approx((g.astype(np.float64) ** 2).sum(), rel=1e-5)
