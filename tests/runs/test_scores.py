from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from lexloom.runs.scores import FINE_TUNED, FROM_SCRATCH, MAJORITY, TFIDF, System, compare, confusion, examples, verdict
from lexloom.tasks.metrics import Labels


def systems(gold: Sequence[str], **right: float) -> list[System]:
    """Systems with these shares of right answers; what a weaker one has right a stronger one has right too."""
    named = {"tuned": FINE_TUNED, "scratch": FROM_SCRATCH, "tfidf": TFIDF, "majority": MAJORITY}
    other = {"a": "b", "b": "a"}
    order = [(i * 7919) % len(gold) for i in range(len(gold))]
    return [
        System(named.get(name, name), [[g if order[i] < share * len(gold) else other[g] for i, g in enumerate(gold)]])
        for name, share in right.items()
    ]


GOLD = ["a", "b"] * 500


@pytest.mark.parametrize(
    ("right", "first", "later"),
    [
        ({"tuned": 0.9, "scratch": 0.8, "tfidf": 0.85, "majority": 0.5}, "Use the fine-tuned model: it has 0.900", "helped"),
        ({"tuned": 0.8, "scratch": 0.9, "tfidf": 0.85, "majority": 0.5}, "Use TF-IDF: it has 0.850 accuracy against 0.800", "did harm"),
        ({"tuned": 0.851, "scratch": 0.851, "tfidf": 0.85, "majority": 0.5}, "Use TF-IDF, which is simpler", "showed no gain"),
        ({"tuned": 0.5, "tfidf": 0.5, "majority": 0.5}, "Use none of these", ""),
        ({"tuned": 0.5, "tfidf": 0.8, "majority": 0.5}, "Use TF-IDF: it has 0.800", ""),
        ({"tuned": 0.8, "majority": 0.5}, "Use the fine-tuned model: it has 0.800 accuracy against 0.500 of always", ""),
        ({"tuned": 0.8}, "The fine-tuned model has 0.800 accuracy (95 % interval", ""),
    ],
)
def test_the_first_sentence_says_what_to_do(right: dict[str, float], first: str, later: str) -> None:
    found = compare(GOLD, systems(GOLD, **right), Labels("ab"), seed=1, resamples=200).verdict
    assert found.startswith(first)
    assert f"Pre-training {later}" in found if later else "Pre-training" not in found


def test_a_tie_is_told_as_one() -> None:
    gold = GOLD[:300]
    one, two = systems(gold, tuned=0.85, tfidf=0.5)
    swapped = System(TFIDF, [one.runs[0][8:] + one.runs[0][:8]])  # as good, on other rows
    found = compare(gold, [one, swapped], Labels("ab"), seed=1, resamples=300).verdict
    assert "no difference that n = 300 could show (95 % interval −0." in found
    assert compare(gold, [one, two], Labels("ab"), seed=1, resamples=300).verdict.startswith("Use the fine-tuned model")


def test_few_rows_and_one_seed_are_told() -> None:
    found = compare(["a", "b"] * 20, systems(["a", "b"] * 20, tuned=0.9, scratch=0.6), Labels("ab"), seed=1, resamples=100).verdict
    assert "With 40 rows only large differences can be seen." in found
    assert "There was one seed" in found


def test_nothing_scored() -> None:
    assert verdict([], []) == "Nothing was scored."


def test_scores_and_differences_are_json_of_the_report() -> None:
    three = System(FINE_TUNED, [systems(GOLD, tuned=share)[0].runs[0] for share in (0.8, 0.82, 0.84)], "three seeds")
    found = compare(GOLD, [three, *systems(GOLD, tfidf=0.7)], Labels("ab"), seed=1, resamples=50)
    first, difference = found.scores[0], found.differences[0]
    assert set(first) == {"model", "metric", "value", "low", "high", "n", "seeds", "note"}
    assert (first["metric"], first["value"], first["seeds"], first["n"], first["note"]) == (
        "accuracy",
        pytest.approx(0.82),
        3,
        1000,
        "three seeds",
    )
    assert set(difference) == {"a", "b", "metric", "value", "low", "high", "n", "seeds"}
    assert (difference["a"], difference["b"], difference["value"]) == (FINE_TUNED, TFIDF, pytest.approx(0.12))
    assert {score["metric"] for score in found.scores} == {"accuracy", "macro_f1", "matthews", "f1"}
    json.dumps(found.scores + found.differences, allow_nan=False)


def test_confusion_counts_every_row() -> None:
    assert confusion(["a", "a", "b"], ["a", "b", "c"], ["b", "a"]) == {
        "labels": ["b", "a", "c"],
        "counts": [[0, 0, 1], [1, 1, 0], [0, 0, 0]],
    }
    many = [str(i) for i in range(300)]
    found = confusion([*many, "7", "7"], [*many, "7", "8"], many)
    assert len(found["labels"]) == 200 and "7" in found["labels"]


def test_examples_are_drawn_and_stay() -> None:
    gold, answers, scores = ["good", "bad"] * 20, ["good"] * 40, [0.75] * 40
    texts = ["long " * 200 if i % 3 else f"text {i}" for i in range(40)]
    found = examples(texts, gold, answers, scores=scores, seed=5, each=3)
    assert [example["gold"] == example["predicted"] for example in found] == [False] * 3 + [True] * 3
    assert (
        found
        == examples(texts, gold, answers, scores=scores, seed=5, each=3)
        != examples(texts, gold, answers, scores=scores, seed=6, each=3)
    )
    assert max(len(example["text"]) for example in found) <= 300
    assert examples(["t"], ["good"], ["good"], scores=[1.0], seed=1) == [{"text": "t", "gold": "good", "predicted": "good", "score": 1.0}]
