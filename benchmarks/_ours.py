"""Our side of the benchmarks of pre-training: the loop as it is timed, over rows that were made beforehand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lexloom import compute
from lexloom.models.base import Network
from lexloom.objectives.base import Objective
from lexloom.train.loop import fit
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
        phase = Phase(self.length, self.packing, self.done + n + 1, self.rows, self.rows)
        source = PackedSource([phase], self.objective, seed=1)
        ends = [time.perf_counter() for _ in fit(self.step, self.objective.parts, self.optimizer, source, lambda _: RATE, start=self.done)]
        self.done += n + 1
        return ends[-1] - ends[0]
