"""What comes of a training: its evaluations on the way, its end, and its weights in a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lexloom.compute import Compute
from lexloom.models.base import Network
from lexloom.train import recompute


@dataclass(frozen=True)
class Validation:
    """An evaluation on the way: `value` is compared (lower is better), `record` is logged."""

    value: float
    record: dict[str, Any]


@dataclass
class Trained:
    """The end of a stage: the weights chosen by `keep`, and what happened."""

    masters: dict[str, Tensor]
    compute: Compute
    steps: int
    tokens: int
    seconds: float
    last: dict[str, Any]  # the last logged line
    best: dict[str, Any]  # {"value", "step", "record"} of the best evaluation, empty without any


def install(network: Network, masters: Mapping[str, Tensor]) -> None:
    """Puts trained weights into a network, in fp32 and on the CPU."""
    recompute.end(network.backbone.blocks)
    network.float().cpu()
    for name, parameter in network.named_parameters():
        parameter.data.copy_(masters[name])
        parameter.requires_grad_(True)
