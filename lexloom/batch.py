"""Batch: the typed mapping of tensors of one step.

Letters: B rows, T tokens, M predicted positions a row, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import _pytree

from lexloom.errors import LexloomError


class Batch(Mapping[str, Tensor]):
    """Tensors by name, and for each part of the loss its denominator.

    Args:
        tensors: such as `input_ids` (B, T) int64, `attention_mask` (B, T) bool, `row_keys` (B,) int32 (dropout's keys).
        counts: for each part of the loss the number its sum is divided by, after summing over micro-batches and ranks.
    """

    __slots__ = ("counts", "tensors")

    def __init__(self, tensors: Mapping[str, Tensor], counts: Mapping[str, float] | None = None) -> None:
        self.tensors = dict(tensors)
        self.counts = dict(counts or {})

    @classmethod
    def from_texts(cls, texts: Sequence[str], tokenizer: Any, *, max_length: int | None = None) -> Batch:
        """Encodes texts with a lexloom tokenizer and pads them to the longest: a batch any architecture takes.

        Raises:
            LexloomError: `texts` is empty, or is one string.
        """
        if isinstance(texts, str) or not texts:
            raise LexloomError("a batch is made of a list of texts", got=repr(texts)[:60])
        return cls(padded(tokenizer.encode(texts, max_length=max_length), tokenizer.fills))

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self.tensors[name]
        except KeyError:
            raise KeyError(f"this batch has no {name!r}; it has {', '.join(self.tensors)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def items(self) -> ItemsView[str, Tensor]:
        return self.tensors.items()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch({name: t.to(device, non_blocking=True) for name, t in self.tensors.items()}, self.counts)

    def narrowed(self, widths: Mapping[str, int]) -> Batch:
        """The same batch with some of its (B, T, …) tensors cut to fewer columns, where the others are padding."""
        return Batch({name: t[:, : widths[name]].contiguous() if name in widths else t for name, t in self.tensors.items()}, self.counts)

    @property
    def size(self) -> int:
        """B, the number of rows, padding rows included."""
        return int(next(iter(self.tensors.values())).shape[0])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in self.tensors.items())
        return f"Batch({shapes}; counts {self.counts})"


def padded(
    rows: Sequence[Mapping[str, Any]],
    fills: Mapping[str, int],
    *,
    length: int | None = None,
    size: int | None = None,
) -> dict[str, Tensor]:
    """Pads token rows to one shape.

    Args:
        rows: each with integer arrays under the names in `fills`, T long (names a row lacks are left out for all).
        fills: name -> what stands at padding, e.g. `{"input_ids": 0, "token_type_ids": 0}`.
        length: T; the longest row where None.
        size: B; rows beyond the given ones are padding throughout (they count 0). The number of rows where None.

    Returns:
        name -> (B, T) int64, or (B, T, C) where a row's array is (T, C); and `attention_mask` (B, T) bool.

    Raises:
        LexloomError: a row is longer than `length`, there are more rows than `size`, or parts of a row differ in length.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    length, size = length or max([1, *lengths]), len(rows) if size is None else size
    if max(lengths, default=0) > length or len(rows) > size:
        raise LexloomError("rows do not fit", expected=f"{size} rows of {length}", got=f"{len(rows)} of {max(lengths)}")
    found: dict[str, Tensor] = {}
    for name, fill in fills.items():
        if all(name in row for row in rows):
            values = [row[name] for row in rows]
            if wrong := next((pair for pair in zip(map(len, values), lengths, strict=True) if pair[0] != pair[1]), None):
                raise LexloomError(f"{name} of a row has another length than its input_ids", got=f"{wrong[0]} and {wrong[1]}")
            found[name] = torch.from_numpy(aligned(values, length, fill=fill, size=size))
    mask = np.zeros((size, length), dtype=bool)
    mask[: len(rows)] = np.arange(length) < np.array(lengths, dtype=np.int64)[:, None]
    return {**found, "attention_mask": torch.from_numpy(mask)}


def aligned(rows: Sequence[Any], length: int, *, fill: int | bool, size: int | None = None) -> npt.NDArray[Any]:
    """Arrays, none longer than `length`, as the rows of one array, all at once; those of two dimensions are alike in the second.

    Args:
        fill: what stands behind a row and in the rows beyond the given ones; a bool makes an array of them, else it is int64.
        size: B, at least the number of rows, which it is where None.
    """
    kind: npt.DTypeLike = np.bool_ if isinstance(fill, bool) else np.int64
    shape = (len(rows) if size is None else size, length, *(np.shape(rows[0])[1:] if rows else ()))
    block: npt.NDArray[Any] = np.full(shape, fill, dtype=kind)
    if rows:
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        block[: len(rows)][np.arange(length) < lengths[:, None]] = np.concatenate(rows, dtype=block.dtype, casting="unsafe")
    return block


def _flatten(batch: Batch) -> tuple[list[Any], Any]:
    names = tuple(batch.tensors)
    return [batch.tensors[name] for name in names], (names, tuple(sorted(batch.counts.items())))


def _unflatten(values: Any, context: Any) -> Batch:
    names, counts = context
    return Batch(dict(zip(names, values, strict=True)), dict(counts))


_pytree.register_pytree_node(Batch, _flatten, _unflatten, serialized_type_name="lexloom.Batch")
