"""Saving beside training: the weights and moments are copied between two steps, and a thread writes the copy while training goes on.

A checkpoint of 100 M parameters takes seconds to write and hash, and a fraction of one to copy. The files are the same to the bit.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from lexloom import compute
from lexloom.train import checkpoint
from lexloom.train.checkpoint import Best, Resumable
from lexloom.train.tensorfile import n_bytes

ROOM = 2  # times the copy that must be free in memory: who takes the last of it is killed


class Snapshot:
    """A copy of weights and moments as they were after some step, in buffers that each `take` uses again.

    Attributes:
        masters, steps: as those of `AdamW`.
    """

    def __init__(self, source: Resumable) -> None:
        self.masters, self._moments = _buffers(source.masters), _buffers(source.state())
        self.steps = 0

    def take(self, source: Resumable) -> None:
        """Copies what `source` holds now; its names and shapes are those that it was made with."""
        devices = set[torch.device]()
        for buffers, tensors in ((self.masters, source.masters), (self._moments, source.state())):
            for name, tensor in tensors.items():
                buffers[name].copy_(tensor, non_blocking=True)
                devices.add(tensor.device)
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        self.steps = source.steps

    def state(self) -> dict[str, Tensor]:
        """The moments, by `first.NAME` and `second.NAME`."""
        return self._moments


def _buffers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Page-locked where the tensors are on a GPU, which copies four times as fast into that."""
    return {n: torch.empty(t.shape, dtype=t.dtype, pin_memory=t.is_cuda) for n, t in tensors.items()}


class Saver:
    """Writes the checkpoints of a training, one at a time; the next waits for the one before. To be left (`with`) before they are read.

    Where memory is short, it writes at once and from where the tensors are; then training stands still meanwhile.

    Args:
        folder: of the checkpoints. keep: how many; see `checkpoint.save`.
        write: what writes one: `checkpoint.save`, or what takes the same arguments.
    """

    def __init__(self, folder: Path, *, keep: int = 2, write: Callable[..., object] = checkpoint.save) -> None:
        self.folder, self.keep, self._write = folder, keep, write
        self._copy: Snapshot | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waits for the save under way. Its error is raised, unless another one is on its way, which came first."""
        try:
            self.wait()
        except Exception:
            if error is None:
                raise

    def save(self, step: int, source: Resumable, state: Mapping[str, Any], *, best: Best | None = None, beside: bool = True) -> None:
        """Saves what `source` holds now. The caller may change it as soon as this returns.

        Args:
            state, best: see `checkpoint.save`; `best.weights` are not copied and must stay as they are.
            beside: in a thread; False returns when all is on the disk.

        Raises:
            DiskFullError: of the save before, or of this one where it was not in a thread.
        """
        self.wait()
        if beside and (copied := self._copied(source)) is not None and self._begun(step, copied, copy.deepcopy(dict(state)), best):
            return
        self._write(self.folder, step, source, state, keep=self.keep, best=best)

    def check(self) -> None:
        """Raises what went wrong in a save that has ended meanwhile; does not wait for one that has not."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being saved.

        Raises:
            DiskFullError: of that save; the newest older checkpoint is whole still, and the run may go on.
        """
        if self._thread is not None:
            self._thread.join()
        error, self._thread, self._error = self._error, None, None
        if error is not None:
            raise error

    def shrink(self) -> None:
        """Gives the memory of the copy back."""
        if self._thread is not None:
            self._thread.join()
        self._copy = None

    def _copied(self, source: Resumable) -> Snapshot | None:
        """A copy of what is to be saved, or None where memory is too short for one."""
        if self._copy is None:
            needed = sum(map(n_bytes, (*source.masters.values(), *source.state().values())))
            if compute.memory()[1] < ROOM * needed:
                return None
            try:
                self._copy = Snapshot(source)
            except (MemoryError, RuntimeError):  # of the allocator
                return None
        self._copy.take(source)
        return self._copy

    def _begun(self, step: int, copied: Snapshot, state: dict[str, Any], best: Best | None) -> bool:
        """Starts the thread; False where there is no memory for its stack."""

        def work() -> None:
            try:
                self._write(self.folder, step, copied, state, keep=self.keep, best=best)
            except BaseException as error:  # raised again by `wait`
                self._error = error

        thread = threading.Thread(target=work, name="checkpoint")
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True
