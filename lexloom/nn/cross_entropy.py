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
    return smoothed_cross_entropy(states, weight, bias, labels, weights, 0.0)[0]


def smoothed_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor, smoothing: float
) -> tuple[Tensor, Tensor]:
    """`summed_cross_entropy` to targets that are the label in part, and evenly every token for the rest (Szegedy et al. 2015, section 7).

    Args:
        smoothing: ε, the share of the rest: the target is (1 - ε) · label + ε / V, as `transformers` smooths.

    Returns:
        two scalars: the loss, and what it is without smoothing, which gets no gradient.
    """
    if torch.is_grad_enabled() and (states.requires_grad or weight.requires_grad):
        found: tuple[Tensor, Tensor] = SummedCrossEntropy.apply(states, weight, bias, labels, weights, smoothing)
        return found
    total, plain = torch.zeros(2, dtype=_wide(states), device=states.device).unbind()
    for a, b in _cuts(states, weight):
        scores, share = at_least_fp32(F.linear(states[a:b], weight, bias)), weights[a:b].to(_wide(states))
        losses = cross_entropy(scores, labels[a:b])
        plain = plain + losses @ share
        total = total + (_smoothed(losses, scores, smoothing) if smoothing else losses) @ share
    return total, plain


class SummedCrossEntropy(torch.autograd.Function):
    """Keeps the gradients of states, weight and bias; sums over parts are taken in fp32 at least."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        high = _wide(states)
        total, of_states, of_weight = torch.zeros((), dtype=high, device=states.device), [], None
        plain = torch.zeros_like(total)
        of_bias = None if bias is None else torch.zeros(bias.shape, dtype=high, device=bias.device)
        for a, b in _cuts(states, weight):
            share = weights[a:b].to(high)
            scores = at_least_fp32(F.linear(states[a:b], weight, bias))
            unsmoothed, errors = _losses_and_errors(scores, labels[a:b, None], smoothing)
            losses = _smoothed(unsmoothed, scores, smoothing) if smoothing else unsmoothed
            del scores  # not beside those of the next part
            errors *= share[:, None]
            total = total + losses @ share
            plain = plain + unsmoothed @ share
            if of_bias is not None:
                of_bias += errors.sum(0)
            errors = errors.to(states.dtype)
            of_states.append(errors @ weight)
            product = errors.T @ states[a:b]
            of_weight = product if of_weight is None else of_weight.to(high).add_(product)
        ctx.save_for_backward(torch.cat(of_states), of_weight, of_bias)
        ctx.mark_non_differentiable(plain)
        ctx.dtype = weight.dtype
        return total, plain

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, None]:
        states, weight, bias = ctx.saved_tensors
        found_bias = None if bias is None else (bias * gradient).to(ctx.dtype)
        return states * gradient.to(states.dtype), (weight * gradient).to(ctx.dtype), found_bias, None, None, None


def _smoothed(losses: Tensor, scores: Tensor, smoothing: float) -> Tensor:
    """(n,) losses of the labels, (n, V) scores -> (n,) losses of the smoothed targets: the mean loss of all tokens counts for ε."""
    return (1 - smoothing) * losses + smoothing * (scores.logsumexp(-1) - scores.mean(-1))


def _losses_and_errors(scores: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """(n, V) scores, (n, 1) labels -> (n,) losses without smoothing, and (n, V) the gradient with it: softmax, less the target."""
    certain, spread = 1.0 - smoothing, smoothing / scores.shape[-1]
    if torch.compiler.is_compiling():  # one pass over the scores, where a scatter would part it in two
        total = scores.logsumexp(-1, keepdim=True)
        places = torch.arange(scores.shape[-1], dtype=torch.int32, device=scores.device) == labels.to(torch.int32)
        target = places.to(scores.dtype) * certain + spread if smoothing else places.to(scores.dtype)
        return (total - scores.gather(-1, labels))[:, 0], (scores - total).exp() - target
    logs = scores.log_softmax(-1)
    losses = -logs.gather(-1, labels)[:, 0]
    errors = logs.exp_().sub_(spread) if smoothing else logs.exp_()
    return losses, errors.scatter_add_(-1, labels, torch.full_like(losses, -certain)[:, None])


def _cuts(states: Tensor, weight: Tensor) -> list[tuple[int, int]]:
    """Where the tokens are cut: into parts of about the same size, each with no more than `CHUNK` scores."""
    n = states.shape[0]
    parts = max(1, -(-n * weight.shape[0] // CHUNK))
    size = max(1, -(-n // parts))
    return [(a, min(n, a + size)) for a in range(0, max(n, 1), size)]


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
