"""What there is to tell about a run, as plain values fit for a page; `gather` reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lexloom.runs.report.loose import Pairs


@dataclass(frozen=True)
class Score:
    """One model's figure on one task, with its 95 % interval."""

    model: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    seeds: str
    note: str


@dataclass(frozen=True)
class Difference:
    """a − b on the same rows, with its paired 95 % interval."""

    a: str
    b: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    seeds: str

    @property
    def reading(self) -> str:
        """What the interval says: `higher`, `lower`, or that chance can explain it."""
        if self.low is None or self.high is None:
            return "no interval"
        return "clearly higher" if self.low > 0 else "clearly lower" if self.high < 0 else "no clear difference"


@dataclass(frozen=True)
class Example:
    """A test row and what the model said."""

    text: str
    gold: str
    predicted: str
    score: float | None

    @property
    def right(self) -> bool:
        """Whether the answer is the label."""
        return self.gold == self.predicted


@dataclass(frozen=True)
class Confusion:
    """Counts of label (row) by answer (column); for many labels only the pairs that are mixed up most."""

    labels: list[str]
    counts: list[list[int]]

    @property
    def mixed_up(self) -> list[tuple[str, str, int]]:
        """(label, answer, rows), most first."""
        pairs = [
            (a, b, n) for a, row in zip(self.labels, self.counts, strict=True) for b, n in zip(self.labels, row, strict=True) if a != b
        ]
        return sorted((pair for pair in pairs if pair[2]), key=lambda pair: -pair[2])[:20]


@dataclass(frozen=True)
class Task:
    """A fine-tuned task."""

    name: str
    folder: Path
    kind: str
    verdict: str
    figures: Pairs
    scores: list[Score]
    differences: list[Difference]
    confusion: Confusion | None
    examples: list[Example]
    remarks: list[str]
    compute: Pairs
    settings: Pairs


@dataclass(frozen=True)
class Pretraining:
    """The pre-training stage."""

    folder: Path
    model: str
    figures: Pairs
    parts: Pairs
    compute: Pairs
    settings: Pairs
    fills: list[tuple[str, list[tuple[str, float | None]]]]
    verdict: str
    answers: str  # what its bundle answers as it is, such as fill-mask; empty where nothing
    tasks: list[str]  # what it can be fine-tuned for


@dataclass(frozen=True)
class WordScore:
    """A figure of word vectors on a set of words, or on a section of it, with its 95 % interval; `covered` of `n` were asked."""

    vectors: str
    set: str
    section: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    covered: int
    n: int


@dataclass(frozen=True)
class WordMap:
    """Places of words in the plane that shows most of their differences, `share` of them."""

    vectors: str
    words: list[str]
    points: list[tuple[float, float]]
    share: float | None


@dataclass(frozen=True)
class WordVectors:
    """The word vectors of a run, of one kind or several."""

    figures: list[tuple[str, dict[str, str]]]
    scores: list[WordScore]
    sections: list[tuple[str, list[tuple[str, dict[str, WordScore]]]]]
    names: list[str]
    files: Pairs
    neighbours: list[tuple[str, list[list[tuple[str, float | None]]]]]
    maps: list[WordMap]
    settings: list[tuple[str, Pairs]]
    verdict: str


@dataclass(frozen=True)
class Corpus:
    """The prepared corpus."""

    figures: Pairs
    sources: list[dict[str, Any]]
    n_sources: int
    drops: list[tuple[str, int]]
    bad_rows: list[tuple[str, int]]
    changed: list[tuple[str, int]]
    splits: list[tuple[str, dict[str, str]]]
    warnings: list[str]
    verdict: str


@dataclass(frozen=True)
class TokenizerFacts:
    """The tokenizer."""

    figures: Pairs
    samples: list[tuple[str, list[str]]]
    verdict: str


@dataclass(frozen=True)
class Model:
    """A bundle as its files describe it."""

    folder: str
    figures: Pairs
    digests: list[tuple[str, float, str]]


@dataclass
class Facts:
    """All there is to tell about a run."""

    run: Path
    name: str
    language: str | None = None
    recipe: str = ""
    environment: Pairs = field(default_factory=list)
    corpus: Corpus | None = None
    tokenizer: TokenizerFacts | None = None
    vectors: WordVectors | None = None
    shards: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    phases: list[Pretraining] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def verdicts(self) -> Pairs:
        """(task, verdict), or with no task what was reached."""
        told = [(task.name if len(self.tasks) > 1 else "", task.verdict or f"{task.name} has no verdict yet.") for task in self.tasks]
        stages = (*self.phases[-1:], self.vectors, self.tokenizer, self.corpus)
        return told or [("", next((stage.verdict for stage in stages if stage), "Nothing has been finished in this run yet."))]
