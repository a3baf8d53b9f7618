"""How good word vectors are by word sets: analogies in sections, and word pairs that people judged for similarity.

    analogies     ": section" lines, then four words a line: a is to b as c is to d; right where the first answer of `analogy` is d
    similarity    two words and a judgement a line, between tabs: Spearman's correlation of the judgements with the cosines

A question of which a word has no vector is left out, and counted: `covered` of `n`.

Letters: V words, D width, Q questions, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.stats import binomtest, rankdata

from lexloom import keys
from lexloom.config import Config, Count
from lexloom.errors import ConfigError, DataError
from lexloom.text.lines import byte_lines
from lexloom.vectors.keyed import MULTIPLICATIVE_EPSILON, WordVectors

Floats = npt.NDArray[np.float32]
MAX_LINE_BYTES = 1 << 16
_SCORES = 1 << 23  # held in memory at once
_SHARES = (0.025, 0.975)
ALL = "all"


class WordSetConfig(Config):
    """How word sets are asked."""

    method: Literal["additive", "multiplicative"] = "additive"
    """Of analogies: 3CosAdd or 3CosMul."""
    max_words: Annotated[Count, Field(ge=1)] | None = None
    """Only so many of the most frequent words are looked at, and count as known; others' figures are often of 30,000."""
    resamples: Annotated[int, Field(ge=100, le=10_000)] = 1000
    """Of the interval of a correlation."""


@dataclass(frozen=True)
class Score:
    """One figure with its 95 % interval; None where fewer than can tell are covered.

    Attributes:
        metric: `accuracy` of analogies, or `spearman`. section: `all`, or a section of analogies.
        covered: questions whose words all have a vector; the value is theirs alone. n: questions in all.
    """

    set: str
    section: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    covered: int
    n: int

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def evaluate(wv: WordVectors, data: Path | str, *, seed: int = 1, **settings: Any) -> list[Score]:
    """Scores word vectors on a word set, or on every one in a folder.

    Args:
        data: files as described above, packed or not; which of the two they are is told by their first line.
        seed: draws the resamples.
        settings: of `WordSetConfig`.

    Raises:
        ConfigError: the file does not exist, or there is no such setting.
        DataError: a line is neither; it is named.
    """
    config, path = WordSetConfig.read(settings), Path(data)
    if not path.exists():
        raise ConfigError("this set of words does not exist", where=str(path))
    found = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")) if path.is_dir() else [path]
    if not found:
        raise DataError("this folder holds no sets of words", where=str(path))
    return [score for file in found for score in _of_file(wv, file, config, seed)]


def _of_file(wv: WordVectors, path: Path, config: WordSetConfig, seed: int) -> list[Score]:
    lines = list(_lines(path))
    if not lines:
        raise DataError("this set of words is empty", where=str(path))
    if lines[0][1].startswith(":"):
        return _analogies(wv, path, lines, config)
    return [_similarity(wv, path, lines, config, seed)]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    for number, line, problem in byte_lines(path, "utf-8", MAX_LINE_BYTES):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            problem = problem or f"not UTF-8: {error.reason}"
        if problem:
            raise DataError("this line cannot be read", got=problem, where=f"{path}:{number}")
        if text:
            yield number, text


class _Words:
    """Places of words, as they are written or else in small letters, among so many of the most frequent ones."""

    def __init__(self, wv: WordVectors, first: int | None) -> None:
        self.places, self.first = wv.key_to_index, len(wv) if first is None else min(first, len(wv))

    def of(self, words: Sequence[str]) -> list[int] | None:
        """None where one has no vector."""
        found = [self.places.get(word, self.places.get(word.lower(), self.first)) for word in words]
        return found if max(found) < self.first else None


