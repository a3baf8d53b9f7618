"""A recipe looked at: its settings, the data of its tasks, what it will take of memory and disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lexloom import compute
from lexloom.console import Console, size
from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.objectives.base import Vocabulary
from lexloom.runs import components
from lexloom.runs import recipe as recipes
from lexloom.runs.check import lengths, needs, samples, splits
from lexloom.runs.check.findings import Findings
from lexloom.runs.check.lengths import Limit
from lexloom.runs.check.pretraining import Start, check_pretraining, new_start
from lexloom.runs.check.samples import Sample
from lexloom.runs.components import FineTuning
from lexloom.runs.finetune import NEW_LENGTH
from lexloom.tasks.base import Task
from lexloom.tasks.columns import Columns, ColumnsConfig

_NO_WORDS = Vocabulary(0, None, frozenset(), {"input_ids": 0, "token_type_ids": 0})


def check_recipe(
    path: Path,
    findings: Findings,
    *,
    overrides: Sequence[str],
    out: Path | str | None,
    group: str | None,
    max_rows: int,
    timed: bool,
    console: Console,
) -> None:
    """See `check`."""
    try:
        plan = recipes.read(path, overrides=overrides)
        settled = components.settle(plan)
    except ConfigError as error:
        findings.take(error, "config", str(path))
        return
    run = Path(out) if out is not None else Path("runs") / plan.recipe.name
    disk, last = list[tuple[str, float]](), None
    if settled.phases:
        console.say("looking at pre-training")
        last = check_pretraining(plan, settled.phases, run, findings, disk, timed=timed)
    for name, tuning in settled.tasks.items():
        console.say(f"looking at {name}")
        try:
            start = last if tuning.section.from_ is None else Start.of(Bundle.load(plan.path(tuning.section.from_)))
            start = start if tuning.model is None else new_start(plan, *tuning.model, tuning.train.max_length or NEW_LENGTH, run)
        except LexloomError as error:
            findings.take(error, "model", plan.document.where(("finetune", name, "from")))
            start = None
        _Tuned(name, tuning, plan, start, findings, disk, plan.document.where(("finetune", name))).check(max_rows, group)
    _check_disk(run, disk, findings)


@dataclass
class _Tuned:
    """One task of a recipe."""

    name: str
    tuning: FineTuning
    plan: recipes.Plan
    start: Start | None
    findings: Findings
    disk: list[tuple[str, float]]
    where: str
    found: dict[str, Sample] = field(default_factory=dict)

    def check(self, max_rows: int, group: str | None) -> None:
        """Reads its files and looks at them."""
        reads: dict[str, samples.Read] = {}
        for split, file in self.tuning.section.data.model_dump().items():
            if file is not None:
                try:
                    reads[split] = samples.read(self.plan.path(file), max_rows=max_rows)
                except LexloomError as error:
                    self.findings.take(error, "unreadable", self.where)
        if "train" not in reads:
            return
        try:
            task = self._samples(self._settled(reads["train"]), reads, group)
            if task is not None:
                self._unseen(task)
                self._tokens(task)
        except LexloomError as error:
            self.findings.take(error, "columns" if isinstance(error, DataError) else "model", self.where)

    def _settled(self, train: samples.Read) -> Any:
        settle = getattr(self.tuning.kind, "settle", None)
        if settle is None or not train.rows:
            return self.tuning.config
        config, said = settle(self.tuning.config, train.rows)
        self.findings.add("fact", "columns", self.where, f"{self.name}: {said}")
        return config

    def _samples(self, config: Any, reads: dict[str, samples.Read], group: str | None) -> Task | None:
        """Looks at the splits; the task with the labels of its training rows, None where they make none."""
        given = getattr(config, "columns", None)
        for split, read in reads.items():
            if not read.rows or not isinstance(given, ColumnsConfig):
                self.found[split] = samples.unread(split, read)
                continue
            columns = Columns.find(given, read.rows, labelled=True)
            self.found[split] = samples.labelled(split, read, columns, group=group, classes=self.tuning.kind.classes)
        before = len(self.findings.of("one label"))
        splits.look(self.found, self.findings, of=self.name)
        if not self.found["train"].rows or len(self.findings.of("one label")) > before:
            return None
        try:
            labels = self.tuning.kind.read_labels(config, self.found["train"].rows)
        except LexloomError as error:
            self.findings.take(error, "labels", self.where)
            return None
        return self.tuning.kind(config, self.start.vocabulary if self.start is not None else _NO_WORDS, labels)

    def _unseen(self, task: Task) -> None:
        """Labels that training has no row of; a run would stop at the first."""
        for name, sample in self.found.items():
            first: dict[str, int] = {}
            for i, label in enumerate(sample.labels or ()):
                first.setdefault(label, i)
            for i in first.values() if name != "train" else ():
                try:
                    task.gold([sample.rows[i]])
                except LexloomError as error:
                    self.findings.take(error, "unseen labels", sample.places[i])

    def _tokens(self, task: Task) -> None:
        """Lengths, batches, memory and disk, as far as the model and its tokenizer are known."""
        start, train = self.start, self.tuning.train
        if start is None:
            lengths.table(list(self.found.values()), None, self.findings, of=self.name)
            return
        limit = longest = min(start.limit, train.max_length or start.limit)
        if missing := task.needs - start.kind.ABILITIES:
            what = f"{start.kind.MODEL_TYPE} cannot do {self.tuning.section.task}: it lacks {', '.join(missing)}"
            self.findings.add("error", "model", self.where, what, blame="config")
            return
        start.kind.check_rows(start.config, task.vocabulary.fills, where=self.where)
        tokens = None if start.tokenizer is None else Limit(start.tokenizer, limit)
        lengths.table(list(self.found.values()), tokens, self.findings, of=self.name)
        if start.tokenizer is None:
            self.findings.add("fact", "tokens", self.where, f"{self.name}: there is no tokenizer yet, so tokens are not counted")
        else:
            chosen = self.found["train"].rows[: lengths.CHARACTERS // 500]
            encoded = task.encode(chosen, start.tokenizer, max_length=limit, labelled=True)
            longest = max(lengths.batches(self.name, task, encoded, train.batch_rows, limit, self.findings, self.where))
        self._takes(task, start, longest)

    def _takes(self, task: Task, start: Start, longest: int) -> None:
        train = self.tuning.train
        network = Network.planned(start.kind, start.config, task.roles, labels=max(1, len(task.labels)))
        total = needs.Parameters.of(network).total
        rows = max(1, min(train.batch_rows, train.micro_batch_tokens // longest))
        chosen = compute.choose(train, steps=1)
        found = needs.memory(network, task, rows=rows, length=longest, dtype=chosen.dtype)
        needs.report_memory(self.name, found, chosen.device, train.micro_batch_tokens, self.findings, self.where)
        models = train.seeds * (2 if "from-scratch" in self.tuning.section.baselines else 1)
        self.disk.append((f"{self.name}: checkpoints and bundles of {models}", models * needs.stage_bytes(total, train)))


def _check_disk(run: Path, disk: Sequence[tuple[str, float]], findings: Findings) -> None:
    """What the run will write against what is free."""
    if not disk:
        return
    there = next(folder for folder in (run.resolve(), *run.resolve().parents) if folder.exists())
    free, total = shutil.disk_usage(there).free, sum(amount for _, amount in disk)
    rows = [{"what": what, "size": size(amount), "bytes": round(amount)} for what, amount in (*disk, ("in all", total), ("free", free))]
    findings.table("disk, about", {"what": "what", "size": "size"}, rows)
    if total > free:
        what, do = f"the run writes about {size(total)}, and {size(free)} are free", "make room, or choose --out on another disk"
        findings.add("error", "disk", str(there), what, do, blame="config")
    elif total > 0.8 * free:
        findings.add("warning", "disk", str(there), f"the run fills most of the disk: about {size(total)} of {size(free)} that are free")
