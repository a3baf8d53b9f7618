"""`transformers.Trainer` as the other side of benchmarks of pre-training: its loop over rows made beforehand, with fused AdamW."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from _ours import RATE

TRAINER: dict[str, Any] = {
    "output_dir": "runs/bench-trainer",
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "logging_strategy": "no",
}
"""The Trainer's settings while it is timed: it trains, and does nothing else."""


class TrainerSteps:
    """Steps of the Trainer.

    Args:
        model, rows, collator: what it is given.
        batch: rows a step. bf16: autocast. compile: `torch_compile`.
    """

    def __init__(self, model: Any, rows: Sequence[Any], collator: Any, *, batch: int, bf16: bool, compile: bool = False) -> None:
        self.model, self.rows, self.collator = model, rows, collator
        self.settings = {"per_device_train_batch_size": batch, "optim": "adamw_torch_fused", "bf16": bf16, "torch_compile": compile}

    def _trainer(self, steps: int, **settings: Any) -> Any:
        from transformers import PrinterCallback, Trainer, TrainingArguments

        arguments = TrainingArguments(max_steps=steps, **{**TRAINER, "learning_rate": RATE, **self.settings, **settings})
        found = Trainer(model=self.model, args=arguments, train_dataset=self.rows, data_collator=self.collator)
        found.remove_callback(PrinterCallback)
        return found

    def steps(self, n: int) -> float:
        """Seconds of `n` steps, the first of a call not counted: it holds what the Trainer does once."""
        from transformers import TrainerCallback

        ends: list[float] = []

        class Clock(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                ends.append(time.perf_counter())

        trainer = self._trainer(n + 1)
        trainer.add_callback(Clock)
        trainer.train()
        return ends[-1] - ends[0]

    def losses(self, n: int, rate: float) -> list[float]:
        """Of each of `n` steps over the rows as they stand, at a constant rate and with the weight decay that is our default."""
        constant = {"learning_rate": rate, "lr_scheduler_type": "constant", "weight_decay": 0.01, "train_sampling_strategy": "sequential"}
        trainer = self._trainer(n, **constant, logging_strategy="steps", logging_steps=1)
        trainer.train()
        return [line["loss"] for line in trainer.state.log_history if "loss" in line]
