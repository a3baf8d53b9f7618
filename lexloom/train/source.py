"""Where batches come from: packed shards for pre-training, labelled rows for tasks. Every batch is a function of its step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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
    """Packed rows, phase by phase, each epoch in an order of its own.

    Attributes:
        cut: into how many each micro-batch is cut again, where memory is short; the step's rows stay what they are.
    """

    def __init__(self, phases: Sequence[Phase], objective: Objective, *, seed: int) -> None:
        self.phases, self.objective, self.seed, self.cut = list(phases), objective, seed, 1
        self.orders = [Order(len(phase.packing), seed) for phase in phases]

    @property
    def steps(self) -> int:
        """Over all phases."""
        return sum(phase.steps for phase in self.phases)

    def resize(self, steps: int) -> None:
        """Another number of steps; phases keep their shares of them."""
        ends = np.cumsum([phase.steps for phase in self.phases]) * steps / self.steps
        borders = [0, *(round(end) for end in ends.tolist())]
        self.phases = [replace(phase, steps=b - a) for phase, (a, b) in zip(self.phases, pairwise(borders), strict=True)]

    def batches(self, step: int, part: int = 0, parts: int = 1) -> list[Batch]:
        """The micro-batches of a step, all of one shape; see `Source`."""
        for phase, order in zip(self.phases, self.orders, strict=True):
            if step < phase.steps:
                epochs, ids = order.batch_rows(step, phase.rows)
                row_keys = keys.key(self.seed, "row", phase.length, epochs, ids)
                micro = smallest(phase.micro // self.cut, phase.rows, parts)
                starts = range(0, evened(phase.rows, micro, parts), micro)[part::parts]
                return [self._batch(phase, ids[a : a + micro], row_keys[a : a + micro], micro) for a in starts]
            step -= phase.steps
        raise IndexError(f"this source has {self.steps} steps")

    @property
    def shapes(self) -> int:
        """How many shapes its batches have: each is compiled for itself."""
        return len(self.phases)

    @property
    def places(self) -> float:
        """Tokens of a step on the average, padding counted."""
        return sum(phase.steps * phase.rows * phase.length for phase in self.phases) / max(1, self.steps)

    @property
    def largest(self) -> int:
        """Rows of the largest micro-batch."""
        return max(max(1, phase.micro // self.cut) for phase in self.phases)

    def _batch(self, phase: Phase, ids: np.ndarray, row_keys: keys.Keys, micro: int) -> Batch:
        return self.objective.collate(phase.packing.rows(ids), row_keys, length=phase.length, size=micro)


def smallest(micro: int, rows: int, parts: int) -> int:
    """Rows of a micro-batch: no more than `micro`, and so few that each of `parts` processes has some where there are enough."""
    return max(1, min(micro, -(-rows // parts)))


def evened(rows: int, micro: int, parts: int) -> int:
    """A step's rows with as many more that count 0 as give each of `parts` processes the same number of micro-batches, one at least.

    Processes that hold a share of the weights each meet in every forward pass.
    """
    together = micro * parts
    return max(1, -(-rows // together)) * together


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

    Attributes:
        padded: whether batches are as long as their bucket, for steps that are compiled for few shapes; else as their longest row, and of
            rows with several sides each side as its own longest.
    """

    def __init__(self, rows: Sequence[Row], objective: Objective, plan: BucketPlan, *, epochs: float, seed: int, micro_tokens: int) -> None:
        self.rows, self.objective, self.plan, self.seed, self.micro_tokens, self.cut = rows, objective, plan, seed, micro_tokens, 1
        self.padded = True
        self.steps = max(1, round(epochs * plan.batches_per_epoch))

    @property
    def shapes(self) -> int:
        """How many shapes its batches have: each is compiled for itself."""
        return len(self.plan.edges)

    @property
    def places(self) -> float:
        """Tokens of a step on the average, padding counted."""
        return self.plan.positions / self.plan.batches_per_epoch

    @property
    def largest(self) -> int:
        """Rows of the largest micro-batch."""
        return max(self._micro(size, edge) for size, edge in zip(self.plan.sizes, self.plan.edges, strict=True))

    def resize(self, steps: int) -> None:
        """Another number of steps."""
        self.steps = steps

    def _micro(self, size: int, length: int) -> int:
        return max(1, min(size, self.micro_tokens // length) // self.cut)

    def batches(self, step: int, part: int = 0, parts: int = 1) -> list[Batch]:
        """The micro-batches of a step; see `Source`."""
        epoch, place = divmod(step, self.plan.batches_per_epoch)
        planned = self.plan.batch(epoch, place)
        micro = smallest(self._micro(planned.size, planned.length), planned.size, parts)
        row_keys, length = keys.key(self.seed, "row", epoch, planned.rows), planned.length if self.padded else planned.longest
        widths = {} if self.padded else self._widths(planned.rows)
        return [
            self._batch(planned.rows[a : a + micro], row_keys[a : a + micro], length, micro).narrowed(widths)
            for a in range(0, evened(len(planned.rows), micro, parts), micro)[part::parts]
        ]

    def _widths(self, ids: np.ndarray) -> dict[str, int]:
        """How wide tensors are for the longest sequence of each side: all micro-batches of a step have one shape, whoever has them."""
        longest = {side: max(len(self.rows[i][side]) for i in ids) for side in self.objective.sides}
        return {name: longest[side] for side, names in self.objective.sides.items() for name in names}

    def _batch(self, ids: np.ndarray, row_keys: keys.Keys, length: int, size: int) -> Batch:
        rows: list[Mapping[str, Any]] = [self.rows[i] for i in ids]
        return self.objective.collate(rows, row_keys, length=length, size=size)
