"""Attention by blocks is attention with all but the neighbourhood masked, for any length, padding on either side, and its gradients."""

from __future__ import annotations

import pytest
import torch

from lexloom.nn.attention import attend, window_bias
from lexloom.nn.dropout import Dropout
from lexloom.nn.near import BLOCK, BLOCKS, attend_near, near_bias

OFF, LONG = Dropout(0.0, 0), BLOCK * BLOCKS


@pytest.mark.parametrize(("length", "reach"), [(LONG, 5), (LONG + 1, BLOCK), (LONG + 77, 64), ((BLOCK + 6) * BLOCKS - 1, BLOCK + 6)])
@pytest.mark.parametrize("padded", [False, True])
def test_blocks_see_what_the_window_sees(length: int, reach: int, padded: bool) -> None:
    dice = torch.Generator().manual_seed(length)
    q, k, v, to = torch.randn(4, 2, 2, length, 4, generator=dice, dtype=torch.float64)
    mask = torch.ones(2, length, dtype=torch.bool)
    if padded:
        mask[0, :300], mask[1, -70:] = False, False
    given = mask if padded else None
    dense, blocks = (make(length, reach, given, q.dtype, q.device) for make in (window_bias, near_bias))
    assert dense.dim() == 4 and blocks.dim() == (5 if length >= BLOCKS * max(BLOCK, reach) else 4)
    found = []
    for attention, bias in ((attend, dense), (attend_near, blocks)):
        tensors = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
        seen = attention(*tensors, bias, OFF, None)
        (seen * to * mask[:, None, :, None]).sum().backward()
        found.append([seen.transpose(1, 2)[mask], *(tensor.grad for tensor in tensors)])
    for expected, own in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-12)


def test_rows_of_padding_alone_stay_finite() -> None:
    q = torch.randn(2, 1, LONG, 4, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(2, LONG, dtype=torch.bool)
    assert attend_near(q, q, q, near_bias(LONG, 9, mask, q.dtype, q.device), OFF, None).isfinite().all()


def test_its_dropout_is_of_the_row() -> None:
    q, words = torch.randn(3, 2, LONG, 4, generator=torch.Generator().manual_seed(1)), torch.arange(6, dtype=torch.int32).view(3, 2)
    drop, bias = Dropout(0.5, 3), near_bias(LONG, 9, None, q.dtype, q.device)
    whole = attend_near(q, q, q, bias, drop, words)
    assert torch.equal(attend_near(q[1:2], q[1:2], q[1:2], bias, drop, words[1:2]), whole[1:2])
    assert not torch.allclose(whole, attend_near(q, q, q, bias, drop, None))
