"""Metrics and how sure they are: values through scikit-learn, 95 % intervals by the percentile bootstrap (Efron 1979).

Letters: N rows, R resamples, K labels, S statistics, A runs of one system (one a seed).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lexloom import keys
from lexloom.errors import DataError, LexloomError, unknown

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
MAX_RESAMPLES = 100_000
MAX_DRAWS = 200_000_000  # of very many rows fewer resamples are taken, never under 100: their intervals are narrow anyway
_CHUNK = 1 << 21  # row weights held in memory at once
_SHARES = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval, over `n` rows and `seeds` runs."""

    value: float
    low: float
    high: float
    n: int
    seeds: int = 1

    def plain(self) -> dict[str, Any]:
        """As it stands in JSON."""
        return asdict(self)


class Statistics(Protocol):
    """What is summed over the rows, and the metrics made of the sums. Whatever has this shape can be bootstrapped."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics, the first one being that by which systems are compared."""
        ...

    def rows(self, gold: Sequence[Any], predicted: Sequence[Any]) -> csr_array:
        """Each row's share: (N, S)."""
        ...

    def value(self, metric: str, sums: Floats) -> Floats:
        """The metric of sums: (…, S) -> (…)."""
        ...


class Labels:
    """Statistics of single labels: how often each is right (gold), given (predicted), and given rightly.

    Args:
        labels: in the order of their ids; with two, the second is the positive one. Others may turn up in the data.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)

    @property
    def metrics(self) -> tuple[str, ...]:
        """`f1`, of the positive class, is there for two labels only."""
        return ("accuracy", "macro_f1", "matthews", *(("f1",) if len(self.labels) == 2 else ()))

    def rows(self, gold: Sequence[Any], predicted: Sequence[Any]) -> csr_array:
        """(N, 3 K): a one for the gold label, one for the predicted, one where they agree."""
        ids = {label: i for i, label in enumerate(self.labels)}
        for label in (*gold, *predicted):
            ids.setdefault(label, len(ids))
        g, p = np.asarray([ids[x] for x in gold]), np.asarray([ids[x] for x in predicted])
        n, k, right = len(g), len(ids), np.flatnonzero(g == p)
        places = (np.concatenate([np.arange(n), np.arange(n), right]), np.concatenate([g, k + p, 2 * k + g[right]]))
        return csr_array((np.ones(len(places[0])), places), shape=(n, 3 * k))

    def value(self, metric: str, sums: Floats) -> Floats:
        """As scikit-learn defines them: labels that neither side has do not count; what is undefined is 0."""
        k = sums.shape[-1] // 3
        gold, predicted, both = sums[..., :k], sums[..., k : 2 * k], sums[..., 2 * k :]
        if metric == "accuracy":
            return both.sum(-1) / gold.sum(-1)
        if metric == "matthews":
            return _matthews(gold, predicted, both)
        f1 = 2 * both / np.maximum(gold + predicted, 1)
        if metric == "f1":
            return f1[..., 1]
        if metric == "macro_f1":
            present = (gold + predicted) > 0
            return (f1 * present).sum(-1) / present.sum(-1)
        raise unknown("metric", metric, self.metrics)


class Right:
    """Statistics of answers that are right or wrong and nothing more."""

    metrics = ("accuracy",)

    def rows(self, gold: Sequence[Any], predicted: Sequence[Any]) -> csr_array:
        """(N, 2): a one, and whether the row is right."""
        right = np.asarray([a == b for a, b in zip(gold, predicted, strict=True)], dtype=np.float64)
        return csr_array(np.stack([np.ones(len(right)), right], axis=1))

    def value(self, metric: str, sums: Floats) -> Floats:
        """The share of right rows."""
        return sums[..., 1] / sums[..., 0]


def _matthews(gold: Floats, predicted: Floats, both: Floats) -> Floats:
    """The correlation coefficient of K classes (Gorodkin 2004)."""
    n = gold.sum(-1)
    above = both.sum(-1) * n - (gold * predicted).sum(-1)
    below = np.sqrt((n**2 - (predicted**2).sum(-1)) * (n**2 - (gold**2).sum(-1)))
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)


def scores(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy, macro-F1, Matthews' coefficient and, for two labels, F1 of the second, by scikit-learn.

    Raises:
        DataError: there are no rows.
    """
    _check(gold, predicted)
    gold, predicted = list(gold), list(predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.filterwarnings("ignore", message="A single label was found")
        found = {
            "accuracy": accuracy_score(gold, predicted),
            "macro_f1": f1_score(gold, predicted, average="macro", zero_division=0),
            "matthews": matthews_corrcoef(gold, predicted),
        }
        if len(labels) == 2:
            found["f1"] = f1_score(gold, predicted, labels=[labels[1]], average=None, zero_division=0)[0]
    return {name: float(value) for name, value in found.items()}


class Bootstrap:
    """Resamples the rows of a test set, the same ones for every system, so that systems can be compared row by row.

    Each resample draws N of the N rows with replacement. Where a system has A > 1 runs (seeds), it also draws A - 1 of its
    runs, independently of the other systems, and takes the mean over them: drawing A would make the spread between runs
    too small by (A - 1) / A (McCarthy and Snowden 1985). The value itself is the mean over all runs and rows.

    Args:
        gold: N answers.
        systems: name -> its runs, each of N answers.
        statistics: what is measured; `Labels` for single labels.
        seed: the resamples are a function of it.
        resamples: R.

    Raises:
        DataError: there are no rows.
        LexloomError: a run has another number of answers.
    """

    def __init__(
        self,
        gold: Sequence[Any],
        systems: Mapping[str, Sequence[Sequence[Any]]],
        statistics: Statistics,
        *,
        seed: int,
        resamples: int = RESAMPLES,
    ) -> None:
        if not 1 <= resamples <= MAX_RESAMPLES:
            raise LexloomError("a bootstrap needs resamples", expected=f"1 to {MAX_RESAMPLES}", got=str(resamples))
        for runs in systems.values():
            for run in runs:
                _check(gold, run)
        self.n, self.statistics, self.seed = len(gold), statistics, seed
        self.resamples = min(resamples, max(100, MAX_DRAWS // self.n))
        shares = {name: [statistics.rows(gold, run) for run in runs] for name, runs in systems.items()}
        self.points = {name: self._values([np.asarray(r.sum(axis=0))[None] for r in rows]) for name, rows in shares.items()}
        self.values = self._resampled(shares)
        self.runs = {name: len(rows) for name, rows in shares.items()}

    def _values(self, sums: list[Floats]) -> dict[str, Floats]:
        """metric -> (A, R), from A arrays (R, S)."""
        return {metric: np.stack([self.statistics.value(metric, s) for s in sums]) for metric in self.statistics.metrics}

    def _resampled(self, shares: Mapping[str, list[csr_array]]) -> dict[str, dict[str, Floats]]:
        pieces: dict[str, list[dict[str, Floats]]] = {name: [] for name in shares}
        step = max(1, _CHUNK // self.n)
        for start in range(0, self.resamples, step):
            weights = self._weights(np.arange(start, min(start + step, self.resamples), dtype=np.uint64))
            for name, rows in shares.items():
                pieces[name].append(self._values([np.asarray((r.T @ weights.T).T) for r in rows]))
        return {
            name: {metric: np.concatenate([piece[metric] for piece in found], axis=1) for metric in self.statistics.metrics}
            for name, found in pieces.items()
        }

    def _weights(self, numbers: npt.NDArray[np.uint64]) -> Floats:
        """How often each row was drawn: (r, N)."""
        drawn = keys.integers(keys.key(self.seed, "resampled rows", numbers), self.n, self.n)
        drawn += np.arange(len(numbers))[:, None] * self.n
        return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)

    def _pooled(self, metric: str, name: str) -> Floats:
        """(R,): the mean over the runs that each resample drew."""
        values, many = self.values[name][metric], self.runs[name]
        if many == 1:
            return values[0]
        numbers = np.arange(self.resamples, dtype=np.uint64)
        drawn = keys.integers(keys.key(self.seed, "resampled runs", name, numbers), many - 1, many)
        return values[drawn, np.arange(self.resamples)[:, None]].mean(axis=1)

    def interval(self, metric: str, name: str) -> Interval:
        """A system's value and its 95 % interval.

        Where every row is right (or wrong) all resamples agree and show nothing: then the bound is 3 / n away, the "rule of
        three" (Hanley and Lippman-Hand 1983).
        """
        value, resampled = self._point(metric, name), self._pooled(metric, name)
        low, high = _quantiles(resampled)
        if value == low == 1.0:
            low = max(0.0, 1.0 - 3.0 / self.n)
        if value == high == 0.0 and metric == "accuracy":
            high = min(1.0, 3.0 / self.n)
        return Interval(value, low, high, self.n, self.runs[name])

    def difference(self, metric: str, a: str, b: str) -> Interval:
        """The value of `a` minus that of `b` with its 95 % interval; rows are paired, runs are not."""
        low, high = _quantiles(self._pooled(metric, a) - self._pooled(metric, b))
        seeds = max(self.runs[a], self.runs[b])
        return Interval(self._point(metric, a) - self._point(metric, b), low, high, self.n, seeds)

    def _point(self, metric: str, name: str) -> float:
        if metric not in self.statistics.metrics:
            raise unknown("metric", metric, self.statistics.metrics)
        return float(self.points[name][metric].mean())


def _quantiles(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, _SHARES)
    return float(low), float(high)


def interval(
    metric: str,
    gold: Sequence[Any],
    predicted: Sequence[Any],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    labels: Sequence[str] = (),
) -> Interval:
    """The 95 % interval of one system's metric; see `Bootstrap` for what is resampled.

    Args:
        predicted: N labels, or a list of such lists, one a seed.
        labels: in the order of their ids; by default those of `gold`, sorted.
    """
    found = Bootstrap(gold, {"": _as_runs(predicted, gold)}, Labels(labels or sorted(set(gold))), seed=seed, resamples=resamples)
    return found.interval(metric, "")


def paired(
    metric: str,
    gold: Sequence[Any],
    a: Sequence[Any],
    b: Sequence[Any],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    labels: Sequence[str] = (),
) -> Interval:
    """The 95 % interval of the difference a - b on the same rows; see `Bootstrap` for what is resampled, `interval` for the rest."""
    systems = {"a": _as_runs(a, gold), "b": _as_runs(b, gold)}
    return Bootstrap(gold, systems, Labels(labels or sorted(set(gold))), seed=seed, resamples=resamples).difference(metric, "a", "b")


def majority(counts: Mapping[str, int]) -> str:
    """The most frequent label, the first of equals: what to answer without looking.

    Raises:
        DataError: there are no labels.
    """
    if not counts:
        raise DataError("there is no most frequent label: no labels were counted")
    return max(counts, key=lambda label: counts[label])


def _as_runs(predicted: Sequence[Any], gold: Sequence[Any]) -> list[Sequence[Any]]:
    return list(predicted) if _depth(predicted) > _depth(gold) else [predicted]


def _depth(value: Any) -> int:
    if not isinstance(value, list | tuple | np.ndarray):
        return 0
    return 1 + max((_depth(inner) for inner in value[:1]), default=0)


def _check(gold: Sequence[Any], predicted: Sequence[Any]) -> None:
    if not len(gold):
        raise DataError("there are no rows to score")
    if len(gold) != len(predicted):
        raise LexloomError("each row needs one answer", expected=f"{len(gold)} answers", got=str(len(predicted)))
