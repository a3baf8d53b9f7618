"""What a decoder keeps of the tokens it has read: their keys and values, in memory that is taken once.

A token stands in the slot of its place in its text, whatever padding came along with it: rows of mixed length lie side by side, and what a
token may see is every slot up to its own.

Letters: L layers, B rows, H heads of keys, S slots, K head width, T new tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt
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
        self._prepare()

    def _prepare(self) -> None:
        rows, heads, slots = self.values.shape[2:5]
        device = self.lengths.device
        self._new = torch.zeros(rows, 0, dtype=torch.int64, device=device)  # slots of the new tokens
        self._at = self._new.view(-1)  # the same, in memory of which a layer's rows, heads and slots are one dimension
        self._starts = torch.arange(rows * heads, device=device).view(rows, heads, 1) * slots
        self._places = torch.arange(slots - 1, device=device)
        self._addresses: npt.NDArray[np.int64] | None = None

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
        counted = self._counted(ids, attention_mask)
        longest = self._longest + ids.shape[1]
        if longest > self.slots and (longest := int((self.lengths + counted[:, -1]).max())) > self.slots:
            raise LexloomError("a text has outgrown its cache", expected=f"at most {self.slots} tokens", got=str(longest))
        self._new = self.lengths[:, None] + (counted - 1)
        if attention_mask is not None:
            self._new = torch.where(attention_mask, self._new, self.slots)
        self._at = (self._starts + self._new[:, None]).view(-1)
        self.lengths += counted[:, -1]  # in place: rows of a larger cache may lie here
        self._longest = longest
        return self._new if attention_mask is None else self._new.clamp(max=self.slots - 1)

    def enter_next(self, rows: int, steps: int = 1) -> npt.NDArray[np.int64]:
        """Makes room for the next tokens of each row, as `enter` does, for a kernel that puts them there by itself.

        Returns:
            (B,), the slots of the first of them.

        Raises:
            LexloomError: see `enter`.
        """
        lengths = self.lengths.numpy()
        if rows != len(lengths):
            raise LexloomError("a cache is for a fixed number of rows", expected=str(len(lengths)), got=str(rows))
        longest = self._longest + steps
        if longest > self.slots and (longest := int(lengths.max()) + steps) > self.slots:
            raise LexloomError("a text has outgrown its cache", expected=f"at most {self.slots} tokens", got=str(longest))
        slots = lengths.copy()
        lengths += steps
        self._longest = longest
        return slots

    def forget(self, steps: int) -> None:
        """Takes the last tokens of each row back."""
        self.lengths -= steps
        self._longest -= steps

    def _counted(self, ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B or 1, T): how many of the new tokens each row has, up to each of them."""
        if attention_mask is not None:
            return attention_mask.long().cumsum(1)
        return torch.arange(1, ids.shape[1] + 1, device=self.lengths.device)[None]

    @property
    def _end(self) -> int:
        """How many slots are looked at."""
        return min(self.slots, -(-self._longest // _STEP) * _STEP)

    def bias(self) -> Tensor:
        """What the new tokens may see: (B, 1, T, slots looked at), 0 or a large negative number."""
        seen = self._places[: self._end] <= self._new[..., None]
        return torch.where(seen, 0.0, MASKED).to(self.values.dtype)[:, None]

    def layer(self, i: int) -> Remember:
        """What layer `i` calls with the keys and values of its new tokens."""
        return partial(self._remember, i)

    def _remember(self, i: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        width, end = self.values.shape[-1], self._end
        kept_keys, kept_values = self.values[i].unbind()
        for kept, new in ((kept_keys, keys), (kept_values, values)):
            kept.view(-1, width).index_copy_(0, self._at, new.reshape(-1, width).to(kept.dtype))
        return kept_keys[:, :, :end], kept_values[:, :, :end]

    @property
    def addresses(self) -> npt.NDArray[np.int64]:
        """(L, 2): where keys and values of each layer begin, (B, H, S + 1, K) numbers side by side, for kernels on a CPU."""
        if self._addresses is None:
            self._addresses = np.array([[part.data_ptr() for part in layer] for layer in self.values], dtype=np.int64)
        return self._addresses

    def source_places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Where kernels on a CPU find the sources: none here.

        Returns:
            (L, 4), addresses of a layer's keys and values, and how many numbers a row of a batch and a head are apart; (B, source
            tokens), what is added to scores.
        """
        return np.empty((0, 4), dtype=np.int64), np.empty((len(self.lengths), 0), dtype=np.float32)

    # rows that come, go and change places

    def front(self, rows: int, longest: int) -> Self:
        """The first rows as a cache of their own, in the same memory.

        Args:
            longest: none of them has more tokens.
        """
        found = copy.copy(self)
        found.values, found.lengths, found._longest = self.values[:, :, :rows], self.lengths[:rows], longest
        found._prepare()
        return found

    def take(self, row: int, other: Self, of: int) -> None:
        """A row becomes what a row of another cache, or of this one, is; that has no more tokens than there are slots here.

        Args:
            row: here. of: there.
        """
        used = int(other.lengths[of])
        self.values[:, :, row, :, :used] = other.values[:, :, of, :, :used]
        self.lengths[row] = used
        self._longest = max(self._longest, used)

    def select(self, rows: Tensor) -> None:
        """Each row becomes what the row of that number was: (B,) int64."""
        others = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        used = self.values[:, :, :, :, : self._longest]
        used[:, :, others] = used[:, :, rows[others]]
        self.lengths.copy_(self.lengths[rows])


class SourceCache(Cache):
    """The cache of a decoder that also looks at a source, whose keys and values each layer makes once.

    Attributes:
        unread: what the first pass reads beside its own tokens, under the names of a batch; empty where it is handed in by itself.
        sources: layer -> keys and values of the source, each (B, H, source tokens, K); empty until it was read.
        source_bias: (B, 1, 1, source tokens), added to the scores, or None where the source has no padding.
    """

    def __init__(
        self, layers: int, rows: int, heads: int, slots: int, width: int, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(layers, rows, heads, slots, width, dtype=dtype, device=device)
        self.unread: Mapping[str, Tensor] = {}
        self.sources: dict[int, tuple[Tensor, Tensor]] = {}
        self.source_bias: Tensor | None = None
        self._source_places: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None = None  # made when it is asked for
        self._read: list[object] = [None] * rows  # of two rows the same thing where they have the same source

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
        if given:
            self._read = [object() for _ in self._read]
        return given

    def source(self, i: int) -> Recall:
        """What layer `i` calls for the keys and values of the source."""
        return partial(self._recall, i)

    def source_places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """See `Cache.source_places`."""
        if self._source_places is None:
            pairs = [self.sources[i] for i in range(len(self.values))]
            places = [[keys.data_ptr(), values.data_ptr(), *keys.stride()[:2]] for keys, values in pairs]
            seen = (
                torch.zeros(len(self.lengths), pairs[0][0].shape[2]) if self.source_bias is None else self.source_bias[:, 0, 0].contiguous()
            )
            self._source_places = np.array(places, dtype=np.int64), seen.numpy()
        return self._source_places

    def _recall(self, i: int, make: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        if i not in self.sources:
            keys, values = make()
            self.sources[i] = keys.contiguous(), values.contiguous()
        return self.sources[i]

    # rows that come, go and change places

    def front(self, rows: int, longest: int) -> Self:
        """See `Cache.front`; sources are looked at up to where the longest of these rows ends."""
        found, bias = super().front(rows, longest), self.source_bias
        width = self._width(slice(rows))
        found.sources = {i: (keys[:rows, :, :width], values[:rows, :, :width]) for i, (keys, values) in self.sources.items()}
        found.source_bias = None if bias is None else bias[:rows, ..., :width].contiguous()
        found._read, found._source_places = self._read[:rows], None
        return found

    def take(self, row: int, other: Self, of: int) -> None:
        """See `Cache.take`; the row's source comes along, and there is room here for the longest that ever did."""
        super().take(row, other, of)
        self._source_places = None
        width = other._width(slice(of, of + 1))
        self._widen(other, width)
        assert self.source_bias is not None
        self.source_bias[row] = MASKED
        self.source_bias[row, ..., :width] = 0.0 if other.source_bias is None else other.source_bias[of, ..., :width]
        for i, pair in other.sources.items():
            for kept, new in zip(self.sources[i], pair, strict=True):
                kept[row, :, :width] = new[of, :, :width]
        self._read[row] = other._read[of]

    def _width(self, rows: slice) -> int:
        """Up to which token some of these rows' sources go."""
        if self.source_bias is None:
            return next(iter(self.sources.values()))[0].shape[2]
        return int((self.source_bias[rows, 0, 0] == 0).any(0).nonzero().max()) + 1

    def _widen(self, other: Self, width: int) -> None:
        """Room for sources of so many tokens."""
        rows, bias = len(self.lengths), self.source_bias
        had = 0 if bias is None else bias.shape[-1]
        if had >= width:
            return
        fresh = self.values.new_full((rows, 1, 1, width - had), MASKED)
        self.source_bias = fresh if bias is None else torch.cat([bias, fresh], dim=-1)
        for i, (like, _) in other.sources.items():
            room = like.new_zeros(rows, like.shape[1], width - had, like.shape[3])
            self.sources[i] = tuple(torch.cat([x, room], 2) for x in self.sources[i]) if i in self.sources else (room, room.clone())  # type: ignore[assignment]

    def select(self, rows: Tensor) -> None:
        """See `Cache.select`; sources that are the same ones, as those of beams are, stay where they are."""
        super().select(rows)
        read = [self._read[row] for row in rows.tolist()]
        if all(new is old for new, old in zip(read, self._read, strict=True)):
            return
        self._source_places = None
        self.sources = {i: (keys[rows], values[rows]) for i, (keys, values) in self.sources.items()}
        self.source_bias = None if self.source_bias is None else self.source_bias[rows]
        self._read = read
