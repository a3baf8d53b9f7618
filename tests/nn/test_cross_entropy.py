"""The cross-entropy written for the compiler is PyTorch's, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lexloom.nn.cross_entropy import CrossEntropy, cross_entropy

CASES = [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]


@pytest.mark.parametrize(("dtype", "tolerance"), CASES)
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_value_and_gradient_are_those_of_pytorch(dtype: torch.dtype, tolerance: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = (scale * torch.randn(13, 501, generator=generator, dtype=torch.float64)).to(dtype)
    labels, weights = torch.randint(0, 501, (13,), generator=generator), torch.rand(13, generator=generator, dtype=torch.float64)
    weights[3] = 0.0  # a place that is only there to fill up
    mine, other = scores.clone().requires_grad_(), scores.double().requires_grad_()
    losses, wanted = CrossEntropy.apply(mine, labels), F.cross_entropy(other, labels, reduction="none")
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(
        losses.double(), wanted, rtol=max(1e-6, tolerance), atol=max(1e-6, tolerance) if dtype != torch.float64 else 1e-12
    )
    (losses * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert mine.grad is not None and other.grad is not None
    assert mine.grad.dtype == dtype
    torch.testing.assert_close(mine.grad.double(), other.grad, rtol=tolerance, atol=tolerance)
    assert not mine.grad[3].any()
    torch.testing.assert_close(cross_entropy(scores, labels).double(), wanted.detach(), rtol=max(1e-6, tolerance), atol=1e-5)


@pytest.mark.slow
def test_compiled_it_is_the_same() -> None:
    scores, labels = torch.randn(13, 501), torch.randint(0, 501, (13,))
    mine, other = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    torch.compile(cross_entropy, dynamic=False)(mine, labels).sum().backward()
    cross_entropy(other, labels).sum().backward()
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-6)
