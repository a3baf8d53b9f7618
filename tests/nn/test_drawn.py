"""Tokens drawn by the kernel beside those drawn with PyTorch, from the same scores and the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lexloom import keys
from lexloom.nn.decoding.drawing import Rule, choose, warped
from lexloom.nn.drawn import drawn

RULES = {
    "all": Rule(1.0),
    "cool": Rule(0.3),
    "hot": Rule(5.0),
    "top-k": Rule(1.0, k=7),
    "top-1": Rule(1.0, k=1),
    "top-k-of-all": Rule(1.0, k=5000),
    "top-p": Rule(1.0, share=0.7),
    "top-p-narrow": Rule(0.8, share=1e-6),
    "top-p-wide": Rule(2.0, share=0.999),
    "min-p": Rule(1.0, least=0.05),
    "everything": Rule(0.9, k=60, share=0.9, least=0.01),
}
rules = pytest.mark.parametrize("name", RULES)


def scores(rows: int, vocabulary: int, spread: float = 3.0) -> torch.Tensor:
    drawn = keys.normal(keys.key("scores", vocabulary, np.arange(rows)), vocabulary)
    return torch.from_numpy(drawn).float() * spread


def uniforms(n: int) -> torch.Tensor:
    return torch.from_numpy(keys.uniform(keys.key("uniforms"), n))


@rules
@pytest.mark.parametrize("vocabulary", [1, 2, 63, 64, 300, 4097])
def test_what_is_drawn_is_what_pytorch_draws(name: str, vocabulary: int) -> None:
    rows = 4000 if vocabulary < 1000 else 400
    given, numbers = scores(rows, vocabulary), uniforms(rows)
    ours = choose(given, RULES[name], numbers, compiled=True)
    theirs = choose(given, RULES[name], numbers, compiled=False)
    assert (ours != theirs).sum() <= rows // 1000, "last digits may differ, where a number falls on the line between two tokens"


@rules
def test_what_is_left_out_is_never_drawn(name: str) -> None:
    given = scores(500, 300, 1.0)
    given[:, ::3] = float("-inf")
    left = ~warped(given, RULES[name]).isinf()
    assert not left[:, ::3].any()
    for number in (0.0, 0.5, np.nextafter(1.0, 0.0)):
        found = drawn(given, RULES[name].array(), torch.full((500,), number, dtype=torch.float64))
        outside = ~left.gather(1, found[:, None])[:, 0]
        assert outside.sum() <= 1
    first, last = (drawn(given, Rule(1.0).array(), torch.full((500,), n, dtype=torch.float64)) for n in (0.0, np.nextafter(1.0, 0.0)))
    assert (first == 1).all() and (last == 299).all()


def test_equals_of_the_last_of_k_stay() -> None:
    given = torch.tensor([[0.0, 2.0, 1.0, 1.0, 1.0, -3.0]]).expand(6000, -1)
    found = drawn(given, Rule(1.0, k=2).array(), uniforms(6000))
    shares = np.bincount(found.numpy(), minlength=6) / 6000
    expected = torch.tensor([-torch.inf, 2, 1, 1, 1, -torch.inf]).softmax(-1).numpy()
    assert shares == pytest.approx(expected, abs=0.02) and shares[0] == shares[5] == 0


def test_draws_have_the_shares_of_the_scores() -> None:
    given, n = scores(1, 200, 1.0), 100_000
    found = drawn(given.expand(n, -1), Rule(1.3).array(), uniforms(n))
    expected = (given[0].double() / 1.3).softmax(-1).numpy()
    counts = np.bincount(found.numpy(), minlength=200)
    chi = float((((counts - n * expected) ** 2) / (n * expected)).sum())
    assert 130 < chi < 290, "199 degrees of freedom: mean 199, standard deviation 20"
