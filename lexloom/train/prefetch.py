"""The batches of coming steps, made by one thread while a step is computed. It never hangs in silence: see `Prefetch.take`."""

from __future__ import annotations

import queue
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType

from lexloom.batch import Batch
from lexloom.errors import LexloomError

TICK_SECONDS = 1.0
TOLD_SECONDS = 60.0
STALL_SECONDS = 600.0
"""Minutes, for a cold network disk may take one; but not for ever."""
CLOSE_SECONDS = 5.0


class Prefetch:
    """The batches of steps `start` … `stop` - 1, in their order.

    Args:
        make: step -> its micro-batches, a function of the step alone; so how far the thread is ahead changes nothing.
        ahead: how many steps are made before they are asked for; with 0 there is no thread.
        told, stall: seconds without a batch after which the stacks of all threads are shown, and after which waiting ends.
    """

    def __init__(
        self,
        make: Callable[[int], list[Batch]],
        start: int,
        stop: int,
        *,
        ahead: int = 1,
        told: float = TOLD_SECONDS,
        stall: float = STALL_SECONDS,
    ) -> None:
        self.make, self.start, self.stop, self.ahead, self.told, self.stall = make, start, stop, ahead, told, stall
        self.next, self.closed = start, False
        self._room = threading.Semaphore(ahead)
        self._made: queue.SimpleQueue[list[Batch] | BaseException] = queue.SimpleQueue()
        # A daemon: one that is stuck must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)

    def __enter__(self) -> Prefetch:
        if self.ahead and self.start < self.stop:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.closed = True
        self._room.release()
        if self._thread.ident is not None and not isinstance(error, StallError):
            self._thread.join(CLOSE_SECONDS)

    def take(self) -> list[Batch]:
        """The micro-batches of the next step.

        Raises:
            StallError: nothing came for `stall` seconds.
            LexloomError: the thread is no longer there. What `make` raised is raised here as it was.
        """
        step, self.next = self.next, self.next + 1
        if not self.ahead:
            return self.make(step)
        found = self._wait(step)
        self._room.release()
        if isinstance(found, Exception):
            raise found
        if isinstance(found, BaseException):
            raise LexloomError(f"the thread that makes batches ended at step {step + 1:,}", got=repr(found)) from found
        return found

    def _work(self) -> None:
        for step in range(self.start, self.stop):
            self._room.acquire()
            if self.closed:
                return
            try:
                self._made.put(self.make(step))
            except BaseException as error:  # whatever it was, the one who waits must hear of it
                self._made.put(error)
                return

    def _wait(self, step: int) -> list[Batch] | BaseException:
        # Seconds are counted by the waits that passed, not by a clock: a process that was stopped for an hour has not waited.
        tick = min(TICK_SECONDS, self.told, self.stall)
        ticks, shown = 0, False
        while True:
            try:
                return self._made.get(timeout=tick)
            except queue.Empty:
                ticks += 1
            if not self._thread.is_alive() and self._made.empty():
                raise LexloomError(f"the thread that makes batches was gone at step {step + 1:,}")
            waited = ticks * tick
            if waited >= self.told and not shown:
                shown = True
                warnings.warn(f"no batch for step {step + 1:,} in {waited:.0f} s; the threads stand here:\n{stacks()}", stacklevel=3)
            if waited >= self.stall:
                raise StallError(step, waited, self._stands())

    def _stands(self) -> str | None:
        frame = sys._current_frames().get(self._thread.ident or 0)
        place = traceback.extract_stack(frame)[-1] if frame is not None else None
        return f"{place.filename}:{place.lineno} ({place.name})" if place else None


class StallError(LexloomError):
    """No batch came, and the thread that makes them is still at it."""

    def __init__(self, step: int, seconds: float, where: str | None) -> None:
        super().__init__(
            f"no batch for step {step + 1:,} in {seconds:.0f} s",
            got=f"the thread that makes them stands at {where}" if where else None,
            hint="is a disk or a network folder gone? The last checkpoint is whole, and the same command goes on from it",
        )


def stacks() -> str:
    """Where every thread of this process stands, as text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}" for number, frame in sys._current_frames().items()
    )
