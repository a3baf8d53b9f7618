"""Products with packed weights of 8 bits, with activations as whole numbers and as float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lexloom import keys
from lexloom.compute import kernel
from lexloom.nn import packed
from lexloom.nn.tile import FAST

ways = pytest.mark.parametrize("way", packed.WAYS)


@kernel(**FAST)
def multiplied(x, numbers, marks, w, scales, bias, begin, at, onto, y):  # type: ignore[no-untyped-def]
    packed.ready(x, x.shape[1], numbers, marks)
    packed.multiply_packed(numbers, marks, x.shape[0], w, x.shape[1], scales, bias, begin, scales.size, at, onto, y)


def numbers(*shape: int, name: str = "x") -> torch.Tensor:
    return torch.from_numpy(keys.normal(keys.key(name), torch.Size(shape).numel())).float().view(shape)


def weights(n: int, d: int) -> torch.Tensor:
    return torch.from_numpy(keys.integers(keys.key("low"), n * d, 255) - 127).to(torch.int8).view(n, d)


def product(x: torch.Tensor, low: torch.Tensor, way: str, *, begin: int = 0, at: int = 0, onto: bool = False) -> torch.Tensor:
    scales, bias, y = numbers(len(low), name="s"), numbers(len(low), name="b"), numbers(len(x), at + len(low), name="y")
    room = packed.room(*x.shape, way=way)
    multiplied(x.numpy(), *room, packed.pack(low), scales.numpy(), bias.numpy(), begin, at, onto, y.numpy())
    return y


@pytest.mark.parametrize(("n", "d"), [(1, 1), (16, 4), (37, 50), (64, 64)])
def test_what_is_packed_is_unpacked(n: int, d: int) -> None:
    low = weights(n, d)
    assert packed.pack(low).size % 64 == 0 and torch.equal(packed.unpack(packed.pack(low), n, d), low)


@ways
@pytest.mark.parametrize("rows", [1, 2, 8, 13])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (17, 3), (48, 64), (131, 130)])
def test_the_product_is_that_of_the_numbers(way: str, rows: int, n: int, d: int) -> None:
    x, low = numbers(rows, d), weights(n, d)
    exact = x.double() @ low.double().T * numbers(n, name="s").double() + numbers(n, name="b").double()
    bound = 1e-6 * exact.abs().max()
    assert ((product(x, low, way) - exact).abs() <= bound).all()
    added = product(x, low, way, at=5, onto=True) - numbers(rows, 5 + n, name="y")
    assert ((added[:, 5:] - exact).abs() <= 2 * bound).all() and not added[:, :5].any()
    begin = min(16, n // 16 * 16)
    later = product(x, low, way, begin=begin)
    assert torch.equal(later[:, begin:], product(x, low, way)[:, begin:])
    assert torch.equal(later[:, :begin], numbers(rows, n, name="y")[:, :begin])


@ways
def test_a_row_is_the_same_beside_any_others(way: str) -> None:
    x, low = numbers(13, 70), weights(33, 70)
    whole = product(x, low, way)
    for rows in range(1, 13):
        assert torch.equal(product(x[:rows], low, way), whole[:rows])


@ways
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stays_none(way: str, odd: float) -> None:
    x = numbers(3, 9)
    x[1, 4] = odd
    found = product(x, weights(20, 9) | 1, way)
    assert not found[1].isfinite().any() and found[0].isfinite().all() and found[2].isfinite().all()


@ways
def test_a_row_of_zeros_gives_the_bias(way: str) -> None:
    assert torch.equal(product(torch.zeros(2, 9), weights(20, 9), way), numbers(20, name="b").expand(2, -1))


def test_sums_of_the_largest_numbers_fit() -> None:
    x, low = torch.ones(2, 6400), torch.full((16, 6400), -127, dtype=torch.int8)
    found = packed.product(x, (packed.pack(low), np.ones(16, np.float32), np.zeros(16, np.float32)))
    assert torch.allclose(found, torch.tensor(-127.0 * 6400))
