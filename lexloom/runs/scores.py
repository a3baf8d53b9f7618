"""Systems side by side on the same rows: scores with intervals, differences, the verdict in words, confusion, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lexloom import keys
from lexloom.tasks.metrics import RESAMPLES, Bootstrap, Interval, Statistics
from lexloom.tasks.naming import written

FINE_TUNED, FROM_SCRATCH, TFIDF, MAJORITY = "fine-tuned", "from scratch", "TF-IDF + logistic regression", "majority"
FASTTEXT, UNTAUGHT = "fastText", "the text as it is"
_SHORT = {TFIDF: "TF-IDF", MAJORITY: "always answering the most frequent label", FINE_TUNED: "the fine-tuned model"}
_SHORT |= {FROM_SCRATCH: "the same network from scratch", UNTAUGHT: "giving the text back as it is"}
FEW_ROWS = 100
MAX_LABELS = 200
MAX_TEXT = 300


@dataclass(frozen=True)
class System:
    """A model's answers on the scored rows.

    Args:
        name: as the report calls it.
        runs: one list of decided answers a seed.
        note: what a reader has to know about them.
    """

    name: str
    runs: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Scores of systems and differences between them, as they stand in `summary.json`; the first system is the one at issue."""

    scores: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """See `verdict`."""
        return verdict(self.scores, self.differences)


def compare(gold: Sequence[Any], systems: Sequence[System], statistics: Statistics, *, seed: int, resamples: int = RESAMPLES) -> Comparison:
    """Every metric of every system with its 95 % interval, and of the first metric the differences of all pairs.

    Rows and seeds are resampled, as `tasks.metrics.Bootstrap` says.

    Raises:
        DataError: there are no rows.
    """
    found = Bootstrap(gold, {system.name: system.runs for system in systems}, statistics, seed=seed, resamples=resamples)
    scores = [
        {"model": system.name, "metric": metric, **found.interval(metric, system.name).plain(), "note": system.note}
        for metric in statistics.metrics
        for system in systems
    ]
    first = statistics.metrics[0]
    differences = [
        {"a": a.name, "b": b.name, "metric": first, **found.difference(first, a.name, b.name).plain()}
        for i, a in enumerate(systems)
        for b in systems[i + 1 :]
    ]
    return Comparison(scores, differences)


