"""Alarms sound for the thing they name, once, and not for a training that goes well."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.objectives.next_sentence import NextSentence, NextSentenceConfig
from lexloom.objectives.together import Together
from lexloom.train.alarms import Alarms, repeated, repetition

BLIND = {"masked-lm": 7.0, "next-sentence": 0.693}
GOOD = {"head.weight": torch.tensor([0.0, 1e-9])}


def test_a_plateau_is_told_once_and_not_too_early() -> None:
    alarms = Alarms(1000, BLIND)
    assert alarms.look(100, {"masked-lm": 7.3}, GOOD) == []
    found = alarms.look(200, {"masked-lm": 6.95}, GOOD)
    assert len(found) == 1 and "masked-lm sits at 6.95 after 200 of 1,000 steps" in found[0] and "mimetic" in found[0]
    assert alarms.look(300, {"masked-lm": 6.95}, GOOD) == []


def test_a_training_that_goes_well_is_left_alone() -> None:
    alarms = Alarms(1000, BLIND)
    for step in range(0, 1001, 50):
        assert alarms.look(step, {"masked-lm": 7.0 - step / 200, "next-sentence": 0.8 - step / 2000, "other": 99.0}, GOOD) == []


def test_chance_is_told_from_half_of_the_way_on() -> None:
    alarms = Alarms(1000, BLIND)
    assert alarms.look(400, {"next-sentence": 0.70}, GOOD) == []
    assert "chance being 0.69" in alarms.look(500, {"next-sentence": 0.70}, GOOD)[0]


def test_a_parameter_without_gradient_is_named() -> None:
    zeros = {f"heads.{i}": torch.zeros(3) for i in range(5)}
    (line,) = Alarms(10, {}).look(1, {}, {**GOOD, **zeros})
    assert "heads.0, heads.1, heads.2 and 2 more" in line and "head.weight" not in line


def test_repeated_rows_are_counted() -> None:
    rows = [np.array([i % 80, 1, 2]) for i in range(100)]
    assert repeated(rows) == 0.2 and repeated([]) == 0.0
    assert repetition(0.2, 100) is not None and "20% of 100 rows" in str(repetition(0.2, 100))
    assert repetition(0.01, 100) is None


@pytest.mark.parametrize("joined", [False, True])
def test_the_loss_of_a_blind_guess_is_the_entropy_of_the_tokens(joined: bool) -> None:
    vocabulary = Vocabulary(8, 4, frozenset(range(5)), {"input_ids": 0})
    masked = MaskedLM(MaskedLMConfig(), vocabulary)
    objective = Together([masked, NextSentence(NextSentenceConfig(), vocabulary)]) if joined else masked
    counts = np.array([500, 9, 9, 9, 0, 2, 1, 1])  # special tokens are never predicted
    found = objective.blind(counts)
    assert found["masked-lm"] == pytest.approx(1.5 * np.log(2))
    assert joined is ("next-sentence" in found)
    assert masked.blind(np.zeros(8, dtype=int)) == {}
