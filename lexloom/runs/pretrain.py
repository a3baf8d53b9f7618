"""Pre-training: shards and a model in, a bundle out; from scratch or on from a bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lexloom import files
from lexloom.console import Console, count
from lexloom.errors import ConfigError, DataError
from lexloom.hub.bundle import Bundle, parameters
from lexloom.models.base import Network
from lexloom.objectives.base import Objective, Vocabulary
from lexloom.runs import components, fills
from lexloom.runs.embeddings import Embeddings, vectors_in
from lexloom.runs.failure import documents
from lexloom.runs.following import Following
from lexloom.runs.origin import visits
from lexloom.runs.run import Run, Work, tokenizer_report
from lexloom.runs.stage import Stage, content, pathless
from lexloom.runs.trained import Trained, Validation, install
from lexloom.runs.training import EVALUATIONS, Training
from lexloom.tasks.base import plain_task
from lexloom.text.corpus import Corpus
from lexloom.text.pack import Packing, PackingConfig, ensure_packing
from lexloom.text.shards import Shards, Split, write_shards
from lexloom.text.tokenizer import Tokenizer, extend, propose_words
from lexloom.train.alarms import Alarms, repeated, repetition
from lexloom.train.evaluate import mean_losses
from lexloom.train.parallel import ALONE, World
from lexloom.train.settings import PretrainConfig
from lexloom.train.source import PackedSource, Phase, fixed_batches

ALARMS = "alarms.json"
LOOKED_AT = 20_000
"""Rows at the start of the corpus that are looked through for copies; a hundred times as many tokens are counted."""


def works(run: Run) -> Iterator[Work]:
    """The stages of pre-training in order: tokenizer of the start (where there is one), shards, and each phase."""
    start = components.settle(run.plan).phases[0].start
    if start is not None:
        yield _start_tokenizer(run, start)
    yield _shards(run)
    for i in range(len(run.phase_names())):
        yield phase_work(run, i)


def _start_tokenizer(run: Run, start: components.Start) -> Work:
    bundle, corpus = run.plan.path(start.from_), run.path("corpus")
    depends = {"bundle": content(bundle), "settings": {name: value for name, value in start.plain().items() if name != "from"}}
    if start.vocabulary != "keep":
        depends["corpus"] = content(corpus)
    stage = Stage("tokenizer", run.path("tokenizer"), depends)

    def make() -> None:
        tokenizer, words = Tokenizer.load(bundle), list[str]()
        if isinstance(start.vocabulary, components.Extend):
            texts = (document.text for document in Corpus.open(corpus).documents("train"))
            words = propose_words(texts, tokenizer, start.vocabulary.extend)
            run.console.say(f"vocabulary: {len(words):,} words more, such as {', '.join(words[:8])}")
            tokenizer, _ = extend(tokenizer, words)
        with files.new_folder(stage.folder, kind="tokenizer") as folder:
            tokenizer.save(folder)
            files.write_json(folder / "words.json", words)
            files.write_json(folder / "report.json", tokenizer_report(tokenizer, Corpus.open(corpus), "from a bundle"))

    return Work(stage, make)


def _shards(run: Run) -> Work:
    corpus, tokenizer = run.path("corpus"), run.path("tokenizer")
    words = any(phase.words for phase in components.settle(run.plan).phases)
    depends = {"corpus": content(corpus), "tokenizer": content(tokenizer), **({"words": words} if words else {})}
    stage = Stage("shards", run.path("shards"), depends)

    def make() -> None:
        texts = Corpus.open(corpus)
        with run.console.progress("encoding", sum(texts.count(split) for split in texts.splits), "documents") as progress:
            write_shards(texts, Tokenizer.load(tokenizer), stage.folder, words=words, report=progress.update)

    return Work(stage, make)


def phase_work(run: Run, i: int) -> Work:
    """The stage of phase `i`."""
    name = run.phase_names()[i]
    source = _source_bundle(run, i)
    depends = {
        "settings": pathless(run.recipe.phases[i].model_dump(mode="json")),
        **run.code(),
        "shards": content(run.path("shards")),
        "tokenizer": content(run.path("tokenizer")),
        "start": content(source) if source is not None else None,
        "seed": run.recipe.seed,
        **(vectors_in(run, components.settle(run.plan).phases[i].vectors) if source is None else {}),
    }
    stage = Stage(name, run.path(name), depends, trained=True)

    def make() -> None:
        pretrain(stage.folder, *phase_inputs(run, i), run.console, run.world)

    return Work(stage, make, together=True)


def phase_inputs(run: Run, i: int) -> tuple[components.Phase, Inputs]:
    """The settings of phase `i` and what it works on, opened."""
    phase, source, tokenizer = components.settle(run.plan).phases[i], _source_bundle(run, i), run.path("tokenizer")
    found = Shards.open(run.path("shards"))
    start = _start(source, tokenizer) if source is not None else None
    words = start.tokenizer if start is not None else Tokenizer.load(tokenizer)
    validation = found.split("validation") if "validation" in found.splits else None
    said = {"name": run.recipe.name, "language": run.recipe.prepare.language if run.recipe.prepare is not None else None}
    vectors = Embeddings.named(run, phase.vectors, words) if start is None else None
    return phase, Inputs(found.split("train"), validation, start, words, run.recipe.seed, run.path("corpus"), said, vectors)


def _source_bundle(run: Run, i: int) -> Path | None:
    """The bundle that phase `i` goes on from: the one it names, else that of the phase before it."""
    start = components.settle(run.plan).phases[i].start
    if start is not None:
        return run.plan.path(start.from_)
    return run.path(run.phase_names()[i - 1]) / "bundle" if i else None


def _start(source: Path, tokenizer: Path) -> Bundle:
    """The bundle to go on from, under the run's tokenizer: extended where the run's has words that the bundle's lacks."""
    bundle = Bundle.load(source)
    words = files.read_json(tokenizer / "words.json") if (tokenizer / "words.json").is_file() else []
    missing = len(Tokenizer.load(tokenizer)) > len(bundle.tokenizer)
    return extended(bundle, words) if words and missing else bundle


