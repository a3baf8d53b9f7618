"""R12: NaN and Inf in input, loss, gradient and optimizer state: the optimizer is never applied, and the error names step and parameter.

What a whole run makes of it (rows as file:line, the batch, the command) is in `tests/runs/test_failure.py`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from lexloom.models.base import Network
from lexloom.models.bert import Bert
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.train.loop import NotFinite, fit
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.source import PackedSource, Phase
from lexloom.train.step import Step
from tests.dist.worker import VOCABULARY, Ragged

VALUES = [math.nan, math.inf, -math.inf]
MATRIX = "backbone.blocks.0.up.weight"


class Training:
    """A few steps of a tiny network; something is poisoned before the third."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.objective = MaskedLM(MaskedLMConfig(rate=0.3), VOCABULARY)
        network = Network.build(Bert, Bert.Config.read(dict(Bert.TINY)), {"masked-lm"}, seed=1).to(dtype)
        self.step = Step(network, self.objective)
        self.optimizer = AdamW(self.step.named().items(), OptimizerConfig())
        self.source = PackedSource([Phase(20, Ragged(), 5, 8, 4)], self.objective, seed=3)
        self.done = 0

    def weights(self) -> str:
        """Every bit of masters and of the network's own copy."""
        found = hashlib.sha256()
        for tensors in (self.optimizer.masters, self.step.named()):
            for name, tensor in tensors.items():
                found.update(name.encode() + tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def run(self, forward: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> tuple[str, NotFinite]:
        """The weights after the second step, and the error of the third."""
        before = ""
        with pytest.raises(NotFinite) as caught:
            for info in fit(forward, self.objective.parts, self.optimizer, self.source, lambda _: 1e-2):
                self.done, before = info.step, self.weights()
        return before, caught.value


def in_input(training: Training, value: float) -> Any:
    def forward(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if training.done == 2:
            tensors = {**tensors, "masked_weights": tensors["masked_weights"] * value}
        return training.step(tensors)

    return forward


def in_loss(training: Training, value: float) -> Any:
    def forward(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = training.step(tensors)
        return {part: loss + value for part, loss in found.items()} if training.done == 2 else found

    return forward


def in_gradient(training: Training, value: float) -> Any:
    """The loss is finite; one number of one gradient is not."""

    def poisoned(gradient: Tensor) -> Tensor:
        if training.done == 2:
            gradient = gradient.clone()
            gradient[3, 5] = value
        return gradient

    training.step.named()[MATRIX].register_hook(poisoned)
    return training.step


def in_state(place: int) -> Any:
    """As by a fault of memory: loss and gradient are finite."""

    def poison(training: Training, value: float) -> Any:
        def forward(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            if training.done == 2:
                training.optimizer.moments[MATRIX][place][3, 5] = value
            return training.step(tensors)

        return forward

    return poison


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "poison", [in_input, in_loss, in_gradient, in_state(0), in_state(1)], ids=["input", "loss", "gradient", "first moment", "second moment"]
)
def test_nothing_of_it_reaches_the_weights(poison: Any, dtype: torch.dtype, value: float) -> None:
    training = Training(dtype)
    before, error = training.run(poison(training, value))
    assert training.done == 2 and error.step == 2 and "at step 3" in error.problem
    assert training.weights() == before
    told = str(error)
    if poison in (in_input, in_loss):
        assert not all(map(math.isfinite, error.losses.values()))
    elif poison is in_gradient:
        assert all(map(math.isfinite, error.losses.values())) and error.parameters == [MATRIX] and f" in {MATRIX}" in told
        assert error.moments == []
    else:
        assert error.parameters == [] and [name.partition(".")[2] for name in error.moments] == [MATRIX]
        assert told.startswith("the state of the optimizer is not finite") and error.moments[0] in told


def test_a_gradient_too_large_for_its_norm_is_refused_too() -> None:
    """Each number is finite, and so is the loss; clipping by an infinite norm would make zeros of all."""
    training = Training(torch.float32)
    training.step.named()[MATRIX].register_hook(lambda g: torch.full_like(g, 3e38) if training.done == 2 else g)
    before, error = training.run(training.step)
    assert training.weights() == before and "gradient norm inf" in str(error)
