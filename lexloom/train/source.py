"""Where batches come from: packed shards for pre-training, labelled rows for tasks. Every batch is a function of its step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lexloom import keys
from lexloom.batch import Batch
from lexloom.objectives.base import Objective, Row
from lexloom.text.order import BucketPlan, Order


class Packing(Protocol):
    """Rows of tokens by id, the same in every epoch."""

    def __len__(self) -> int: ...

    def rows(self, ids: Any) -> list[dict[str, Any]]:
        """The rows of those ids, in that order."""
        ...


@dataclass(frozen=True)
class Phase:
    """Steps at one length.

    Attributes:
        rows: rows a step; micro: rows a micro-batch.
    """

    length: int
    packing: Packing
    steps: int
    rows: int
    micro: int


class PackedSource:
    """Packed rows, phase by phase, each epoch in an order of its own."""

    def __init__(self, phases: Sequence[Phase], objective: Objective, *, seed: int) -> None:
        self.phases, self.objective, self.seed = list(phases), objective, seed
        self.orders = [Order(len(phase.packing), seed) for phase in phases]

    @property
    def steps(self) -> int:
        """Over all phases."""
        return sum(phase.steps for phase in self.phases)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step; all of one shape."""
        for phase, order in zip(self.phases, self.orders, strict=True):
            if step < phase.steps:
                epochs, ids = order.batch_rows(step, phase.rows)
                row_keys = keys.key(self.seed, "row", phase.length, epochs, ids)
                starts = range(0, phase.rows, phase.micro)
                return [self._batch(phase, ids[a : a + phase.micro], row_keys[a : a + phase.micro]) for a in starts]
            step -= phase.steps
        raise IndexError(f"this source has {self.steps} steps")

    def _batch(self, phase: Phase, ids: np.ndarray, row_keys: keys.Keys) -> Batch:
        return self.objective.collate(phase.packing.rows(ids), row_keys, length=phase.length, size=phase.micro)


def fixed_batches(
    packing: Packing, objective: Objective, *, length: int, tokens: int, seed: int, batch_tokens: int = 4096
) -> Iterator[Batch]:
    """The first rows of a packing up to about `tokens`, with keys of their own: for evaluation."""
    n, size = min(len(packing), max(1, tokens // length)), max(1, batch_tokens // length)
    for start in range(0, n, size):
        ids = np.arange(start, min(n, start + size))
        yield objective.collate(packing.rows(ids), keys.key(seed, "validation", ids), length=length, size=size)


class LabelledSource:
    """Labelled token rows in batches of about equal length; every row once an epoch.

    Args:
        rows: as a task's `encode` gives them.
        batch_rows: rows a step; a step's rows are of one length bucket.
        epochs: may be broken, 2.5.
    """

    def __init__(self, rows: Sequence[Row], objective: Objective, plan: BucketPlan, *, epochs: float, seed: int, micro_tokens: int) -> None:
        self.rows, self.objective, self.plan, self.seed, self.micro_tokens = rows, objective, plan, seed, micro_tokens
        self.steps = max(1, round(epochs * plan.batches_per_epoch))

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""
        epoch, place = divmod(step, self.plan.batches_per_epoch)
        planned = self.plan.batch(epoch, place)
        micro = max(1, min(planned.size, self.micro_tokens // planned.length))
        row_keys = keys.key(self.seed, "row", epoch, planned.rows)
        return [
            self._batch(planned.rows[a : a + micro], row_keys[a : a + micro], planned.length, micro)
            for a in range(0, max(1, len(planned.rows)), micro)
        ]

    def _batch(self, ids: np.ndarray, row_keys: keys.Keys, length: int, size: int) -> Batch:
        rows: list[Mapping[str, Any]] = [self.rows[i] for i in ids]
        return self.objective.collate(rows, row_keys, length=length, size=size)
