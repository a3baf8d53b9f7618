"""R08, R09, R11: the same rows in the same order, each once an epoch, and the same losses and gradients, whatever the layout."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lexloom import keys
from lexloom.batch import Batch
from lexloom.models.base import Network
from lexloom.models.bert import Bert
from lexloom.objectives.base import Objective, Row
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.text.order import BucketPlan
from lexloom.train.loop import fit, summed
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.prefetch import Prefetch
from lexloom.train.source import LabelledSource, PackedSource, Phase
from lexloom.train.step import Step
from tests.dist.worker import VOCABULARY, Ragged

Source = PackedSource | LabelledSource


class Ids(Objective):
    """Learns nothing: its batches say which rows they have, and under which keys."""

    parts = {"rows": 1.0}

    def collate(self, rows: Sequence[Row], row_keys: keys.Keys, *, length: int, size: int) -> Batch:
        ids = np.fromiter((row["id"] for row in rows), dtype=np.int64, count=len(rows))
        return Batch({"ids": torch.from_numpy(ids), "keys": torch.from_numpy(row_keys.view(np.int64).copy())}, {"rows": float(len(rows))})


class Numbered:
    """So many rows that are nothing but their ids."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def rows(self, ids: Any) -> list[dict[str, Any]]:
        return [{"id": i} for i in ids.tolist()]


IDS = Ids(None, VOCABULARY)


def packed() -> PackedSource:
    """Two phases; an epoch ends within a step, and rows divide neither by micro-batches nor by processes."""
    return PackedSource([Phase(16, Numbered(41), 30, 7, 3), Phase(32, Numbered(300), 20, 5, 5)], IDS, seed=4)


def labelled() -> LabelledSource:
    lengths = np.asarray([1 + (7 * i) % 60 for i in range(123)])
    plan = BucketPlan(lengths, edges=[16, 32, 64], batch_rows=8, seed=4)
    return LabelledSource([{"id": i} for i in range(123)], IDS, plan, epochs=3, seed=4, micro_tokens=96)


