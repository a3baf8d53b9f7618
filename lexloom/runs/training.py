"""A trained stage: the loop with everything around it. Logs, evaluates, saves, resumes, stops early, stops on Ctrl-C."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from lexloom import files
from lexloom.compute import Compute, choose
from lexloom.console import Console
from lexloom.errors import CheckpointError, Interrupted
from lexloom.models.base import Network
from lexloom.nn.dropout import set_dropout
from lexloom.objectives.base import Objective
from lexloom.runs.interrupt import on_signal
from lexloom.train import checkpoint
from lexloom.train.alarms import Alarms
from lexloom.train.log import MetricsLog
from lexloom.train.loop import Source, StepInfo, fit
from lexloom.train.optim import AdamW, rate
from lexloom.train.settings import TrainConfig
from lexloom.train.step import Step, prepared

SAVE_SECONDS = 300.0


@dataclass(frozen=True)
class Validation:
    """An evaluation on the way: `value` is compared (lower is better), `record` is logged."""

    value: float
    record: dict[str, Any]


@dataclass
class Trained:
    """The end of a stage: the weights chosen by `keep`, and what happened."""

    masters: dict[str, Tensor]
    compute: Compute
    steps: int
    tokens: int
    seconds: float
    last: dict[str, Any]  # the last logged line
    best: dict[str, Any]  # {"value", "step", "record"} of the best evaluation, empty without any


class Training:
    """One trained stage in its folder, from its last checkpoint on if there is one.

    Args:
        folder: `metrics.jsonl`, `checkpoints/` and `compute.json` live here.
        network: in fp32; while training it is cast to the dtype that was chosen.
        validate: evaluates the network, or None.
        trainable: own names of the parameters to train; all where None.
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
        validate: Callable[[Network], Validation] | None = None,
        trainable: Callable[[str], bool] | None = None,
        title: str = "training",
    ) -> None:
        self.folder, self.network, self.objective, self.source = folder, network, objective, source
        self.config, self.console, self.validate, self.title = config, console, validate, title
        self.compute = self._compute()
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(trainable is None or trainable(name))
        if config.dropout is not None:
            set_dropout(network, config.dropout)
        originals = {name: p.detach().clone() for name, p in network.named_parameters()}
        network.to(self.compute.torch_dtype)
        self.step = prepared(Step(network, objective), self.compute)
        self.optimizer = AdamW(network.named_parameters(), config)
        self.optimizer.adopt({name: tensor.to(self.compute.device) for name, tensor in originals.items()})
        self.frozen = {name: originals[name] for name in originals if name not in self.optimizer.masters}
        self.state: dict[str, Any] = {"best": {}, "waited": 0, "tokens": 0, "seconds": 0.0}
        self.begin = self._resume()
        self.alarms = Alarms(source.steps, {})  # whoever knows what to compare losses with puts better ones here

    def _compute(self) -> Compute:
        path = self.folder / "compute.json"
        if path.is_file():
            found = files.read_json(path, kind="choice of compute")
            files.check_format(found, path)
            return Compute(**{name: value for name, value in found.items() if name != "format"})
        chosen = choose(self.config, steps=self.source.steps)
        files.write_json(path, {"format": files.FORMAT, **chosen.plain()})
        self.console.say(f"{self.title}: {chosen.line()}")
        return chosen

    def _resume(self) -> int:
        found, complaints = checkpoint.latest(self.folder / "checkpoints")
        for line in complaints:
            self.console.warn(line)
        if found is None:
            return 0
        if found.step > self.source.steps:
            raise CheckpointError(
                "the checkpoint is beyond the end of this run", got=f"step {found.step}", expected=f"at most {self.source.steps}"
            )
        checkpoint.restore(self.optimizer, found)
        self.state = {name: found.state[name] for name in self.state}
        self.console.say(f"{self.title}: going on from step {found.step:,}")
        return found.step

    def run(self) -> Trained:
        """Trains to the end.

        Raises:
            Interrupted: a signal came; the checkpoint is saved.
        """
        self.compute.apply()
        spent, began, saved = self.state["seconds"], time.perf_counter(), time.perf_counter()
        line: dict[str, Any] = {}
        with MetricsLog(self.folder) as log, on_signal(self.console.say) as stop, self._progress() as progress:
            log.truncate(self.begin)
            for info in self._steps():
                self.state["tokens"] += info.tokens
                self.state["seconds"] = spent + time.perf_counter() - began
                line = self._line(info)
                ended = info.step == self.source.steps
                if self._due(info.step, self.config.evaluate_every) or ended:
                    line |= self._evaluate(info.step)
                log.write(line)
                progress.update(info.step, loss=info.loss, tokens_per_second=info.tokens / info.seconds)
                patient = self.config.patience is None or self.state["waited"] < self.config.patience
                if ended or not patient or stop.number is not None or self._save_due(info.step, saved):
                    log.sync()
                    self._save(info.step)
                    saved = time.perf_counter()
                if stop.number is not None and not ended:
                    log.draw()
                    raise Interrupted(
                        f"stopped at step {info.step:,} of {self.source.steps:,}; the checkpoint is saved",
                        signal_number=stop.number,
                        hint="the same command goes on from here",
                    )
                if not patient:
                    self.console.say(f"{self.title}: no better evaluation in {self.config.patience} tries, stopped at step {info.step:,}")
                    break
            log.draw()
        self.network.float()
        return Trained(
            self._chosen(), self.compute, self.optimizer.steps, self.state["tokens"], self.state["seconds"], line, self.state["best"]
        )

    def _progress(self) -> Any:
        return self.console.progress(self.title, self.source.steps, "steps", start=self.begin)

    def _steps(self) -> Any:
        if self.config.patience is not None and self.state["waited"] >= self.config.patience:
            return iter(())  # it had stopped early, and was killed before the stage was closed

        def learning_rate(step: int) -> float:
            return rate(self.config, step, self.source.steps)

        step, weights, device = self.step, self.objective.parts, self.compute.device
        return fit(step, weights, self.optimizer, self.source, learning_rate, start=self.begin, device=device)

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
        }

    @staticmethod
    def _due(step: int, every: int | None) -> bool:
        return every is not None and every > 0 and step % every == 0

    def _save_due(self, step: int, saved: float) -> bool:
        if self.config.save_every is not None:
            return self._due(step, self.config.save_every)
        return time.perf_counter() - saved > SAVE_SECONDS

    def _evaluate(self, step: int) -> dict[str, Any]:
        if self.validate is None:
            return {}
        self.network.eval()
        found = self.validate(self.network)
        self.network.train()
        for line in self.alarms.look(step, found.record.get("parts") or {}, self.optimizer.gradients):
            self.console.warn(f"{self.title}: {line}")
        best = self.state["best"]
        if math.isfinite(found.value) and (not best or found.value < best["value"]):
            self.state["best"] = {"value": found.value, "step": step, "record": found.record}
            self.state["waited"] = 0
            if self.config.keep == "best":
                with files.new_folder(self.folder / "checkpoints" / "best", step=step) as folder:
                    files.write_bytes(folder / "model.safetensors", to_bytes(self._masters()))
        else:
            self.state["waited"] += 1
        return {"validation": found.record}

    def _save(self, step: int) -> None:
        checkpoint.save(self.folder / "checkpoints", step, self.optimizer, dict(self.state), keep=self.config.checkpoints)

    def _masters(self) -> dict[str, Tensor]:
        return {**self.frozen, **{name: master.detach().cpu().clone() for name, master in self.optimizer.masters.items()}}

    def _chosen(self) -> dict[str, Tensor]:
        best = self.folder / "checkpoints" / "best"
        if self.config.keep == "best" and self.state["best"]:
            files.verify(best)
            return load_file(best / "model.safetensors")
        return self._masters()


def install(network: Network, masters: Mapping[str, Tensor]) -> None:
    """Puts trained weights into a network, in fp32 and on the CPU."""
    network.float().cpu()
    for name, parameter in network.named_parameters():
        parameter.data.copy_(masters[name])
        parameter.requires_grad_(True)
