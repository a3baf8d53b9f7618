"""The 5-gram that language models stand beside in benchmarks: probabilities that add up to 1, and those of the textbook."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from lexloom import keys
from tests import tiny

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
from _ngram import _END, _START, _UNKNOWN, NGram, words

TEXT = [tiny.sentence(i) for i in range(300)] + ["rare once", "the river", "the river", "A don't, B!"]


def encoded(model: NGram, text: str) -> list[int]:
    return [_START, *(model.ids.get(word, _UNKNOWN) for word in words(text)), _END]


def textbook(model: NGram, rows: list[list[int]], row: list[int], order: int) -> float:
    """P(last token | those before) by dictionaries (Chen and Goodman 1999, equations 23 to 26)."""
    seen: dict[int, Counter[tuple[int, ...]]] = {}
    for n in range(order, 0, -1):
        raw = Counter(tuple(r[i - n + 1 : i + 1]) for r in rows for i in range(max(1, n - 1), len(r)))
        if n == order:
            seen[n] = raw
        else:
            before = Counter(gram[1:] for gram in seen[n + 1])
            seen[n] = before + Counter({gram: count for gram, count in raw.items() if gram[0] == _START})
    p = 1 / model.size
    for n in range(1, min(order, len(row)) + 1):
        counts = seen[n]
        t = [sum(count == k for count in counts.values()) for k in (1, 2, 3, 4)]
        d = [0.0, 0.5, 0.75, 0.9]
        if all(t):
            y = t[0] / (t[0] + 2 * t[1])
            d = [0.0, *(min(max(k - (k + 1) * y * t[k] / t[k - 1], 0.05), k - 0.01) for k in (1, 2, 3))]
        context = defaultdict(list)
        for gram, count in counts.items():
            context[gram[:-1]].append(count)
        here = context.get(tuple(row[len(row) - n : -1]))
        if here:
            count = counts.get(tuple(row[-n:]), 0)
            p = max(count - d[min(count, 3)], 0) / sum(here) + sum(d[min(c, 3)] for c in here) / sum(here) * p
    return p


@pytest.fixture(scope="module")
def model() -> NGram:
    return NGram(TEXT, order=4)


def test_what_may_follow_adds_up_to_one(model: NGram) -> None:
    for text in ("the river", "one which", "rare", "", "nothing like this"):
        front = encoded(model, text)[:-1]
        found = [model.probabilities(np.asarray([*front, word], dtype=np.int32))[-1] for word in range(1, model.size + 1)]
        assert sum(found) == pytest.approx(1.0, abs=1e-5) and min(found) > 0


@pytest.mark.parametrize("order", [1, 2, 4])
def test_it_is_the_textbooks(order: int) -> None:
    model = NGram(TEXT, order=order)
    rows = [encoded(model, text) for text in TEXT]
    for number in (3, 7, 500, 501):
        row = encoded(model, tiny.sentence(number))
        found = model.probabilities(np.asarray(row, dtype=np.int32))
        assert found[1:].tolist() == pytest.approx([textbook(model, rows, row[: i + 1], order) for i in range(1, len(row))], rel=1e-5)


def test_sentences_are_scored_apart_and_seen_ones_are_likelier(model: NGram) -> None:
    texts = [tiny.sentence(5), tiny.sentence(9999), "rare words of no use"]
    alone = [model([text])[0].logs for text in texts]
    for one, together in zip(alone, model(texts), strict=True):
        np.testing.assert_allclose(one, together.logs)
    shuffled = words(tiny.sentence(5))
    order = keys.shuffled(keys.key(1), len(shuffled))
    assert alone[0].sum() > model([" ".join(shuffled[i] for i in order)])[0].logs.sum()


def test_words_have_their_apostrophes_and_signs_stand_alone() -> None:
    assert words("Katherine can't help herself.") == ["Katherine", "can't", "help", "herself", "."]
    assert words('"A_b" 3.5') == ['"', "A", "_", "b", '"', "3", ".", "5"]