def seen(source: Source, start: int, stop: int, processes: int, ahead: int) -> list[list[tuple[int, int]]]:
    """(row, key) of each step from `start` on, in their global order, as so many processes with such a prefetch see them."""
    ranks = [Prefetch(lambda step, r=rank: source.batches(step, r, processes), start, stop, ahead=ahead) for rank in range(processes)]
    for rank in ranks:
        rank.__enter__()
    steps = []
    for _ in range(start, stop):
        mine = [rank.take() for rank in ranks]
        whole = [mine[i % processes][i // processes] for i in range(sum(map(len, mine)))]
        steps.append([pair for batch in whole for pair in zip(batch["ids"].tolist(), batch["keys"].tolist(), strict=True)])
    for rank in ranks:
        rank.__exit__(None, None, None)
    return steps


@pytest.mark.parametrize("source", [packed, labelled])
@pytest.mark.parametrize("points", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_the_order_is_the_same_however_a_run_is_cut_and_laid_out(points: int, source: Any) -> None:
    """R08: prefetch 0 to 4 deep, two processes, then one, then two, changed at random steps."""
    made = source()
    expected = seen(made, 0, made.steps, 1, 1)
    assert len(expected) == made.steps and all(len(step) > 1 for step in expected)
    seed = random.SystemRandom().randrange(1 << 30)
    dice = random.Random(seed)
    for _ in range(points):
        a, b = sorted(dice.sample(range(made.steps + 1), 2))
        found = []
        for start, stop, processes in ((0, a, 2), (a, b, 1), (b, made.steps, 2)):
            found += seen(source(), start, stop, processes, dice.randrange(5))  # a new process has a new source
        assert found == expected, f"cut at {a} and {b}, seed {seed}"


class Trained:
    """A tiny network with dropout on, and sources of ragged rows of which every third has nothing to predict."""

    def __init__(self) -> None:
        self.objective = MaskedLM(MaskedLMConfig(rate=0.3), VOCABULARY)
        self.step = Step(Network.build(Bert, Bert.Config.read(dict(Bert.TINY)), {"masked-lm"}, seed=1), self.objective)

    def packed(self, rows: int, micro: int, steps: int = 1) -> PackedSource:
        return PackedSource([Phase(20, Ragged(), steps, rows, micro)], self.objective, seed=3)

    def labelled(self, rows: int, micro: int, steps: int = 1) -> LabelledSource:
        tokens = [Ragged().row(i) for i in range(70)]
        plan = BucketPlan([len(row["input_ids"]) for row in tokens], edges=[20], batch_rows=rows, seed=3)
        return LabelledSource(tokens, self.objective, plan, epochs=steps / plan.batches_per_epoch, seed=3, micro_tokens=20 * micro)

    @torch.no_grad()
    def loss(self, source: Source, step: int, processes: int) -> float:
        """Of one step, whose micro-batches so many processes share."""
        sums, counts = 0.0, 0.0
        for rank in range(processes):
            batches = source.batches(step, rank, processes)
            counts += summed(batches, self.objective.parts)["masked-lm"]
            sums += sum(self.step(batch.tensors)["masked-lm"].item() for batch in batches)
        return sums / counts


@pytest.mark.parametrize("points", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_the_loss_is_the_same_in_one_process_and_in_two(points: int) -> None:
    """R08: within 1e-6 relative, from equal weights, at random steps."""
    made = Trained()
    dice = random.Random(random.SystemRandom().randrange(1 << 30))
    for _ in range(points):
        rows, micro, step = dice.randint(1, 13), dice.randint(1, 8), dice.randrange(1000)
        source = made.packed(rows, micro, 1000)
        if summed(source.batches(step), made.objective.parts)["masked-lm"]:
            assert made.loss(source, step, 2) == pytest.approx(made.loss(source, step, 1), rel=1e-6), (rows, micro, step)


def gradient(made: Trained, source: Source) -> tuple[float, Tensor]:
    """Loss and gradient of the first step, clipped by nothing."""
    optimizer = AdamW(made.step.named().items(), OptimizerConfig(clip=1e9))
    [info] = fit(made.step, made.objective.parts, optimizer, source, lambda _: 0.0)
    return info.loss, optimizer.sums.clone()


@pytest.mark.parametrize("kind", ["packed", "labelled"])
@pytest.mark.parametrize("micro", [1, 4, 5])
def test_32_rows_at_once_and_one_by_one_have_one_gradient(kind: str, micro: int) -> None:
    """R11: 1 x 32 and 32 x 1, ragged rows, dropout on, fp32: within 1e-6 relative."""
    made = Trained()
    (loss, whole), (other_loss, parts) = (gradient(made, getattr(made, kind)(32, n)) for n in (32, micro))
    assert len(getattr(made, kind)(32, micro).batches(0)) == math.ceil(32 / micro)
    assert other_loss == pytest.approx(loss, rel=1e-6)
    assert (whole - parts).norm() <= 1e-6 * whole.norm() and (whole - parts).abs().max() <= 1e-6 * whole.abs().max()
    assert not torch.equal(gradient(made, getattr(made, kind)(29, 29))[1], whole), "three rows less are another gradient"


@pytest.mark.parametrize("kind", ["packed", "labelled"])
@pytest.mark.parametrize("cut", [2, 8, 64])
def test_a_micro_batch_that_is_halved_for_want_of_memory_leaves_the_gradient(kind: str, cut: int) -> None:
    """R14: what the run does where memory is short; the rows of the step stay what they are."""
    made = Trained()
    source, halved = (getattr(made, kind)(32, 16) for _ in range(2))
    halved.cut = cut
    assert [batch.size for batch in halved.batches(0)] == [max(1, 16 // cut)] * (32 // max(1, 16 // cut))
    (loss, whole), (other_loss, parts) = gradient(made, source), gradient(made, halved)
    assert other_loss == pytest.approx(loss, rel=1e-6)
    assert (whole - parts).norm() <= 1e-6 * whole.norm()


MILLION = 1_000_000


def interrupted(build: Any, steps: int) -> Iterator[np.ndarray]:
    """The rows of an epoch that is interrupted ten times; all that is kept is a few bytes of JSON."""
    stops = sorted(random.SystemRandom().sample(range(1, steps), 10))
    state = json.dumps({"step": 0, "seed": 6})
    for stop in [*stops, steps]:
        assert len(state) <= 64
        told = json.loads(state)
        source = build(told["seed"])
        with Prefetch(source.batches, told["step"], stop) as coming:
            for _ in range(told["step"], stop):
                for batch in coming.take():
                    yield batch["ids"].numpy()
        state = json.dumps({**told, "step": stop})


@pytest.mark.parametrize("kind", ["packed", "labelled"])
def test_a_million_rows_come_once_each_through_ten_interruptions(kind: str) -> None:
    """R09: the state of the loader is a step and a seed (the whole of a checkpoint's JSON: `tests/runs/test_hash_seeds.py`)."""
    rows = Numbered(MILLION)
    every = [{"id": i} for i in range(MILLION)] if kind == "labelled" else []
    lengths = 1 + keys.integers(keys.key(2), MILLION, 64) if kind == "labelled" else None

    def build(seed: int) -> Source:
        if kind == "packed":
            return PackedSource([Phase(16, rows, 500, 2000, 500)], IDS, seed=seed)
        plan = BucketPlan(lengths, edges=[16, 64], batch_rows=2000, seed=seed)  # type: ignore[arg-type]
        return LabelledSource(every, IDS, plan, epochs=1, seed=seed, micro_tokens=32_000)

    times = np.zeros(MILLION, dtype=np.int64)
    steps = build(6).steps
    assert steps in (500, 501)
    first = None
    for ids in interrupted(build, steps):
        first = ids.copy() if first is None else first
        np.add.at(times, ids, 1)
    assert (times == 1).all()
    assert first is not None and not (np.diff(first) == 1).any(), "this is no order"