@dataclass
class Inputs:
    """What a phase works on."""

    train: Split
    validation: Split | None
    start: Bundle | None  # the bundle to go on from, tokenizer extended already
    tokenizer: Tokenizer
    seed: int
    corpus: Path | None = None  # where the documents come from, to name them by
    said: Mapping[str, Any] = field(default_factory=dict)  # what the recipe says of the model, for its card
    embeddings: Embeddings | None = None  # of a new network, where its words start from vectors


def pretrain(folder: Path, phase: components.Phase, inputs: Inputs, console: Console, world: World = ALONE) -> Path:
    """Runs one phase in `folder` and writes `folder/bundle` and `folder/summary.json`; the first of several processes does the writing.

    Raises:
        DataError: the corpus is too small for one step.
        Interrupted: a signal came; the checkpoint is saved.
    """
    training, inputs = build(folder, phase, inputs, console, kind=Training if world.first else Following, world=world)
    network, objective, source = training.network, training.objective, training.source
    assert isinstance(source, PackedSource)
    if world.first:  # which alone evaluates
        training.alarms = _alarms(folder, source, inputs, console)
    training.where = lambda step: documents(visits(source, step), inputs.corpus)
    trained = training.run()
    if not world.first:
        return folder / "bundle"
    install(network, trained.masters)
    longest = max(phase.train.lengths)
    bundle = _bundle(network, inputs, longest)
    validation = training.room.fit(lambda tokens: _validation_losses(network, inputs, objective, phase, tokens))
    shown = fills.answers(bundle, phase.fills)
    about = _summary(network, objective, source, trained, validation, shown, phase)
    about |= {"embeddings": inputs.embeddings.plain()} if inputs.embeddings is not None else {}
    files.write_json(folder / "summary.json", about | {"answers": bundle.task.pipeline if bundle.task is not None else None})
    learned = {"objective": list(objective.parts), "steps": trained.steps, "tokens": trained.tokens, "validation": validation}
    bundle.about = {"stage": "pretrain", **inputs.said, **learned}
    return bundle.save(folder / "bundle")


def build(
    folder: Path, phase: components.Phase, inputs: Inputs, console: Console, *, kind: type[Training] = Training, world: World = ALONE
) -> tuple[Training, Inputs]:
    """The training of a phase, ready to run, and its inputs, without a validation split that gives no row.

    Args:
        kind: what is built: `Training`, or one that goes through it once more.
    """
    objective = phase.objective(Vocabulary.of(inputs.tokenizer))
    if phase.words and inputs.train.words is None:
        raise DataError("these shards do not say where words begin", where=str(inputs.train.folder), hint="make the shards again")
    inputs = _checked(inputs, objective, phase, console)
    network, report = _network(phase, inputs, objective)
    if report:
        console.say(f"pre-training: {report}")
    longest = max(phase.train.lengths)
    if longest > network.backbone.max_length:
        raise ConfigError("length is beyond the model's positions", expected=f"at most {network.backbone.max_length}", got=str(longest))
    fills.check(_bundle(network, inputs, longest), phase.fills, console)
    source = _source(inputs.train, objective, phase.train, inputs.seed)
    _check_rows(source, world)
    console.say(f"pre-training: {parameters(network):,} parameters, {source.steps:,} steps, {_rows(source)}")
    training = kind(
        folder,
        network,
        objective,
        source,
        _with_evaluations(phase.train, source.steps),
        console,
        validate=_validate(inputs, objective, phase),
        title="pre-training",
        world=world,
    )
    return training, inputs


