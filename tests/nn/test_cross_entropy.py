"""The cross-entropy written for the compiler, and that of a head whose scores are not kept, are PyTorch's, in value and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lexloom.nn import cross_entropy as module
from lexloom.nn.cross_entropy import CrossEntropy, cross_entropy, smoothed_cross_entropy, summed_cross_entropy

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


def head(dtype: torch.dtype, bias: bool) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """States, weight and bias; labels; weights, of which one is 0."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(29, 8), (50, 8), *([(50,)] if bias else [])]
    tensors = [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]
    weights = torch.rand(29, generator=generator)
    weights[5] = 0.0
    return tensors, torch.randint(0, 50, (29,), generator=generator), weights


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1 << 24, 500, 1])
def test_a_head_in_parts_is_the_head(dtype: torch.dtype, tolerance: float, bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    tensors, labels, weights = head(dtype, bias)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = (F.cross_entropy(F.linear(*exact), labels, reduction="none") * weights.double()).sum()
    (0.3 * expected).backward()
    found = summed_cross_entropy(tensors[0], tensors[1], tensors[2] if bias else None, labels, weights)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    (0.3 * found).backward()
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=0.0)
    for mine, other in zip(tensors, exact, strict=True):
        assert mine.grad is not None and other.grad is not None and mine.grad.dtype == dtype
        assert (mine.grad.double() - other.grad).norm() <= tolerance * other.grad.norm()
    assert not tensors[0].grad[5].any()  # type: ignore[index]
    with torch.no_grad():
        again = summed_cross_entropy(tensors[0], tensors[1], tensors[2] if bias else None, labels, weights)
    torch.testing.assert_close(again, found.detach(), rtol=max(1e-6, tolerance), atol=0.0)


def test_no_tokens_no_loss_and_no_gradient() -> None:
    states, weight = torch.ones(0, 4, requires_grad=True), torch.ones(7, 4, requires_grad=True)
    nothing = torch.zeros(0)
    loss = summed_cross_entropy(states, weight, None, nothing.long(), nothing)
    loss.backward()
    assert loss == 0 and weight.grad is not None and not weight.grad.any()
    with torch.no_grad():
        assert summed_cross_entropy(states, weight, None, nothing.long(), nothing) == 0


def test_the_scores_of_all_tokens_never_stand_in_memory_together() -> None:
    n, d, v = 4096, 4, 20_000
    states, weight = torch.ones(n, d, requires_grad=True), torch.ones(v, d, requires_grad=True)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
            nonlocal largest
            made = function(*arguments, **(named or {}))
            largest = max([largest, *(tensor.numel() for tensor in tree_leaves(made) if isinstance(tensor, torch.Tensor))])
            return made

    with Watch():
        summed_cross_entropy(states, weight, None, torch.zeros(n, dtype=torch.int64), torch.ones(n)).backward()
    assert v * 100 < largest <= module.CHUNK < n * v


@pytest.mark.slow
@pytest.mark.parametrize("bias", [False, True])
def test_compiled_a_head_in_parts_is_the_same(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 500)
    found = []
    for function in (summed_cross_entropy, torch.compile(summed_cross_entropy, dynamic=False, fullgraph=True)):
        tensors, labels, weights = head(torch.float32, bias)
        loss = function(tensors[0], tensors[1], tensors[2] if bias else None, labels, weights)
        (0.3 * loss).backward()
        found.append([loss.detach(), *(tensor.grad for tensor in tensors)])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("chunk", [1 << 24, 120])
def test_smoothed_targets_are_those_of_pytorch(dtype: torch.dtype, tolerance: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch, as `transformers`, gives ε / V to every token, the label among them."""
    monkeypatch.setattr(module, "CHUNK", chunk)
    tensors, labels, weights = head(dtype, bias=True)
    total, plain = smoothed_cross_entropy(*tensors, labels, weights, 0.1)  # type: ignore[call-arg, arg-type]
    copies = [tensor.detach().double().requires_grad_() for tensor in tensors]
    scores = F.linear(*copies)
    wanted = (F.cross_entropy(scores, labels, reduction="none", label_smoothing=0.1) * weights).sum()
    unsmoothed = (F.cross_entropy(scores, labels, reduction="none") * weights).sum()
    torch.testing.assert_close(total.double(), wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(plain.double(), unsmoothed, rtol=tolerance, atol=tolerance, check_dtype=False)
    assert total.requires_grad and not plain.requires_grad
    mine, theirs = torch.autograd.grad(total, tensors), torch.autograd.grad(wanted, copies)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * max(1.0, float(b.abs().max())))
    with torch.no_grad():
        again = smoothed_cross_entropy(*tensors, labels, weights, 0.1)  # type: ignore[call-arg, arg-type]
    torch.testing.assert_close(again[0].double(), wanted.detach(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(again[1].double(), unsmoothed.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_smoothed_and_compiled_it_is_the_same() -> None:
    tensors, labels, weights = head(torch.float32, bias=True)
    found = []
    for run in (smoothed_cross_entropy, torch.compile(smoothed_cross_entropy, dynamic=False)):
        total, plain = run(*tensors, labels, weights, 0.1)
        found.append([total, plain, *torch.autograd.grad(total, tensors)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
