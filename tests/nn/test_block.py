"""Activations as they are compiled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lexloom.nn.block import gelu_tanh


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_compiled_the_tanh_form_of_gelu_is_the_same_function(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-12, 12, 97), torch.tensor([0.0, -300.0, 300.0])]).to(dtype)
    found = [values_and_slopes(function, x) for function in (gelu_tanh, torch.compile(gelu_tanh, backend="eager"))]
    for values, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(values, expected, rtol=0.01 if dtype == torch.bfloat16 else 2e-6, atol=1e-6)


def values_and_slopes(function: object, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    values = function(x)  # type: ignore[operator]
    values.sum().backward()
    assert x.grad is not None and values.dtype == x.dtype
    return values.detach(), x.grad
