"""The order of rows: a keyed permutation for each epoch, so that its whole state is one integer and any step is found at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lexloom import keys
from lexloom.errors import ConfigError, DataError

Ids = npt.NDArray[np.int64]
MOST_EDGES = 6
SORTED = 8
"""Batches of a bucket whose rows are dealt out by their length, so that rows of a batch are of one length or nearly so."""


class Order:
    """Rows 0 … n-1, each once an epoch, epochs following each other without a gap.

    Args:
        n: rows. seed: each seed has other orders, each epoch of a seed too.

    Raises:
        DataError: there are no rows.
    """

    def __init__(self, n: int, seed: int) -> None:
        if n < 1:
            raise DataError("there are no rows to order")
        self.n, self.seed = n, seed

    def rows_at(self, position: int, count: int) -> tuple[Ids, Ids]:
        """Epochs and ids, (count,) each, of the rows from place `position` on, counted from the start of epoch 0."""
        epochs, within = np.divmod(position + np.arange(count, dtype=np.int64), self.n)
        ids = np.empty(count, dtype=np.int64)
        start = 0
        while start < count:
            end, epoch = min(count, start + self.n - int(within[start])), int(epochs[start])
            ids[start:end] = keys.permute(within[start:end], self.n, keys.key(self.seed, "order", epoch))
            start = end
        return epochs, ids

    def batch_rows(self, step: int, rows_per_batch: int) -> tuple[Ids, Ids]:
        """Epochs and ids of the rows of step `step`, when every step takes `rows_per_batch`."""
        return self.rows_at(step * rows_per_batch, rows_per_batch)


@dataclass(frozen=True)
class PlannedBatch:
    """Rows of about equal length.

    Attributes:
        rows: at most `size` ids, int64; what is missing is padding that counts 0.
        size: B. length: T. Both the same for all batches of a bucket.
        longest: tokens of the longest of these rows.
    """

    rows: Ids
    size: int
    length: int
    longest: int


class BucketPlan:
    """Batches of labelled rows in at most six shapes; every row once an epoch, rows and batches in a keyed order.

    Args:
        lengths: tokens of each row.
        edges: the lengths that rows are padded to, growing; a row goes to the first it fits.
        batch_tokens: positions of a batch: B is `batch_tokens // T`, but at least 1. Or:
        batch_rows: B, the same for all buckets.

    Raises:
        ConfigError: edges are not one to six growing lengths, or not exactly one of `batch_tokens` and `batch_rows` is given.
        DataError: there are no rows, or one is longer than the last edge.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Ids,
        *,
        edges: Sequence[int],
        seed: int,
        batch_tokens: int | None = None,
        batch_rows: int | None = None,
    ) -> None:
        sizes, shapes = np.asarray(lengths, dtype=np.int64), np.asarray(edges, dtype=np.int64)
        _check(sizes, shapes, batch_tokens, batch_rows)
        self.seed, self.edges, self.lengths = seed, shapes.tolist(), sizes
        self.sizes = [batch_rows or max(1, int(batch_tokens or 0) // edge) for edge in self.edges]
        bucket = np.searchsorted(shapes, sizes, side="left")
        order = np.argsort(bucket, kind="stable")
        borders = np.searchsorted(bucket[order], np.arange(len(shapes) + 1))
        self.members: list[Ids] = [order[low:high] for low, high in pairwise(borders.tolist())]
        self.batches = [-(-len(rows) // size) for rows, size in zip(self.members, self.sizes, strict=True)]
        self.positions = sum(count * size * edge for count, size, edge in zip(self.batches, self.sizes, self.edges, strict=True))
        self.padding = 1 - int(sizes.sum()) / self.positions
        """The share of positions that are padding, the rows missing in last batches included."""

    @property
    def batches_per_epoch(self) -> int:
        """The same in every epoch."""
        return sum(self.batches)

    def batch(self, epoch: int, place: int) -> PlannedBatch:
        """Batch `place` of an epoch.

        Raises:
            IndexError: an epoch has no such batch.
        """
        at = int(keys.permute(place, self.batches_per_epoch, keys.key(self.seed, "batches", epoch)))
        bucket = 0
        while at >= self.batches[bucket]:
            at, bucket = at - self.batches[bucket], bucket + 1
        members, size = self.members[bucket], self.sizes[bucket]
        first = at // SORTED * SORTED
        within = np.arange(first * size, min((first + SORTED) * size, len(members)), dtype=np.int64)
        rows = members[keys.permute(within, len(members), keys.key(self.seed, "bucket", epoch, bucket))]
        rows = rows[np.argsort(self.lengths[rows], kind="stable")][(at - first) * size : (at - first + 1) * size]
        return PlannedBatch(rows, size, self.edges[bucket], int(self.lengths[rows].max()))

    def step(self, step: int) -> tuple[int, PlannedBatch]:
        """Epoch and batch of a step, epochs following each other."""
        epoch, place = divmod(step, self.batches_per_epoch)
        return epoch, self.batch(epoch, place)


def _check(lengths: Ids, edges: Ids, batch_tokens: int | None, batch_rows: int | None) -> None:
    if not 1 <= len(edges) <= MOST_EDGES or edges[0] < 1 or (np.diff(edges) <= 0).any():
        raise ConfigError("buckets need growing lengths", expected=f"1 to {MOST_EDGES} of them", got=str(edges.tolist()), where="edges")
    if (batch_tokens is None) == (batch_rows is None) or (batch_tokens or batch_rows or 0) < 1:
        raise ConfigError("a batch is so many tokens or so many rows", got=f"batch_tokens {batch_tokens}, batch_rows {batch_rows}")
    if not len(lengths):
        raise DataError("there are no rows to order")
    if lengths.max() > edges[-1]:
        raise DataError("a row is longer than the longest bucket", expected=f"at most {edges[-1]}", got=str(int(lengths.max())))
