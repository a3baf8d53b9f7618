"""Evaluation: a bundle on labelled rows, beside majority, other baselines and another bundle, with intervals, by groups if asked for."""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lexloom import files
from lexloom.console import Console
from lexloom.errors import ConfigError, DataError, FormatError, LexloomError
from lexloom.hub.bundle import Bundle, load
from lexloom.objectives.base import Vocabulary
from lexloom.runs import labelled, measuring
from lexloom.runs.components import tasks_for
from lexloom.runs.evaluation import Evaluation, by_values, show
from lexloom.runs.scores import (
    FASTTEXT,
    FINE_TUNED,
    FROM_SCRATCH,
    MAJORITY,
    TFIDF,
    UNTAUGHT,
    Comparison,
    System,
    compare,
    confusion,
    examples,
)
from lexloom.tasks import metrics
from lexloom.tasks.base import Task
from lexloom.tasks.classification import TextClassification, TextClassificationConfig
from lexloom.tasks.columns import Columns, ColumnsConfig, plain
from lexloom.tasks.fasttext import FastTextClassifier
from lexloom.tasks.metrics import RESAMPLES
from lexloom.tasks.simple import SimpleClassifier
from lexloom.tasks.tfidf import TfidfClassifier
from lexloom.text.rows import Placed

__all__ = [
    "FINE_TUNED",
    "FROM_SCRATCH",
    "MAJORITY",
    "SIMPLE_BASELINES",
    "TFIDF",
    "UNTAUGHT",
    "Evaluation",
    "System",
    "compare",
    "evaluate",
    "majority_answers",
    "score_bundle",
    "show",
    "summary",
    "write_seen",
]

BASELINES = "baselines"
SIMPLE_BASELINES: dict[str, tuple[type[TfidfClassifier] | type[FastTextClassifier], str]] = {
    TFIDF: (TfidfClassifier, "tfidf"),
    FASTTEXT: (FastTextClassifier, "fasttext"),
}
"""Baselines that a run keeps as bundles: what they are, and the name of their folder and of their kind in recipes."""
SEEN = "train-texts.bin"
_SEEN_LIMIT = 1 << 30
_LEVELS = 3  # folders above a bundle in which its run's baseline may lie


@dataclass(frozen=True)
class _Rows:
    """Labelled rows under the plain names `text`, `pair` and `label`, with their places and all their columns."""

    placed: list[Placed]
    original: list[Mapping[str, Any]]
    columns: Columns

    @property
    def plain(self) -> list[dict[str, Any]]:
        return [row.row for row in self.placed]


