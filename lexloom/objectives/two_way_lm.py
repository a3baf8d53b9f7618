"""Two-way language modelling (Peters et al. 2018, section 3.1): each word is predicted from those before it, and from those behind it.

Rows have the special tokens that the tokenizer puts around a text, so that the first word has something before it and the last something
behind; special tokens themselves are not predicted. The state at t - 1 of the forward direction predicts word t, and the state at t + 1
of the backward one. Losses are in nats a word, the total is their mean.

Letters: B rows, T tokens, P width of a direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lexloom.batch import Batch, aligned, padded
from lexloom.config import Config
from lexloom.keys import Keys
from lexloom.models.base import Output
from lexloom.objectives.base import OBJECTIVES, Objective, Row, Vocabulary, dropout_keys

ROLE, FORWARD, BACKWARD = "two-way-lm", "forward-lm", "backward-lm"


class TwoWayLMConfig(Config):
    """Its share in the total loss."""

    weight: float = Field(1.0, gt=0)


@OBJECTIVES.register("two-way-lm")
class TwoWayLM(Objective):
    """Predict each word from what stands before it and from what stands behind it (Peters et al. 2018): how ELMo is trained."""

    Config = TwoWayLMConfig
    needs = frozenset({"two-way"})
    rows = "block"
    roles: ClassVar[tuple[str, ...]] = (ROLE,)

    def __init__(self, config: TwoWayLMConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.parts = {FORWARD: config.weight / 2, BACKWARD: config.weight / 2}

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`. Adds `forward_weights` and `backward_weights` (size, T - 1) float32, of words 1 … and words … T - 2."""
        tensors = padded(rows, self.vocabulary.fills, length=length, size=size)
        words = aligned([~np.asarray(row["special"], dtype=bool) for row in rows], length, fill=False, size=size)
        there = tensors["attention_mask"].numpy()
        weights = {"forward_weights": words[:, 1:] & there[:, :-1], "backward_weights": words[:, :-1] & there[:, 1:]}
        tensors |= {name: torch.from_numpy(counted.astype(np.float32)) for name, counted in weights.items()}
        tensors["row_keys"] = dropout_keys(row_keys, size)
        return Batch(tensors, {FORWARD: float(weights["forward_weights"].sum()), BACKWARD: float(weights["backward_weights"].sum())})

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Cross-entropy of the words in each direction, summed: (B, T, P) states -> scalars."""
        assert output.forward is not None and output.backward is not None  # what the ability says
        ids, head = batch["input_ids"], heads[ROLE]
        ahead = head.loss(output.forward[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), batch["forward_weights"].flatten())  # type: ignore[operator]
        behind = head.loss(output.backward[:, 1:].flatten(0, 1), ids[:, :-1].flatten(), batch["backward_weights"].flatten())  # type: ignore[operator]
        return {FORWARD: ahead, BACKWARD: behind}

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """The entropy of the words' frequencies."""
        ordinary = np.delete(np.asarray(counts, dtype=np.float64), sorted(self.vocabulary.special))
        shares = ordinary[ordinary > 0] / max(1.0, ordinary.sum())
        entropy = float(-(shares * np.log(shares)).sum())
        return {FORWARD: entropy, BACKWARD: entropy} if shares.size else {}
