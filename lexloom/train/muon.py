"""Muon (Jordan et al. 2024): the momentum of a hidden matrix is made orthogonal before it is added, so that no direction is neglected.

For the matrices of the blocks; embeddings, heads, biases and norms stay with AdamW, for their rows are not a map between two states.
Updates have the size of AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so that one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from lexloom.train.optim import AdamW, OptimizerConfig

MOMENTUM = 0.95


class Muon(AdamW):
    """`AdamW`, with `torch.optim.Muon` for some matrices.

    Args:
        hidden: names of the matrices.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, hidden: Collection[str]) -> None:
        super().__init__(parameters, config)
        self.hidden = [name for name in self.masters if name in hidden]
        self.adaptive = [name for name in self.masters if name not in hidden]
        self._muon = torch.optim.Muon(
            [self.masters[name] for name in self.hidden],
            weight_decay=config.weight_decay,
            momentum=MOMENTUM,
            adjust_lr_fn="match_rms_adamw",
        )
        for name in self.hidden:
            self._muon.state[self.masters[name]]["momentum_buffer"] = self.moments[name][0]

    def state(self) -> dict[str, Tensor]:
        """As of AdamW; of a hidden matrix the first moment alone."""
        unused = {f"second.{name}" for name in self.hidden}
        return {name: tensor for name, tensor in super().state().items() if name not in unused}

    def _walk(self, learning_rate: float, excess: Tensor) -> bool:
        if not all(self.moments[name][0].sum().isfinite() for name in self.hidden):
            return False
        gradients = self.gradients
        for name in self.hidden:
            self.masters[name].grad = gradients[name].to(self.masters[name].dtype) / excess
        self._muon.param_groups[0]["lr"] = learning_rate
        self._muon.step()
        for name in self.hidden:
            self.masters[name].grad = None
        self._publish(*self.hidden)
        return super()._walk(learning_rate, excess)
