"""Needs: what a training run will take of memory and disk, and how many steps, found without running it.

The network stands on the meta device, where tensors have shapes and no storage; a step is run there and its live bytes are counted.
Letters: P parameters, V vocabulary, B rows, T tokens.
"""

from __future__ import annotations

import statistics
import time
import weakref
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lexloom import compute, keys
from lexloom.batch import Batch
from lexloom.compute import Compute
from lexloom.console import size
from lexloom.models.base import Network
from lexloom.objectives.base import Objective
from lexloom.runs.check.findings import Findings
from lexloom.train.settings import TrainConfig
from lexloom.train.step import Step, prepared
from lexloom.train.whole import optimizer_of

PROGRAM_BYTES = 600_000_000
"""Python, torch, the other libraries of a run, and what they load for the first step."""
HEAP = 1.4
"""What the C library's heap takes for each byte that is live at a step's peak.

These two were measured over runs of bert-tiny, -mini and -small, in fp32 and bf16, on Linux with glibc.
"""
_BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}


@dataclass(frozen=True)
class Parameters:
    """How many numbers a network holds, tied ones counted once."""

    embedding: int
    encoder: int
    heads: int

    @property
    def total(self) -> int:
        """P."""
        return self.embedding + self.encoder + self.heads

    @classmethod
    def of(cls, network: Network) -> Parameters:
        """Counts; position and segment embeddings are embeddings too."""
        seen: set[int] = set()
        counts = {"embedding": 0, "encoder": 0, "heads": 0}
        embeddings = {id(p) for m in network.backbone.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
        for name, parameter in network.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                part = "embedding" if id(parameter) in embeddings else "heads" if name.startswith("heads.") else "encoder"
                counts[part] += parameter.numel()
        return cls(**counts)


@dataclass(frozen=True)
class Memory:
    """Bytes that a training run holds at its peak.

    Args:
        program: Python and its libraries.
        weights: the network's compute copy, 0 where it computes in fp32 and the masters serve.
        masters, moments, gradients: the optimizer's, in fp32.
        step: activations of a micro-batch and the gradients that come back through them, at their peak.
        saving: the copy that a checkpoint is written from beside the steps; where memory is short it is done without.
    """

    program: int
    weights: int
    masters: int
    moments: int
    gradients: int
    step: int
    saving: int

    @property
    def peak(self) -> int:
        """All together."""
        return self.least + self.saving

    @property
    def least(self) -> int:
        """What it cannot do without."""
        return self.program + self.weights + self.masters + self.moments + self.gradients + self.step

    def plain(self) -> dict[str, int]:
        """As JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"least": self.least, "peak": self.peak}


def memory(network: Network, objective: Objective, *, rows: int, length: int, dtype: str) -> Memory:
    """What training takes with micro-batches of (rows, length).

    Args:
        network: on the meta device.
        dtype: of the compute copy, `float32` or `bfloat16`.
    """
    p, width = Parameters.of(network).total, _BYTES[dtype]
    network.to(getattr(torch, dtype))
    step = step_bytes(network, objective, example(objective, rows, length))
    cast = p * (width + 4) if width < 4 else 0  # after the backward: gradients as they came, and in fp32
    copied = 0 if width >= 4 else p * width
    held = round(HEAP * max(step, cast))
    return Memory(PROGRAM_BYTES, copied, 4 * p, 8 * p, 4 * p, held, 12 * p)


def example(objective: Objective, rows: int, length: int) -> Batch:
    """A full batch of made-up rows."""
    ids = np.full(length, max(0, objective.vocabulary.size - 1), dtype=np.int64)
    zeros, half = np.zeros(length, dtype=np.int64), (np.arange(length) * 2 // length).astype(np.int8)
    row = {"input_ids": ids, "token_type_ids": zeros, "special": zeros.astype(bool), "sequence": half, "cut": False}
    row |= {"next_sentence_label": 0, "label": 0, "weight": 1.0, "target_ids": ids, "continues": zeros.astype(bool)}
    if objective.vocabulary.characters:
        row["characters"] = np.ones((length, objective.vocabulary.characters), dtype=np.int16)
    made = [{**row, "id": i, "row": i} for i in range(rows)]
    return objective.collate(made, keys.key(1, "example", np.arange(rows)), length=length, size=rows)


def step_bytes(network: Network, objective: Objective, batch: Batch) -> int:
    """The most bytes that the tensors of one forward and backward hold at once; parameters are not counted, their gradients are."""
    with Live() as live:
        sums = Step(network, objective)(batch.to("meta").tensors)
        torch.stack(list(sums.values())).sum().backward()
    for parameter in network.parameters():
        parameter.grad = None
    return live.peak


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are made and not yet gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return made

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            self.seen[storage] = None
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, size: int) -> None:
        self.now -= size


@dataclass(frozen=True)
class Timed:
    """Seconds of a micro-batch, forward and backward, and of the optimizer's update."""

    micro: float
    update: float

    def step(self, micro_batches: int) -> float:
        """Seconds of a step."""
        return micro_batches * self.micro + self.update


def step_seconds(network: Network, objective: Objective, *, rows: int, length: int, train: TrainConfig, chosen: Compute) -> Timed:
    """The median of three steps of made-up rows after one that warms up, eager; the network is changed by it."""
    before = torch.get_num_threads()
    chosen.apply()
    network.to(chosen.torch_dtype)
    whole = Step(network, objective)
    step, optimizer = prepared(whole, replace(chosen, compile=False)), optimizer_of(whole, train)
    batch = example(objective, rows, length).to(chosen.device)
    micro, update = [], []
    for _ in range(4):
        begin = time.perf_counter()
        torch.stack(list(step(batch.tensors).values())).sum().backward()
        optimizer.collect()
        middle = time.perf_counter()
        optimizer.step(1e-9)
        micro.append(middle - begin)
        update.append(time.perf_counter() - middle)
    torch.set_num_threads(before)
    return Timed(statistics.median(micro[1:]), statistics.median(update[1:]))


def stage_bytes(parameters: int, train: TrainConfig) -> int:
    """What a trained stage writes: checkpoints, one more while it is written, the best weights of each, the bundle."""
    return parameters * (12 * (train.checkpoints + 1) + (4 * (train.checkpoints + 1) if train.keep == "best" else 0) + 4)


def report_memory(name: str, found: Memory, device: str, micro_batch_tokens: int, findings: Findings, where: str) -> None:
    """The table of what memory goes to, and whether there is as much."""
    rows = [{"what": what, "size": size(amount), "bytes": amount} for what, amount in found.plain().items()]
    findings.table(f"memory of {name}, about", {"what": "what", "size": "size"}, rows)
    total, free = compute.memory(device)
    if found.least > total:
        do = f"smaller micro_batch_tokens than {micro_batch_tokens:,}, or a smaller model"
        what = f"{name} takes at least {size(found.least)} of memory, and this machine has {size(total)}"
        findings.add("error", "memory", where, what, do, blame="config")
    elif found.least > free:
        what = f"{name} takes at least {size(found.least)} of memory, and {size(free)} are free now"
        findings.add("warning", "memory", where, what, "end other programs, or set smaller micro_batch_tokens")
