"""Attention of one new token a row by its kernel, beside PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lexloom import keys
from lexloom.nn import one_query
from lexloom.nn.attention import attend
from lexloom.nn.cache import Cache
from lexloom.nn.dropout import Dropout


def filled(rows: int, heads: int, width: int, lengths: list[int]) -> Cache:
    cache = Cache(1, rows + 2, heads, 150, width, dtype=torch.float32)
    cache.values.copy_(torch.from_numpy(keys.normal(keys.key("cache"), cache.values.numel())).view_as(cache.values))
    cache.lengths[:rows] = torch.tensor(lengths)
    return cache.front(rows, max(lengths))


@pytest.mark.parametrize(("heads", "groups", "width"), [(6, 6, 64), (12, 3, 16), (5, 1, 48), (40, 40, 7)])
@pytest.mark.parametrize("lengths", [[1], [0, 63, 64, 149], [70] * 9])
def test_it_is_the_attention_of_pytorch(heads: int, groups: int, width: int, lengths: list[int]) -> None:
    rows = len(lengths)
    cache = filled(rows, groups, width, lengths)
    cache.enter(torch.zeros(rows, 1), None)
    new = torch.from_numpy(keys.normal(keys.key("new"), rows * (heads + 2 * groups) * width)).float().view(rows, -1, 1, width)
    q, k, v = new.split([heads, groups, groups], dim=1)
    k, v = cache.layer(0)(k, v)
    bias = cache.bias()
    assert one_query.fits(q, k, v, bias)
    found = one_query.attend(q, k, v, bias, 0.3)
    whole = [x.double().repeat_interleave(heads // groups, 1) for x in (k, v)]
    exact = F.scaled_dot_product_attention(q.double(), *whole, attn_mask=bias.double(), scale=0.3)
    assert (found - exact).abs().max() <= 2e-6
    assert torch.equal(attend(q, k, v, bias, Dropout(0.0, 0), None, scale=0.3), found) == (q.numel() >= 256)


def test_what_is_not_for_the_kernel() -> None:
    q, k, bias = torch.zeros(2, 4, 1, 8), torch.zeros(2, 4, 9, 8), torch.zeros(2, 1, 1, 9)
    assert one_query.fits(q, k, k, bias)
    assert not one_query.fits(q, k, k, None) and not one_query.fits(q, k, k, bias[:1]) and not one_query.fits(q.double(), k, k, bias)
    assert not one_query.fits(q, k.transpose(2, 3).contiguous().transpose(2, 3), k, bias)


def test_a_row_that_sees_nothing_gets_nothing() -> None:
    q, k, bias = torch.ones(1, 2, 1, 8), torch.ones(1, 2, 9, 8), torch.full((1, 1, 1, 9), -3e4)
    assert one_query.attend(q, k, k, bias, 1.0).tolist() == torch.zeros(1, 2, 1, 8).tolist()


def test_the_exponential_is_exact_to_its_last_digits() -> None:
    x = np.linspace(-87, 0, 20_001, dtype=np.float32)
    found = np.array([one_query.exp(value) for value in x])
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() <= 3e-7
    assert one_query.exp(np.float32(0)) == 1 and 0 <= one_query.exp(np.float32(-1e4)) <= 2e-38
