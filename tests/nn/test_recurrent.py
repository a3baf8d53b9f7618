"""LSTM: beside its equations written out cell by cell, beside `nn.LSTM`, blind to padding; the kernel beside PyTorch's operations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lexloom import keys
from lexloom.models.base import normal
from lexloom.nn import recurrent
from lexloom.nn.recurrent import LSTM

WIDTH, H, P, T = 5, 7, 3, 9
projections = pytest.mark.parametrize("projected", [None, P])
directions = pytest.mark.parametrize("backwards", [False, True])


def layer(projected: int | None, dtype: torch.dtype = torch.float64, *, width: int = WIDTH, cells: int = H, std: float = 0.5) -> LSTM:
    made = LSTM(width, cells, projected)
    for name, parameter in made.named_parameters():
        parameter.data.copy_(normal(parameter.shape, 3, name, std))
    return made.to(dtype)


def rows(n: int, length: int = T, width: int = WIDTH) -> Tensor:
    return normal((n, length, width), 4, "rows", 1.0).double()


def cell_by_cell(made: LSTM, x: Tensor) -> list[list[float]]:
    """(T, I) of one text -> T states, one number at a time (Sak et al. 2014, equations 7 to 11, without peepholes)."""
    w, u, b = (t.detach().double().numpy() for t in (made.input.weight, made.recurrent.weight, made.input.bias))
    p = None if made.projection is None else made.projection.weight.detach().double().numpy()
    n = u.shape[0] // 4
    state, cells, found = [0.0] * u.shape[1], [0.0] * n, []

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    for step in x.double().numpy():
        g = [b[k] + sum(w[k] * step) + sum(a * s for a, s in zip(u[k], state, strict=True)) for k in range(4 * n)]
        cells = [sigmoid(g[n + k]) * cells[k] + sigmoid(g[k]) * math.tanh(g[2 * n + k]) for k in range(n)]
        inner = [sigmoid(g[3 * n + k]) * math.tanh(cells[k]) for k in range(n)]
        state = inner if p is None else [sum(a * m for a, m in zip(line, inner, strict=True)) for line in p]
        found.append(state)
    return found


@projections
@directions
def test_it_is_the_equations_wherever_padding_stands(projected: int | None, backwards: bool) -> None:
    made, x = layer(projected), rows(4)
    spans = [(0, 9), (0, 4), (3, 9), (2, 3)]  # none; behind, in front, on both sides
    kept = torch.tensor([[begin <= t < end for t in range(T)] for begin, end in spans])
    found = made(x, kept, backwards=backwards).detach()
    for row, (begin, end) in enumerate(spans):
        text = x[row, begin:end]
        expected = torch.tensor(cell_by_cell(made, text.flip(0) if backwards else text), dtype=torch.float64)
        assert torch.allclose(found[row, begin:end], expected.flip(0) if backwards else expected, atol=1e-12)
        assert not found[row, :begin].any() and not found[row, end:].any()


@projections
def test_it_is_that_of_pytorch(projected: int | None) -> None:
    made, x = layer(projected), rows(4)
    theirs = nn.LSTM(WIDTH, H, proj_size=projected or 0, batch_first=True).double()
    theirs.weight_ih_l0.data.copy_(made.input.weight)
    theirs.weight_hh_l0.data.copy_(made.recurrent.weight)
    theirs.bias_ih_l0.data.copy_(made.input.bias)
    theirs.bias_hh_l0.data.zero_()
    if made.projection is not None:
        theirs.weight_hr_l0.data.copy_(made.projection.weight)
    assert torch.allclose(made(x, torch.ones(4, T, dtype=torch.bool)), theirs(x)[0], atol=1e-12)


@projections
@directions
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 6e-2)])
def test_the_kernel_gives_the_same(projected: int | None, backwards: bool, dtype: torch.dtype, tolerance: float) -> None:
    width = {"width": 6, "cells": 40, "std": 0.2}
    x, kept = rows(33, 12, 6), torch.from_numpy(np.arange(12) < keys.integers(keys.key("lengths"), 33, 13)[:, None])
    weights = normal((33, 12, projected or 40), 5, "gradient", 1.0).double()
    found = []
    for kind in (torch.float64, dtype):  # the kernel has no float64
        made, inputs = layer(projected, kind, **width), x.to(kind, copy=True).requires_grad_()
        states = made(inputs, kept, backwards=backwards)
        [(before, _)] = states.grad_fn.next_functions  # type: ignore[union-attr]
        assert (before.name() == "RecurrenceBackward") == (kind == dtype)
        states.backward(weights.to(kind))
        found.append([t.double() for t in (states.detach(), inputs.grad, *(p.grad for p in made.parameters()))])  # type: ignore[union-attr]
    for exact, quick in zip(*found, strict=True):
        assert (exact - quick).norm() <= tolerance * exact.norm()


def test_what_is_not_a_number_is_not_hidden() -> None:
    made = layer(P, torch.float32, width=6, cells=40)
    x, kept = rows(33, 12, 6).float(), torch.ones(33, 12, dtype=torch.bool)
    x[4, 5, 2] = math.nan
    states = made(x, kept)
    assert states[4, 5:].isnan().all() and states[4, :5].isfinite().all() and states[5:].isfinite().all()


def test_a_second_way_back_is_like_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "ONE_PASS_FROM", 0)
    made = layer(P, torch.float32)
    states = made(rows(4).float(), torch.ones(4, T, dtype=torch.bool))
    first, second = (torch.autograd.grad(states.sum(), list(made.parameters()), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
