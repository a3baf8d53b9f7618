"""Weights, gradients and moments cut over the processes of a run: each holds some rows of every tensor (ZeRO, Rajbhandari et al. 2020).

The one place that knows FSDP2 (`torch.distributed.fsdp.fully_shard`; Zhao et al. 2023). Each block is gathered when it computes and let
go of after; what is left, embedding and heads among it, is one more unit, so that tied weights stay one. Gradients are summed in fp32 with
each micro-batch and not averaged, for losses are divided by the counts of all processes already.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from lexloom import files
from lexloom.compute import Compute
from lexloom.errors import CheckpointError, DiskFullError
from lexloom.train import checkpoint, recompute, slices
from lexloom.train.checkpoint import Best, Resumable
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.parallel import WAIT, World
from lexloom.train.settings import TrainConfig
from lexloom.train.slices import Slice
from lexloom.train.step import Step, prepared

SAID_BYTES = 4096
"""What a process tells the others about a save, at most."""


class ShardedAdamW(AdamW):
    """AdamW over this process's rows of every parameter, in the very memory that FSDP gathers from."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, world: World) -> None:
        self._cut = {name: p for name, p in parameters.items() if p.requires_grad}
        super().__init__(((name, nn.Parameter(local(p))) for name, p in self._cut.items()), config)
        self._world = world

    def collect(self) -> None:
        """Adds this process's rows of the summed gradients to those collected before."""
        for name, parameter in self._cut.items():
            self.parameters[name].grad = None if parameter.grad is None else local(parameter.grad)
            parameter.grad = None
        super().collect()

    def forget(self) -> None:
        """Drops what was collected of a step that is not finished."""
        super().forget()
        for parameter in self._cut.values():
            parameter.grad = None

    def exchange(self, world: World) -> None:
        """Nothing is left to add up: each backward pass did it."""

    def norm(self) -> Tensor:
        """The 2-norm of the gradients of all processes."""
        mine = super().norm()
        [squares] = self._world.total([mine.item() ** 2])
        return mine.new_tensor(squares**0.5)


def local(tensor: Tensor) -> Tensor:
    """This process's rows, in the same memory."""
    assert isinstance(tensor, DTensor)
    return tensor.to_local().detach()


