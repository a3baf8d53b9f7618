"""A training stage in a process that is not the first of several: it takes its share of every step and of every save."""

from __future__ import annotations

import signal

from lexloom.compute import Compute
from lexloom.errors import DiskFullError, Interrupted
from lexloom.runs.interrupt import on_signal
from lexloom.runs.trained import Trained, Validation
from lexloom.runs.training import Training
from lexloom.train.loop import NotFinite


class Following(Training):
    """Goes along with the first process, which logs, evaluates and decides when to save and when to stop."""

    def _compute(self) -> Compute:
        self.world.wait()
        return super()._compute()

    def run(self) -> Trained:
        """Trains to the end, or until one of the processes stops.

        Raises:
            Interrupted: a signal came; the checkpoint is saved.
        """
        self.compute.apply()
        if self.config.timed and self.plan is None:
            self._make_plan()
        with on_signal() as stop, self.saver:
            for info in self._watched():
                if self.evaluates(info.step):
                    self.validated()
                early, signalled, due = self.world.each([False, stop.number is not None, False])
                last = early or signalled or info.step == self.source.steps
                if self.held.processes > 1 and (last or due):
                    self._saved(self.saver.wait)
                    self._save(info.step, last=last)
                if signalled and not early:
                    raise Interrupted("stopped; the first process says how to go on", signal_number=stop.number or signal.SIGTERM)
                if early:
                    break
        self.held.gather()
        self.held.close()
        return Trained(self.held.masters(), self.compute, self.optimizer.steps, 0, 0.0, {}, {})

    def validated(self) -> Validation | None:
        """Nothing: the first process evaluates, with the weights of all."""
        if self.validate is not None:
            self.held.gather()
        return None

    def _failed(self, error: NotFinite) -> Exception:
        self.held.gather()
        self.world.wait()  # until the first has kept the step
        return error

    def _without(self, error: DiskFullError) -> None:
        """The first process says it."""
