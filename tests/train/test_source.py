"""Rows from packings: a visit of a row is known by its epoch, and by nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lexloom import keys
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.train.source import PackedSource, Phase

T, R = 64, 24
VOCABULARY = Vocabulary(500, 4, frozenset(range(5)), {"input_ids": 0})


class Rows:
    """A packing of rows whose first token says which row it is."""

    def __len__(self) -> int:
        return R

    def rows(self, ids: Any) -> list[dict[str, Any]]:
        continues = keys.uniform(keys.key("continues", ids), T) < 0.3
        special = np.arange(T) == 0
        return [
            {"id": i, "input_ids": np.where(special, 5 + i, 100), "special": special, "continues": continues[n]}
            for n, i in enumerate(np.asarray(ids).tolist())
        ]


def visited(source: PackedSource, epoch: int) -> dict[int, tuple[int, ...]]:
    """Row -> the places that are masked in it, in one epoch."""
    batches = [batch for step in range(epoch * 3, epoch * 3 + 3) for batch in source.batches(step)]
    places = [tuple(p[w > 0].tolist()) for b in batches for p, w in zip(b["masked_positions"], b["masked_weights"], strict=True)]
    return dict(zip([int(ids[0]) - 5 for b in batches for ids in b["input_ids"]], places, strict=True))


@pytest.mark.parametrize("mask", ["tokens", "words", "spans"])
def test_masks_are_new_at_every_visit_of_a_row_and_the_same_under_any_cut(mask: Any) -> None:
    objective = MaskedLM(MaskedLMConfig(mask=mask), VOCABULARY)
    source = PackedSource([Phase(T, Rows(), 12, 8, 4)], objective, seed=3)
    visits = [visited(source, epoch) for epoch in range(4)]
    assert all(sorted(visit) == list(range(R)) for visit in visits)
    for row in range(R):
        assert len({visit[row] for visit in visits}) == 4, "Liu et al. 2019: no mask comes twice"
    whole = PackedSource([Phase(T, Rows(), 12, 8, 8)], objective, seed=3)
    assert [visited(whole, epoch) for epoch in range(4)] == visits
    assert visited(PackedSource([Phase(T, Rows(), 12, 8, 8)], objective, seed=4), 0) != visits[0]


def test_the_places_of_a_step_are_counted_over_all_phases() -> None:
    objective = MaskedLM(MaskedLMConfig(), VOCABULARY)
    phases = [Phase(T, Rows(), 3, 8, 4), Phase(T // 2, Rows(), 1, 8, 8)]
    assert PackedSource(phases, objective, seed=1).places == (3 * 8 * T + 8 * T // 2) / 4
