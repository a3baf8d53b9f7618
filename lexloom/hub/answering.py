"""A network as it answers: in a dtype, and on a CPU with the products that are fastest there."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from lexloom import compute
from lexloom.models.base import Architecture, Network
from lexloom.nn.linears import LowLinear, sharing, with_linears
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
        return Network(_low(network.backbone, compute.DTYPES[dtype]), dict(network.heads.items()), network.labels)
    on_cpu = next(network.parameters()).device.type == "cpu"
    return through_onednn(network) if on_cpu and compute.onednn_pays() else network


def _low(backbone: Architecture, dtype: torch.dtype) -> Architecture:
    """A backbone whose products are in `dtype`; in the encoders of Transformers what the blocks add to stays as it is.

    States that are rounded after every sum are three times as far off at the end (docs/log.md).
    """
    if not _adds_up_blocks(backbone):
        return copy.deepcopy(backbone).to(dtype)
    found = sharing(backbone)
    found.blocks = with_linears(backbone.blocks, partial(LowLinear, dtype=dtype))
    return found


def _adds_up_blocks(backbone: Architecture) -> bool:
    """Whether this is an encoder of Transformer blocks, which add to states and norm them."""
    normed = (any(isinstance(module, nn.LayerNorm) for module in block.modules()) for block in backbone.blocks)
    return "decoder" not in type(backbone).ABILITIES and all(normed)
