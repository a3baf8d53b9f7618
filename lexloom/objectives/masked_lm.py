"""Masked language modelling (Devlin et al. 2018): some tokens are hidden, the encoder says what they were.

Masks are drawn anew from the keys at every visit (Liu et al. 2019, "dynamic masking"): tokens, whole words, or spans of words (see
`groups`). Only the masked positions go through the head: M = round(rate · T) places a row, the unused ones at weight 0, so that shapes
stay fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lexloom import keys
from lexloom.batch import Batch, aligned, padded
from lexloom.config import Config
from lexloom.errors import DataError, TokenizerError
from lexloom.keys import Keys
from lexloom.models.base import Output
from lexloom.nn.cross_entropy import cross_entropy
from lexloom.objectives import groups
from lexloom.objectives.base import OBJECTIVES, Objective, Row, Vocabulary, dropout_keys


def maskable(rows: Sequence[Row], length: int) -> np.ndarray:
    """(rows, T) true at the tokens of the text: neither special nor padding."""
    return aligned([~np.asarray(row["special"], dtype=bool) for row in rows], length, fill=False)


class MaskedLMConfig(Config):
    """How much is masked, what together (`words` and `spans` never part the tokens of a word), and by what."""

    mask: Literal["tokens", "words", "spans"] = "tokens"
    rate: float = Field(0.15, gt=0, lt=1)
    replaced_by_mask: float = Field(0.8, ge=0, le=1)
    replaced_by_random: float = Field(0.1, ge=0, le=1)
    weight: float = Field(1.0, gt=0)


@OBJECTIVES.register("masked-lm")
class MaskedLM(Objective):
    """Predict hidden tokens from both sides (Devlin et al. 2018); of the chosen, 80 % [MASK], 10 % random, 10 % as they were."""

    Config = MaskedLMConfig
    rows = "block"
    roles: ClassVar[tuple[str, ...]] = ("masked-lm",)

    def __init__(self, config: MaskedLMConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.parts = {"masked-lm": config.weight}
        if vocabulary.mask is None:
            raise TokenizerError("masked-lm needs a mask token", hint="train the tokenizer with lexloom tokenizer, or add a mask token")
        ordinary = sorted(set(range(vocabulary.size)) - vocabulary.special)
        self.mask = vocabulary.mask
        self.ordinary = np.asarray(ordinary, dtype=np.int64)

    @classmethod
    def needs_words(cls, config: MaskedLMConfig) -> bool:
        return config.mask != "tokens"

    def places(self, length: int) -> int:
        """M, the fixed number of predicted positions of a row of `length`."""
        return max(1, round(self.config.rate * length))

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`. Adds `masked_positions`, `masked_labels` (size, M) int64 and `masked_weights` (size, M) float32.

        Of a row round(rate · maskable) positions are predicted, in order, and at least one where there is any to mask; of whole words
        as many as fit into that number.

        Raises:
            DataError: whole words are asked for, and the rows do not say where they begin.
        """
        tensors = padded(rows, self.vocabulary.fills, length=length, size=size)
        row, place, chosen, together = self._places(rows, row_keys, length)
        positions = np.zeros((size, self.places(length)), dtype=np.int64)
        labels, weights = np.zeros_like(positions), np.zeros(positions.shape, dtype=np.float32)
        ids = tensors["input_ids"].numpy()
        positions[row, chosen], labels[row, chosen], weights[row, chosen] = place, ids[row, place], 1.0
        ids[row, place] = self._instead(row_keys, row, chosen, together, ids[row, place])
        tensors |= {"masked_positions": torch.from_numpy(positions), "masked_labels": torch.from_numpy(labels)}
        tensors |= {"masked_weights": torch.from_numpy(weights), "row_keys": dropout_keys(row_keys, size)}
        return Batch(tensors, {"masked-lm": float(len(row))})

    def _places(self, rows: Sequence[Row], row_keys: Keys, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The predicted positions of all rows: row, position, the how-manieth of its row it is, and the number of the draw that decides
        what stands there instead: one for each position, of spans one for all of a span (Joshi et al. 2020)."""
        free = maskable(rows, length)
        counts = free.sum(axis=1)
        n = np.minimum(np.maximum(1, np.rint(self.config.rate * counts)).astype(np.int64), np.minimum(counts, self.places(length)))
        number = None if self.config.mask == "tokens" else self._groups(rows, free, n, row_keys, length)
        row, place = self._tokens(free, counts, n, row_keys) if number is None else np.nonzero(number)
        chosen = np.arange(len(row)) - np.searchsorted(row, row)
        return row, place, chosen, number[row, place] - 1 if number is not None and self.config.mask == "spans" else chosen

    def _groups(self, rows: Sequence[Row], free: np.ndarray, n: np.ndarray, row_keys: Keys, length: int) -> np.ndarray:
        """(rows, T) the number of the hidden word or span that a token belongs to, from 1 on; 0 where it is not hidden."""
        if any("continues" not in row for row in rows):
            raise DataError("these rows do not say where words begin", hint="make the shards again: they are marked in them")
        continues = aligned([row["continues"] for row in rows], length, fill=False)
        word, sizes = groups.words(free, continues)
        draw = groups.hidden_words if self.config.mask == "words" else groups.hidden_spans
        return np.where(free, np.take_along_axis(draw(row_keys, sizes, n, self.places(length)), word, axis=1), 0)

    def _tokens(self, free: np.ndarray, counts: np.ndarray, n: np.ndarray, row_keys: Keys) -> tuple[np.ndarray, np.ndarray]:
        """The predicted positions of all rows, any of the maskable ones: row and position.

        The n maskable positions with the lowest numbers drawn: the first n of a random order. A row draws no number twice (the mixer
        is a bijection), so that the n-th lowest parts them.
        """
        row, place = np.nonzero(free)
        rank = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        drawn = keys.bits(keys.key(row_keys, "mask"), int(counts.max(initial=0)))
        ordered = np.sort(np.where(np.arange(drawn.shape[1]) < counts[:, None], drawn, ~np.uint64(0)), axis=1)
        highest = ordered[row, n[row] - 1]
        kept = drawn[row, rank] <= highest
        return row[kept], place[kept]

    def _instead(self, row_keys: Keys, row: np.ndarray, chosen: np.ndarray, together: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """What stands at the predicted positions instead of `kept`."""
        draws = (("replace", together), ("random", chosen))
        draw, pick = (keys.uniform(keys.key(row_keys, what), int(n.max(initial=0)) + 1)[row, n] for what, n in draws)
        random = self.ordinary[(pick * len(self.ordinary)).astype(np.int64)]
        masked, random_to = self.config.replaced_by_mask, self.config.replaced_by_mask + self.config.replaced_by_random
        return np.where(draw < masked, self.mask, np.where(draw < random_to, random, kept))

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Cross-entropy summed over the masked positions: (B, M, D) states -> scalar."""
        positions = batch["masked_positions"]
        b, t, d = output.hidden.shape
        flat = (positions + torch.arange(b, device=positions.device)[:, None] * t).view(-1)
        logits = heads["masked-lm"](output.hidden.reshape(-1, d).index_select(0, flat))
        losses = cross_entropy(logits, batch["masked_labels"].view(-1))
        return {"masked-lm": (losses * batch["masked_weights"].view(-1)).sum()}

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """The entropy of the ordinary tokens' frequencies."""
        ordinary = np.asarray(counts, dtype=np.float64)[self.ordinary]
        shares = ordinary[ordinary > 0] / max(1.0, ordinary.sum())
        return {"masked-lm": float(-(shares * np.log(shares)).sum())} if shares.size else {}
