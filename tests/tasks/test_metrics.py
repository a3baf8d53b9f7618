from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lexloom import keys
from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.tasks.metrics import Bootstrap, Labels, Right, interval, majority, paired, scores

LABELS = st.sampled_from(["a", "b", "c"])


def drawn(seed: int, n: int, right: float, labels: str = "ab") -> tuple[list[str], list[str]]:
    """Gold labels and predictions that are right with a chance of `right`."""
    u = keys.uniform(keys.key(seed, "drawn"), 2 * n).reshape(2, n)
    gold = [labels[int(x * len(labels))] for x in u[0]]
    return gold, [g if x < right else labels[(labels.index(g) + 1) % len(labels)] for g, x in zip(gold, u[1], strict=True)]


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30))
def test_sums_give_what_scikit_learn_gives(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = (list(side) for side in zip(*pairs, strict=True))
    labels = Labels(["a", "b", "c"])
    sums = np.asarray(labels.rows(gold, predicted).sum(axis=0))
    assert labels.value("accuracy", sums) == pytest.approx(accuracy_score(gold, predicted))
    assert labels.value("macro_f1", sums) == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    assert labels.value("matthews", sums) == pytest.approx(scores(gold, predicted, ["a", "b", "c"])["matthews"])


@given(st.lists(st.tuples(st.sampled_from("01"), st.sampled_from("01")), min_size=1, max_size=30))
def test_f1_is_that_of_the_second_of_two_labels(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = (list(side) for side in zip(*pairs, strict=True))
    expected = f1_score([g == "1" for g in gold], [p == "1" for p in predicted], zero_division=0)
    assert scores(gold, predicted, ["0", "1"])["f1"] == pytest.approx(expected)
    assert interval("f1", gold, predicted, seed=1, resamples=2, labels=["0", "1"]).value == pytest.approx(expected)


def test_scores_come_from_scikit_learn() -> None:
    gold, predicted = drawn(3, 200, 0.7, "abc")
    found = scores(gold, predicted, ["a", "b", "c"])
    assert found["matthews"] == matthews_corrcoef(gold, predicted)
    assert list(found) == ["accuracy", "macro_f1", "matthews"]


def test_each_resample_has_the_value_of_its_own_rows() -> None:
    gold, predicted = drawn(5, 40, 0.6, "abc")
    found = Bootstrap(gold, {"m": [predicted]}, Labels("abc"), seed=9, resamples=7)
    weights = found._weights(np.arange(7, dtype=np.uint64)).astype(int)
    for r in range(7):
        rows = np.repeat(np.arange(40), weights[r])
        assert len(rows) == 40
        again = scores([gold[i] for i in rows], [predicted[i] for i in rows], "abc")
        for metric, value in again.items():
            assert found.values["m"][metric][0, r] == pytest.approx(value)


def test_intervals_cover_the_truth() -> None:
    inside = [0, 0]
    for seed in range(300):
        gold, a = drawn(seed, 150, 0.8)
        found = interval("accuracy", gold, a, seed=seed, resamples=300)
        inside[0] += found.low <= 0.8 <= found.high
        b = drawn(seed, 150, 0.7)[1]  # the same draw: rows that b has right a has right too, a true difference of 0.1
        found = paired("accuracy", gold, a, b, seed=seed, resamples=300)
        inside[1] += found.low <= 0.1 <= found.high
    assert all(0.90 <= n / 300 <= 0.98 for n in inside)


def test_intervals_over_seeds_cover_the_truth() -> None:
    inside = 0
    for number in range(150):
        spread = (keys.uniform(keys.key(number, "seeds"), 5) - 0.5) * 0.1  # each seed has an accuracy of its own around 0.7
        u = keys.uniform(keys.key(number, "rows", np.arange(5)), 400)
        runs = [["a" if x < 0.7 + s else "b" for x in row] for row, s in zip(u, spread, strict=True)]
        found = interval("accuracy", ["a"] * 400, runs, seed=number, resamples=300)
        inside += found.low <= 0.7 <= found.high
    assert 0.90 <= inside / 150 <= 1.0


def test_the_spread_between_seeds_widens_an_interval() -> None:
    gold = ["a"] * 100
    runs = [["a"] * n + ["b"] * (100 - n) for n in (60, 80, 100)]
    alone, pooled = interval("accuracy", gold, runs[1], seed=1), interval("accuracy", gold, runs, seed=1)
    assert (pooled.value, pooled.seeds, pooled.n) == (pytest.approx(0.8), 3, 100)
    assert pooled.high - pooled.low > 1.3 * (alone.high - alone.low)


def test_a_difference_is_of_the_same_rows() -> None:
    gold, a = drawn(1, 300, 0.7)
    same = paired("accuracy", gold, a, a, seed=4)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    better = paired("accuracy", gold, gold, a, seed=4)
    worse = paired("accuracy", gold, a, gold, seed=4)
    assert better.low > 0 and (worse.low, worse.high) == pytest.approx((-better.high, -better.low), abs=0.01)


def test_one_resampling_serves_many_systems() -> None:
    gold, a = drawn(1, 80, 0.7)
    b = drawn(2, 80, 0.5)[1]
    both = Bootstrap(gold, {"a": [a], "b": [b, a]}, Labels("ab"), seed=6, resamples=50)
    assert both.interval("macro_f1", "a") == interval("macro_f1", gold, a, seed=6, resamples=50, labels="ab")
    assert both.difference("accuracy", "a", "b").seeds == 2


def test_resamples_are_a_function_of_the_seed() -> None:
    gold, a = drawn(1, 80, 0.7)
    assert interval("accuracy", gold, a, seed=1, resamples=99) == interval("accuracy", gold, a, seed=1, resamples=99)
    assert interval("macro_f1", gold, a, seed=1, resamples=99) != interval("macro_f1", gold, a, seed=2, resamples=99)


def test_cutting_the_resampling_into_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gold, a = drawn(1, 80, 0.7)
    whole = interval("macro_f1", gold, a, seed=1, resamples=99)
    monkeypatch.setattr("lexloom.tasks.metrics._CHUNK", 400)
    assert interval("macro_f1", gold, a, seed=1, resamples=99) == whole


def test_very_many_rows_are_resampled_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    gold, a = drawn(1, 80, 0.7)
    monkeypatch.setattr("lexloom.tasks.metrics.MAX_DRAWS", 80 * 120)
    assert interval("macro_f1", gold, a, seed=1) == interval("macro_f1", gold, a, seed=1, resamples=120)
    assert interval("macro_f1", gold, a, seed=1, resamples=20) != interval("macro_f1", gold, a, seed=1)
    monkeypatch.setattr("lexloom.tasks.metrics.MAX_DRAWS", 1)
    assert interval("macro_f1", gold, a, seed=1) == interval("macro_f1", gold, a, seed=1, resamples=100)


def test_all_right_is_not_certain() -> None:
    found = interval("accuracy", ["a", "b"] * 10, ["a", "b"] * 10, seed=1)
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(0.85), 1.0)
    none = interval("accuracy", ["a"] * 20, ["b"] * 20, seed=1)
    assert (none.value, none.low, none.high) == (0.0, 0.0, pytest.approx(0.15))


def test_a_label_that_training_never_saw_counts_as_wrong() -> None:
    assert interval("accuracy", ["a", "b"], ["a", "z"], seed=1, labels="ab").value == 0.5


def test_right_and_wrong_alone() -> None:
    found = Bootstrap(["x", "y", "z", "x"], {"m": [["x", "y", "q", "q"]]}, Right(), seed=1, resamples=20)
    assert found.interval("accuracy", "m").value == 0.5


def test_the_majority() -> None:
    assert majority({"b": 3, "a": 3, "c": 1}) == "b"
    with pytest.raises(DataError, match="no labels were counted"):
        majority({})


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="no rows to score"):
        interval("accuracy", [], [], seed=1)
    with pytest.raises(LexloomError, match="one answer"):
        interval("accuracy", ["a"], ["a", "b"], seed=1)
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        interval("acuracy", ["a"], ["a"], seed=1)
    with pytest.raises(LexloomError, match="resamples"):
        interval("accuracy", ["a"], ["a"], seed=1, resamples=0)