def verdict(scores: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> str:
    """What to do, in words; the first sentence says it, also when it is "use TF-IDF".

    A model is worth using when it is better than TF-IDF, and that better than answering the most frequent label, each by an
    interval of the difference that leaves out 0. Of two that cannot be told apart the simpler one is used.
    """
    if not scores:
        return "Nothing was scored."
    told = _Verdict(scores, differences)
    return " ".join(filter(None, [told.choice(), *told.others(), told.limits()]))


class _Verdict:
    """The sentences of a verdict. `main` is the system at issue, `chance` the one that costs nothing."""

    def __init__(self, scores: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> None:
        self.main, self.metric = str(scores[0]["model"]), str(scores[0]["metric"])
        self.scores = {str(s["model"]): s for s in scores if s["metric"] == self.metric}
        self.n, self.chance = int(scores[0]["n"]), MAJORITY if MAJORITY in self.scores else UNTAUGHT
        self.differences = {
            (d["a"], d["b"]): Interval(d["value"], d["low"], d["high"], d["n"]) for d in differences if d["metric"] == self.metric
        }

    def difference(self, a: str, b: str) -> Interval | None:
        """a - b, whichever way round it was written down."""
        if (a, b) in self.differences:
            return self.differences[a, b]
        if (b, a) in self.differences:
            d = self.differences[b, a]
            return Interval(-d.value, -d.high, -d.low, d.n)
        return None

    def choice(self) -> str:
        """The first sentence."""
        over_words, over_chance = self.difference(self.main, TFIDF), self.difference(self.main, self.chance)
        words_over_chance = self.difference(TFIDF, self.chance)
        useful = over_chance is None or over_chance.low > 0
        if not useful and (words_over_chance is None or words_over_chance.low <= 0):
            return f"Use none of these: {self._against(self.main, self.chance)}."
        if over_words is None and over_chance is None:
            return f"{_capital(self.main)} has {self._value(self.main)} ({self._interval(self.main)})."
        if over_words is None:
            return f"Use {_called(self.main)}: {self._against(self.main, self.chance, 'it')}."
        if over_words.low > 0 and useful:
            return f"Use {_called(self.main)}: {self._against(self.main, TFIDF, 'it')}."
        if over_words.high < 0:
            return f"Use TF-IDF: {self._against(TFIDF, self.main, 'it')}."
        return f"Use TF-IDF, which is simpler: {self._against(self.main, TFIDF)}."

    def others(self) -> list[str]:
        """What else there is to say: about pre-training, and about other models."""
        told = []
        for name in self.scores:
            if name in (self.main, TFIDF, self.chance):
                continue
            if name != FROM_SCRATCH:
                told.append(f"{_capital(self._against(self.main, name))}.")
            elif (gain := self.difference(self.main, FROM_SCRATCH)) is not None:
                word = "helped" if gain.low > 0 else "did harm" if gain.high < 0 else "showed no gain"
                told.append(f"Pre-training {word}: {self._against(self.main, FROM_SCRATCH)}.")
        return told

    def limits(self) -> str:
        """What the figures cannot say."""
        told = []
        if self.n < FEW_ROWS:
            told.append(f"With {self.n} rows only large differences can be seen.")
        if self.scores[self.main]["seeds"] == 1 and FROM_SCRATCH in self.scores:
            told.append("There was one seed: how much chance in training matters is not known.")
        return " ".join(told)

    def _against(self, a: str, b: str, subject: str | None = None) -> str:
        """ "a has 0.871 accuracy against 0.823 of b, a difference of …"."""
        d = self.difference(a, b)
        values = f"{subject or _called(a)} has {self._value(a)} against {_number(self.scores[b]['value'])} of {_called(b)}"
        if d is None:
            return values
        if d.low <= 0 <= d.high:
            return f"{values}, no difference that n = {self.n:,} could show (95 % interval {_signed(d.low)} to {_signed(d.high)})"
        return f"{values}, a difference of {_signed(d.value)} (95 % interval {_signed(d.low)} to {_signed(d.high)}, n = {self.n:,})"

    def _interval(self, name: str) -> str:
        score = self.scores[name]
        return f"95 % interval {_number(score['low'])} to {_number(score['high'])}, n = {self.n:,}"

    def _value(self, name: str) -> str:
        return f"{_number(self.scores[name]['value'])} {written(self.metric)}"


def _called(name: str) -> str:
    return _SHORT.get(name, name)


def _capital(text: str) -> str:
    text = _called(text)
    return text[:1].upper() + text[1:]


def _number(value: float) -> str:
    return f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def confusion(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """`{labels, counts}` with a row a label and a column an answer; of many labels the most frequent `MAX_LABELS`."""
    seen = Counter([*gold, *predicted])
    names = [*labels, *sorted(set(seen) - set(labels))]
    if len(names) > MAX_LABELS:
        kept = set(sorted(names, key=lambda name: -seen[name])[:MAX_LABELS])
        names = [name for name in names if name in kept]
    counts = Counter(zip(gold, predicted, strict=True))
    return {"labels": names, "counts": [[counts[a, b] for b in names] for a in names]}


def examples(
    texts: Sequence[str], gold: Sequence[str], decided: Sequence[str], *, scores: Sequence[float | None], seed: int, each: int = 4
) -> list[dict[str, Any]]:
    """Some rows that were answered wrong and some that were answered right, drawn and not picked; the same ones at every call.

    Args:
        decided: what was answered to each row.
        scores: how sure of it the answers are, where they say so.
    """
    order = keys.shuffled(keys.key(seed, "examples"), len(gold)).tolist()
    found = []
    for right in (False, True):
        rows = [i for i in order if (gold[i] == decided[i]) is right][:each]
        found += [
            {"text": _excerpt(texts[i]), "gold": _excerpt(gold[i]), "predicted": _excerpt(decided[i]), "score": scores[i]} for i in rows
        ]
    return found


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 2] + " …"
