"""The kernel for the best token of each row beside PyTorch's operations."""

from __future__ import annotations

import pytest
import torch

from lexloom import keys
from lexloom.nn.likeliest import likeliest


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 1), (3, 63), (2, 64), (1, 65), (5, 50_257)])
def test_it_is_what_pytorch_finds(rows: int, vocabulary: int) -> None:
    scores = 5 * torch.from_numpy(keys.normal(keys.key("scores"), rows * vocabulary)).float().view(rows, vocabulary)
    best, tops, norms = likeliest(scores)
    assert torch.equal(best, scores.argmax(-1)) and torch.equal(tops, scores.amax(-1))
    assert (norms - scores.double().logsumexp(-1)).abs().max() <= 4e-6


def test_of_several_best_ones_the_first_counts() -> None:
    scores = torch.zeros(4, 200)
    for row, places in enumerate([(130, 70), (199, 195), (66, 65, 2), ()]):
        scores[row, list(places)] = 1.0
    assert likeliest(scores)[0].tolist() == [70, 195, 2, 0]


def test_scores_that_are_no_numbers() -> None:
    scores = torch.zeros(4, 100)
    scores[0, 7], scores[1, 9], scores[2], scores[3, 50:] = float("nan"), float("inf"), float("-inf"), float("-inf")
    best, tops, norms = likeliest(scores)
    assert torch.equal(norms.isnan(), torch.tensor([True, False, False, False])) and torch.allclose(norms[1:], scores[1:].logsumexp(-1))
    assert best.tolist()[1:] == [9, 0, 0] and tops.tolist()[1:] == [float("inf"), float("-inf"), 0.0]
