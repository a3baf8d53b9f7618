"""A training stage in a process that is not the first of several: it takes its share of every step and writes nothing."""

from __future__ import annotations

from contextlib import closing

from lexloom.compute import Compute
from lexloom.errors import Interrupted
from lexloom.runs.interrupt import on_signal
from lexloom.runs.training import Trained, Training


class Following(Training):
    """Goes along with the first process, which logs, evaluates, saves and decides when to stop."""

    def _compute(self) -> Compute:
        self.world.wait()
        return super()._compute()

    def run(self) -> Trained:
        """Trains to the end, or until one of the processes stops.

        Raises:
            Interrupted: a signal came; the first process saved the checkpoint.
        """
        self.compute.apply()
        with on_signal() as stop, closing(self._steps()) as steps:
            stopped = False
            for _ in steps:
                stopped = self.world.any(stop.number is not None)
                if stopped:
                    break
            if stopped and stop.number is not None:  # not to wait for the first process, which ends too
                raise Interrupted("stopped; the first process says how to go on", signal_number=stop.number)
        self.module.float()
        return Trained(self._masters(), self.compute, self.optimizer.steps, 0, 0.0, {}, {})
