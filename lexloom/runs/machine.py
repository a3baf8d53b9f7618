"""The machine that a training is computed on: whether it can do what was chosen, and in what it differs from the one before.

`compute.json` beside a log holds the choice. After `--rechoose` it also says under `before` what was chosen up to which step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lexloom import compute, files
from lexloom.compute import Compute, ComputeConfig
from lexloom.console import Console
from lexloom.errors import ConfigError
from lexloom.train import checkpoint

FILE = "compute.json"
RECHOOSE = "--rechoose goes on with what this machine can do, in other bits; a machine like the one before gives the same ones"


@dataclass(frozen=True)
class Machine:
    """What a machine has.

    Attributes:
        gpus: one a GPU: whether it computes bfloat16 natively. compiler: of C++, for compiling on a CPU. cores: that this process may use.
    """

    gpus: tuple[bool, ...]
    compiler: bool
    cores: int

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        gpus = []
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            with torch.cuda.device(number):
                gpus.append(torch.cuda.is_bf16_supported(including_emulation=False))
        compiler = compute.choose(ComputeConfig(device="cpu"), steps=1 << 40).compile
        return cls(tuple(gpus), compiler, compute.affinity())

    def lacks(self, chosen: Compute) -> str:
        """What is missing here to get the bits that were chosen; "" where nothing is."""
        if chosen.device.startswith("cuda"):
            number = int(chosen.device.partition(":")[2] or 0)
            if number >= len(self.gpus):
                return "there is no such GPU here"
            if chosen.dtype == "bfloat16" and not self.gpus[number]:
                return "this GPU has no native bfloat16"
        elif chosen.compile and not self.compiler:
            return "it is to be compiled, and there is no C++ compiler here"
        return ""


def kept(folder: Path) -> tuple[Compute | None, list[dict[str, Any]]]:
    """The choice of a training, None where none was made yet; and what was chosen before, each with `until`, its last step."""
    path = folder / FILE
    if not path.is_file():
        return None, []
    found = files.read_json(path, kind="choice of compute")
    files.check_format(found, path)
    chosen = {name: value for name, value in found.items() if name not in ("format", "before")}
    return Compute(**chosen) if chosen else None, list(found.get("before", []))


def keep(folder: Path, chosen: Compute | None, before: list[dict[str, Any]]) -> None:
    """Writes `compute.json`."""
    now = chosen.plain() if chosen is not None else {}
    files.write_json(folder / FILE, {"format": files.FORMAT, **now, **({"before": before} if before else {})})


def honour(chosen: Compute, folder: Path, *, hint: str, threads: bool) -> None:
    """Whether this machine can compute as it was chosen.

    Args:
        threads: whether as many cores have to be here as threads were chosen. Fewer give the same bits, and take many times as long.

    Raises:
        ConfigError: the device, the compiler or the cores are not here.
    """
    here = Machine.here()
    problem = here.lacks(chosen)
    if not problem and threads and chosen.threads > here.cores:
        problem = f"there are {here.cores} cores here for {chosen.threads} threads"
    if problem:
        where = str(folder / FILE)
        raise ConfigError(f"this machine cannot compute as this training did: {problem}", expected=_how(chosen), where=where, hint=hint)


def able(settings: ComputeConfig, where: str, *, begun: bool) -> None:
    """Whether this machine can do what a recipe asks for, before any work is done for it.

    Args:
        where: the settings stand. begun: whether there is a training under these settings already, which others would begin anew.

    Raises:
        ConfigError: it cannot.
    """
    try:
        chosen = compute.choose(settings, steps=0)
        problem, got = Machine.here().lacks(chosen), _how(chosen)
    except ConfigError as error:
        problem, got = error.problem, error.got or settings.device
    if problem:
        hint = RECHOOSE if begun else "auto takes what the machine can do"
        raise ConfigError(f"this machine cannot compute so: {problem}", got=got, where=where, hint=hint)


def rechoose(stage: Path, console: Console) -> None:
    """Forgets what was chosen for those trainings of a stage that are not done: they take what this machine can do, and give other bits."""
    for path in sorted(stage.rglob(FILE)):
        folder = path.parent
        chosen, before = kept(folder)
        if chosen is None or any((place / "result.json").is_file() for place in (folder, folder.parent)):
            continue
        until = max((step for step, _ in checkpoint.whole(folder / "checkpoints")), default=0)
        console.say(f"{folder}: up to step {until:,} it was computed on {_how(chosen)}; for the rest this is chosen anew")
        keep(folder, None, [*before, {"until": until, **chosen.plain()}])


def _how(chosen: Compute) -> str:
    return f"{chosen.device}, {chosen.dtype}, {chosen.threads} threads, {'compiled' if chosen.compile else 'eager'}"


@contextmanager
def threads(chosen: Compute) -> Iterator[None]:
    """Computes with the threads that were chosen, and gives this process back its own number."""
    before = torch.get_num_threads()
    chosen.apply()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def other_machine(run: Path) -> str:
    """In what this machine differs from the one that the run says it was made on, where that can change roundings; "" where in nothing."""
    path = run / "environment.json"
    told = files.read_json(path, kind="environment") if path.is_file() else {}
    now = compute.environment()
    names = ("torch", "numpy", "instruction sets", "system")
    return "; ".join(f"{name}: {told[name]} then, {now[name]} here" for name in names if name in told and told[name] != now.get(name))
