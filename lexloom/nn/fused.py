"""One token of each row through a whole decoder on a CPU: seven kernels a block, and nothing between them that takes time.

A step of a small network is over in a millisecond or two, of which as many again would go into calling modules, one operation at a time.

Letters: B rows, D width, H heads, G groups, K head width, N inner width, S slots, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor, nn

from lexloom.compute import kernel, shared
from lexloom.nn.cache import Cache
from lexloom.nn.few_rows import FAST, Floats, multiply
from lexloom.nn.one_query import WIDE, attend_head
from lexloom.nn.step import BlockStep, DecoderStep


@kernel(**FAST)
def _normed(x, weight, bias, eps, centred, y):  # type: ignore[no-untyped-def]
    """y ← the layer norm of each row, or where not `centred` its RMS norm."""
    width = x.shape[1]
    for i in range(x.shape[0]):
        mean, square = np.float32(0), np.float32(0)
        if centred:
            for k in range(width):
                mean += x[i, k]
            mean /= np.float32(width)
        for k in range(width):
            square += (x[i, k] - mean) * (x[i, k] - mean)
        factor = np.float32(1) / np.sqrt(square / np.float32(width) + eps)
        for k in range(width):
            y[i, k] = (x[i, k] - mean) * factor * weight[k] + bias[k]


@kernel(**FAST)
def _turn(x, start, cos, sin):  # type: ignore[no-untyped-def]
    """Turns the head at `start` of a row by its place; as `rotary.rotate`."""
    half = cos.size // 2
    for k in range(half):
        a, b = x[start + k], x[start + half + k]
        x[start + k] = a * cos[k] - b * sin[k]
        x[start + half + k] = b * cos[half + k] + a * sin[half + k]


def _attend(x, keys, values, places, cos, sin, scale, y):  # type: ignore[no-untyped-def]
    """Puts keys and values of the new tokens into a layer's cache, and attends to what is there.

    Args:
        x: (B, (H + 2 G) K) queries, keys and values. keys, values: (B, G, S + 1, K). places: (B,). cos, sin: (B, K), or (B, 0) for none.
        y: (B, H K).
    """
    rows, groups, _, width = keys.shape
    heads = y.shape[1] // width
    each = heads // groups
    for job in prange(rows * groups):
        row, group = job // groups, job % groups
        place, key, value = places[row], (heads + group) * width, (heads + groups + group) * width
        new, shares = x[row], np.empty(places[row] + 1, np.float32)
        if cos.shape[1]:
            _turn(new, key, cos[row], sin[row])
        for k in range(width):
            keys[row, group, place, k] = new[key + k]
            values[row, group, place, k] = new[value + k]
        seen, queries = np.zeros(place + 1, np.float32), new[: heads * width].reshape(heads, width)
        for head in range(group * each, (group + 1) * each):
            if cos.shape[1]:
                _turn(new, head * width, cos[row], sin[row])
            attend_head(queries, head, keys[row, group], values[row, group], seen, scale, shares, y[row, head * width : (head + 1) * width])


_attended = shared(_attend, **FAST)


class _Norm:
    """A norm's numbers as arrays."""

    def __init__(self, module: nn.Module) -> None:
        weight: Any = module.weight
        bias: Any = getattr(module, "bias", None)
        self.weight, self.centred = weight.detach().numpy(), isinstance(module, nn.LayerNorm)
        self.bias = np.zeros_like(self.weight) if bias is None else bias.detach().numpy()
        eps: Any = module.eps
        self.eps = np.float32(eps if eps is not None else torch.finfo(torch.float32).eps)

    def __call__(self, x: Floats) -> Floats:
        y = np.empty_like(x)
        _normed(x, self.weight, self.bias, self.eps, self.centred, y)
        return y


class _Block:
    """One block on arrays."""

    def __init__(self, step: BlockStep) -> None:
        self.attention_norm, self.norm = _Norm(step.attention_norm), _Norm(step.norm)
        projections: list[Any] = list(step.projections)
        self.projections = [layer.arrays for layer in projections]
        layers: list[Any] = [step.out, step.up, step.down]
        self.out, self.up, self.down = (layer.arrays for layer in layers)
        self.act, self.gated, self.scale = step.act, step.gated, np.float32(step.scale)
        self.width = sum(len(arrays[0]) for arrays in self.projections)

    def __call__(self, x: Floats, layer: tuple[Floats, Floats], places: Any, turned: tuple[Floats, Floats], longest: int) -> None:
        """x ← the block of x, (B, D).

        Args:
            layer, places, turned: see `_attend`. longest: the most slots that a row sees.
        """
        normed, at = self.attention_norm(x), 0
        projected = np.empty((len(x), self.width), np.float32)
        for arrays in self.projections:
            multiply(normed, arrays, projected, at=at)
            at += len(arrays[0])
        found = np.empty((len(x), self.out[0].shape[1]), np.float32)
        _attended(projected, *layer, places, *turned, self.scale, found, wide=found.size * longest >= WIDE)
        multiply(found, self.out, x, onto=True)
        inner = np.empty((len(x), len(self.up[0])), np.float32)
        multiply(self.norm(x), self.up, inner)
        multiply(self._activated(inner), self.down, x, onto=True)

    def _activated(self, inner: Floats) -> Floats:
        values = torch.from_numpy(inner)
        if not self.gated:
            return self.act(values).numpy()
        first, gate = values.chunk(2, dim=-1)
        return (self.act(first) * gate).numpy()


class FusedStep:
    """A decoder with its head for one new token of each row.

    Args:
        head: whose weights give the scores; like every linear layer of the step it has `arrays`.
    """

    def __init__(self, step: DecoderStep, head: Any) -> None:
        self.step, self.head = step, head.arrays
        self.blocks, self.norm = [_Block(block) for block in step.blocks], _Norm(step.norm)
        self.embedding = step.embedding.weight.detach().numpy()
        self.positions = None if step.positions is None else step.positions.weight.detach().numpy()

    def __call__(self, ids: Tensor, cache: Cache) -> Tensor:
        """(B, 1) new tokens -> (B, V) scores; raises as `Cache.enter` does."""
        at = cache.enter(ids, None)
        places, chosen = at[:, 0].numpy(), ids[:, 0].numpy()
        x = self.embedding[chosen]
        if self.positions is not None:
            x += self.positions[places]
        turned, longest = self._turned(at), int(places.max()) + 1
        for block, layer in zip(self.blocks, cache.arrays, strict=True):
            block(x, layer, places, turned, longest)
        scores = np.empty((len(x), len(self.head[0])), np.float32)
        multiply(self.norm(x), self.head, scores)
        return torch.from_numpy(scores)

    def _turned(self, at: Tensor) -> tuple[Floats, Floats]:
        if self.step.turned is None:
            nothing = np.empty((len(at), 0), np.float32)
            return nothing, nothing
        cos, sin = (table.reshape(len(at), -1).contiguous().numpy() for table in self.step.turned(at))
        return cos, sin


def fits(step: DecoderStep, head: Any) -> bool:
    """Whether all linear layers have the arrays that kernels take."""
    layers = [layer for block in step.blocks for layer in (*block.projections, block.out, block.up, block.down)]
    return all(hasattr(layer, "arrays") for layer in (*layers, head))
