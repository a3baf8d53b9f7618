"""Causal language modelling (Radford et al. 2018): each token is predicted from those before it.

Rows are stretches of text without the special tokens that stand around the text of an encoder; a document ends with the end token, which
is predicted too. A row of T tokens has T - 1 predictions. The loss is in nats a token.

Letters: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lexloom.batch import Batch, padded
from lexloom.config import Config
from lexloom.errors import TokenizerError
from lexloom.keys import Keys
from lexloom.models.base import Output
from lexloom.nn.cross_entropy import summed_cross_entropy
from lexloom.objectives.base import OBJECTIVES, Objective, Row, Vocabulary, dropout_keys, entropy

PART = "causal-lm"


class CausalLMConfig(Config):
    """Its share in the total loss."""

    weight: float = Field(1.0, gt=0)


@OBJECTIVES.register("causal-lm")
class CausalLM(Objective):
    """Predict each token from those before it (Radford et al. 2018): how GPT and Llama are trained."""

    Config = CausalLMConfig
    needs = frozenset({"decoder"})
    rows = "block"
    specials = False
    roles: ClassVar[tuple[str, ...]] = (PART,)

    def __init__(self, config: CausalLMConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.parts = {PART: config.weight}
        if vocabulary.end is None:
            raise TokenizerError(
                "causal-lm needs an end token, or documents would run into each other",
                hint="tokenizer: {kind: byte-bpe} has one; for other kinds, special_tokens: {eos: '[EOS]'}",
            )

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`. Adds `next_weights` (size, T - 1) float32: 0 where the next token is padding."""
        tensors = padded(rows, self.vocabulary.fills, length=length, size=size)
        weights = tensors["attention_mask"][:, 1:].to(torch.float32)
        tensors |= {"next_weights": weights, "row_keys": dropout_keys(row_keys, size)}
        return Batch(tensors, {PART: float(weights.sum())})

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Cross-entropy of the next tokens, summed: (B, T, D) states -> scalar."""
        head = heads[PART]
        states, labels = output.hidden[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten()
        weight, bias = head.weight, getattr(head, "bias", None)
        return {PART: summed_cross_entropy(states, weight, bias, labels, batch["next_weights"].flatten())}  # type: ignore[arg-type]

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """The entropy of the tokens' frequencies."""
        found = entropy(counts)
        return {} if found is None else {PART: found}
