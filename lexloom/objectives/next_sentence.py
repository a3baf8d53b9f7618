"""Next sentence prediction (Devlin et al. 2018): does B follow A in its document, or was it taken from another one?"""

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

IGNORED = -100  # a padding row's label: its loss is 0


class NextSentenceConfig(Config):
    """Its share in the total loss."""

    weight: float = Field(1.0, gt=0)


@OBJECTIVES.register("next-sentence")
class NextSentence(Objective):
    """Tell following sentences from foreign ones: two classes on the pooled [CLS] (Devlin et al. 2018)."""

    Config = NextSentenceConfig
    rows = "sentence-pair"
    roles: ClassVar[tuple[str, ...]] = ("next-sentence",)

    def __init__(self, config: NextSentenceConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.parts = {"next-sentence": config.weight}

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`. Adds `next_sentence_label` (size,) int64: 0 B follows A, 1 it does not."""
        tensors = padded(rows, self.vocabulary.fills, length=length, size=size)
        labels = np.full(size, IGNORED, dtype=np.int64)
        labels[: len(rows)] = [int(row["next_sentence_label"]) for row in rows]
        tensors |= {"next_sentence_label": torch.from_numpy(labels), "row_keys": dropout_keys(row_keys, size)}
        return Batch(tensors, {"next-sentence": float(len(rows))})

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Cross-entropy over the pairs, summed."""
        if output.pooled is None:
            raise LexloomError("next-sentence needs a model with a pooler")
        logits = at_least_fp32(heads["next-sentence"](output.pooled, batch.get("row_keys")))
        return {"next-sentence": F.cross_entropy(logits, batch["next_sentence_label"], ignore_index=IGNORED, reduction="sum")}

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """Half of the pairs belong together."""
        return {"next-sentence": math.log(2)}
