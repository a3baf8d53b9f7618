"""Cross-entropy of token scores, and how its gradient is written where it is compiled, or where the scores are too many to keep.

PyTorch's own is the faster one as it stands. But out of it the compiler makes a sum over the vocabulary of each row, which finds the one
label again: a tenth of a small model's step.

Letters: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 24
"""Scores that stand in memory at once in `summed_cross_entropy`: 64 MB of them in fp32."""


def at_least_fp32(logits: Tensor) -> Tensor:
    """Losses are summed in fp32, or in fp64 where the network computes so."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label], in fp32 at least and whatever the dtype of the scores: (N, V), (N,) int64 -> (N,)."""
    if not torch.compiler.is_compiling():
        return F.cross_entropy(at_least_fp32(logits), labels, reduction="none")
    found: Tensor = CrossEntropy.apply(logits, labels)
    return found


class CrossEntropy(torch.autograd.Function):
    """Keeps the scores as they came, and of their softmax one number a row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        scores = at_least_fp32(logits)
        total = scores.logsumexp(-1, keepdim=True)
        ctx.save_for_backward(logits, labels, total)
        return (total - scores.gather(-1, labels[:, None]))[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, labels, total = ctx.saved_tensors
        shares = (at_least_fp32(logits) - total).exp()
        places = torch.arange(logits.shape[-1], dtype=torch.int32, device=logits.device) == labels.to(torch.int32)[:, None]
        return ((shares - places.to(shares.dtype)) * gradient[:, None]).to(logits.dtype), None


def summed_cross_entropy(states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor) -> Tensor:
    """Σ weights · cross_entropy(states · weightᵀ + bias, labels), some tokens at a time: the (N, V) scores never stand in memory together.

    The gradient is found along with the loss, for it needs the same scores: to find them again on the way back would be a third more work.

    Args:
        states: (N, D). weight: (V, D). bias: (V,) or None.
        labels: (N,) int64. weights: (N,), which get no gradient.

    Returns:
        a scalar, in fp32 at least.
    """
    if torch.is_grad_enabled() and (states.requires_grad or weight.requires_grad):
        found: Tensor = SummedCrossEntropy.apply(states, weight, bias, labels, weights)
        return found
    parts = [
        cross_entropy(F.linear(states[a:b], weight, bias), labels[a:b]) @ weights[a:b].to(_wide(states)) for a, b in _cuts(states, weight)
    ]
    return torch.stack(parts).sum()


class SummedCrossEntropy(torch.autograd.Function):
    """Keeps the gradients of states, weight and bias; sums over parts are taken in fp32 at least."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor) -> Tensor:
        high = _wide(states)
        total, of_states, of_weight = torch.zeros((), dtype=high, device=states.device), [], None
        of_bias = None if bias is None else torch.zeros(bias.shape, dtype=high, device=bias.device)
        for a, b in _cuts(states, weight):
            share = weights[a:b].to(high)
            losses, errors = _losses_and_errors(at_least_fp32(F.linear(states[a:b], weight, bias)), labels[a:b, None])
            errors *= share[:, None]
            total = total + losses @ share
            if of_bias is not None:
                of_bias += errors.sum(0)
            errors = errors.to(states.dtype)
            of_states.append(errors @ weight)
            product = errors.T @ states[a:b]
            of_weight = product if of_weight is None else of_weight.to(high).add_(product)
        ctx.save_for_backward(torch.cat(of_states), of_weight, of_bias)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        states, weight, bias = ctx.saved_tensors
        found_bias = None if bias is None else (bias * gradient).to(ctx.dtype)
        return states * gradient.to(states.dtype), (weight * gradient).to(ctx.dtype), found_bias, None, None


def _losses_and_errors(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n, V) scores, (n, 1) labels -> (n,) losses and (n, V) their gradient: softmax, less 1 at the label."""
    if torch.compiler.is_compiling():  # one pass over the scores, where a scatter would part it in two
        total = scores.logsumexp(-1, keepdim=True)
        places = torch.arange(scores.shape[-1], dtype=torch.int32, device=scores.device) == labels.to(torch.int32)
        return (total - scores.gather(-1, labels))[:, 0], (scores - total).exp() - places.to(scores.dtype)
    logs = scores.log_softmax(-1)
    losses = -logs.gather(-1, labels)[:, 0]
    return losses, logs.exp_().scatter_add_(-1, labels, torch.full_like(losses, -1.0)[:, None])


def _cuts(states: Tensor, weight: Tensor) -> list[tuple[int, int]]:
    """Where the tokens are cut: into parts of about the same size, each with no more than `CHUNK` scores."""
    n = states.shape[0]
    parts = max(1, -(-n * weight.shape[0] // CHUNK))
    size = max(1, -(-n // parts))
    return [(a, min(n, a + size)) for a in range(0, max(n, 1), size)]


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
