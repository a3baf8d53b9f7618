"""Several objectives over one shared forward, as BERT's masked LM and next sentence (Devlin et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lexloom.batch import Batch, padded
from lexloom.errors import ConfigError
from lexloom.keys import Keys
from lexloom.models.base import Output
from lexloom.objectives.base import Objective, Row

_ROW_KINDS = ("block", "ordered-pair", "sentence-pair", "labelled")  # a later kind carries all that an earlier one does


class Together(Objective):
    """Joins objectives: one batch with what each needs, one forward, all their parts.

    Raises:
        ConfigError: two of them have a part, or a tensor of differing content, of the same name.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        super().__init__(None, objectives[0].vocabulary)
        self.objectives = list(objectives)
        self.needs = frozenset().union(*(o.needs for o in objectives))  # type: ignore[misc]
        self.rows = max((o.rows for o in objectives), key=_ROW_KINDS.index)  # type: ignore[misc]
        self.borders = any(o.borders for o in objectives)  # type: ignore[misc]
        self.specials = all(o.specials for o in objectives)  # type: ignore[misc]
        self.roles = tuple(dict.fromkeys(role for o in objectives for role in o.roles))  # type: ignore[misc]
        self.parts = {part: weight for o in objectives for part, weight in o.parts.items()}
        if len(self.parts) != sum(len(o.parts) for o in objectives):
            raise ConfigError("an objective stands twice", got=", ".join(p for o in objectives for p in o.parts))
        if len(self.roles) != sum(len(o.roles) for o in objectives):
            names = ", ".join(self.parts)
            raise ConfigError("two objectives would teach one head different things", got=names, hint="leave one of them out")

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """The batches of all, merged. Inputs that one objective corrupts (masked ids) win over the plain ones."""
        merged, counts = dict[str, Tensor](), dict[str, float]()
        clean = padded(rows, self.vocabulary.fills, length=length, size=size)
        for objective in self.objectives:
            batch = objective.collate(rows, row_keys, length=length, size=size)
            for name, tensor in batch.items():
                agreed = name not in merged or torch.equal(merged[name], tensor)
                merged[name] = tensor if agreed else self._corrupted(name, merged[name], tensor, clean)
            counts |= batch.counts
        return Batch(merged, counts)

    @staticmethod
    def _corrupted(name: str, first: Tensor, second: Tensor, clean: Mapping[str, Tensor]) -> Tensor:
        if name in clean and torch.equal(first, clean[name]):
            return second
        if name in clean and torch.equal(second, clean[name]):
            return first
        raise ConfigError(f"two objectives disagree on {name}", hint="only one of them may change the inputs")

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """The parts of all objectives, over the one output."""
        return {part: value for o in self.objectives for part, value in o.loss(output, batch, heads).items()}

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """That of all its objectives."""
        return {part: value for o in self.objectives for part, value in o.blind(counts).items()}
