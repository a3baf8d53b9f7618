"""What a decoder keeps of the tokens it has read: their keys and values, in memory that is taken once.

A token stands in the slot of its place in its text, whatever padding came along with it: rows of mixed length lie side by side, and what a
token may see is every slot up to its own.

Letters: L layers, B rows, H heads of keys, S slots, K head width, T new tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lexloom.errors import LexloomError
from lexloom.nn.attention import MASKED

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(B, H, T, K) keys and values of the new tokens of a layer -> those of all tokens, with T to S slots."""
Recall = Callable[[Callable[[], tuple[Tensor, Tensor]]], tuple[Tensor, Tensor]]
"""What makes the keys and values of a layer for the source -> these, made at the first call and kept."""
_STEP = 64  # slots are looked at in such steps, so that few shapes occur


class Cache:
    """Keys and values of a decoder's layers, filled from the front.

    A forward pass calls `enter` with its new tokens, hands each layer `layer(i)`, and adds `bias` to the scores.

    Attributes:
        values: (L, 2, B, H, S + 1, K), keys and values; padding is written to the last slot, which no token sees.
        lengths: (B,) int64, the tokens of each row so far.
    """

    def __init__(
        self, layers: int, rows: int, heads: int, slots: int, width: int, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self.values = torch.zeros(layers, 2, rows, heads, slots + 1, width, dtype=dtype, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self._longest = 0  # no row has more tokens; found out exactly only where that matters
        self._new = torch.zeros(rows, 0, dtype=torch.int64, device=device)

    @property
    def slots(self) -> int:
        """S, the most tokens of a row."""
        return self.values.shape[4] - 1

    def enter(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Makes room for new tokens.

        Args:
            ids: (B, T), for their shape.
            attention_mask: (B, T) bool of the new tokens alone: False at padding, which leaves no trace; None where nothing is padding.

        Returns:
            (B, T) int64, the places of the tokens in their texts; S - 1 at padding.

        Raises:
            LexloomError: the batch has another number of rows, or a row has more tokens than there are slots.
        """
        if ids.shape[0] != len(self.lengths):
            raise LexloomError("a cache is for a fixed number of rows", expected=str(len(self.lengths)), got=str(ids.shape[0]))
        mask = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask
        counted = mask.long().cumsum(1)
        lengths = self.lengths + counted[:, -1]
        longest = self._longest + ids.shape[1]
        if longest > self.slots and (longest := int(lengths.max())) > self.slots:
            raise LexloomError("a text has outgrown its cache", expected=f"at most {self.slots} tokens", got=str(longest))
        self._new = torch.where(mask, self.lengths[:, None] + counted - 1, self.slots)
        self.lengths, self._longest = lengths, longest
        return self._new.clamp(max=self.slots - 1)

    @property
    def _end(self) -> int:
        """How many slots are looked at."""
        return min(self.slots, -(-self._longest // _STEP) * _STEP)

    def bias(self) -> Tensor:
        """What the new tokens may see: (B, 1, T, slots looked at), 0 or a large negative number."""
        seen = torch.arange(self._end, device=self._new.device) <= self._new[..., None]
        return torch.where(seen, 0.0, MASKED).to(self.values.dtype)[:, None]

    def layer(self, i: int) -> Remember:
        """What layer `i` calls with the keys and values of its new tokens."""
        return partial(self._remember, i)

    def _remember(self, i: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(len(self.lengths), device=self._new.device)[:, None]
        for kept, new in zip(self.values[i], (keys, values), strict=True):
            kept[rows, :, self._new] = new.transpose(1, 2).to(kept.dtype)
        return self.values[i, 0, :, :, : self._end], self.values[i, 1, :, :, : self._end]


class SourceCache(Cache):
    """The cache of a decoder that also looks at a source, whose keys and values each layer makes once.

    Attributes:
        sources: layer -> keys and values of the source, each (B, H, source tokens, K); empty until it was read.
        source_bias: (B, 1, 1, source tokens), added to the scores, or None where the source has no padding.
    """

    def __init__(
        self, layers: int, rows: int, heads: int, slots: int, width: int, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(layers, rows, heads, slots, width, dtype=dtype, device=device)
        self.sources: dict[int, tuple[Tensor, Tensor]] = {}
        self.source_bias: Tensor | None = None

    def begins(self, given: bool) -> bool:
        """Whether the source is to be read now, which is in the first pass.

        Args:
            given: whether a source came along.

        Raises:
            LexloomError: the first pass has no source, or a later one has.
        """
        if given == bool(self.sources):
            got = "another source" if given else "no source"
            raise LexloomError("a cache reads its source once", expected="input_ids in the first pass and in no other", got=got)
        return given

    def source(self, i: int) -> Recall:
        """What layer `i` calls for the keys and values of the source."""
        return partial(self._recall, i)

    def _recall(self, i: int, make: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        if i not in self.sources:
            keys, values = make()
            self.sources[i] = keys.contiguous(), values.contiguous()
        return self.sources[i]