def evaluate(
    bundle: Path | str | Bundle | SimpleClassifier,
    file: Path | str | Sequence[Mapping[str, Any]],
    *,
    against: Path | str | Bundle | SimpleClassifier | None = None,
    by: str | None = None,
    measure: str | None = None,
    dtype: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 1,
    resamples: int = RESAMPLES,
    strict: bool = False,
    max_bad_rows: int | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Scores a bundle on labelled rows, or measures a language model on texts.

    Beside a task's scores stand the most frequent label of its training rows and, where its run left some, the baselines.

    Args:
        file: a file of rows, or the rows themselves.
        against: another bundle, to be compared on the same rows.
        by: a column; the first metric is also given for the rows of each of its values.
        measure: what to measure a language model by (`lexloom list measures`); what fits the columns of the rows where None.
        dtype: what the bundle answers in, as `Bundle.to` takes it; what it says itself where None. The other one keeps its own.
        settings: of the measure.
        seed: draws the resamples and the examples.
        strict: stop at the first bad row; `max_bad_rows` at so many.

    Raises:
        DataError: there is no good row, a column is missing, or a label was never seen in training.
        ConfigError: there is no such dtype, or it is not for this bundle.
        LexloomError: a bundle has no task, or the two have different ones.
    """
    first, second = _opened(bundle), _opened(against) if against is not None else None
    name, other = _names(bundle, against)
    if dtype is not None:
        first, name = _answering(first, dtype), f"{name}, {dtype}"
    found = _read(file, strict=strict, max_bad_rows=max_bad_rows)
    if (kind := measuring.choose(measure, first, found.rows)) is not None:
        is_file = kind.whole and isinstance(file, str | Path)
        whole = measuring.whole_texts(found.path, strict=strict, max_bad_rows=max_bad_rows) if is_file else None
        bundles = {name: first, **({other: second} if second is not None else {})}
        options: dict[str, Any] = {"by": by, "seed": seed, "resamples": resamples, "console": console or Console()}
        return measuring.measured(kind, settings or {}, _networks(bundles), whole or found, **options)
    if settings:
        raise ConfigError("settings are for measures of language models", got=", ".join(settings), hint="the task's stand in the bundle")
    task = _task(first, name)
    rows, notes = _plain_rows(found.rows, _columns_of(first))
    gold = task.gold(rows.placed)
    answers = first.predict(rows.plain)
    systems = [System(name, [task.decided(answers)])]
    if second is not None:
        systems.append(_other(second, other, task, rows.plain))
    folder = Path(bundle) if isinstance(bundle, str | Path) else None
    systems += _baselines(first, folder, rows, gold, notes) if task.labels else _untaught(task, rows)
    notes += _overlap(folder, rows)
    comparison = compare(gold, systems, task.statistics(), seed=seed, resamples=resamples)
    evaluation = Evaluation(
        str(name), str(found.path), task.pipeline, len(gold), rows.columns.said(), comparison, notes=notes, bad=found.bad
    )
    if by is not None:
        statistics = task.statistics()

        def compared(places: list[int]) -> Comparison:
            parts = [System(s.name, [[run[i] for i in places] for run in s.runs], s.note) for s in systems]
            return compare([gold[i] for i in places], parts, statistics, seed=seed, resamples=resamples)

        evaluation.groups = by_values(rows.original, by, compared)
    if task.labels:
        evaluation.confusion = confusion(gold, task.decided(answers), task.labels)
    if task.trained:
        evaluation.examples = examples(_shown(rows), gold, task.decided(answers), scores=_sure(answers), seed=seed)
    return evaluation


def score_bundle(bundle: Bundle | SimpleClassifier, rows: Sequence[Any], name: str) -> System:
    """A bundle's answers on rows with `text` (and `pair`), as one system of a comparison."""
    return System(name, [_task(bundle, name).decided(bundle.predict([dict(plain(row)) for row in rows]))])


def summary(
    task: Task, rows: Sequence[Any], answers: Mapping[str, Sequence[Sequence[Any]]], *, seed: int, notes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The scored part of a fine-tuning stage's `summary.json`: scores, differences, verdict, confusion, examples.

    Args:
        rows: the scored rows.
        answers: name of a system -> its answers on them, a list a seed, the one at issue first; see `FINE_TUNED` and the like.
        notes: name of a system -> what a reader has to know.
    """
    gold, notes = task.gold(rows), notes or {}
    systems = [System(name, [task.decided(run) for run in runs], notes.get(name, "")) for name, runs in answers.items()]
    found = compare(gold, systems, task.statistics(), seed=seed)
    first = next(iter(answers.values()))[0]
    shown, decided = _plain_rows(rows, task.config.columns)[0], task.decided(first)
    return {
        "scores": found.scores,
        "differences": found.differences,
        "verdict": found.verdict,
        "confusion": confusion(gold, decided, task.labels) if task.labels else None,
        "examples": examples(_shown(shown), gold, decided, scores=_sure(first), seed=seed),
    }


def majority_answers(counts: Mapping[str, int], n: int) -> list[dict[str, Any]]:
    """The answers of a system that always says the most frequent label, with its share as score."""
    label = metrics.majority(counts)
    return [{"label": label, "score": counts[label] / max(1, sum(counts.values()))} for _ in range(n)]


def write_seen(folder: Path, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Path:
    """Writes the digests of the training texts to `folder`, a run's `baselines`: so `evaluate` can tell which rows were trained on."""
    path = folder / SEEN
    files.write_bytes(path, np.unique(_digests(texts, pairs)).astype("<u8").tobytes())
    return path


def _digests(texts: Sequence[str], pairs: Sequence[str] | None) -> npt.NDArray[np.uint64]:
    """Eight bytes a text; case and spaces do not matter."""
    joined = texts if pairs is None else [f"{text}\0{pair}" for text, pair in zip(texts, pairs, strict=True)]
    words = (re.sub(r"\s+", " ", text).strip().lower().encode("utf-8", "surrogatepass") for text in joined)
    raw = b"".join(hashlib.blake2b(word, digest_size=8).digest() for word in words)
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


def _opened(bundle: Path | str | Bundle | SimpleClassifier) -> Bundle | SimpleClassifier:
    return load(bundle) if isinstance(bundle, str | Path) else bundle


def _answering(bundle: Bundle | SimpleClassifier, dtype: str) -> Bundle:
    if not isinstance(bundle, Bundle):
        raise ConfigError("such a classifier has no dtype", expected="a network", got=f"{dtype} for a classifier by {bundle.KIND}")
    return copy.copy(bundle).to(dtype=dtype)


def _networks(bundles: Mapping[str, Bundle | SimpleClassifier]) -> dict[str, Bundle]:
    for name, bundle in bundles.items():
        if not isinstance(bundle, Bundle):
            raise LexloomError(f"{name} is no language model", got=f"a classifier by {bundle.KIND}")
    return dict(bundles)  # type: ignore[arg-type]


def _names(bundle: Any, against: Any) -> tuple[str, str]:
    """Short names of two bundles by their folders; `bundle` says nothing, so what it lies in is taken along."""
    parts = [
        Path(one).resolve().parts if isinstance(one, str | Path) else (default,)
        for one, default in ((bundle, "bundle"), (against, "other"))
    ]
    for length in range(1, 1 + max(map(len, parts))):
        shown = ["/".join(part[-length:]) for part in parts]
        if shown[0] != shown[1] and all(name != "bundle" or len(part) <= length for name, part in zip(shown, parts, strict=True)):
            return shown[0], shown[1]
    return parts[0][-1], parts[1][-1] + " (again)"


def _task(bundle: Bundle | SimpleClassifier, name: str) -> Task:
    if isinstance(bundle, SimpleClassifier):
        config = TextClassificationConfig(columns=bundle.config.columns)
        return TextClassification(config, Vocabulary(0, None, frozenset(), {}), bundle.labels)
    if bundle.task is None:
        able = tasks_for(type(bundle.network.backbone))
        hint = f"fine-tune it: lexloom finetune BUNDLE --task {able[0]}" if able else "there is none yet that it could be fine-tuned for"
        raise LexloomError(f"{name} has no task, so there is nothing to score", hint=hint)
    return bundle.task


def _columns_of(bundle: Bundle | SimpleClassifier) -> ColumnsConfig:
    found = bundle.config.columns if isinstance(bundle, SimpleClassifier) else getattr(bundle.task.config, "columns", None)  # type: ignore[union-attr]
    return found if isinstance(found, ColumnsConfig) else ColumnsConfig()


def _read(file: Any, *, strict: bool, max_bad_rows: int | None) -> labelled.Labelled:
    if isinstance(file, str | Path):
        return labelled.read(Path(file), strict=strict, max_bad_rows=max_bad_rows)
    rows = [row if isinstance(row, Placed) else Placed(dict(row), "rows", i + 1) for i, row in enumerate(file)]
    if not rows:
        raise DataError("there are no rows to score")
    return labelled.Labelled(Path("rows"), rows, {"total": 0})


def _plain_rows(placed: Sequence[Any], config: ColumnsConfig) -> tuple[_Rows, list[str]]:
    notes = []
    try:
        columns = Columns.find(config, placed, labelled=True)
    except DataError:
        # Trained on other names than this file has: the usual ones may do, if there is to be a pair as before.
        columns = Columns.find(ColumnsConfig(), placed, labelled=True)
        if (columns.pair is None) != (config.pair is None):
            raise
        notes.append(f"the columns have other names than in training; taken were {columns.said()}")
    texts, pairs = columns.texts(placed), columns.pairs(placed)
    rows = []
    for i, row in enumerate(placed):
        named = {"text": texts[i], **({"pair": pairs[i]} if pairs else {}), "label": columns.raw_label(row, i)}
        rows.append(Placed(named, row.file, row.line) if isinstance(row, Placed) else Placed(named, "row", i + 1))
    return _Rows(rows, [plain(row) for row in placed], columns), notes


def _untaught(task: Task, rows: _Rows) -> list[System]:
    answers = task.untaught(rows.placed)
    return [] if answers is None else [System(UNTAUGHT, [task.decided(answers)])]


def _sure(answers: Sequence[Any]) -> list[float | None]:
    """How sure each answer is, where it says so."""
    return [float(one["score"]) if isinstance(one, Mapping) and "score" in one else None for one in answers]


def _other(bundle: Bundle | SimpleClassifier, name: str, task: Task, rows: Sequence[Mapping[str, Any]]) -> System:
    other = _task(bundle, name)
    if other.pipeline != task.pipeline:
        raise LexloomError("the two bundles have different tasks", expected=task.pipeline, got=f"{other.pipeline} ({name})")
    if task.labels and not set(task.labels) & set(other.labels):
        raise LexloomError(
            "the two bundles have no label in common", expected=", ".join(task.labels[:20]), got=", ".join(other.labels[:20])
        )
    return System(name, [other.decided(bundle.predict(list(rows)))])


def _baselines(first: Bundle | SimpleClassifier, folder: Path | None, rows: _Rows, gold: Sequence[str], notes: list[str]) -> list[System]:
    beside = _beside(folder, first.labels) if not isinstance(first, SimpleClassifier) else {}
    pair = rows.columns.pair is not None
    systems = [score_bundle(one, rows.plain, name) for name, one in beside.items() if one.config.pairs == pair]
    if not systems and not isinstance(first, SimpleClassifier):
        notes.append("no TF-IDF baseline lies beside this bundle; a fine-tuning run writes it to baselines/tfidf")
    counts, note = _label_counts(first, beside), ""
    if counts is None:
        counts, note = Counter(gold), "most frequent label of these rows: the training rows' are not recorded"
    label = metrics.majority(counts)
    return [*systems, System(MAJORITY, [[label] * len(gold)], note or f"always {label!r}")]


def _label_counts(bundle: Bundle | SimpleClassifier, beside: Mapping[str, SimpleClassifier]) -> Mapping[str, int] | None:
    recorded = bundle.label_counts if isinstance(bundle, SimpleClassifier) else bundle.about.get("labels")
    if isinstance(recorded, Mapping) and recorded and all(isinstance(n, int) for n in recorded.values()):
        return recorded
    return next((one.label_counts for one in beside.values()), None)


def _beside(folder: Path | None, labels: Sequence[str]) -> dict[str, SimpleClassifier]:
    """The baselines of the run that a bundle lies in, told by their labels."""
    found: dict[str, SimpleClassifier] = {}
    for above in list(folder.resolve().parents)[:_LEVELS] if folder is not None else []:
        for name, (kind, place) in SIMPLE_BASELINES.items():
            if name not in found and (above / BASELINES / place / "config.json").is_file():
                one = kind.load(above / BASELINES / place)
                if one.labels == list(labels):
                    found[name] = one
    return found


def _overlap(folder: Path | None, rows: _Rows) -> list[str]:
    """How many rows stand word for word among the training rows, where their digests were kept."""
    for above in list(folder.resolve().parents)[:_LEVELS] if folder is not None else []:
        path = above / BASELINES / SEEN
        if path.is_file():
            if (size := path.stat().st_size) > _SEEN_LIMIT or size % 8:
                raise FormatError("this is not a list of digests", where=str(path))
            seen = np.frombuffer(path.read_bytes(), dtype="<u8").astype(np.uint64)
            texts = [row["text"] for row in rows.plain]
            pairs = [row["pair"] for row in rows.plain] if rows.columns.pair else None
            n = int(np.isin(_digests(texts, pairs), seen).sum())
            return [f"{n:,} of {len(texts):,} rows stand word for word in the training rows: the scores may flatter"] if n else []
    return []


def _shown(rows: _Rows) -> list[str]:
    return [f"{row['text']} ⏎ {row['pair']}" if "pair" in row else row["text"] for row in rows.plain]
