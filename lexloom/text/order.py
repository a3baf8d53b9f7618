"""Which rows a step sees: keyed orders whose only state is one integer, so that any step is found without walking to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lexloom import keys
from lexloom.errors import DataError

Ids = npt.NDArray[np.int64]


class Order:
    """Rows 0 … n-1 in an order of their own in every epoch, epochs following each other without a gap.

    Args:
        n: how many rows there are.
        seed: of the orders.

    Raises:
        DataError: there are no rows.
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise DataError("there are no rows to put in order")
        self.n, self.seed = n, seed

    def batch_rows(self, step: int, rows_per_batch: int) -> tuple[Ids, Ids]:
        """The rows of a step, as (epoch of each, id of each); a batch may begin in one epoch and end in the next."""
        places = np.arange(step * rows_per_batch, (step + 1) * rows_per_batch, dtype=np.int64)
        epochs = places // self.n
        ids = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            ids[chosen] = keys.permute(places[chosen] % self.n, self.n, keys.key(self.seed, "order", int(epoch)))
        return epochs, ids


@dataclass(frozen=True)
class Planned:
    """A batch of labelled rows: the shape it is padded to, and the ids of its rows (at most `size`)."""

    length: int
    size: int
    rows: Ids


class BucketPlan:
    """Batches of about equal length: every row once an epoch, few shapes, the last batch of a bucket filled up with nothing.

    Args:
        lengths: tokens of each row.
        edges: the lengths of the buckets, growing, the last one holding the longest row.
        batch_rows: rows a batch.
        seed: of the order within buckets and of the batches among each other.

    Raises:
        DataError: there are no rows, or a row is longer than the last edge.
    """

    def __init__(self, lengths: Sequence[int], *, edges: Sequence[int], batch_rows: int, seed: int) -> None:
        sizes = np.asarray(lengths, dtype=np.int64)
        if not len(sizes) or sizes.max() > edges[-1]:
            raise DataError("rows do not fit the buckets", expected=f"1 row or more, of at most {edges[-1]} tokens", got=f"{len(sizes)} rows")
        self.edges, self.batch_rows, self.seed = list(edges), max(1, batch_rows), seed
        bucket_of = np.searchsorted(np.asarray(edges), sizes)
        self.members = [np.flatnonzero(bucket_of == i) for i in range(len(edges))]
        self._batches = [(i, start) for i, m in enumerate(self.members) for start in range(0, len(m), self.batch_rows)]
        self._epoch = (-1, list[Ids](), np.zeros(0, dtype=np.int64))

    @property
    def batches_per_epoch(self) -> int:
        """The same in every epoch."""
        return len(self._batches)

    @property
    def padding(self) -> float:
        """The share of positions that hold no token of a row, rows of the buckets' own lengths counted as full."""
        places = sum(self.edges[i] * self.batch_rows for i, _ in self._batches)
        return 1.0 - sum(len(m) * self.edges[i] for i, m in enumerate(self.members)) / max(1, places)

    def batch(self, epoch: int, place: int) -> Planned:
        """The batch at `place` of an epoch: a function of both alone."""
        if self._epoch[0] != epoch:  # an order is kept for as long as its epoch lasts
            orders = [m[keys.shuffled(keys.key(self.seed, "bucket", epoch, i), len(m))] for i, m in enumerate(self.members)]
            self._epoch = (epoch, orders, keys.shuffled(keys.key(self.seed, "batches", epoch), len(self._batches)))
        _, orders, sequence = self._epoch
        bucket, start = self._batches[sequence[place]]
        return Planned(self.edges[bucket], self.batch_rows, orders[bucket][start : start + self.batch_rows])
