"""One token of each row through a whole decoder on a CPU, as a plan for one call.

A step of a small network is over in a millisecond or two, of which as many again would go into calling modules, one operation at a time.

Letters: B rows, D width, H heads, G groups, K head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn import step_kernel
from lexloom.nn.block import gelu_tanh
from lexloom.nn.cache import Cache
from lexloom.nn.few_rows import Floats
from lexloom.nn.step import BlockStep, DecoderStep

ACTIVATIONS: dict[Callable[[Tensor], Tensor], int] = {
    gelu_tanh: step_kernel.GELU_TANH,
    F.silu: step_kernel.SILU,
    F.relu: step_kernel.RELU,
    F.gelu: step_kernel.GELU,
}
"""Those that the kernel knows."""
_STATES, _PROJECTED, _FOUND, _INNER, _SCORES = range(5)  # buffers
_PIECES = 8  # of a product for each thread, so that one that is held up leaves little to the others
_LEAST = 16  # weight rows of a piece


class _Plan:
    """Entries of `step_kernel.run`, and the arrays whose addresses they hold."""

    def __init__(self) -> None:
        self.entries: list[dict[str, int]] = []
        self.numbers: list[tuple[float, float]] = []
        self.kept: list[Any] = []

    def address(self, array: Any) -> int:
        """Where an array lies, which is kept."""
        self.kept.append(array)
        return int(array.ctypes.data)

    def multiply(self, layer: Any, source: int, target: int, *, norm: nn.Module | None = None, **more: int) -> int:
        """A product with the weights of a layer; N."""
        weight, scales, bias = layer.arrays
        entry = {"weight": self.address(weight), "scales": self.address(scales), "bias": self.address(bias), "out": len(weight)}
        self.entries.append({**entry, "wide": weight.shape[1], "source": source, "target": target, **self._norm(norm), **more})
        eps: Any = getattr(norm, "eps", 0.0)
        self.numbers.append((torch.finfo(torch.float32).eps if eps is None else eps, 0.0))
        return len(weight)

    def attend(self, layer: int, scale: float) -> None:
        """The attention of a layer."""
        self.entries.append({"source": _PROJECTED, "target": _FOUND, "size": layer})
        self.numbers.append((0.0, scale))

    def _norm(self, norm: Any) -> dict[str, int]:
        if norm is None:
            return {}
        weight, bias = norm.weight.detach().numpy(), getattr(norm, "bias", None)
        shift = np.zeros_like(weight) if bias is None else bias.detach().numpy()
        return {"norm": self.address(weight), "norm_bias": self.address(shift), "centred": isinstance(norm, nn.LayerNorm)}

    def table(self, threads: int) -> Any:
        """(entries, 15) int64, with pieces for so many threads."""
        for entry in self.entries:
            if "weight" in entry:
                amount = entry["out"] // (2 if entry.get("gated") else 1)
                entry["size"] = max(_LEAST, -(-amount // (threads * _PIECES * _LEAST)) * _LEAST)
        return np.array([[entry.get(column, 0) for column in step_kernel.COLUMNS] for entry in self.entries], dtype=np.int64)


class FusedStep:
    """A decoder with its head for one new token of each row.

    Args:
        head: whose weights give the scores; like every linear layer of the step it has `arrays`.
    """

    def __init__(self, step: DecoderStep, head: Any) -> None:
        self.step, self.plan = step, _Plan()
        self.embedding = step.embedding.weight.detach()
        self.positions = None if step.positions is None else step.positions.weight.detach()
        inner = [self._block(layer, block) for layer, block in enumerate(step.blocks)]
        scores = self.plan.multiply(head, _STATES, _SCORES, norm=step.norm)
        heads, groups, width = step.heads, step.groups, step.head_width
        self.widths = (self.embedding.shape[1], (heads + 2 * groups) * width, heads * width, max(inner), scores)
        self.like = np.empty(0, head.arrays[0].dtype)
        self.numbers = np.array(self.plan.numbers, dtype=np.float32)
        self._tables: dict[int, Any] = {}

    def _block(self, layer: int, block: BlockStep) -> int:
        """Adds a block to the plan; its inner width."""
        plan, at = self.plan, 0
        for projection in block.projections:
            at += plan.multiply(projection, _STATES, _PROJECTED, norm=block.attention_norm, at=at)
        plan.attend(layer, block.scale)
        plan.multiply(block.out, _FOUND, _STATES, onto=1)
        inner = plan.multiply(block.up, _STATES, _INNER, norm=block.norm, act=ACTIVATIONS[block.act], gated=block.gated)
        plan.multiply(block.down, _INNER, _STATES, onto=1)
        return inner

    def __call__(self, ids: Tensor, cache: Cache) -> Tensor:
        """(B, 1) new tokens -> (B, V) scores; raises as `Cache.enter` does."""
        at, threads = cache.enter(ids, None), torch.get_num_threads()
        if threads not in self._tables:
            self._tables[threads] = self.plan.table(threads)
        table, places = self._tables[threads], at[:, 0]
        buffers = [torch.empty(len(ids), width) for width in self.widths]  # in whole cache lines, which NumPy's are not
        self._embed(ids, places, buffers[_STATES])
        where = np.array([[buffer.data_ptr(), buffer.shape[1]] for buffer in buffers], dtype=np.int64)
        scratch = torch.empty(threads, *buffers[_STATES].shape).numpy()
        shape = (self.step.groups, cache.slots + 1, self.step.head_width)
        counters = np.zeros((len(table), 2), dtype=np.int64)
        step_kernel.run(table, self.numbers, self.like, where, scratch, cache.addresses, shape, places.numpy(), *self._turned(at), counters)
        return buffers[_SCORES]

    def _embed(self, ids: Tensor, places: Tensor, states: Tensor) -> None:
        torch.index_select(self.embedding, 0, ids[:, 0], out=states)
        if self.positions is not None:
            states += self.positions[places]

    def _turned(self, at: Tensor) -> tuple[Floats, Floats]:
        if self.step.turned is None:
            nothing = np.empty((len(at), 0), np.float32)
            return nothing, nothing
        cos, sin = (table.reshape(len(at), -1).contiguous().numpy() for table in self.step.turned(at))
        return cos, sin


def fits(step: DecoderStep, head: Any) -> bool:
    """Whether all linear layers have the arrays that kernels take, of one dtype, and the activations are known ones."""
    layers: list[Any] = [layer for block in step.blocks for layer in (*block.projections, block.out, block.up, block.down)]
    if not all(hasattr(layer, "arrays") for layer in (*layers, head)) or any(block.act not in ACTIVATIONS for block in step.blocks):
        return False
    return len({layer.arrays[0].dtype for layer in (*layers, head)}) == 1
