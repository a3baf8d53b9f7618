"""One token of each row through a whole decoder on a CPU, as a plan for one call, or several tokens one after the other.

A step of a small network is over in a millisecond or two, of which as many again would go into calling modules, one operation at a time.
Even a call from Python for each token costs a tenth: reading the weights has put all that Python needs out of the caches.

Letters: B rows, D width, H heads, G groups, K head width, V vocabulary, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn import step_kernel
from lexloom.nn.block import gelu_tanh
from lexloom.nn.cache import Cache
from lexloom.nn.decoding.drawing import Choice
from lexloom.nn.few_rows import BLOCK, Floats
from lexloom.nn.meeting import LINE
from lexloom.nn.packed import room
from lexloom.nn.step import BlockStep, DecoderStep

ACTIVATIONS: dict[Callable[[Tensor], Tensor], int] = {
    gelu_tanh: step_kernel.GELU_TANH,
    F.silu: step_kernel.SILU,
    F.relu: step_kernel.RELU,
    F.gelu: step_kernel.GELU,
}
"""Those that the kernel knows."""
_STATES, _PROJECTED, _FOUND, _INNER, _SCORES = range(5)  # buffers
_ARRAYS = ("weight", "scales", "bias")


class _Plan:
    """Entries of `step_kernel.run`, and the arrays whose addresses they hold."""

    def __init__(self) -> None:
        self.entries: list[dict[str, int]] = []
        self.reals: list[tuple[float, float]] = []
        self.kept: list[Any] = []
        self.bytes = 0  # of weights that a step reads

    def address(self, array: Any) -> int:
        """Where an array lies, which is kept."""
        self.kept.append(array)
        return int(array.ctypes.data)

    def embed(self, weight: Tensor, positions: Tensor | None, scale: float) -> None:
        """The states of new tokens: rows of the embedding, times a scale, and of positions."""
        tables = {"weight": weight.numpy()} | ({} if positions is None else {"bias": positions.numpy()})
        entry = {name: self.address(np.ascontiguousarray(table)) for name, table in tables.items()}
        self.entries.append({"kind": step_kernel.EMBEDDING, **entry, "wide": weight.shape[1], "target": _STATES})
        self.reals.append((0.0, scale))

    def multiply(self, layer: Any, source: int, target: int, *, norm: nn.Module | None = None, gated: bool = False, **more: int) -> int:
        """A product with the weights of a layer, of which the second half may be a gate; N."""
        whole = len(layer.arrays[1])
        self.bytes += layer.arrays[0].nbytes
        out = whole // 2 if gated else whole
        parts = {"": layer.arrays} if not gated else {"": layer.part(0, out), "gate_": layer.part(out, whole)}
        entry = {before + name: self.address(array) for before, part in parts.items() for name, array in zip(_ARRAYS, part, strict=True)}
        entry["gate"] = entry.pop("gate_weight", 0)
        shape = {"kind": step_kernel.PRODUCT, "out": out, "wide": layer.in_features, "source": source, "target": target}
        self.entries.append({**entry, **shape, **self._norm(norm), **more, "size": BLOCK})
        self.reals.append((_eps(norm), 0.0))
        return whole

    def attend(self, layer: int, scale: float, *, across: bool = False) -> None:
        """The attention of a layer, or that to a source."""
        kind = step_kernel.ACROSS if across else step_kernel.ATTENTION
        self.entries.append({"kind": kind, "source": _PROJECTED, "target": _FOUND, "size": layer})
        self.reals.append((0.0, scale))

    def norm(self, norm: nn.Module) -> None:
        """The states become their norm."""
        wide = len(cast(Tensor, norm.weight))
        self.entries.append({"kind": step_kernel.NORMED, "source": _STATES, "target": _STATES, "wide": wide, **self._norm(norm)})
        self.reals.append((_eps(norm), 0.0))

    def choose(self) -> None:
        """A token of each row, which is the next."""
        self.entries.append({"kind": step_kernel.CHOICE, "source": _SCORES})
        self.reals.append((0.0, 0.0))

    def _norm(self, norm: Any) -> dict[str, int]:
        if norm is None:
            return {}
        weight, bias = norm.weight.detach().numpy(), getattr(norm, "bias", None)
        shift = np.zeros_like(weight) if bias is None else bias.detach().numpy()
        return {"norm": self.address(weight), "norm_bias": self.address(shift), "centred": isinstance(norm, nn.LayerNorm)}

    def table(self) -> Any:
        """(entries, 18) int64."""
        return np.array([[entry.get(column, 0) for column in step_kernel.COLUMNS] for entry in self.entries], dtype=np.int64)


class _Room:
    """What a step of some rows on some threads needs beside the weights, taken once."""

    def __init__(self, rows: int, threads: int, widths: Sequence[int], like: Any) -> None:
        self.buffers = [torch.empty(rows, width) for width in widths]  # in whole cache lines, which NumPy's are not
        self.where = np.array([[buffer.data_ptr(), buffer.shape[1]] for buffer in self.buffers], dtype=np.int64)
        self.own = torch.empty(threads, *self.buffers[_STATES].shape).numpy()
        numbers, marks = room(rows, max(widths[:_SCORES]) if like.dtype == np.uint8 else 0)
        self.numbers, self.marks = (torch.from_numpy(array)[None].repeat(threads, *[1] * array.ndim).numpy() for array in (numbers, marks))
        self.weights = np.empty((threads, 2, widths[_SCORES]), dtype=np.float32)
        self._counters = np.zeros((0, (threads + 1) * LINE), dtype=np.int64)

    def counters(self, phases: int) -> npt.NDArray[np.int64]:
        """(phases, …) zeros."""
        if len(self._counters) < phases:
            self._counters = np.empty((phases, self._counters.shape[1]), dtype=np.int64)
        found = self._counters[:phases]
        found.fill(0)
        return found


class FusedStep:
    """A decoder with its head for one new token of each row.

    Args:
        head: whose weights give the scores; like every linear layer of the step it has `arrays`.

    Attributes:
        bytes: of weights that a step reads.
    """

    def __init__(self, step: DecoderStep, head: Any) -> None:
        self.step, self.plan = step, _Plan()
        self.tokens = step.embedding.num_embeddings
        positions = None if step.positions is None else step.positions.detach()
        self.plan.embed(step.embedding.weight.detach(), positions, step.embedding_scale)
        if step.embedding_norm is not None:
            self.plan.norm(step.embedding_norm)
        inner = [self._block(layer, block) for layer, block in enumerate(step.blocks)]
        scores = self.plan.multiply(head, _STATES, _SCORES, norm=step.norm)
        heads, groups, width = step.heads, step.groups, step.head_width
        self.widths = (step.embedding.embedding_dim, (heads + 2 * groups) * width, heads * width, max(inner), scores)
        self.like = np.empty(0, head.arrays[0].dtype)
        self.bytes = self.plan.bytes
        self.plan.choose()
        self.choosing, self.reals = self.plan.table(), np.array(self.plan.reals, dtype=np.float32)
        self.table = self.choosing[:-1]
        self._rooms: dict[tuple[int, int], _Room] = {}

    def _block(self, layer: int, block: BlockStep) -> int:
        """Adds a block to the plan; its inner width."""
        plan, at = self.plan, 0
        for projection in block.projections:
            at += plan.multiply(projection, _STATES, _PROJECTED, norm=self._before(block.attention_norm), at=at)
        plan.attend(layer, block.scale)
        self._add(block.out, _FOUND, block.attention_norm)
        if (cross := block.cross) is not None:
            plan.multiply(cross.query, _STATES, _PROJECTED, norm=self._before(cross.norm))
            plan.attend(layer, block.scale, across=True)
            self._add(cross.out, _FOUND, cross.norm)
        inner = plan.multiply(block.up, _STATES, _INNER, norm=self._before(block.norm), act=ACTIVATIONS[block.act], gated=block.gated)
        self._add(block.down, _INNER, block.norm)
        return inner

    def _before(self, norm: nn.Module) -> nn.Module | None:
        """The norm of what a sub-layer reads, or None where it comes after."""
        return None if self.step.norm is None else norm

    def _add(self, layer: nn.Module, source: int, norm: nn.Module) -> None:
        """What a sub-layer adds to the states, and their norm where it comes after."""
        self.plan.multiply(layer, source, _STATES, onto=1)
        if self.step.norm is None:
            self.plan.norm(norm)

    def __call__(self, ids: Tensor, cache: Cache) -> Tensor:
        """(B, 1) new tokens -> (B, V) scores; raises as `Cache.enter_next` does."""
        scores = torch.empty(len(ids), self.widths[_SCORES])
        self._run(self._begun(ids, 1), cache, Choice.none(len(ids)), scores)
        return scores

    def ahead(self, ids: Tensor, cache: Cache, choice: Choice) -> tuple[Tensor, Tensor]:
        """(B, 1) new tokens -> (T, B) tokens that follow one after the other, and their log-probabilities; fewer than T to an end.

        Raises:
            LexloomError: as `Cache.enter_next` does.
        """
        steps = len(choice.uniforms)
        tokens = self._begun(ids, steps)
        made, logprobs = self._run(tokens, cache, choice, None)
        cache.forget(steps - made)
        return torch.from_numpy(tokens[1 : made + 1]), torch.from_numpy(logprobs[:made])

    def _begun(self, ids: Tensor, steps: int) -> npt.NDArray[np.int64]:
        """(T + 1, B), of which the first row is there."""
        tokens = np.empty((steps + 1, len(ids)), dtype=np.int64)
        tokens[0] = ids.numpy()[:, 0]
        if len(ids) and not (tokens[0].min() >= 0 and tokens[0].max() < self.tokens):
            raise IndexError(f"ids of 0 to {self.tokens - 1}, not {tokens[0].tolist()}")
        return tokens

    def _run(self, tokens: npt.NDArray[np.int64], cache: Cache, choice: Choice, scores: Tensor | None) -> tuple[int, Floats]:
        """Makes the steps, the choice of the next tokens among them where no scores are asked for: how many, and the log-probabilities."""
        steps, rows = choice.uniforms.shape
        logprobs, places = np.empty((steps, rows), np.float32), cache.enter_next(rows, steps)
        size = rows, torch.get_num_threads()
        # taken out while it is in use: another thread makes its own
        room = self._rooms.pop(size, None) or _Room(*size, self.widths, self.like)
        room.where[_SCORES, 0] = (room.buffers[_SCORES] if scores is None else scores).data_ptr()
        table = self.choosing if scores is None else self.table
        shape, counters = (self.step.groups, cache.slots + 1, self.step.head_width), room.counters(steps * len(table))
        chosen = choice.rules, choice.uniforms, choice.ends, choice.ids, choice.lengths
        made: int = step_kernel.run(
            table, self.reals, self.like, room.where, room.own, room.numbers, room.marks, room.weights, cache.addresses,
            cache.source_places(), shape, tokens, places, self._turned(places, steps), chosen, logprobs, counters,
        )  # fmt: skip
        self._rooms[size] = room
        return made, logprobs

    def _turned(self, places: npt.NDArray[np.int64], steps: int) -> tuple[Floats, Floats]:
        if self.step.turned is None:
            nothing = np.empty((steps, len(places), 0), np.float32)
            return nothing, nothing
        all_places = torch.from_numpy(places + np.arange(steps)[:, None]).view(-1, 1)
        cos, sin = (table.reshape(steps, len(places), -1).contiguous().numpy() for table in self.step.turned(all_places))
        return cos, sin


def _eps(norm: Any) -> float:
    """What keeps a norm from dividing by zero; 0 where there is none."""
    eps = getattr(norm, "eps", 0.0)
    return torch.finfo(torch.float32).eps if eps is None else float(eps)


def fits(step: DecoderStep, head: Any) -> bool:
    """Whether all linear layers have the arrays that kernels take, of one dtype, and the activations are known ones."""
    layers: list[Any] = [layer for block in step.blocks for layer in (*block.projections, block.out, block.up, block.down)]
    layers += [layer for block in step.blocks if block.cross is not None for layer in (block.cross.query, block.cross.out)]
    if not all(hasattr(layer, "arrays") for layer in (*layers, head)) or any(block.act not in ACTIVATIONS for block in step.blocks):
        return False
    return len({layer.arrays[0].dtype for layer in (*layers, head)}) == 1
