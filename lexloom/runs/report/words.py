"""Reads what a run's word vectors left behind: figures of each training, scores on word sets, neighbours, places on maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lexloom.console import count, duration
from lexloom.runs.report import loose
from lexloom.runs.report.facts import WordMap, WordScore, WordVectors
from lexloom.runs.report.loose import Pairs

ALL, MAX_WORDS, MAX_NEIGHBOURS, MAX_KINDS = "all", 200, 10, 12


def word_vectors(trained: Mapping[str, Mapping[str, Any]], sets: Mapping[str, Any]) -> WordVectors | None:
    """What there is to tell; None where nothing was trained.

    Args:
        trained: name -> summary.json of `vectors/NAME`. sets: that of `word-sets`.
    """
    if not trained:
        return None
    names = list(trained)[:MAX_KINDS]
    scores = [score for row in loose.rows(sets.get("scores")) if (score := _score(row)) is not None]
    sets_in_order = {score.set: i for i, score in reversed(list(enumerate(scores)))}
    return WordVectors(
        [(name, dict(_figures(trained[name]))) for name in names],
        sorted((score for score in scores if score.section == ALL), key=lambda score: sets_in_order[score.set]),
        _by_section([score for score in scores if score.section != ALL]),
        names,
        [(name, path) for name in names if (path := loose.words(trained[name].get("path"), 120))],
        _neighbours(loose.rows(sets.get("neighbours")), names),
        [found for row in loose.rows(sets.get("maps"), MAX_KINDS) if (found := _map(row)) is not None],
        [(name, loose.pairs(trained[name].get("settings"))) for name in names],
        _verdict(trained, names),
    )


def _figures(found: Mapping[str, Any]) -> Pairs:
    shown: Pairs = []
    for label, key, told in (
        ("words", "words", count),
        ("numbers a word", "dim", count),
        ("words read", "text_words", count),
        ("words a second", "words_per_second", count),
        ("time", "seconds", duration),
    ):
        value = loose.number(found.get(key))
        shown += [(label, told(value))] if value is not None else []
    losses = [loss for one in loose.listed(found.get("losses"))[:1000] if (loss := loose.number(one)) is not None]
    return [*shown, ("loss, first epoch", f"{losses[0]:.4f}"), ("loss, last epoch", f"{losses[-1]:.4f}")] if losses else shown


def _score(row: Mapping[str, Any]) -> WordScore | None:
    covered, n = loose.integer(row.get("covered")), loose.integer(row.get("n"))
    if covered is None or n is None:
        return None
    value, low, high = (loose.number(row.get(name)) for name in ("value", "low", "high"))
    vectors, of, section, metric = (loose.words(row.get(name), 120) for name in ("vectors", "set", "section", "metric"))
    return WordScore(vectors, of, section, metric, value, low, high, covered, n)


def _by_section(scores: Sequence[WordScore]) -> list[tuple[str, list[tuple[str, dict[str, WordScore]]]]]:
    """(set, [(section, {vectors: score})])."""
    found: dict[str, dict[str, dict[str, WordScore]]] = {}
    for score in scores:
        found.setdefault(score.set, {}).setdefault(score.section, {})[score.vectors] = score
    return [(name, list(sections.items())) for name, sections in found.items()]


def _neighbours(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[str, list[list[tuple[str, float | None]]]]]:
    """(word, of each vectors [(neighbour, cosine)]); of those without a vector an empty list."""
    found: dict[str, dict[str, list[tuple[str, float | None]]]] = {}
    for row in rows:
        near = [one for one in loose.listed(row.get("found"))[:MAX_NEIGHBOURS] if isinstance(one, list) and len(one) == 2]
        told = [(loose.words(word, 60), loose.number(cosine)) for word, cosine in near]
        found.setdefault(loose.words(row.get("word"), 60), {})[loose.words(row.get("vectors"), 120)] = told
    return [(word, [near.get(name, []) for name in names]) for word, near in found.items()]


def _map(row: Mapping[str, Any]) -> WordMap | None:
    words = [loose.words(word, 60) for word in loose.listed(row.get("words"))[:MAX_WORDS]]
    points = [tuple(map(loose.number, one)) if isinstance(one, list) else () for one in loose.listed(row.get("points"))[:MAX_WORDS]]
    right = [(x, y) for x, y in (one if len(one) == 2 else (None, None) for one in points) if x is not None and y is not None]
    if not words or len(right) != len(words):
        return None
    return WordMap(loose.words(row.get("vectors"), 120), words, right, loose.number(row.get("share")))


def _verdict(trained: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    sizes = [(name, loose.number(trained[name].get("words")), loose.number(trained[name].get("dim"))) for name in names]
    told = [f"{name} with {count(words)} words of {count(dim)} numbers" for name, words, dim in sizes if words and dim]
    return f"Word vectors are ready: {', '.join(told) or ', '.join(names)}."
