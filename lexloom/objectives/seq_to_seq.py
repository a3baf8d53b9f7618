"""Sequence to sequence (Sutskever et al. 2014): each token of a target is predicted from those before it and from all of the source.

The targets may be smoothed (Szegedy et al. 2015; Vaswani et al. 2017 with 0.1): of a token's weight a share goes evenly to all tokens, as
`transformers` does it. The loss without smoothing is reported beside it. Both are in nats a token of the target.

Letters: B rows, S source tokens, T target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lexloom.batch import Batch, padded
from lexloom.config import Config
from lexloom.errors import DataError
from lexloom.keys import Keys
from lexloom.models.base import Output
from lexloom.nn.cross_entropy import smoothed_cross_entropy
from lexloom.objectives.base import OBJECTIVES, Objective, Row, Vocabulary, dropout_keys, entropy

ROLE = "seq-to-seq"


class SeqToSeqConfig(Config):
    """How much the targets are smoothed, and its share in the total loss."""

    smoothing: float = Field(0.0, ge=0, lt=1)
    weight: float = Field(1.0, gt=0)


@OBJECTIVES.register("seq-to-seq")
class SeqToSeq(Objective):
    """Predict a target from its source, token by token (Sutskever et al. 2014): how translation is learned."""

    Config = SeqToSeqConfig
    needs = frozenset({"cross-attention"})
    rows = "labelled"
    roles: ClassVar[tuple[str, ...]] = (ROLE,)
    sides: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input_ids": ("input_ids", "attention_mask"),
        "target_ids": ("target_ids", "target_weights"),
    }

    def __init__(self, config: SeqToSeqConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.parts = parts_of(ROLE, config.weight, config.smoothing)

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`. Each row has `input_ids` (S,) and `target_ids` (T,), which ends with the end token.

        The batch has `input_ids`, `attention_mask`, `target_ids` (size, length) int64 and `target_weights` (size, length) float32.

        Raises:
            DataError: a row has no target, or source or target are longer than `length`.
        """
        for row in rows:
            for name in ("input_ids", "target_ids"):
                if not 0 < len(row.get(name, ())) <= length:
                    got = f"{len(row[name])} tokens" if name in row else "none"
                    raise DataError(f"{name} of row {row.get('id', '?')} do not fit", expected=f"1 to {length} tokens", got=got)
        made = [(row["input_ids"], row["target_ids"]) for row in rows]
        return translated(made, self.vocabulary, row_keys, self.parts, lengths=(length, length), size=size)

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Cross-entropy of the targets, summed: (B, T, D) states -> a scalar for each part."""
        return target_losses(output, batch, heads, self.parts, self.config.smoothing)

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """The entropy of the tokens' frequencies, which is what the loss without smoothing may reach."""
        found = entropy(counts)
        return {} if found is None else {list(self.parts)[-1]: found}


def parts_of(name: str, weight: float, smoothing: float) -> dict[str, float]:
    """The part that is learned; where it is smoothed, also what it is without, which counts for nothing."""
    return {name: weight} | ({f"{name} unsmoothed": 0.0} if smoothing else {})


def translated(
    pairs: Sequence[tuple[Any, Any]],
    vocabulary: Vocabulary,
    row_keys: Keys,
    parts: Mapping[str, float],
    *,
    lengths: tuple[int, int],
    size: int,
) -> Batch:
    """A batch out of pairs of source and target ids.

    Args:
        lengths: S and T, the shapes to pad to.
        parts: all of them are divided by the number of target tokens.
    """
    fills = {"input_ids": vocabulary.fills["input_ids"]}
    tensors, target = (
        padded([{"input_ids": pair[side]} for pair in pairs], fills, length=length, size=size) for side, length in enumerate(lengths)
    )
    weights = target["attention_mask"].to(torch.float32)
    tensors |= {"target_ids": target["input_ids"], "target_weights": weights, "row_keys": dropout_keys(row_keys, size)}
    return Batch(tensors, dict.fromkeys(parts, float(weights.sum())))


def target_losses(
    output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module], parts: Mapping[str, float], smoothing: float
) -> dict[str, Tensor]:
    """Each part's sum over the targets of a batch."""
    head, states = heads[ROLE], output.hidden.flatten(0, 1)
    labels, weights = batch["target_ids"].flatten(), batch["target_weights"].flatten()
    found = smoothed_cross_entropy(states, head.weight, head.bias, labels, weights, smoothing)  # type: ignore[arg-type]
    return dict(zip(parts, found, strict=False))
