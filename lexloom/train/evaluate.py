"""The loss of an objective over fixed rows with fixed keys: the same masks at every evaluation, of every run with that seed."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from lexloom.batch import Batch
from lexloom.models.base import Network
from lexloom.objectives.base import Objective
from lexloom.train.step import Step


@torch.inference_mode()
def mean_losses(network: Network, objective: Objective, batches: Iterable[Batch]) -> dict[str, float]:
    """Each part's mean over all batches, dropout off. A part without any target is left out."""
    step, device = Step(network, objective), next(network.parameters()).device
    sums, counts = dict[str, float](), dict[str, float]()
    for batch in batches:
        tensors = {name: tensor for name, tensor in batch.to(device).items() if name != "row_keys"}
        for part, value in step(tensors).items():
            sums[part] = sums.get(part, 0.0) + value.item()
            counts[part] = counts.get(part, 0.0) + batch.counts[part]
    return {part: sums[part] / counts[part] for part in sums if counts[part] > 0}
