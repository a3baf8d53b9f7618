"""Pre-training looked at: how much text there is, what is wrong with it, what the network holds and takes, how many steps there will be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lexloom import compute
from lexloom.console import count, duration, size
from lexloom.errors import ConfigError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Architecture, Network
from lexloom.objectives.base import Objective, Vocabulary
from lexloom.runs import components
from lexloom.runs.check import faults, lengths, needs, samples
from lexloom.runs.check.findings import Findings, Level
from lexloom.runs.check.samples import Sample
from lexloom.runs.components import Phase
from lexloom.runs.prepare import PrepareConfig
from lexloom.runs.pretrain import micro_rows
from lexloom.runs.recipe import Plan
from lexloom.text.rows import files_of
from lexloom.text.segment import guess_language, sentences
from lexloom.text.tokenizer import Tokenizer

LETTERS_PER_TOKEN, OTHERS_PER_TOKEN = 4.5, 1.2
"""Characters of a token where nothing is known: of languages with spaces under a vocabulary of 16,000, and of Chinese."""
CORPUS_SHARE, SHARD_BYTES = 0.45, 0.3
"""Of the text's bytes in Parquet; and of a token in shards, what its sentence borders and packings add."""
OFTEN, FEW_SEVERAL = 40, 0.5
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True)
class Start:
    """What a stage starts from: the architecture, its settings, its tokenizer where it is there, the longest row, and the vocabulary."""

    kind: type[Architecture]
    config: Any
    tokenizer: Tokenizer | None
    limit: int
    vocabulary: Vocabulary

    @classmethod
    def of(cls, bundle: Bundle) -> Start:
        """What a bundle gives."""
        words = Vocabulary.of(bundle.tokenizer)
        return cls(type(bundle.network.backbone), bundle.network.backbone.config, bundle.tokenizer, bundle.max_length, words)


@dataclass(frozen=True)
class Text:
    """How much text there is."""

    characters: float
    tokens: float
    known: bool  # the tokenizer was asked, not a rule of thumb
    several: float  # the share of documents with several sentences


def check_pretraining(
    plan: Plan, phases: Sequence[Phase], run: Path, findings: Findings, disk: list[tuple[str, float]], *, timed: bool = False
) -> Start | None:
    """Looks at sources and phases.

    Args:
        disk: takes what will be written.

    Returns:
        what fine-tuning will start from; None where that is not known.
    """
    start = _first(plan, phases[0], run, findings)
    if start is None:
        return None
    text = _text(plan, start.tokenizer, findings)
    vocabulary = start.vocabulary
    if text is not None:
        _corpus_disk(text, vocabulary.size, disk)
    rows: list[dict[str, Any]] = []
    for i, phase in enumerate(phases):
        where, name = plan.document.where(plan.phase_place(i)), f"phase {i + 1}" if len(phases) > 1 else "pre-training"
        try:
            work = _Phase(name, phase, start, phase.objective(vocabulary), where, findings)
            rows += work.check(text, disk, timed=timed)
            start = work.end()
        except LexloomError as error:
            findings.take(error, "pre-training", where)
            return None
    findings.table(
        "steps, about", {"phase": "phase", "length": "length", "rows": "rows a step", "steps": "steps", "tokens": "tokens"}, rows
    )
    return start


def _first(plan: Plan, phase: Phase, run: Path, findings: Findings) -> Start | None:
    where = plan.document.where((*plan.phase_place(0), "model"))
    try:
        if phase.start is not None:
            start = Start.of(Bundle.load(plan.path(phase.start.from_)))
            more = phase.start.vocabulary.extend if isinstance(phase.start.vocabulary, components.Extend) else 0
            config = start.config.model_copy(update={"vocab_size": start.config.vocab_size + more})
            return replace(start, config=config)
        if phase.kind is None:
            raise ConfigError("this phase has no model")
        return new_start(plan, phase.kind, phase.model, max(phase.train.lengths), run)
    except LexloomError as error:
        findings.take(error, "model", where)
        return None


def new_start(plan: Plan, kind: type[Architecture], model: Mapping[str, Any], length: int, run: Path) -> Start:
    """A new network for rows of that length, with the run's tokenizer where that is there."""
    tokenizer = Tokenizer.load(run / "tokenizer") if (run / "tokenizer" / "tokenizer.json").is_file() else None
    size = len(tokenizer) if tokenizer is not None else plan.recipe.tokenizer.vocab_size if plan.recipe.tokenizer else 0
    ids = tokenizer.ids if tokenizer is not None else {}
    config: Any = kind.Config.read(kind.fitted(model, length=length, vocabulary=size, ids=ids))
    words = Vocabulary.of(tokenizer) if tokenizer is not None else _made_up(config.vocab_size, plan)
    return Start(kind, config, tokenizer, length, words)


