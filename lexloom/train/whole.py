"""The network of a training, and the owner of its weights, where every process holds all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from lexloom.compute import Compute
from lexloom.errors import ConfigError
from lexloom.train import checkpoint, recompute
from lexloom.train.muon import Muon
from lexloom.train.optim import AdamW
from lexloom.train.parallel import World
from lexloom.train.settings import TrainConfig
from lexloom.train.step import Step, prepared

if TYPE_CHECKING:
    from lexloom.train.sharding import Sharded


Held: TypeAlias = "Whole | Sharded"


class Whole:
    """A network in the dtype that was chosen, its fp32 masters and its optimizer. `sharding.Sharded` is the other way to hold them.

    Attributes:
        step: the step as it is called in training. optimizer: what trains it.
        network: what is trained, or the copy of it that becomes the bundle.
        processes: that write a checkpoint together.
        save, read: what writes and reads one.

    Args:
        step: in fp32, what is not to be trained without gradient.
    """

    processes = 1
    save = staticmethod(checkpoint.save)
    read = staticmethod(checkpoint.read_whole)

    def __init__(self, step: Step, config: TrainConfig, compute: Compute) -> None:
        if config.recompute:
            recompute.begin(step.network.backbone.blocks)
        originals = {name: p.detach().clone() for name, p in step.named().items()}
        self._module, self.network = step.to(compute.torch_dtype), step.network
        self.step = prepared(step, compute)
        self.optimizer = optimizer_of(step, config)
        self.optimizer.adopt({name: tensor.to(compute.device) for name, tensor in originals.items()})
        self._frozen = {name: originals[name] for name in originals if name not in self.optimizer.masters}

    def gather(self) -> None:
        """Brings the weights together in the first process, for `masters` and `placed`. All processes call it at once."""

    def masters(self) -> dict[str, Tensor]:
        """A copy of all weights in full precision, frozen ones too, on the CPU; as they were at the last `gather`."""
        return {**self._frozen, **{name: master.detach().cpu().clone() for name, master in self.optimizer.masters.items()}}

    @contextmanager
    def placed(self) -> Iterator[Step]:
        """A step that one process alone can call, with the weights of the last `gather`, on the device that computes."""
        yield self._module

    def gradients(self) -> Mapping[str, Tensor]:
        """By parameter, what tells whether any gradient reached it."""
        return self.optimizer.gradients

    def close(self) -> None:
        """Training is over: the network is in full precision again."""
        self._module.float()


def optimizer_of(step: Step, config: TrainConfig) -> AdamW:
    """What the settings name, for all weights of a step that are to be trained."""
    if config.optimizer == "adamw":
        return AdamW(step.named().items(), config)
    matrices = {id(p) for block in step.network.backbone.blocks for p in block.parameters() if p.ndim == 2}
    return Muon(step.named().items(), config, {name for name, p in step.named().items() if id(p) in matrices})


def held(step: Step, config: TrainConfig, compute: Compute, world: World) -> Held:
    """The network and its optimizer as this process is to hold them; see `Whole`.

    Raises:
        ConfigError: the optimizer needs whole matrices, of which each process is to hold some rows.
    """
    if not config.shard or world.size == 1:
        return Whole(step, config, compute)
    if config.optimizer != "adamw":
        raise ConfigError(
            "sharded weights are trained by one optimizer", expected="optimizer: adamw, or shard: false", got=config.optimizer
        )
    from lexloom.train.sharding import Sharded  # a second of imports

    return Sharded(step, config, compute, world)
