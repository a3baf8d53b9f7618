"""Our side of the benchmarks of pre-training: the loop as it is timed, over rows that were made beforehand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lexloom import compute
from lexloom.models.base import Network
from lexloom.objectives.base import Objective
from lexloom.train.loop import StepInfo, fit
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.source import PackedSource, Phase
from lexloom.train.step import Step, prepared

RATE = 1e-4


class MadeRows:
    """A packing of rows that are there already."""

    def __init__(self, made: Sequence[Mapping[str, Any]]) -> None:
        self.made = made

    def __len__(self) -> int:
        return len(self.made)

    def rows(self, ids: Any) -> list[Mapping[str, Any]]:
        """Rows by id."""
        return [self.made[i] for i in ids]


class Loop:
    """lexloom's loop: collation, forward, backward, clipping and AdamW over fp32 masters; B = `rows` of T = `length` tokens a step."""

    def __init__(
        self, network: Network, objective: Objective, chosen: compute.Compute, packing: MadeRows, *, rows: int, length: int
    ) -> None:
        masters = {name: p.detach().clone() for name, p in network.named_parameters()}
        network.to(chosen.torch_dtype)
        self.objective, self.chosen = objective, chosen
        self.step = prepared(Step(network, objective), chosen)
        self.optimizer = AdamW(network.named_parameters(), OptimizerConfig(learning_rate=RATE))
        self.optimizer.adopt(masters)
        self.packing, self.rows, self.length, self.done = packing, rows, length, 0

    def steps(self, n: int) -> float:
        """Seconds of `n` steps, after one that is not counted: it holds what a start does once."""
        ends = [time.perf_counter() for _ in self._fit(n + 1, RATE)]
        return ends[-1] - ends[0]

    def losses(self, n: int, rate: float) -> list[float]:
        """Of each of `n` steps at a constant rate."""
        return [info.loss for info in self._fit(n, rate)]

    def order(self, n: int) -> np.ndarray:
        """The places of the rows that the next `n` steps see."""
        order = self._source(n).orders[0]
        return np.concatenate([order.batch_rows(self.done + i, self.rows)[1] for i in range(n)])

    def _source(self, n: int) -> PackedSource:
        """The rows of the steps until `n` more are done."""
        return PackedSource([Phase(self.length, self.packing, self.done + n, self.rows, self.rows)], self.objective, seed=1)

    def _fit(self, n: int, rate: float) -> Iterator[StepInfo]:
        source, start, self.done = self._source(n), self.done, self.done + n
        return fit(self.step, self.objective.parts, self.optimizer, source, lambda _: rate, start=start)