def _made_up(vocabulary_size: int, plan: Plan) -> Vocabulary:
    """What the tokenizer that the recipe will train may look like."""
    special, made = range(min(5, vocabulary_size)), plan.recipe.tokenizer
    end = 0 if made is None or "eos" in made.roles() else None
    characters = (made.characters or 0) if made is not None else 0
    sentinels, closes = tuple(range(made.sentinels)) if made is not None else (), made is None or made.shape != "none"
    fills = {"input_ids": 0, "token_type_ids": 0, **({"characters": 0} if characters else {})}
    return Vocabulary(vocabulary_size, len(special) - 1, frozenset(special), fills, end, sentinels, closes, characters)


def _text(plan: Plan, tokenizer: Tokenizer | None, findings: Findings) -> Text | None:
    """Looks at the beginnings of the sources."""
    config = plan.recipe.prepare
    if config is None:
        return None
    where = plan.document.where(("prepare", "sources"))
    try:
        paths = [file for name in config.sources for file in files_of(plan.path(name))[0]]
        sources = [samples.looked_at(path, encoding=config.encoding) for path in paths]
        sample = samples.documents("sources", sources, config.columns, unit=config.documents)
    except LexloomError as error:
        findings.take(error, "sources", where)
        return None
    if not sample.whole:
        findings.add("fact", "sampled", where, f"the figures of the sources are about {sample.extent}")
    faults.look(sample, findings)
    if not len(sample):
        return None
    lengths.table([sample], None if tokenizer is None else lengths.Limit(tokenizer, None), findings, of="the sources")
    _language(sample, config, findings, where)
    per_token = 1.0 if _of_characters(plan) else _characters_per_token(sample, tokenizer)
    text = Text(sample.characters, sample.characters / per_token, tokenizer is not None, _several(sample, config))
    how = "by the tokenizer" if text.known else "by a rule of thumb, for there is no tokenizer yet"
    what = f"{len(sources):,} file{'s' * (len(sources) != 1)}, {size(sample.bytes)}: about {count(text.characters, short=True)} characters"
    findings.add("fact", "text", where, f"{what}, {count(text.tokens, short=True)} tokens {how}, before cleaning")
    return text


def _of_characters(plan: Plan) -> bool:
    """Whether the recipe's tokens are characters."""
    return plan.recipe.tokenizer is not None and plan.recipe.tokenizer.kind == "char"


