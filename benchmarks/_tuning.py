"""The sides of the benchmark of fine-tuning's speed: one epoch of the same labelled rows, from the same weights, in batches of 32."""

from __future__ import annotations

import os
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path
from typing import Any

from _sentences import labelled, sentences
from _trainer import TRAINER

from lexloom import compute
from lexloom.hub.bundle import Bundle
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.base import length_edges
from lexloom.tasks.classification import TextClassification
from lexloom.text.order import BucketPlan
from lexloom.train.loop import fit
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.source import LabelledSource
from lexloom.train.step import Step, prepared

ROWS, RATE = 32, 5e-5


def rows_of(path: str | None, n: int) -> list[dict[str, Any]]:
    """The first `n` rows of a file with `text` and `label`; without one, docstrings and as labels whether they are long."""
    if path is not None:
        return labelled(Path(path))[:n]
    return [{"text": text, "label": "long" if len(text) > 120 else "short"} for text in sentences(None, n)]


class Ours:
    """The loop of `lexloom finetune`, as it runs by default."""

    def __init__(self, model: str, path: str | None, n: int) -> None:
        rows, start = rows_of(path, n), Bundle.load(Path(model))
        self.chosen = compute.choose(compute.ComputeConfig(compile=False), steps=3 * n // ROWS)
        self.chosen.apply()
        task_config = TextClassification.Config()
        labels = TextClassification.read_labels(task_config, rows)
        task = TextClassification(task_config, Vocabulary.of(start.tokenizer), labels)
        bundle, _ = start.with_task(task, seed=1)
        encoded = task.encode(rows, start.tokenizer, max_length=start.max_length, labelled=True)
        lengths = [len(row["input_ids"]) for row in encoded]
        plan = BucketPlan(lengths, edges=length_edges(lengths), batch_rows=ROWS, seed=1)
        self.source = LabelledSource(encoded, task, plan, epochs=1, seed=1, micro_tokens=4096)
        self.source.padded = self.chosen.compile
        masters = {name: p.detach().clone() for name, p in bundle.network.named_parameters()}
        bundle.network.to(self.chosen.torch_dtype)
        self.step, self.task, self.done, self.epoch = prepared(Step(bundle.network, task), self.chosen), task, 0, plan.batches_per_epoch
        self.optimizer = AdamW(bundle.network.named_parameters(), OptimizerConfig(learning_rate=RATE))
        self.optimizer.adopt(masters)
        self.about = f"{self.chosen.line()}; {sum(lengths):,} tokens, {plan.batches_per_epoch} steps"

    def steps(self, n: int) -> float:
        """Seconds of `n` epochs more."""
        start, self.done = self.done, self.done + n * self.epoch
        self.source.resize(self.done)
        began = time.perf_counter()
        for _ in fit(self.step, self.task.parts, self.optimizer, self.source, lambda _: RATE, start=start):
            pass
        return time.perf_counter() - began


class TrainerPeer:
    """`transformers.Trainer` on the same rows.

    Args:
        bf16: autocast, and rows of about equal length together; its default is neither.
    """

    def __init__(self, model: str, path: str | None, n: int, bf16: bool) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

        rows = rows_of(path, n)
        labels = sorted({str(row["label"]) for row in rows})
        tokenizer = AutoTokenizer.from_pretrained(model)
        found = tokenizer([row["text"] for row in rows], truncation=True, max_length=512)
        data = [{**{k: v[i] for k, v in found.items()}, "labels": labels.index(str(row["label"]))} for i, row in enumerate(rows)]
        torch.manual_seed(1)
        network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(labels), dtype=torch.float32)
        self.arguments = lambda epochs: TrainingArguments(
            num_train_epochs=epochs,
            learning_rate=RATE,
            per_device_train_batch_size=ROWS,
            train_sampling_strategy="group_by_length" if bf16 else "random",
            bf16=bf16,
            **TRAINER,
        )
        collator = DataCollatorWithPadding(tokenizer)
        self.make = lambda n: Trainer(model=network, args=self.arguments(n), train_dataset=data, data_collator=collator)

    def steps(self, n: int) -> float:
        """Seconds of `n` epochs."""
        trainer = self.make(n)
        began = time.perf_counter()
        trainer.train()
        return time.perf_counter() - began
