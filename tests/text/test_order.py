from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexloom.errors import ConfigError, DataError
from lexloom.text.order import BucketPlan, Order, PlannedBatch


def test_every_row_once_an_epoch_over_a_million_rows_with_ten_interruptions() -> None:
    order, rows, step = Order(1_000_000, seed=7), 1024, 0
    stops = sorted(np.random.default_rng(0).choice(977, size=10, replace=False).tolist())
    seen = []
    for stop in [*stops, 977]:
        order = Order(1_000_000, seed=7)  # all that is carried over is the number of the step
        while step < stop:
            seen.append(order.batch_rows(step, rows))
            step += 1
    epochs, ids = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    assert ids.dtype == np.int64 and len(ids) >= 1_000_000
    assert np.array_equal(np.sort(ids[epochs == 0]), np.arange(1_000_000))
    assert np.array_equal(epochs, np.arange(len(ids)) // 1_000_000)


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 5))
def test_epochs_follow_each_other_without_a_gap(n: int, rows: int, seed: int) -> None:
    order = Order(n, seed)
    steps = -(-3 * n // rows)
    epochs, ids = (np.concatenate(parts) for parts in zip(*[order.batch_rows(s, rows) for s in range(steps)], strict=True))
    for epoch in range(3):
        assert sorted(ids[epochs == epoch].tolist()) == list(range(n))
    again = [order.batch_rows(s, rows)[1] for s in reversed(range(steps))][::-1]
    assert np.array_equal(np.concatenate(again), ids), "the order of asking does not matter"
    halves = [order.rows_at(place, 1)[1][0] for place in range(len(ids))]
    assert halves == ids.tolist(), "nor does how many are asked for at once"


def test_far_steps_are_found_without_walking() -> None:
    epochs, ids = Order(1_000_003, seed=1).batch_rows(10**9, 4096)
    assert epochs[0] == 10**9 * 4096 // 1_000_003 and len(np.unique(ids)) == 4096


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def epoch(seed: int, number: int) -> np.ndarray:
        return Order(5000, seed).rows_at(number * 5000, 5000)[1]

    for other in (epoch(0, 1), epoch(1, 0)):
        assert 0 <= (epoch(0, 0) == other).sum() < 15
    neighbours = np.abs(np.diff(epoch(0, 0)))
    assert 1500 < neighbours.mean() < 1830, "neighbours in a random order are n/3 apart in the mean"


def test_no_rows_is_said() -> None:
    with pytest.raises(DataError, match="no rows"):
        Order(0, seed=1)


LENGTHS = np.random.default_rng(3).integers(1, 129, size=2345)
EDGES = [16, 32, 64, 128]


def test_buckets_give_every_row_once_an_epoch_in_few_shapes() -> None:
    plan = BucketPlan(LENGTHS, edges=EDGES, batch_tokens=2048, seed=5)
    shapes = set()
    for epoch in range(2):
        batches = [plan.batch(epoch, place) for place in range(plan.batches_per_epoch)]
        assert np.array_equal(np.sort(np.concatenate([batch.rows for batch in batches])), np.arange(len(LENGTHS)))
        for batch in batches:
            before = max([0, *[edge for edge in EDGES if edge < batch.length]])
            assert ((LENGTHS[batch.rows] <= batch.length) & (LENGTHS[batch.rows] > before)).all()
            assert 1 <= len(batch.rows) <= batch.size and batch.size * batch.length == 2048 and batch.rows.dtype == np.int64
            shapes.add((batch.size, batch.length))
        assert sum(len(batch.rows) < batch.size for batch in batches) <= len(EDGES)
    assert shapes == {(128, 16), (64, 32), (32, 64), (16, 128)}
    assert plan.positions == 2048 * plan.batches_per_epoch and plan.padding == 1 - LENGTHS.sum() / plan.positions


def test_batches_of_so_many_rows_are_all_of_that_size() -> None:
    plan = BucketPlan(LENGTHS, edges=EDGES, batch_rows=32, seed=5)
    assert {plan.batch(0, place).size for place in range(plan.batches_per_epoch)} == {32}


def test_rows_of_a_batch_are_about_as_long_as_each_other_and_drawn_anew_every_epoch() -> None:
    plan = BucketPlan(LENGTHS, edges=EDGES, batch_rows=8, seed=5)
    batches = [plan.batch(epoch, place) for epoch in range(2) for place in range(plan.batches_per_epoch)]
    assert all(batch.longest == LENGTHS[batch.rows].max() for batch in batches)
    places, tokens = sum(batch.longest * len(batch.rows) for batch in batches), 2 * int(LENGTHS.sum())
    assert 1 - tokens / places < 0.06 < 0.2 < plan.padding
    first, second = ({row: set(batch.rows.tolist()) for batch in half for row in batch.rows.tolist()} for half in halves(batches))
    assert np.mean([len(first[row] & second[row]) for row in first]) < 2  # of 8, itself counted


def halves(batches: list[PlannedBatch]) -> tuple[list[PlannedBatch], list[PlannedBatch]]:
    return batches[: len(batches) // 2], batches[len(batches) // 2 :]


def test_the_order_of_batches_and_rows_changes_with_epoch_and_seed_alone() -> None:
    plan, same, other = (BucketPlan(LENGTHS, edges=EDGES, batch_tokens=2048, seed=seed) for seed in (5, 5, 6))
    places = range(plan.batches_per_epoch)
    assert all(np.array_equal(plan.batch(3, p).rows, same.batch(3, p).rows) for p in reversed(places))
    for batches in ([plan.batch(1, p) for p in places], [other.batch(0, p) for p in places]):
        assert [b.length for b in batches] != [plan.batch(0, p).length for p in places]
        assert not np.array_equal(np.concatenate([b.rows for b in batches]), np.concatenate([plan.batch(0, p).rows for p in places]))
    epoch, batch = plan.step(2 * plan.batches_per_epoch + 4)
    assert epoch == 2 and np.array_equal(batch.rows, plan.batch(2, 4).rows)


def test_empty_buckets_and_rows_as_long_as_an_edge() -> None:
    plan = BucketPlan([8, 8, 100], edges=[8, 50, 100], batch_tokens=16, seed=0)
    assert sorted((batch.length, batch.size, len(batch.rows)) for batch in (plan.batch(0, 0), plan.batch(0, 1))) == [(8, 2, 2), (100, 1, 1)]


def test_what_cannot_be_planned_is_said() -> None:
    with pytest.raises(DataError, match="longer than the longest bucket"):
        BucketPlan([5, 200], edges=[128], batch_tokens=1024, seed=0)
    with pytest.raises(DataError, match="no rows"):
        BucketPlan([], edges=[128], batch_tokens=1024, seed=0)
    for edges in ([], [8, 8], [0, 8], [1, 2, 3, 4, 5, 6, 7]):
        with pytest.raises(ConfigError, match="growing lengths"):
            BucketPlan([1], edges=edges, batch_tokens=1024, seed=0)
    for wrong in ({}, {"batch_tokens": 5, "batch_rows": 5}, {"batch_rows": 0}):
        with pytest.raises(ConfigError, match="so many tokens or so many rows"):
            BucketPlan([1], edges=[8], seed=0, **wrong)
    with pytest.raises(IndexError):
        BucketPlan([1], edges=[8], batch_rows=1, seed=0).batch(0, 1)