class Sharded:
    """As `train.whole.Whole`, with the weights over all processes; the first also has room for a copy of all of them.

    The copy evaluates, and becomes the bundle; on a GPU it is there only while it computes.

    Args:
        step: in fp32. It is cut in place: afterwards none but all processes together can run it.
    """

    def __init__(self, step: Step, config: TrainConfig, compute: Compute, world: World) -> None:
        self.world, self.device, self.processes = world, compute.device, world.size
        self._copy = copy.deepcopy(step).to(compute.torch_dtype) if world.first else None
        self.network = self._copy.network if self._copy is not None else step.network
        if config.recompute:
            recompute.begin(step.network.backbone.blocks)
        low = compute.torch_dtype if compute.dtype == "bfloat16" else None
        self._module = step if low is not None else step.to(compute.torch_dtype)
        self.slices = {name: slices.cut(p.shape, world.rank, world.size)[0] for name, p in step.named().items()}
        self._shard(low)
        self.step = prepared(step, compute)
        self.optimizer = ShardedAdamW(step.named(), config, world)
        self._gathered = dict[str, Tensor]()
        self._reached = dict[str, Tensor]()
        self._group = dist.new_group(backend="gloo", timeout=WAIT)  # saves run beside training and must not mix with its exchanges

    def _shard(self, low: torch.dtype | None) -> None:
        mesh = init_device_mesh(torch.device(self.device).type, (self.world.size,))
        policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32 if low else None, cast_forward_inputs=False)
        for unit in (*self._module.network.backbone.blocks, self._module):
            made = fully_shard(unit, mesh=mesh, mp_policy=policy)
            made.set_gradient_divide_factor(1.0)
            made.set_force_sum_reduction_for_comms(True)  # gloo knows no other, and it is the same sum

    @torch.no_grad()
    def gather(self) -> None:
        """Brings the weights together in the first process. All processes call it at once."""
        for name, parameter in self._module.named().items():
            assert isinstance(parameter, DTensor)
            full = parameter.full_tensor()
            if self.world.first:
                self._gathered[name] = full.cpu()
        gradients = self.optimizer.gradients
        reached = self.world.each([bool(gradient.any()) for gradient in gradients.values()])
        self._reached = {name: torch.tensor(found) for name, found in zip(gradients, reached, strict=True)}

    def masters(self) -> dict[str, Tensor]:
        """All weights in full precision as they were at the last `gather`, on the CPU; in the first process."""
        return dict(self._gathered)

    @contextmanager
    def placed(self) -> Iterator[Step]:
        """The copy, with the weights of the last `gather`; in the first process."""
        assert self._copy is not None
        with torch.no_grad():
            for name, parameter in self._copy.named().items():
                parameter.copy_(self._gathered[name])
        try:
            yield self._copy.to(self.device)
        finally:
            self._copy.to("cpu")

    def gradients(self) -> Mapping[str, Tensor]:
        """Whether any gradient reached a parameter in the step of the last `gather`."""
        return self._reached

    def close(self) -> None:
        """Training is over."""

    def read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """This process's rows of masters and moments out of a sound checkpoint, whoever wrote it.

        One of another network is read whole, which `AdamW.load` refuses; to raise here would be to say that it is damaged.
        """
        found = self.optimizer
        held = {**found.masters, **found.state()}
        paths = sorted(path.glob("*.safetensors"))
        if slices.shapes_in(paths) != {name: self._slice(name).shape for name in held}:
            return checkpoint.read_whole(path)
        fresh = {name: torch.empty_like(tensor, device="cpu") for name, tensor in held.items()}
        slices.read(paths, {name: (tensor, self._slice(name).start) for name, tensor in fresh.items()})
        return {name: fresh[name] for name in found.masters}, {name: fresh[name] for name in found.state()}

    def _slice(self, name: str) -> Slice:
        return self.slices.get(name) or self.slices[name.partition(".")[2]]  # of a moment, `first.NAME`

    def save(
        self, folder: Path, step: int, optimizer: Resumable, state: Mapping[str, Any], *, keep: int = 2, best: Best | None = None
    ) -> None:
        """As `checkpoint.save`, by all processes: each writes and hashes its rows, and the first closes the folder when all have."""
        content = checkpoint.content_of(step, optimizer, state)
        sizes = self._agreed(lambda: {"bytes": checkpoint.size(optimizer, content, best)})
        needed = sum(told["bytes"] for told in sizes)
        hashed = dict[str, dict[str, Any]]()
        try:
            with ExitStack() as stack:

                def begin() -> dict[str, Any]:
                    writing = checkpoint.writing(folder, content, needed, keep=keep, best=best, hashed=hashed)
                    return {"folder": stack.enter_context(writing).name if self.world.first else ""}

                def end() -> dict[str, Any]:
                    if self.world.first:
                        slices.write_index(place, self.world.size, {name: self.slices[name] for name in optimizer.masters})
                        stack.close()
                    return {}

                place = folder / self._agreed(begin)[0]["folder"]
                for told in self._agreed(lambda: self._write(place, optimizer)):
                    hashed |= told
                self._agreed(end)
        except _Full as error:
            raise DiskFullError(f"the checkpoint of step {step:,}", free=files.free(folder), needed=needed, where=str(folder)) from error

    def _write(self, place: Path, optimizer: Resumable) -> dict[str, Any]:
        """Writes what this process holds; the manifest's entries of it."""
        entries = dict[str, Any]()
        for kind, tensors in zip(slices.KINDS, (optimizer.masters, optimizer.state()), strict=True):
            name = slices.names(kind, self.world.size)[self.world.rank]
            slices.write(place / name, tensors, {each: self._slice(each) for each in tensors})
            entries[name] = files.entry(place / name)
        return entries

    def _agreed(self, work: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
        """Does something in every process, and tells each what came of it in all of them; who failed fails in all.

        Raises:
            _Full: the disk is full in another process. CheckpointError: another one failed otherwise.
        """
        own: Exception | None = None
        try:
            said = work()
        except Exception as error:
            own, said = error, {"error": str(error)[:500], "full": isinstance(error, DiskFullError)}
        heard = self._exchanged(said)
        if own is not None:
            raise own
        for rank, told in enumerate(heard):
            if "error" in told:
                kind = _Full if told["full"] else CheckpointError
                raise kind(f"process {rank + 1} could not do its part of a checkpoint", got=told["error"])
        return heard

    def _exchanged(self, said: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What each process said, as JSON: torch's own way to trade objects is to pickle them."""
        text = json.dumps(said).encode()
        assert len(text) <= SAID_BYTES
        mine = torch.tensor(list(text.ljust(SAID_BYTES)), dtype=torch.uint8)
        heard = [torch.empty_like(mine) for _ in range(self.world.size)]
        dist.all_gather(heard, mine, group=self._group)
        return [json.loads(bytes(one.tolist())) for one in heard]


class _Full(CheckpointError):
    """The disk of another process is full."""
