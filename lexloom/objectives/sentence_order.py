"""Sentence order (Lan et al. 2019, "ALBERT"): do two neighbouring stretches of a document stand in their order, or were they swapped?

Both classes are about the same things, so that the topic gives nothing away, as it does in next sentence prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lexloom.batch import Batch, padded
from lexloom.config import Config
from lexloom.errors import LexloomError
from lexloom.keys import Keys
from lexloom.models.base import Output
from lexloom.objectives.base import OBJECTIVES, Objective, Row, Vocabulary, at_least_fp32, dropout_keys
from lexloom.objectives.next_sentence import IGNORED

PART = "sentence-order"


class SentenceOrderConfig(Config):
    """Its share in the total loss."""

    weight: float = Field(1.0, gt=0)


@OBJECTIVES.register("sentence-order")
class SentenceOrder(Objective):
    """Tell sentences in their order from swapped ones: two classes on the pooled [CLS] (Lan et al. 2019)."""

    Config = SentenceOrderConfig
    rows = "ordered-pair"
    roles: ClassVar[tuple[str, ...]] = ("next-sentence",)  # the same two classes: B follows A, or it does not

    def __init__(self, config: SentenceOrderConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.parts = {PART: config.weight}

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`. Adds `sentence_order_label` (size,) int64: 0 B follows A, 1 A follows B."""
        tensors = padded(rows, self.vocabulary.fills, length=length, size=size)
        labels = np.full(size, IGNORED, dtype=np.int64)
        labels[: len(rows)] = [int(row["next_sentence_label"]) for row in rows]
        tensors |= {"sentence_order_label": torch.from_numpy(labels), "row_keys": dropout_keys(row_keys, size)}
        return Batch(tensors, {PART: float(len(rows))})

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Cross-entropy over the pairs, summed."""
        if output.pooled is None:
            raise LexloomError("sentence-order needs a model with a pooler")
        logits = at_least_fp32(heads["next-sentence"](output.pooled, batch.get("row_keys")))
        return {PART: F.cross_entropy(logits, batch["sentence_order_label"], ignore_index=IGNORED, reduction="sum")}

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """Half of the pairs are swapped."""
        return {PART: math.log(2)}
