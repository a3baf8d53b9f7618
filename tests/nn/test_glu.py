"""The gated feed-forward is what the paper writes, and attention's window is what it says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lexloom.nn.attention import MASKED, window_bias
from lexloom.nn.glu import GatedFeedForward


@pytest.mark.parametrize("bias", [True, False])
def test_one_half_gates_the_other(bias: bool) -> None:
    """GEGLU(x) = (GELU(x W) * x V) W2 (Shazeer 2020, equation 6)."""
    made = GatedFeedForward(6, 10, act="gelu", bias=bias).double()
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, second = made.up.weight.chunk(2)
    b, c = made.up.bias.chunk(2) if bias else (0.0, 0.0)
    expected = (F.gelu(x @ first.T + b) * (x @ second.T + c)) @ made.down.weight.T + (made.down.bias if bias else 0.0)
    assert torch.allclose(made(x), expected, rtol=1e-12)
    assert (made.up.bias is None) == (not bias)


def test_inner_values_are_dropped_by_keys() -> None:
    made, x = GatedFeedForward(6, 10, act="silu", dropout=0.5, site=3), torch.ones(2, 4, 6)
    words = torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)
    assert torch.equal(made(x, words), made(x, words)) and not torch.equal(made(x, words), made(x))
    assert not torch.equal(made(x, words)[0], made(x, words)[1])


def test_a_window_reaches_so_far_and_not_to_padding() -> None:
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    found = window_bias(5, 1, mask, torch.float32, mask.device)
    assert found.shape == (2, 1, 5, 5)
    assert (found[0, 0] == 0).tolist() == [[abs(i - j) <= 1 for j in range(5)] for i in range(5)]
    assert (found[1, 0] == 0).tolist() == [[abs(i - j) <= 1 and j < 3 for j in range(5)] for i in range(5)]
    assert set(found.unique().tolist()) == {0.0, MASKED}
    assert torch.equal(window_bias(5, 1, None, torch.float32, mask.device)[0], found[0])
