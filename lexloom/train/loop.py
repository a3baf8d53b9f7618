"""The training loop: short, flat, visible. It yields what happened; others log, evaluate and save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lexloom.batch import Batch
from lexloom.errors import LexloomError
from lexloom.train.optim import AdamW
from lexloom.train.parallel import ALONE, World
from lexloom.train.prefetch import Prefetch


class Source(Protocol):
    """Where the batches of a step come from: shards, labelled rows, rollouts."""

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        ...

    def batches(self, step: int, part: int = 0, parts: int = 1) -> list[Batch]:
        """The micro-batches of a step: a function of the step alone. Of `parts` processes, number `part` does every `parts`-th.

        All have the same number of them; where rows are short, with batches that count 0.
        """
        ...


@dataclass(frozen=True)
class StepInfo:
    """What one step did."""

    step: int  # steps done, this one included
    loss: float  # Σ weight · sum / count
    parts: dict[str, float]  # each part's mean
    learning_rate: float
    gradient_norm: float
    tokens: int  # tokens of the step, padding not counted
    seconds: float  # of the step, waiting for data included


class NotFinite(LexloomError):
    """A step whose loss or gradient is not finite, or that found the optimizer's state so. Of that no weight has heard.

    Attributes:
        step: its number, from 0.
        losses: the mean of each part.
        parameters: those whose gradient is not finite; none where only the loss is not.
        moments: `first.NAME` and `second.NAME` of the optimizer's state that are not finite.
    """

    def __init__(self, step: int, parts: Mapping[str, float], norm: float, parameters: Sequence[str], moments: Sequence[str] = ()) -> None:
        losses = ", ".join(f"{part} {value:.4g}" for part, value in parts.items())
        state = f"; optimizer's state{_few(moments)}" if moments else ""
        what, hint = "the loss or its gradient", "a lower learning_rate or a longer warmup; the last checkpoint is whole"
        if moments and not parameters and all(map(math.isfinite, parts.values())):
            what, hint = "the state of the optimizer", "the same command goes on from the last checkpoint, which is whole"
        got = f"{losses}; gradient norm {norm}{_few(parameters)}{state}"
        super().__init__(f"{what} is not finite at step {step + 1}", got=got, hint=hint)
        self.step, self.losses, self.parameters, self.moments = step, dict(parts), list(parameters), list(moments)


def _few(names: Sequence[str]) -> str:
    return f" in {', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else ""


def _named(tensors: Mapping[str, Tensor], world: World) -> list[str]:
    """The names of those that are not finite in some process."""
    odd = world.each([not tensor.isfinite().all() for tensor in tensors.values()])
    return [name for name, found in zip(tensors, odd, strict=True) if found]


def fit(
    step: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    weights: Mapping[str, float],
    optimizer: AdamW,
    source: Source,
    rate: Callable[[int], float],
    *,
    start: int = 0,
    device: str = "cpu",
    world: World = ALONE,
    ahead: int = 1,
) -> Iterator[StepInfo]:
    """Trains from step `start` to the source's last one.

    Each part's denominator is summed over the step's micro-batches, in all processes, before the first backward, so that cutting a
    batch differently changes nothing.

    Args:
        step: batch tensors -> {part: loss sum}.
        weights: each part's weight in the total.
        rate: step number -> learning rate.
        ahead: for how many steps batches are made before they are needed.

    Raises:
        NotFinite: the loss, the gradient or the optimizer's state is not finite; of that no weight has heard.
        StallError: no batch came for ten minutes.
    """
    steps = range(start, source.steps)
    with Prefetch(lambda number: source.batches(number, world.rank, world.size), start, steps.stop, ahead=ahead) as coming:
        for number in steps:
            began = time.perf_counter()
            batches = coming.take()
            counts = summed(batches, weights, world)
            sums = dict.fromkeys(weights, 0.0)
            for batch in batches:
                found = step(batch.to(device).tensors)
                total = torch.stack([weights[part] / (counts[part] or 1.0) * found[part] for part in weights]).sum()
                torch.autograd.backward(total)
                optimizer.collect()
                for part in weights:
                    sums[part] += found[part].item()
            optimizer.exchange(world)
            *found_sums, tokens = world.total([*sums.values(), sum(int(batch["attention_mask"].sum()) for batch in batches)])
            parts = {part: value / (counts[part] or 1.0) for part, value in zip(weights, found_sums, strict=True)}
            loss = sum(weights[part] * value for part, value in parts.items())
            norm = optimizer.norm()
            learning_rate = rate(number)
            # Gradients that are finite, once clipped, keep the moments finite; but memory fails, too.
            finite = bool(norm.isfinite()) and math.isfinite(loss)  # in all processes alike
            if not finite or world.any(not optimizer.step(learning_rate, norm)):
                raise NotFinite(number, parts, norm.item(), _named(optimizer.gradients, world), _named(optimizer.state(), world))
            yield StepInfo(number + 1, loss, parts, learning_rate, norm.item(), int(tokens), time.perf_counter() - began)


def summed(batches: Sequence[Batch], parts: Iterable[str], world: World = ALONE) -> dict[str, float]:
    """Each part's denominator over all micro-batches of all processes."""
    names = list(parts)
    return dict(zip(names, world.total([sum(batch.counts.get(name, 0.0) for batch in batches) for name in names]), strict=True))
