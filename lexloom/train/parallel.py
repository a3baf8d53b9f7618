"""Several processes that train one network: each does its share of a step's micro-batches, gradients are added up, all take the same step.

Processes are started by `torchrun` (or `--devices`, which calls it) and talk through `torch.distributed`: gloo on CPUs, NCCL on GPUs. The
batch of a step is planned as if there were one process; which of them does what changes nothing but the order of the sums. Gradients are
added in fp32, once a step, after all micro-batches: that is less traffic than one exchange a backward, and rounds less.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from lexloom.errors import ConfigError

WAIT = timedelta(hours=24)
"""The first process may prepare a corpus, or evaluate, for hours while the others wait."""


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: this one, from 0. size: how many there are. device: where this one computes.
    """

    rank: int = 0
    size: int = 1
    device: str = "auto"

    @property
    def first(self) -> bool:
        """Whether this is the process that reads, writes and speaks."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value added up over all processes, in double precision; the same bits everywhere."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(found)
        return [float(value) for value in found.tolist()]

    def add_(self, tensor: Tensor) -> None:
        """Replaces a tensor by its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return self.each([flag])[0]

    def each(self, flags: Sequence[bool]) -> list[bool]:
        """Of each flag, whether it is so in any process."""
        return [value > 0 for value in self.total([float(flag) for flag in flags])]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def asked() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if dist.is_available() else 1


@contextmanager
def joined() -> Iterator[World]:
    """The processes that `torchrun` started, connected; one alone without it.

    Raises:
        ConfigError: there are more processes than GPUs on this machine.
    """
    if asked() == 1:
        yield ALONE
        return
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if gpus and local >= gpus:
        raise ConfigError("more processes than GPUs", expected=f"at most {gpus} on this machine", got=f"process {local + 1}")
    device = f"cuda:{local}" if gpus else "cpu"
    if gpus:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpus else "gloo", timeout=WAIT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def wanted(devices: str | None) -> int:
    """How many processes `--devices` asks for on this machine: `all` is one a GPU, one where there is none.

    Raises:
        ConfigError: it is no number, or there are fewer GPUs.
    """
    gpus = torch.cuda.device_count()
    if devices is None or devices == "all":
        return max(1, gpus) if devices else 1
    if not devices.isdecimal() or int(devices) < 1:
        raise ConfigError("--devices is a number of processes, or all", got=devices)
    if gpus and int(devices) > gpus:
        raise ConfigError("there are fewer GPUs", expected=f"at most {gpus}", got=devices)
    return int(devices)


def launched(devices: str | None, arguments: Sequence[str]) -> int | None:
    """Starts this command in several processes by `torchrun`, and gives its exit status; None where one process is all that is asked for.

    Args:
        arguments: of the command line, without `--devices`.
    """
    n = wanted(devices)
    if n == 1 or asked() > 1:
        return None
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", "-m", "lexloom"]
    return _ended(subprocess.Popen([sys.executable, *start, *arguments], start_new_session=os.name == "posix"))


def _ended(launcher: subprocess.Popen[bytes]) -> int:
    """Waits for `torchrun` and gives the exit status.

    Ctrl-C and SIGTERM reach it once, from here, for it passes them on and the processes save a checkpoint; a terminal would send another
    one to each, which ends them at once. A second one does so indeed.
    """
    came = list[int]()

    def pass_on(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            launcher.send_signal(number)
        else:
            for process in (*psutil.Process(launcher.pid).children(recursive=True), launcher):
                process.kill()

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        status = launcher.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + came[0] if came and status else status
