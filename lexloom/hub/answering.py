"""A network as it answers: in a dtype, and on a CPU with the products that are fastest there."""

from __future__ import annotations

import copy

from lexloom import compute
from lexloom.models.base import Network
from lexloom.nn.onednn import through_onednn


def answering(network: Network, dtype: str) -> Network:
    """A network for answers, itself where nothing is to be changed. Weights that stay as they are stay in their memory.

    Heads stay fp32: they are small, and close calls between labels are theirs.

    Args:
        dtype: of the backbone: `float32`, `bfloat16` or, for decoders on a CPU, `int8`.
    """
    if dtype == compute.INT8:
        from lexloom.nn.quantized import quantized  # brings a compiler

        return quantized(network)
    if dtype != "float32":
        backbone = copy.deepcopy(network.backbone).to(compute.DTYPES[dtype])
        return Network(backbone, dict(network.heads.items()), network.labels)
    on_cpu = next(network.parameters()).device.type == "cpu"
    return through_onednn(network) if on_cpu and compute.onednn_pays() else network