def _alarms(folder: Path, source: PackedSource, inputs: Inputs, console: Console) -> Alarms:
    """What to compare losses with, found once and kept beside the log; a corpus that repeats itself is told at every start."""
    path = folder / ALARMS
    if not path.is_file():
        files.write_json(path, {"format": files.FORMAT, **_compared(source, inputs)})
    found = files.read_json(path, kind="comparison for alarms")
    files.check_format(found, path)
    if line := repetition(found["repeated"], found["rows"]):
        console.warn(f"pre-training: {line}")
    return Alarms(source.steps, found["blind"])


def _compared(source: PackedSource, inputs: Inputs) -> dict[str, Any]:
    """The share of rows that stand twice among the first `rows`, and each part's loss of a guess that does not look at the text."""
    packing = source.phases[0].packing
    rows = packing.rows(np.arange(min(len(packing), LOOKED_AT)))
    tokens = np.asarray(inputs.train.tokens[: LOOKED_AT * 100], dtype=np.int64)
    blind = source.objective.blind(np.bincount(tokens, minlength=len(inputs.tokenizer)))
    return {"rows": len(rows), "repeated": repeated(row["input_ids"] for row in rows), "blind": dict(blind)}


def _checked(inputs: Inputs, objective: Objective, phase: components.Phase, console: Console) -> Inputs:
    """The inputs without a validation split that gives no row, such as one document where pairs need two: that is no reason to stop."""
    if inputs.validation is None:
        return inputs
    try:
        rows = len(_packing(inputs.validation, objective, phase.train, min(phase.train.lengths), inputs.seed))
        problem = None if rows else "it gives no row"
    except DataError as error:
        problem = error.problem
    if problem is None:
        return inputs
    console.warn(f"pre-training: no validation on the way: {problem}")
    return replace(inputs, validation=None)


def _network(phase: components.Phase, inputs: Inputs, objective: Objective) -> tuple[Network, str]:
    roles = frozenset(objective.roles)
    if inputs.start is not None:
        network, new = inputs.start.network, list[str]()
        if network.roles != roles:
            network, new = network.with_heads(roles, labels=2, seed=inputs.seed)
        return network, f"new weights: {', '.join(new)}" if new else "all weights come from the bundle"
    assert phase.kind is not None  # components.settle gives one or the other
    longest = max(phase.train.lengths)
    words = inputs.tokenizer
    config = phase.kind.Config.read(phase.kind.fitted(phase.model, length=longest, vocabulary=len(words), ids=words.ids))
    phase.kind.check_rows(config, words.fills)
    if missing := objective.needs - phase.kind.ABILITIES:
        raise ConfigError(f"{phase.kind.MODEL_TYPE} cannot learn this objective", expected=", ".join(missing))
    network = Network.build(phase.kind, config, roles, seed=inputs.seed)
    if inputs.embeddings is not None:
        inputs.embeddings.install(network)
    return network, inputs.embeddings.said if inputs.embeddings is not None else ""


def _packing(shards: Split, objective: Objective, train: PretrainConfig, length: int, seed: int) -> Packing:
    kind = {"sentence-pair": "sentence-pairs", "ordered-pair": "ordered-pairs"}.get(objective.rows, "blocks")
    given = {"documents": train.documents, "sentences": train.sentences, "specials": objective.specials, "borders": objective.borders}
    config = PackingConfig.read({"kind": kind, "length": length, **given})
    return ensure_packing(shards, config, seed=seed)


