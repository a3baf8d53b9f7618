"""Fine-tuning: a bundle and labelled rows in, a bundle for the task out, over several seeds and beside its baselines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lexloom import files
from lexloom.console import Console
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.objectives.base import Vocabulary
from lexloom.runs import labelled
from lexloom.runs.components import FineTuning, misfit, settle
from lexloom.runs.embeddings import Embeddings, vectors_in
from lexloom.runs.evaluate import FINE_TUNED, FROM_SCRATCH, MAJORITY, SIMPLE_BASELINES, UNTAUGHT, majority_answers, summary, write_seen
from lexloom.runs.labelled import Labelled
from lexloom.runs.origin import visits
from lexloom.runs.room import Room
from lexloom.runs.run import Run, Work
from lexloom.runs.stage import Stage, content, pathless
from lexloom.runs.trained import Validation, install
from lexloom.runs.training import Training
from lexloom.tasks.base import length_edges
from lexloom.tasks.columns import Columns
from lexloom.text.order import BucketPlan
from lexloom.text.rows import Placed
from lexloom.text.tokenizer import Tokenizer
from lexloom.train.settings import FinetuneConfig
from lexloom.train.source import LabelledSource

HELD_OUT = 0.1
NEW_LENGTH = 256
"""Tokens that a new network reads at most, where `max_length` does not say."""


@dataclass
class Data:
    """The rows of the three splits. Without a validation file a share of the training rows is held out; without a test file
    the validation rows are scored, and the report says so."""

    train: list[Placed]
    validation: list[Placed]
    test: list[Placed] | None
    bad: dict[str, Any]

    @property
    def scored(self) -> list[Placed]:
        """The rows that scores are given on."""
        return self.test if self.test is not None else self.validation


@dataclass
class Runs:
    """A model over its seeds: answers on the scored rows, and the bundle of the seed that validated best."""

    answers: list[list[Any]]
    best: Path


def read_data(folder: Path | None, train: Path, validation: Path | None, test: Path | None, seed: int) -> Data:
    """Reads the splits; bad rows go to `folder/bad-rows-*.jsonl`, or are only counted where there is no folder.

    Raises:
        DataError: a file has no good row.
    """
    found: dict[str, Labelled] = {}
    for name, path in (("train", train), ("validation", validation), ("test", test)):
        if path is not None:
            found[name] = labelled.read(path, aside=folder / f"bad-rows-{name}.jsonl" if folder is not None else None)
    rows = found["train"].rows
    if "validation" in found:
        held = found["validation"].rows
    else:
        rows, held = labelled.hold_out(rows, HELD_OUT, seed)
    bad = {name: one.bad for name, one in found.items()}
    return Data(rows, held, found["test"].rows if "test" in found else None, bad)


class FineTune:
    """One task on one start: settled columns, labels, and a run per seed.

    Args:
        folder: of the stage; each seed has its own below it.
        embeddings: of a new network, where its words start from vectors.
    """

    def __init__(
        self,
        folder: Path,
        tuning: FineTuning,
        data: Data,
        start: Bundle,
        console: Console,
        *,
        seed: int,
        embeddings: Embeddings | None = None,
    ) -> None:
        self.folder, self.data, self.start, self.console, self.seed = folder, data, start, console, seed
        self.embeddings = embeddings
        self.train = tuning.train
        config = tuning.config
        if (settle := getattr(tuning.kind, "settle", None)) is not None:
            config, said = settle(config, data.train)
            console.say(f"{folder.name}: {said}")
        labels = tuning.kind.read_labels(config, data.train)
        self.task = tuning.kind(config, Vocabulary.of(start.tokenizer), labels)
        for problem in misfit(type(start.network.backbone), [tuning.kind], f"do {tuning.section.task}"):
            raise problem
        self.max_length = min(start.max_length, self.train.max_length or start.max_length)
        self.encoded = self.task.encode(data.train, start.tokenizer, max_length=self.max_length, labelled=True)
        for split in (data.validation, data.scored):
            self.task.gold(split)  # labels that training never saw are an error now, not after an hour
            if not tuning.kind.cuts:  # and so are texts that would be refused
                self.task.encode(split, start.tokenizer, max_length=self.max_length, labelled=False)

    def remarks(self) -> list[str]:
        """What encoding did to the training rows, and what was put aside."""
        tokens, texts = sum(map(self.task.length, self.encoded)), {row["row"] for row in self.encoded}
        lines = [f"{len(self.data.train):,} training rows, {tokens:,} tokens, at most {self.max_length} a row"]
        if cut := len({row["row"] for row in self.encoded if row["cut"]}):
            whole = f"; settings.{self.task.whole} reads them whole" if self.task.whole else ""
            lines.append(f"{cut:,} texts are longer and are cut{whole}")
        if left := len(self.data.train) - len(texts):
            lines.append(f"{left:,} rows are longer, or empty, and are left out")
        lines += [self.embeddings.said] if self.embeddings is not None else []
        lines += [f"{name}: {n['total']:,} bad rows were put aside" for name, n in self.data.bad.items() if n.get("total")]
        return lines

    def run(self, name: str, start: Bundle | None) -> Runs:
        """Fine-tunes `start`, or for None the same network with fresh weights, once per seed in `folder/name/seed-N/`."""
        seeds = range(self.seed, self.seed + self.train.seeds)
        results = [self._seed(self.folder / name / f"seed-{seed}", start or self.fresh(seed), seed) for seed in seeds]
        best = min(range(len(results)), key=lambda i: results[i]["validation"])
        return Runs([result["answers"] for result in results], self.folder / name / f"seed-{seeds[best]}" / "bundle")

    def fresh(self, seed: int) -> Bundle:
        """The same network with the weights that a new one has: what pre-training is measured against, or a new network of its own."""
        kind, network = type(self.start.network.backbone), self.start.network
        found = Network.build(kind, network.backbone.config, network.roles, seed=seed)
        if self.embeddings is not None:
            self.embeddings.install(found)
        return Bundle(found, self.start.tokenizer, self.start.task, self.start.pooling, self.start.extra)

    def _seed(self, folder: Path, start: Bundle, seed: int) -> dict[str, Any]:
        done = folder / "result.json"
        if done.is_file() and files.read_manifest(folder / "bundle") is not None:
            return dict(files.read_json(done, kind="result"))
        bundle, new = start.with_task(self.task, seed=seed)
        if self.train.head_epochs > 0 and new:
            self._train(folder / "head", bundle, seed, self.head_config(), only=frozenset(new))
        room = self._train(folder, bundle, seed, self.train)
        validation = room.fit(lambda tokens: self._validate(bundle.network, tokens)).value
        answers = room.fit(lambda tokens: self._answers(bundle.network, self.data.scored, tokens))
        bundle.about = {"stage": "finetune", "seed": seed, "rows": len(self.data.train), "labels": self.label_counts()}
        bundle.save(folder / "bundle")
        result = {"format": files.FORMAT, "seed": seed, "validation": validation, "answers": answers}
        files.write_json(done, result)
        return result

    def head_config(self) -> FinetuneConfig:
        """The settings of the first stage, in which only the new head learns."""
        update = {"epochs": self.train.head_epochs, "learning_rate": self.train.head_learning_rate, "keep": "last", "patience": None}
        return self.train.model_copy(update=update)

    def _train(self, folder: Path, bundle: Bundle, seed: int, config: FinetuneConfig, only: frozenset[str] | None = None) -> Room:
        training = self.build(folder, bundle, seed, config, only)
        install(bundle.network, training.run().masters)
        return training.room

    def build(
        self,
        folder: Path,
        bundle: Bundle,
        seed: int,
        config: FinetuneConfig,
        only: frozenset[str] | None = None,
        *,
        kind: type[Training] = Training,
    ) -> Training:
        """The training of one seed, ready to run.

        Args:
            only: own names of the parameters that learn; all where None.
            kind: what is built: `Training`, or one that goes through it once more.
        """
        source = self._source(config, seed)
        if config.evaluate_every is None:
            config = config.model_copy(update={"evaluate_every": max(1, source.plan.batches_per_epoch)})
        training = kind(
            folder,
            bundle.network,
            self.task,
            source,
            config,
            self.console,
            validate=self._validate,
            trainable=None if only is None else only.__contains__,
            title=f"{self.folder.name}, {folder.parent.name}, {folder.name}",
        )
        training.where = lambda step: [self._place_of(visit.row) for visit in visits(source, step)]
        return training

    def _place_of(self, row: int) -> str:
        """`file:line` of a token row."""
        placed = self.data.train[self.encoded[row]["row"]]
        return f"{placed.file}:{placed.line}"

    def _source(self, config: FinetuneConfig, seed: int) -> LabelledSource:
        lengths = [self.task.length(row) for row in self.encoded]
        edges = [min(edge, self.max_length) for edge in length_edges(lengths)]
        plan = BucketPlan(lengths, edges=sorted(set(edges)), batch_rows=config.batch_rows, seed=seed)
        return LabelledSource(self.encoded, self.task, plan, epochs=config.epochs or 1, seed=seed, micro_tokens=config.micro_batch_tokens)

    def _validate(self, network: Network, batch_tokens: int) -> Validation:
        answers = self._answers(network, self.data.validation, batch_tokens)
        scores = self.task.score(self.task.gold(self.data.validation), answers)
        return Validation(-scores[self.task.primary], scores)

    def _answers(self, network: Network, rows: Sequence[Placed], batch_tokens: int) -> list[Any]:
        return self.task.predict(network, self.start.tokenizer, rows, max_length=self.max_length, batch_tokens=batch_tokens)

    def label_counts(self) -> dict[str, int]:
        """How many training rows each label has; nothing where labels are no classes."""
        if not self.task.labels:
            return {}
        names, counts = np.unique(np.asarray(self.task.gold(self.data.train), dtype=object).astype(str), return_counts=True)
        return {str(name): int(n) for name, n in zip(names, counts, strict=True)}


def work(run: Run, name: str) -> Work:
    """The stage of one task of a recipe."""
    tuning, source, paths = inputs_of(run, name)
    depends = {
        "settings": pathless(tuning.section.model_dump(mode="json")),
        **run.code(),
        "start": content(source),
        "data": {split: content(path) for split, path in paths.items()},
        "seed": run.recipe.seed,
        **vectors_in(run, tuning.vectors),
    }
    stage = Stage(f"finetune/{name}", run.path(f"finetune/{name}"), depends, trained=True)

    def make() -> None:
        data = read_data(stage.folder, paths["train"], paths.get("validation"), paths.get("test"), run.recipe.seed)
        start, seed = opened(tuning, source, run.recipe.seed), run.recipe.seed
        vectors = Embeddings.named(run, tuning.vectors, start.tokenizer)
        finetune(stage.folder, tuning, data, start, run.console, seed=seed, name=name, embeddings=vectors)

    return Work(stage, make)


def inputs_of(run: Run, name: str) -> tuple[FineTuning, Path, dict[str, Path]]:
    """The settings of a task of the recipe, the bundle or for a new network the tokenizer that it starts from, and its files by split."""
    tuning = settle(run.plan).tasks[name]
    section = tuning.section
    if section.from_ is not None:
        source = run.plan.path(section.from_)
    else:
        source = run.path("tokenizer") if tuning.model is not None else run.path(run.phase_names()[-1]) / "bundle"
    return tuning, source, {split: run.plan.path(file) for split, file in section.data.model_dump().items() if file is not None}


def opened(tuning: FineTuning, source: Path, seed: int) -> Bundle:
    """What a task starts from: the bundle at `source`, or a new network over the tokenizer there.

    Raises:
        ConfigError: the network does not read what the tokenizer gives.
    """
    if tuning.model is None:
        return Bundle.load(source)
    kind, settings = tuning.model
    tokenizer, length = Tokenizer.load(source), tuning.train.max_length or NEW_LENGTH
    config = kind.Config.read(kind.fitted(settings, length=length, vocabulary=len(tokenizer), ids=tokenizer.ids))
    kind.check_rows(config, tokenizer.fills)
    return Bundle(Network.build(kind, config, (), seed=seed), tokenizer.with_max_length(length))


def finetune(
    folder: Path,
    tuning: FineTuning,
    data: Data,
    start: Bundle,
    console: Console,
    *,
    seed: int,
    name: str,
    embeddings: Embeddings | None = None,
) -> Path:
    """Fine-tunes, scores beside the baselines, and writes `folder/bundle` and `folder/summary.json`."""
    began = time.perf_counter()
    runner = FineTune(folder, tuning, data, start, console, seed=seed, embeddings=embeddings)
    for line in runner.remarks():
        console.say(f"{name}: {line}")
    main = runner.run("seeds", start if tuning.model is None else None)
    systems = {FINE_TUNED: main.answers}
    if "from-scratch" in tuning.section.baselines and tuning.model is None:
        systems[FROM_SCRATCH] = runner.run("from-scratch", None).answers
    systems |= _baselines(folder, runner, tuning.section.baselines, seed)
    note = "" if data.test is not None else "scored on the validation rows, by which the best epoch was chosen: there are no test rows"
    found = summary(runner.task, data.scored, systems, seed=seed, notes={FINE_TUNED: note} if note else None)
    console.say(f"{name}: {found['verdict']}")
    _write_bundle(folder, main.best, runner, found)
    files.write_json(
        folder / "summary.json",
        {
            "format": files.FORMAT,
            "task": tuning.section.task,
            "seeds": tuning.train.seeds,
            "rows": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test) if data.test else None},
            **found,
            "bad_rows": data.bad,
            "encoding": runner.remarks(),
            "settings": tuning.train.plain(),
            "compute": files.read_json(folder / "seeds" / f"seed-{seed}" / "compute.json"),
            "seconds": time.perf_counter() - began,
        },
    )
    return folder / "bundle"


def _baselines(folder: Path, runner: FineTune, names: Sequence[str], seed: int) -> dict[str, list[list[Any]]]:
    """Answers of what costs nothing to train. Classifiers are kept as bundles, for `evaluate` to stand beside."""
    found: dict[str, list[list[Any]]] = {}
    rows, data = runner.data.scored, runner.data
    if not runner.task.labels:
        untaught = runner.task.untaught(rows)
        return {} if untaught is None else {UNTAUGHT: [untaught]}
    for name, (kind, place) in SIMPLE_BASELINES.items():
        if place not in names:
            continue
        columns = Columns.find(runner.task.config.columns, data.train, labelled=True)
        labels = [str(label) for label in runner.task.gold(data.train)]
        texts, pairs = columns.texts(data.train), columns.pairs(data.train)
        model = kind.fit(texts, pairs, labels, names=runner.task.labels, columns=columns.config(), seed=seed)
        model.save(folder / "baselines" / place)
        write_seen(folder / "baselines", texts, pairs)
        found[name] = [model.predict([dict(row.row) for row in rows])]
    if "majority" in names:
        found[MAJORITY] = [majority_answers(runner.label_counts(), len(rows))]
    return found


def _write_bundle(folder: Path, best: Path, runner: FineTune, found: dict[str, Any]) -> None:
    bundle = Bundle.load(best)
    scores = [score for score in found["scores"] if score["metric"] == runner.task.primary]
    bundle.about |= {"task": folder.name, "scores": scores, "verdict": found["verdict"]}
    bundle.save(folder / "bundle")
