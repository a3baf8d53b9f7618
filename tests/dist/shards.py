"""One of several processes that hold a share of a tiny network each, or one that holds all; started by `test_sharding.py`.

Jobs: ["train", rows, micro, dtype, steps] trains, and with one entry more another architecture than BERT; ["save", folder, from, to] goes on from the newest checkpoint of `from` where that is
given, trains up to step `to`, and saves that step in `folder`. ["full", folder] saves where the last process may write no large file.
["poison"] trains on from weights of which the last process holds one that is no number. ["foreign", folder] wants to go on from a
checkpoint of another network.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lexloom.compute import Compute
from lexloom.errors import CheckpointError
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.train import checkpoint
from lexloom.train.loop import NotFinite, fit
from lexloom.train.parallel import World, joined
from lexloom.train.saving import Saver
from lexloom.train.settings import TrainConfig
from lexloom.train.source import PackedSource, Phase
from lexloom.train.step import Step
from lexloom.train.whole import held
from tests.dist.worker import VOCABULARY, Ragged


class Trainee:
    """A tiny network, cut over the processes where there are several."""

    def __init__(self, world: World, dtype: str, kind: str = "bert") -> None:
        self.world = world
        self.objective = MaskedLM(MaskedLMConfig(rate=0.3), VOCABULARY)
        found = ARCHITECTURES.get(kind)
        self.module = Step(Network.build(found, found.Config.read(dict(found.TINY)), {"masked-lm"}, seed=1), self.objective)
        self.held = held(self.module, TrainConfig(shard=True), Compute("cpu", dtype, 1, False), world)

    def steps(self, rows: int, micro: int, start: int, stop: int) -> Any:
        source = PackedSource([Phase(20, Ragged(), stop, rows, micro)], self.objective, seed=3)
        return fit(self.held.step, self.objective.parts, self.held.optimizer, source, lambda _: 1e-3, start=start, world=self.world)

    def gradient(self) -> Tensor:
        found, named = self.held.optimizer.gradients, self.module.named()
        return torch.cat([whole(found[name], named[name]).flatten() for name in found])

    def masters(self) -> dict[str, Tensor]:
        self.held.gather()
        return self.held.masters()


def whole(rows: Tensor, parameter: Tensor) -> Tensor:
    if not isinstance(parameter, DTensor):
        return rows
    mesh, places = parameter.device_mesh, parameter.placements
    return DTensor.from_local(rows, mesh, places, run_check=False, shape=parameter.shape, stride=parameter.stride()).full_tensor()


def train(world: World, rows: int, micro: int, dtype: str, steps: int, kind: str = "bert") -> dict[str, Any]:
    """Losses, the gradient of the first step, the last weights, and how many numbers this process held of them."""
    trainee = Trainee(world, dtype, kind)
    losses, gradient = [], None
    for info in trainee.steps(rows, micro, 0, steps):
        losses.append((info.loss, info.gradient_norm, info.tokens))
        gradient = trainee.gradient().tolist() if gradient is None else gradient
    weights = [value for master in trainee.masters().values() for value in master.flatten().tolist()]
    return {"losses": losses, "gradient": gradient, "weights": weights, "held": trainee.held.optimizer.sums.numel()}


def save(world: World, folder: str, begin: str | None, to: int) -> dict[str, Any]:
    """The weights and moments of this process after the last step."""
    trainee, start = Trainee(world, "float32"), 0
    optimizer = trainee.held.optimizer
    if begin is not None:
        found, complaints = checkpoint.latest(Path(begin), read=trainee.held.read)
        assert found is not None and complaints == []
        checkpoint.restore(optimizer, found)
        start = found.step
    for _ in trainee.steps(7, 3, start, to):
        pass
    with Saver(Path(folder), write=trainee.held.save) as saver:
        saver.save(to, optimizer, {"tokens": 5})
    return {"losses": [], "weights": {name: tensor.tolist() for name, tensor in trainee.masters().items()}}


def full(world: World, folder: str) -> dict[str, Any]:
    """What each process was told, and then a save that goes well."""
    trainee, told = Trainee(world, "float32"), ""
    trainee.held.save(Path(folder), 1, trainee.held.optimizer, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if world.rank == world.size - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        trainee.held.save(Path(folder), 2, trainee.held.optimizer, {})
    except (OSError, CheckpointError) as error:
        told = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    world.wait()
    there = sorted(path.name for path in Path(folder).iterdir())
    world.wait()
    trainee.held.save(Path(folder), 3, trainee.held.optimizer, {})
    return {"losses": [], "told": told, "there": there}


def poison(world: World) -> dict[str, Any]:
    """The error that each process ends with, and whether its weights are what they were."""
    trainee = Trainee(world, "float32")
    optimizer = trainee.held.optimizer
    if world.rank == world.size - 1:
        optimizer.masters["backbone.blocks.0.up.weight"][-1, 0] = torch.nan
    before = {name: master.clone() for name, master in optimizer.masters.items()}
    try:
        list(trainee.steps(7, 3, 0, 2))
    except NotFinite as error:
        told = {"error": str(error), "parameters": error.parameters}
    same = all(torch.equal(master.nan_to_num(1e9), before[name].nan_to_num(1e9)) for name, master in optimizer.masters.items())
    return {"losses": [], **told, "same": same}


def foreign(world: World, folder: str) -> dict[str, Any]:
    """What each process is told."""
    trainee, told = Trainee(world, "float32"), ""
    found, complaints = checkpoint.latest(Path(folder), read=trainee.held.read)
    assert found is not None and complaints == []
    try:
        checkpoint.restore(trainee.held.optimizer, found)
    except CheckpointError as error:
        told = str(error)
    return {"losses": [], "told": told}


def main(out: Path, jobs: list[list[Any]]) -> None:
    torch.set_num_threads(1)
    with joined() as world:
        found = [{"train": train, "save": save, "full": full, "poison": poison, "foreign": foreign}[name](world, *arguments) for name, *arguments in jobs]
        (out / f"rank-{world.rank}-of-{world.size}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