def _source(shards: Split, objective: Objective, train: PretrainConfig, seed: int) -> PackedSource:
    phases = []
    for length, share in train.lengths.items():
        packing = _packing(shards, objective, train, length, seed)
        rows = max(1, train.batch_tokens // length)
        if len(packing) == 0:
            raise DataError(f"the corpus gives no row of {length} tokens", hint="more text, or a shorter length")
        phases.append(Phase(length, packing, _steps(train, share, length, rows, packing), rows, micro_rows(train, length, rows)))
    return PackedSource(phases, objective, seed=seed)


def _check_rows(source: PackedSource, world: World) -> None:
    if (rows := min(phase.rows for phase in source.phases)) < world.size:
        hint = "a larger batch_tokens, or fewer --devices"
        raise ConfigError("more processes than a step has rows", expected=f"at most {rows}", got=str(world.size), hint=hint)


def _steps(train: PretrainConfig, share: float, length: int, rows: int, packing: Packing) -> int:
    if train.steps is not None:
        return max(1, round(train.steps * share))
    if train.tokens is not None:
        mean = float(packing.lengths.mean())  # the budget counts real tokens, not padding
        return max(1, math.ceil(train.tokens * share / (rows * mean)))
    if train.timed:
        return max(1, round(1000 * share))  # until a few of them are timed
    return max(1, math.ceil((train.epochs or 1.0) * share * len(packing) / rows))


def micro_rows(train: PretrainConfig, length: int, rows: int) -> int:
    """The largest divisor of the step's rows that fits the micro-batch: all micro-batches have one shape."""
    most = max(1, min(rows, train.micro_batch_tokens // length))
    return max(n for n in range(1, most + 1) if rows % n == 0)


def _rows(source: PackedSource) -> str:
    return ", ".join(f"{p.steps:,} of {p.rows} × {p.length} over {count(len(p.packing))} rows" for p in source.phases)


def _with_evaluations(train: PretrainConfig, steps: int) -> PretrainConfig:
    """Twenty evaluations over the run, unless the recipe says how often."""
    if train.evaluate_every is not None or train.timed:
        return train
    return train.model_copy(update={"evaluate_every": max(1, steps // EVALUATIONS)})


def _validation_losses(
    network: Network, inputs: Inputs, objective: Objective, phase: components.Phase, batch_tokens: int
) -> dict[str, Any] | None:
    if inputs.validation is None:
        return None
    length = min(phase.train.lengths)
    packing = _packing(inputs.validation, objective, phase.train, length, inputs.seed)
    tokens = phase.train.validation_tokens
    batches = fixed_batches(packing, objective, length=length, tokens=tokens, seed=inputs.seed, batch_tokens=batch_tokens)
    parts = mean_losses(network, objective, batches)
    return {"loss": sum(objective.parts[part] * value for part, value in parts.items()), "parts": parts}


def _validate(inputs: Inputs, objective: Objective, phase: components.Phase) -> Any:
    if inputs.validation is None:
        return None

    def validate(network: Network, batch_tokens: int) -> Validation:
        found = _validation_losses(network, inputs, objective, phase, batch_tokens)
        return Validation(found["loss"], found) if found and found["parts"] else Validation(math.inf, {})

    return validate


def _bundle(network: Network, inputs: Inputs, longest: int) -> Bundle:
    tokenizer = inputs.tokenizer if inputs.start is not None else inputs.tokenizer.with_max_length(longest)
    task = plain_task(network.roles, Vocabulary.of(tokenizer))
    if inputs.start is None:
        return Bundle(network, tokenizer, task)
    return Bundle(network, tokenizer, task, extra=inputs.start.extra, generation=inputs.start.generation)


def _summary(
    network: Network,
    objective: Objective,
    source: PackedSource,
    trained: Trained,
    validation: dict[str, Any] | None,
    shown: list[dict[str, Any]],
    phase: components.Phase,
) -> dict[str, Any]:
    return {
        "format": files.FORMAT,
        "model": {"kind": network.backbone.MODEL_TYPE, "class": network.class_name, **network.backbone.config.plain()},
        "parameters": parameters(network),
        "objective": list(objective.parts),
        "steps": trained.steps,
        "tokens": trained.tokens,
        "seconds": trained.seconds,
        "loss": trained.last.get("loss"),
        "validation": validation,
        "lengths": {str(p.length): {"steps": p.steps, "rows": len(p.packing)} for p in source.phases},
        "compute": trained.compute.plain(),
        "settings": phase.train.plain(),
        "fills": shown,
        "tasks": components.tasks_for(type(network.backbone)),
    }


def extended(bundle: Bundle, words: list[str]) -> Bundle:
    """A bundle whose vocabulary has gained words: each new row of the embedding starts as the mean of its old pieces' rows.

    The output bias of a new word starts as the mean of its pieces' too.
    """
    old = bundle.network
    if old.backbone.embedding is None:
        hint = "leave vocabulary: away; it spells every word"
        raise ConfigError(f"{old.backbone.MODEL_TYPE} has no matrix of words that could grow", hint=hint)
    tokenizer, pieces = extend(bundle.tokenizer, words)
    config = old.backbone.config.model_copy(update={"vocab_size": len(tokenizer)})
    network = Network.build(type(old.backbone), config, old.roles)
    before, after = old.state_dict(), network.state_dict()
    with torch.no_grad():
        for name, tensor in after.items():
            rows = before[name].shape[0] if before[name].shape != tensor.shape else None
            tensor[:rows].copy_(before[name]) if rows else tensor.copy_(before[name])
            if rows:
                for new, parts in pieces.items():
                    tensor[new] = before[name][parts].mean(0)
    task = type(bundle.task)(bundle.task.config, Vocabulary.of(tokenizer)) if bundle.task and not bundle.labels else None
    return Bundle(network, tokenizer, task, extra=bundle.extra, generation=bundle.generation, about=bundle.about)
