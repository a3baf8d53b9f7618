"""The training loop: short, flat, visible. It yields what happened; others log, evaluate and save."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lexloom.batch import Batch
from lexloom.errors import LexloomError
from lexloom.train.optim import AdamW


class Source(Protocol):
    """Where the batches of a step come from: shards, labelled rows, rollouts."""

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        ...

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step: a function of the step alone."""
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


def fit(
    step: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    weights: Mapping[str, float],
    optimizer: AdamW,
    source: Source,
    rate: Callable[[int], float],
    *,
    start: int = 0,
    device: str = "cpu",
) -> Iterator[StepInfo]:
    """Trains from step `start` to the source's last one.

    Each part's denominator is summed over the step's micro-batches before the first backward, so that cutting a batch
    differently changes nothing.

    Args:
        step: batch tensors -> {part: loss sum}.
        weights: each part's weight in the total.
        rate: step number -> learning rate.

    Raises:
        LexloomError: the loss or the gradient is not finite; the weights are left as they were.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        coming = pool.submit(source.batches, start) if start < source.steps else None
        for number in range(start, source.steps):
            began = time.perf_counter()
            batches = coming.result() if coming else source.batches(number)
            coming = pool.submit(source.batches, number + 1) if number + 1 < source.steps else None
            counts = summed(batches)
            sums = dict.fromkeys(weights, 0.0)
            for batch in batches:
                found = step(batch.to(device).tensors)
                total = torch.stack([weights[part] / (counts[part] or 1.0) * found[part] for part in weights]).sum()
                torch.autograd.backward(total)
                optimizer.collect()
                for part in weights:
                    sums[part] += found[part].item()
            parts = {part: sums[part] / (counts[part] or 1.0) for part in weights}
            loss = sum(weights[part] * value for part, value in parts.items())
            norm = optimizer.norm()
            if not (norm.isfinite() and torch.tensor(loss).isfinite()):
                raise LexloomError(
                    f"the loss or its gradient is not finite at step {number + 1}",
                    got=f"loss {loss}, gradient norm {norm.item()}",
                    hint="a lower learning_rate or a longer warmup; the last checkpoint is whole",
                )
            learning_rate = rate(number)
            optimizer.step(learning_rate, norm)
            tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
            yield StepInfo(number + 1, loss, parts, learning_rate, norm.item(), tokens, time.perf_counter() - began)


def summed(batches: Sequence[Batch]) -> dict[str, float]:
    """Each part's denominator over all micro-batches."""
    counts: dict[str, float] = {}
    for batch in batches:
        for part, count in batch.counts.items():
            counts[part] = counts.get(part, 0.0) + count
    return counts
