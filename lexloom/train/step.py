"""Step: network and objective as one module, the only thing that is compiled, wrapped or sharded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lexloom.compute import Compute
from lexloom.models.base import Network
from lexloom.nn.eager import leave_alone
from lexloom.objectives.base import Objective


class Step(nn.Module):
    """Batch tensors -> {part: loss sum}.

    Args:
        network: backbone and heads.
        objective: what is learned. An objective with modules of its own is an `nn.Module` too, and trained along.
    """

    def __init__(self, network: Network, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def named(self) -> dict[str, nn.Parameter]:
        """Every parameter by name: the network's by their own, those of an objective's modules after `objective.`."""
        own = dict(self.network.named_parameters())
        return own | {name: p for name, p in self.named_parameters() if name.startswith("objective.")}

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Runs forward and returns the sums; dropout is on where the batch carries `row_keys`."""
        output = self.network.backbone(tensors)
        return self.objective.loss(output, tensors, dict(self.network.heads.items()))


def prepared(step: Step, compute: Compute) -> Any:
    """The step as it is called in training: on its device, compiled or not. Takes and returns what `Step` does."""
    step.to(compute.device)
    if not compute.compile:
        return step
    leave_alone()
    return torch.compile(step, dynamic=False)
