"""Adaptive softmax: an exact distribution, PyTorch's own with the same weights, and a loss that is its log-probability."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lexloom import keys
from lexloom.models.base import normal
from lexloom.nn.softmax import FULL_TO, AdaptiveSoftmax, cutoffs

D, V, N = 12, 60, 40
cuts = pytest.mark.parametrize("borders", [[], [10], [8, 20, 59]])


def softmax(borders: list[int]) -> AdaptiveSoftmax:
    made = AdaptiveSoftmax(D, V, borders, divide=2)
    for name, parameter in made.named_parameters():
        parameter.data.copy_(normal(parameter.shape, 3, name, 0.4))
    return made.double()


def states() -> Tensor:
    return normal((N, D), 4, "states", 1.0).double()


def brute(made: AdaptiveSoftmax, state: Tensor) -> Tensor:
    """(V,) probabilities of one state: the short list's own, and of each cluster its share, dealt out among its words."""
    short = made.borders[0]
    head = (made.head.weight @ state + made.head.bias).exp()
    head = head / head.sum()
    found = [head[:short]]
    for k, cluster in enumerate(made.clusters):
        scores = (cluster.words.weight @ (cluster.down.weight @ state) + cluster.words.bias).exp()  # type: ignore[union-attr, operator]
        found.append(head[short + k] * scores / scores.sum())
    return torch.cat(found)


@cuts
def test_it_is_a_distribution(borders: list[int]) -> None:
    made, x = softmax(borders), states()
    found = made(x).exp()
    assert found.shape == (N, V) and torch.allclose(found.sum(1), torch.ones(N, dtype=torch.float64), atol=1e-12)
    assert all(torch.allclose(found[i], brute(made, x[i]), atol=1e-14) for i in range(N))


@cuts
def test_the_loss_is_its_log_probability(borders: list[int]) -> None:
    made, x = softmax(borders), states().requires_grad_()
    labels = torch.from_numpy(keys.integers(keys.key("labels"), N, V))
    weights = torch.from_numpy(keys.integers(keys.key("weights"), N, 3)).double() / 2
    expected = -(made(x)[torch.arange(N), labels] * weights).sum()
    found = made.loss(x, labels, weights)
    assert abs(found - expected) <= 1e-12 * expected
    gradients = [torch.autograd.grad(value, [x, *made.parameters()]) for value in (found, expected)]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*gradients, strict=True))
    with torch.no_grad():
        assert abs(made.loss(x, labels, weights) - expected) <= 1e-12 * expected


@pytest.mark.parametrize("borders", [[10], [8, 20, 59]])
def test_it_is_that_of_pytorch(borders: list[int]) -> None:
    made, x = softmax(borders), states()
    theirs = nn.AdaptiveLogSoftmaxWithLoss(D, V, borders, div_value=2, head_bias=True).double()
    theirs.head.load_state_dict(made.head.state_dict())
    for cluster, (down, words) in zip(made.clusters, theirs.tail, strict=True):  # type: ignore[misc]
        cluster.words.bias.data.zero_()  # type: ignore[union-attr, operator]  # theirs has none
        down.load_state_dict(cluster.down.state_dict())  # type: ignore[union-attr]
        words.weight.data.copy_(cluster.words.weight)  # type: ignore[union-attr, arg-type]
    labels = torch.from_numpy(keys.integers(keys.key("labels"), N, V))
    assert torch.allclose(made(x), theirs.log_prob(x), atol=1e-12)
    assert torch.allclose(made.loss(x, labels, torch.ones(N)), N * theirs(x, labels).loss, atol=1e-10)


@cuts
def test_no_token_no_loss(borders: list[int]) -> None:
    made, x = softmax(borders), states()
    for n, weights in ((0, torch.ones(0)), (N, torch.zeros(N))):
        made.zero_grad()
        loss = made.loss(x[:n], torch.full((n,), V - 1), weights)
        loss.backward()
        assert loss == 0 and all(p.grad is not None and not p.grad.any() for p in made.parameters())


def test_large_vocabularies_have_clusters() -> None:
    assert cutoffs(FULL_TO) == [] and cutoffs(50_000) == [2_000, 10_000]
