"""The loop: one step does not depend on how its batch is cut, and nothing that is not finite reaches the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lexloom import keys
from lexloom.batch import Batch
from lexloom.errors import LexloomError
from lexloom.models.base import Network
from lexloom.models.bert import Bert
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.train.loop import fit
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.step import Step

VOCABULARY = Vocabulary(97, 4, frozenset(range(5)), {"input_ids": 0, "token_type_ids": 0})


def rows(ids: np.ndarray) -> list[dict[str, object]]:
    """Ragged rows: row i has 5 + i tokens."""
    found = []
    for i in ids:
        tokens = keys.integers(keys.key(5, int(i)), 5 + int(i), 90) + 5
        found.append({"id": i, "input_ids": tokens, "token_type_ids": np.zeros_like(tokens), "special": np.zeros(len(tokens), bool)})
    return found


class Cut:
    """Twelve ragged rows a step, in micro-batches of `micro`."""

    def __init__(self, objective: MaskedLM, micro: int, steps: int = 5) -> None:
        self.objective, self.micro, self.steps = objective, micro, steps

    def batches(self, step: int, part: int = 0, parts: int = 1) -> list[Batch]:
        ids = np.arange(12)
        cuts = [ids[a : a + self.micro] for a in range(0, 12, self.micro)][part::parts]
        return [self.objective.collate(rows(cut), keys.key(1, step, cut), length=20, size=self.micro) for cut in cuts]


def trained(micro: int, dtype: torch.dtype = torch.float64) -> tuple[list[float], dict[str, Tensor]]:
    objective = MaskedLM(MaskedLMConfig(rate=0.3), VOCABULARY)
    network = Network.build(Bert, Bert.Config.read(dict(Bert.TINY)), {"masked-lm"}, seed=1).to(dtype)
    optimizer = AdamW(network.named_parameters(), OptimizerConfig())
    losses = [info.loss for info in fit(Step(network, objective), objective.parts, optimizer, Cut(objective, micro), lambda step: 1e-3)]
    return losses, optimizer.masters


def test_cutting_the_batch_changes_nothing() -> None:
    """Ragged lengths, dropout on, another number of targets in every micro-batch."""
    losses, masters = trained(12)
    for micro in (1, 3, 4):
        others, other = trained(micro)
        np.testing.assert_allclose(others, losses, rtol=1e-9)
        for name, master in masters.items():
            torch.testing.assert_close(other[name], master, rtol=1e-9, atol=1e-11)


def test_the_same_twice_to_the_bit() -> None:
    one, other = trained(4, torch.float32), trained(4, torch.float32)
    assert one[0] == other[0]
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_never_reaches_the_weights(value: float) -> None:
    objective = MaskedLM(MaskedLMConfig(rate=0.3), VOCABULARY)
    network = Network.build(Bert, Bert.Config.read(dict(Bert.TINY)), {"masked-lm"}, seed=1)
    optimizer = AdamW(network.named_parameters(), OptimizerConfig())
    step, seen = Step(network, objective), list[dict[str, Tensor]]()

    def poisoned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = step(tensors)
        if len(seen) == 2:
            found = {part: loss * value for part, loss in found.items()}
        return found

    with pytest.raises(LexloomError, match="not finite at step 3"):
        for _ in fit(poisoned, objective.parts, optimizer, Cut(objective, 12), lambda step: 1e-3):
            seen.append({name: master.clone() for name, master in optimizer.masters.items()})
    assert len(seen) == 2
    assert all(torch.equal(master, seen[-1][name]) for name, master in optimizer.masters.items())


class Weighted(MaskedLM, nn.Module):
    """Masked LM with a module of its own: a learned factor of the loss."""

    def __init__(self, config: MaskedLMConfig, vocabulary: Vocabulary) -> None:
        nn.Module.__init__(self)
        MaskedLM.__init__(self, config, vocabulary)
        self.factor = nn.Parameter(torch.ones(1))

    def loss(self, output: Any, batch: Any, heads: Any) -> dict[str, Tensor]:
        return {part: value * self.factor.sum() for part, value in super().loss(output, batch, heads).items()}


def test_modules_of_an_objective_are_trained_along() -> None:
    objective = Weighted(MaskedLMConfig(rate=0.3), VOCABULARY)
    network = Network.build(Bert, Bert.Config.read(dict(Bert.TINY)), {"masked-lm"}, seed=1)
    step = Step(network, objective)
    assert set(step.named()) == {name for name, _ in network.named_parameters()} | {"objective.factor"}
    optimizer = AdamW(step.named().items(), OptimizerConfig(weight_decay=0.0))
    for _ in fit(step, objective.parts, optimizer, Cut(objective, 12), lambda _: 1e-2):
        pass
    assert objective.factor.item() < 0.97
    assert torch.equal(optimizer.masters["objective.factor"], objective.factor.data)
