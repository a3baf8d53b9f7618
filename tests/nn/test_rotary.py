"""Rotary positions: scores see distances alone, and what the paper writes down comes out."""

from __future__ import annotations

import pytest
import torch

from lexloom.nn.rotary import frequencies, rotate, tables


def states(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)


def test_it_is_a_rotation_of_pairs_in_the_plane() -> None:
    x = states(1, 1, 6, 8)
    turned = rotate(x, *tables(torch.arange(6), frequencies(8, 100.0)))
    for place in range(6):
        for i in range(4):
            pair = torch.complex(x[0, 0, place, i], x[0, 0, place, i + 4])
            angle = torch.tensor(place * 100.0 ** (-2 * i / 8), dtype=torch.float64)
            expected = pair * torch.polar(torch.ones((), dtype=torch.float64), angle)
            assert torch.allclose(turned[0, 0, place, i], expected.real, atol=1e-6)
            assert torch.allclose(turned[0, 0, place, i + 4], expected.imag, atol=1e-6)


def test_scores_depend_on_distance_alone() -> None:
    q, k = states(2, 3, 7, 10), states(2, 3, 7, 10) + 1
    turns = frequencies(10, 10_000.0)
    at = {start: tables(torch.arange(7) + start, turns) for start in (0, 40)}
    scores = {start: rotate(q, *table) @ rotate(k, *table).transpose(-1, -2) for start, table in at.items()}
    assert torch.allclose(scores[0], scores[40], atol=1e-4)
    assert not torch.allclose(scores[0], q @ k.transpose(-1, -2), atol=1e-1)


def test_rows_may_count_each_for_itself() -> None:
    x, turns = states(2, 3, 5, 4), frequencies(4, 10.0)
    positions = torch.stack([torch.arange(5), torch.arange(5) + 9])
    both = rotate(x, *tables(positions, turns))
    for row in range(2):
        assert torch.equal(both[row], rotate(x[row : row + 1], *tables(positions[row], turns))[0])


def test_a_scale_multiplies_both_tables() -> None:
    x, turns = states(1, 1, 3, 4), frequencies(4, 10.0)
    assert torch.allclose(rotate(x, *tables(torch.arange(3), turns, scale=0.5)), 0.5 * rotate(x, *tables(torch.arange(3), turns)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_low_precision_is_turned_in_float32_and_comes_back(dtype: torch.dtype) -> None:
    x, table = states(1, 2, 4, 6, dtype=dtype), tables(torch.arange(4) + 300, frequencies(6, 50.0))
    found = rotate(x, *table)
    assert found.dtype == dtype
    assert torch.equal(found, rotate(x.double(), *table).to(dtype)) or dtype is torch.float32
    assert torch.allclose(found.double(), rotate(x.double(), *table), rtol=1e-2 if dtype is torch.bfloat16 else 1e-6, atol=1e-6)