def _analogies(wv: WordVectors, path: Path, lines: Sequence[tuple[int, str]], config: WordSetConfig) -> list[Score]:
    words, sections, asked, section = _Words(wv, config.max_words), dict[str, list[int]](), list[list[int]](), ""
    for number, line in lines:
        if line.startswith(":"):
            section = line[1:].strip()
            sections.setdefault(section, [0])
            continue
        if len(four := line.split()) != 4:
            raise DataError("this line is no analogy", expected="four words", got=repr(line[:80]), where=f"{path}:{number}")
        sections[section][0] += 1
        if (places := words.of(four)) is not None:
            sections[section].append(len(asked))
            asked.append(places)
    right = _right(wv, np.array(asked, dtype=np.int64).reshape(-1, 4), config.method, words.first)
    scores = [_accuracy(path.name, name, right[places], n) for name, (n, *places) in sections.items()]
    return [_accuracy(path.name, ALL, right, sum(n for n, *_ in sections.values())), *scores]


def _right(wv: WordVectors, asked: npt.NDArray[np.int64], method: str, first: int) -> npt.NDArray[np.bool_]:
    """Which of the questions (Q, 4) are answered with their fourth word; the other three are no answers."""
    found = np.zeros(len(asked), dtype=bool)
    if not len(asked):
        return found
    unit = np.asarray(wv.vectors[:first] / wv.norms[:first, None])
    step = max(1, _SCORES // first)
    for start in range(0, len(asked), step):
        part = asked[start : start + step]
        scores = _scores(unit, part[:, :3], method)
        np.put_along_axis(scores, part[:, :3], -np.inf, axis=1)
        found[start : start + step] = scores.argmax(axis=1) == part[:, 3]
    return found


def _scores(unit: Floats, three: npt.NDArray[np.int64], method: str) -> npt.NDArray[np.floating[Any]]:
    """Of every word as the fourth one: (Q, V). The formulas are those of `WordVectors.analogy`."""
    a, b, c = (unit[three[:, i]] for i in range(3))
    if method == "additive":
        return (b - a + c) @ unit.T
    to_a, to_b, to_c = ((1 + one @ unit.T) / 2 for one in (a, b, c))
    return to_b * to_c / (to_a + MULTIPLICATIVE_EPSILON)


def _accuracy(name: str, section: str, right: npt.NDArray[np.bool_], n: int) -> Score:
    """With Wilson's interval (1927), which takes questions as independent; those of a section share words, so it is rather narrow."""
    if not len(right):
        return Score(name, section, "accuracy", None, None, None, 0, n)
    low, high = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return Score(name, section, "accuracy", float(right.mean()), float(low), float(high), len(right), n)


def _similarity(wv: WordVectors, path: Path, lines: Sequence[tuple[int, str]], config: WordSetConfig, seed: int) -> Score:
    words, judged, cosines = _Words(wv, config.max_words), list[float](), list[float]()
    for number, line in lines:
        one, value = line.split("\t")[:-1], _number(line.split("\t")[-1])
        if len(one) != 2 or value is None:
            expected = "two words and a number, between tabs"
            raise DataError("this line is no pair of words", expected=expected, got=repr(line[:80]), where=f"{path}:{number}")
        if (places := words.of(one)) is not None:
            a, b = (wv.vectors[place] / wv.norms[place] for place in places)
            judged.append(value)
            cosines.append(float(a @ b))
    value, low, high = _spearman(np.array(judged), np.array(cosines), keys.key(seed, "word pairs", path.name), config.resamples)
    return Score(path.name, ALL, "spearman", value, low, high, len(judged), len(lines))


def _number(text: str) -> float | None:
    try:
        return float(text) if np.isfinite(float(text)) else None
    except ValueError:
        return None


def _spearman(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], key: Any, resamples: int
) -> tuple[float | None, float | None, float | None]:
    """The correlation of the ranks, with the interval of the percentile bootstrap over pairs (Efron 1979); None of fewer than three."""
    if len(a) < 3:
        return None, None, None
    drawn = keys.integers(key, resamples * len(a), len(a)).reshape(resamples, len(a))
    low, high = np.quantile(_correlation(a[drawn], b[drawn]), _SHARES)
    return float(_correlation(a[None], b[None])[0]), float(low), float(high)


def _correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Spearman's, (R, n) with (R, n) -> (R,); equal values share their mean rank; 0 where all values are equal."""
    a, b = (rankdata(one, axis=1) - (one.shape[1] + 1) / 2 for one in (a, b))
    below = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return (a * b).sum(1) / np.where(below > 0, below, 1)
