"""A trained stage: the loop with everything around it. Logs, evaluates, saves, resumes, stops early, stops on Ctrl-C."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lexloom.compute import COMPILE_PAYS_AFTER_STEPS, Compute, ComputeConfig, choose, release_memory
from lexloom.console import Console, duration
from lexloom.errors import CheckpointError, DiskFullError, Interrupted
from lexloom.hub.bundle import parameters
from lexloom.models.base import Network
from lexloom.nn.dropout import set_dropout
from lexloom.objectives.base import Objective
from lexloom.runs import budget, machine
from lexloom.runs.failure import kept, out_of_memory
from lexloom.runs.interrupt import on_signal
from lexloom.runs.room import Room
from lexloom.runs.trained import Trained, Validation
from lexloom.train import checkpoint
from lexloom.train.alarms import Alarms
from lexloom.train.log import MetricsLog
from lexloom.train.loop import NotFinite, Source, StepInfo, fit
from lexloom.train.parallel import ALONE, World
from lexloom.train.saving import Saver
from lexloom.train.settings import TrainConfig
from lexloom.train.source import LabelledSource
from lexloom.train.step import Step
from lexloom.train.whole import Held, held

SAVE_SECONDS = 300.0
RECENT_STEPS = 50  # that the speed shown is of; one step alone jumps
LONG_SECONDS = 900.0  # from which compiling pays where only a time is given
EVALUATIONS = 20  # over a training whose steps only the clock knows


class Training:
    """One trained stage in its folder, from its last checkpoint on if there is one.

    Args:
        folder: `metrics.jsonl`, `checkpoints/` and `compute.json` live here.
        network: in fp32; while training it is cast to the dtype that was chosen.
        validate: evaluates the network in batches of so many tokens, or None.
        trainable: own names of the parameters to train; all where None.
        world: the processes that train together. This one is the first of them: it writes, evaluates and decides.
    """

    def __init__(
        self,
        folder: Path,
        network: Network,
        objective: Objective,
        source: Source,
        config: TrainConfig,
        console: Console,
        *,
        validate: Callable[[Network, int], Validation] | None = None,
        trainable: Callable[[str], bool] | None = None,
        title: str = "training",
        world: World = ALONE,
    ) -> None:
        self.born, self.world = time.perf_counter(), world
        self.folder, self.network, self.objective, self.source = folder, network, objective, source
        self.config, self.console, self.validate, self.title = config, console, validate, title
        self.compute = self._on_device(self._compute())
        if isinstance(source, LabelledSource):
            source.padded = self.compute.compile
        if world.first:
            world.wait()  # the others read what was chosen here
        self.held = self._held(trainable)
        self.network, self.optimizer = self.held.network, self.held.optimizer
        self.state: dict[str, Any] = {"best": {}, "waited": 0, "tokens": 0, "seconds": 0.0, "cut": 1, "evaluation_cut": 1}
        self.room = Room(lambda line: console.warn(f"{title}: {line}"))
        self.plan = budget.saved(folder)
        self._keep_plan()
        self.best: checkpoint.Best | None = None  # where `keep: best` keeps weights
        self.saver = Saver(folder / "checkpoints", keep=config.checkpoints, write=self.held.save)
        self.begin = self._resume()
        if world.any(self.begin != world.total([self.begin])[0] / world.size):
            raise CheckpointError("the processes found different checkpoints", got=f"step {self.begin:,} here", where=str(folder))
        # Whoever builds a training knows what to compare its losses with, and what its rows are called.
        self.alarms = Alarms(source.steps, {})
        self.where: Callable[[int], list[str]] | None = None

    def _held(self, trainable: Callable[[str], bool] | None) -> Held:
        step = Step(self.network, self.objective)
        for name, parameter in step.named().items():
            parameter.requires_grad_(trainable is None or trainable(name))
        if self.config.dropout is not None:
            set_dropout(self.network, self.config.dropout)
        return held(step, self.config, self.compute, self.world)

    def _compute(self) -> Compute:
        kept, before = machine.kept(self.folder)
        if kept is not None:
            machine.honour(kept, self.folder, hint=machine.RECHOOSE, threads=self.config.threads == "auto")
            return kept
        steps = self.source.steps // getattr(self.source, "shapes", 1)  # of each shape, for each is compiled for itself
        work = parameters(self.network) * getattr(self.source, "places", math.inf)
        if self.config.timed:
            steps = COMPILE_PAYS_AFTER_STEPS if budget.given(self.config) > LONG_SECONDS else 0
        settings = ComputeConfig() if before else self.config  # after --rechoose, whatever the recipe asked for
        chosen = choose(settings, steps=steps, work=None if self.config.timed else work)
        machine.keep(self.folder, chosen, before)
        self.console.say(f"{self.title}: {chosen.line()}")
        return chosen

    def _on_device(self, chosen: Compute) -> Compute:
        return replace(chosen, device=self.world.device) if self.world.size > 1 else chosen

    def _resume(self) -> int:
        found, complaints = checkpoint.latest(
            self.folder / "checkpoints", needs=("best", "waited", "tokens", "seconds"), read=self.held.read
        )
        for line in complaints:
            self.console.warn(line)
        if found is None:
            return 0
        if found.step > self.source.steps:
            raise CheckpointError(
                "the checkpoint is beyond the end of this run", got=f"step {found.step}", expected=f"at most {self.source.steps}"
            )
        checkpoint.restore(self.optimizer, found)
        self.state = {name: found.state.get(name, value) for name, value in self.state.items()}
        if self.config.keep == "best":
            self.best = found.best
            self.state["best"] = self.state["best"] if found.best else {}
        if self.state["cut"] > 1:
            self.source.cut = self.state["cut"]  # type: ignore[attr-defined]
        self.room.cut = self.state["evaluation_cut"]
        self.console.say(f"{self.title}: going on from step {found.step:,}")
        return found.step

    def run(self) -> Trained:
        """Trains to the end.

        Raises:
            Interrupted: a signal came; the checkpoint is saved.
        """
        if self.config.shard and self.world.size == 1:
            self.console.warn(f"{self.title}: shard has no effect in one process; --devices 2 and more start several")
        self.compute.apply()
        if self.config.timed and self.plan is None:
            self._make_plan()
        if self.begin < self.source.steps:
            keep, processes = self.config.checkpoints, self.held.processes
            checkpoint.check_room(self.folder / "checkpoints", self.optimizer, self.state, keep=keep, processes=processes)
        with MetricsLog(self.folder) as log, on_signal(self.console.say) as stop, self._progress() as progress, self.saver:
            line = log.truncate(self.begin)
            saved = time.perf_counter()
            since = saved - self.state["seconds"]
            recent = deque[StepInfo](maxlen=RECENT_STEPS)
            for info in self._watched():
                self._saved(self.saver.check)
                self.state["tokens"] += info.tokens
                self.state["seconds"] = time.perf_counter() - since
                line = self._line(info)
                if self.evaluates(info.step):
                    line |= self._evaluate(info.step)
                log.write(line)
                recent.append(info)
                pace = sum(each.tokens for each in recent) / sum(each.seconds for each in recent)
                progress.update(info.step, loss=info.loss, tokens_per_second=pace)
                signalled = stop.number  # looked at once a step: one that comes after this waits, or "saved" would not be true
                patient = self.config.patience is None or self.state["waited"] < self.config.patience
                early, halted, due = self.world.each([not patient, signalled is not None, self._save_due(info.step, saved)])
                last = early or halted or info.step == self.source.steps
                if last or due:
                    self._saved(self.saver.wait)
                    log.sync()
                    self._save(info.step, last=last)
                    saved = time.perf_counter()
                if halted and not early:
                    log.draw()
                    raise self._interrupted(info.step, signalled or signal.SIGTERM)  # or it came to another process
                if early:
                    self.console.say(f"{self.title}: no better evaluation in {self.config.patience} tries, stopped at step {info.step:,}")
                    break
            log.draw()
        # The last save does this; but one that was killed just before does not, and there is none after it.
        for step, path in checkpoint.whole(self.folder / "checkpoints")[-1:]:
            checkpoint.prune(path.parent, step, self.config.checkpoints)
        self.held.gather()
        if stop.number is not None:
            raise self._interrupted(self.optimizer.steps, stop.number)
        self.held.close()
        return Trained(
            self._chosen(), self.compute, self.optimizer.steps, self.state["tokens"], self.state["seconds"], line, self.state["best"]
        )

    def _interrupted(self, step: int, number: int) -> Interrupted:
        at = f"stopped at step {step:,} of {self.source.steps:,}; the checkpoint is saved"
        return Interrupted(at, signal_number=number, hint="the same command goes on from here")

    def _make_plan(self) -> None:
        """Times a few steps, then puts everything back to where it was."""
        masters = {name: master.clone() for name, master in self.optimizer.masters.items()}
        step_seconds = self._step_seconds(masters)
        began = time.perf_counter()
        found = self.validated()
        evaluation = time.perf_counter() - began if found is not None else 0.0
        self._restart(masters)
        every = self.config.evaluate_every
        if every:
            step_seconds, evaluation = step_seconds + evaluation / every, 0.0
        seconds, gone = budget.given(self.config), time.perf_counter() - self.born
        self.plan = budget.decided(self.folder, self.world, lambda: budget.plan(seconds, gone, step_seconds, evaluation, EVALUATIONS))
        self.state["seconds"] = gone
        self._keep_plan()
        self.console.say(f"{self.title}: {self.plan.steps:,} steps fit into {duration(seconds)}")

    def _step_seconds(self, masters: Mapping[str, Tensor]) -> float:
        """Of one step, in micro-batches that fit into memory."""
        while True:
            try:
                with closing(self._steps()) as steps:
                    return budget.timed(lambda: next(steps), self.world.any)
            except (RuntimeError, MemoryError) as error:
                if not self._can_cut(error):
                    raise
            self._cut()
            self._restart(masters)

    def _restart(self, masters: Mapping[str, Tensor]) -> None:
        self.optimizer.restart(masters)
        self.begin = 0

    def _keep_plan(self) -> None:
        if self.plan is not None:
            self.source.resize(self.plan.steps)  # type: ignore[attr-defined]
            if self.config.evaluate_every is None:
                self.config = self.config.model_copy(update={"evaluate_every": max(1, self.plan.steps // EVALUATIONS)})

    def _plan_again(self, step: int) -> None:
        old, spent = self.plan, self.state["seconds"]
        assert old is not None
        self.plan = budget.decided(self.folder, self.world, lambda: budget.again(old, step, spent, self.config.decay))
        self.begin = step
        self._keep_plan()

    def _progress(self) -> Any:
        return self.console.progress(self.title, self.source.steps, "steps", start=self.begin)

    def _steps(self) -> Any:
        if self.config.patience is not None and self.state["waited"] >= self.config.patience:
            return iter(())  # it had stopped early, and was killed before the stage was closed
        rates = budget.rates(self.config, self.plan, self.source.steps)
        step, weights, device = self.held.step, self.objective.parts, self.compute.device
        return fit(step, weights, self.optimizer, self.source, rates, start=self.begin, device=device, world=self.world)

    def _watched(self) -> Iterator[StepInfo]:
        """The steps; one that does not fit into memory is done again in smaller micro-batches, its rows staying what they are."""
        while True:
            try:
                for info in self._steps():
                    yield info
                    if self.plan is not None and self.plan.falls_at(info.step, self.config):
                        self._plan_again(info.step)
                        break
                else:
                    return
            except NotFinite as error:
                raise self._failed(error) from None
            except (RuntimeError, MemoryError) as error:
                if not self._can_cut(error):
                    raise
            else:
                continue
            self._cut()

    def _failed(self, error: NotFinite) -> Exception:
        self.held.gather()
        with self.held.placed() as alone:
            found = kept(error, self.folder, alone, self.source, self.where)
        self.world.wait()  # a process that ends takes the others with it
        return found

    def _can_cut(self, error: BaseException) -> bool:
        """Whether memory was short, and micro-batches can be smaller."""
        return out_of_memory(error) and self.world.size == 1 and getattr(self.source, "largest", 1) > 1

    def _cut(self) -> None:
        """Halves the micro-batch. To be called out of the handler of the error, which holds the tensors of the step."""
        self.optimizer.forget()
        self.saver.shrink()
        release_memory()
        self.begin, self.state["cut"] = self.optimizer.steps, 2 * self.state["cut"]
        self.source.cut = self.state["cut"]  # type: ignore[attr-defined]
        self.console.warn(
            f"{self.title}: out of memory at step {self.begin + 1:,}; micro-batches are halved to {self.source.largest} rows, "  # type: ignore[attr-defined]
            "the batch stays what it is"
        )

    def _line(self, info: StepInfo) -> dict[str, Any]:
        return {
            "step": info.step,
            "loss": info.loss,
            "parts": info.parts,
            "learning_rate": info.learning_rate,
            "gradient_norm": info.gradient_norm,
            "tokens": self.state["tokens"],
            "seconds": self.state["seconds"],
            "tokens_per_second": info.tokens / info.seconds,
            **({"cut": self.state["cut"]} if self.state["cut"] > 1 else {}),
        }

    def evaluates(self, step: int) -> bool:
        """Whether the network is evaluated after a step: every so often, and at the end."""
        return self._due(step, self.config.evaluate_every) or step == self.source.steps

    def validated(self) -> Validation | None:
        """What an evaluation of the network as it is finds; None where there is nothing to evaluate it on."""
        if self.validate is None:
            return None
        self.held.gather()
        with self.held.placed() as alone:
            validate, network = self.validate, alone.network.eval()
            try:
                return self.room.fit(lambda tokens: validate(network, tokens))
            finally:
                network.train()
                self.state["evaluation_cut"] = self.room.cut

    @staticmethod
    def _due(step: int, every: int | None) -> bool:
        return every is not None and every > 0 and step % every == 0

    def _save_due(self, step: int, saved: float) -> bool:
        if self.config.save_every is not None:
            return self._due(step, self.config.save_every)
        return time.perf_counter() - saved > SAVE_SECONDS

    def _evaluate(self, step: int) -> dict[str, Any]:
        """What is logged of an evaluation; None where not even one row fits into memory, which the training does without."""
        try:
            found = self.validated()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self.console.warn(f"{self.title}: no memory to evaluate step {step:,}; goes on without it")
            return {"validation": None}
        if found is None:
            return {}
        for line in self.alarms.look(step, found.record.get("parts") or {}, self.held.gradients()):
            self.console.warn(f"{self.title}: {line}")
        best = self.state["best"]
        if math.isfinite(found.value) and (not best or found.value < best["value"]):
            self.state["best"] = {"value": found.value, "step": step, "record": found.record}
            self.state["waited"] = 0
            if self.config.keep == "best":
                self.best = checkpoint.Best(step, self.held.masters())  # written with the next checkpoint
        else:
            self.state["waited"] += 1
        cut = {"evaluation_cut": self.room.cut} if self.room.cut > 1 else {}
        return {"validation": found.record, **cut}

    def _save(self, step: int, *, last: bool) -> None:
        """Begins a save; the last one is on the disk when this returns."""
        try:
            self.saver.save(step, self.optimizer, self.state, best=self.best, beside=not last)
        except DiskFullError as error:
            if last:
                raise
            self._without(error)

    def _saved(self, ask: Callable[[], None]) -> None:
        """What came of the save before: `ask` raises its error. The run can do without that checkpoint, if not without its last."""
        try:
            ask()
        except DiskFullError as error:
            self._without(error)

    def _without(self, error: DiskFullError) -> None:
        self.console.warn(f"{error}\n{self.title}: goes on without it; the checkpoint before it is whole")

    def _chosen(self) -> dict[str, Tensor]:
        if self.best is None:
            return self.held.masters()
        if self.best.weights is not None:
            return dict(self.best.weights)
        return checkpoint.load_best(self.folder / "checkpoints", self.best.step)