def _language(sample: Sample, config: PrepareConfig, findings: Findings, where: str) -> None:
    if config.language not in ("en", "zh"):
        return
    guesses = [guess_language(text) for text in sample.texts[:: max(1, len(sample) // 300)]]
    told = [guess for guess in guesses if guess != "unknown"]
    if told.count(config.language) * 2 < len(told):
        found = max(set(told), key=told.count)
        what = f"language is set to {config.language}, but most documents seem to be in {found}"
        findings.add("warning", "language", where, what, "set language: to what the texts are, or auto")


def _several(sample: Sample, config: PrepareConfig) -> float:
    """The share of documents, evenly chosen, in which more than one sentence is found."""
    texts = [text[:20_000] for text in sample.texts[:: max(1, len(sample) // 200)]]
    languages = [guess_language(text) if config.language == "auto" else config.language for text in texts]
    borders = [sentences(text, "zh" if language in ("zh", "ja", "ko") else "en") for text, language in zip(texts, languages, strict=True)]
    return sum(len(ends) > 1 for ends in borders) / max(1, len(texts))


def _characters_per_token(sample: Sample, tokenizer: Tokenizer | None) -> float:
    texts = sample.texts[:: max(1, len(sample) // 500)]
    if tokenizer is not None:
        return max(0.1, lengths.encode([text[:20_000] for text in texts], tokenizer).characters_per_token)
    joined = "".join(text[:5_000] for text in texts)
    unspaced = len(_UNSPACED.findall(joined)) / max(1, len(joined))
    return 1 / (unspaced / OTHERS_PER_TOKEN + (1 - unspaced) / LETTERS_PER_TOKEN)


def _corpus_disk(text: Text, vocabulary_size: int, disk: list[tuple[str, float]]) -> None:
    width = 1 if vocabulary_size <= 1 << 8 else 2 if vocabulary_size <= 1 << 16 else 4
    as_utf8 = text.characters * (2.8 if text.tokens > 0.5 * text.characters else 1.02)
    disk.append(("corpus, and scratch while it is prepared", as_utf8 * (CORPUS_SHARE + 1)))
    disk.append(("shards", text.tokens * (width + SHARD_BYTES)))


class _Phase:
    """One phase of pre-training."""

    def __init__(self, name: str, phase: Phase, start: Start, objective: Objective, where: str, findings: Findings) -> None:
        self.name, self.phase, self.start, self.objective = name, phase, start, objective
        self.where, self.findings, self.train = where, findings, phase.train
        start.kind.check_rows(start.config, objective.vocabulary.fills, where=where)
        if missing := objective.needs - start.kind.ABILITIES:
            raise ConfigError(f"{start.kind.MODEL_TYPE} cannot learn this objective", expected=", ".join(missing), where=where)
        self.network = Network.planned(start.kind, start.config, objective.roles)
        longest = max(self.train.lengths)
        if longest > self.network.backbone.max_length:
            most = f"at most {self.network.backbone.max_length}"
            raise ConfigError("length is beyond the model's positions", expected=most, got=str(longest), where=where)

    def check(self, text: Text | None, disk: list[tuple[str, float]], *, timed: bool) -> list[dict[str, Any]]:
        """Parameters, memory, disk, steps; the rows of the table of steps."""
        parts = needs.Parameters.of(self.network)
        row = {"part": self.name, "embedding": parts.embedding, "encoder": parts.encoder, "heads": parts.heads, "total": parts.total}
        self.findings.table("parameters", {**{key: key for key in row}, "part": "of"}, [row])
        steps = [self._steps(length, share, text) for length, share in self.train.lengths.items()]
        amount = sum(each["steps"] or 0 for each in steps)
        places = sum(each["tokens"] or 0 for each in steps) / max(1, amount)
        chosen = compute.choose(self.train, steps=amount, work=parts.total * places)
        largest = max((self._memory(each, chosen.dtype) for each in steps), key=lambda found: found.peak)
        needs.report_memory(self.name, largest, chosen.device, self.train.micro_batch_tokens, self.findings, self.where)
        disk.append((f"{self.name}: checkpoints and bundle", needs.stage_bytes(parts.total, self.train)))
        self._pairs(text)
        self._often(steps, text)
        if self.train.timed:
            until = f"until {self.train.until}" if self.train.until else f"for {duration(self.train.budget or 0)}"
            self.findings.add("fact", "hours", self.where, f"{self.name} trains {until}; its steps are those that fit")
        elif timed:
            self._hours(steps, chosen)
        return [{"phase": self.name, **each} for each in steps]

    def _memory(self, each: dict[str, Any], dtype: str) -> needs.Memory:
        micro = micro_rows(self.train, each["length"], each["rows"])
        return needs.memory(self.network, self.objective, rows=micro, length=each["length"], dtype=dtype)

    def _steps(self, length: int, share: float, text: Text | None) -> dict[str, Any]:
        train, rows = self.train, max(1, self.train.batch_tokens // length)
        budget = train.tokens
        if train.epochs is not None:
            budget = round(train.epochs * text.tokens) if text is not None else None
        if train.steps is not None:
            steps: int | None = max(1, round(train.steps * share))
        else:
            steps = None if budget is None else max(1, math.ceil(budget * share / (rows * length)))
        return {"length": length, "rows": rows, "steps": steps, "tokens": None if steps is None else steps * rows * length}

    def _pairs(self, text: Text | None) -> None:
        if text is not None and self.objective.rows in ("sentence-pair", "ordered-pair") and text.several < FEW_SEVERAL:
            level: Level = "error" if text.several == 0 else "warning"
            what = f"the objective wants pairs of sentences, and {text.several:.1%} of the documents have several"
            do = "sources whose documents are whole texts (documents: file, not line), or an objective without pairs of sentences"
            self.findings.add(level, "single sentences", self.where, what, do)

    def _often(self, steps: list[dict[str, Any]], text: Text | None) -> None:
        if text is None or any(each["tokens"] is None for each in steps):
            return
        seen = sum(each["tokens"] for each in steps)
        times = seen / max(1.0, text.tokens)
        if text.tokens < self.train.batch_tokens:
            what = f"the text has about {count(text.tokens)} tokens, less than one step of {count(self.train.batch_tokens)}"
            self.findings.add("error", "too little text", self.where, what, "more text, or smaller batch_tokens")
        elif times > OFTEN:
            what = f"training goes over the text about {times:,.0f} times: it will learn it by heart"
            self.findings.add("warning", "too little text", self.where, what, "more text, or fewer tokens: in train")
        else:
            self.findings.add("fact", "passes", self.where, f"{self.name} goes over the text about {times:,.1f} times")

    def _hours(self, steps: list[dict[str, Any]], chosen: compute.Compute) -> None:
        network = Network.build(self.start.kind, self.start.config, self.objective.roles, seed=1)
        seconds = 0.0
        for each in steps:
            micro = micro_rows(self.train, each["length"], each["rows"])
            one = needs.step_seconds(network, self.objective, rows=micro, length=each["length"], train=self.train, chosen=chosen)
            seconds += (each["steps"] or 0) * one.step(each["rows"] // micro)
        compiled = "; compiled steps will be quicker" if chosen.compile else ""
        what = f"{self.name} takes about {duration(seconds)} on this machine, by three timed steps{compiled}"
        self.findings.add("fact", "hours", self.where, what)

    def end(self) -> Start:
        """What the next stage starts from."""
        limit = min(self.start.limit, self.network.backbone.max_length) if self.phase.start is not None else max(self.train.lengths)
        return replace(self.start, limit=limit)
