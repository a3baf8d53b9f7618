"""Activation recompute (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): memory for time.

Of each block only its input is kept for the backward pass, which computes the rest of it once more. Dropout is a function of integers, so
what is computed again is the same to the bit, and there is no random state to keep.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def begin(blocks: Iterable[nn.Module]) -> None:
    """From now on the blocks compute their inner values again in the backward pass; names and weights stay as they are."""
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def end(blocks: Iterable[nn.Module]) -> None:
    """The blocks keep their inner values again."""
    for block in blocks:
        block.__dict__.pop("forward", None)
