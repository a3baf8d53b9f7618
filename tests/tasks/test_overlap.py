"""chrF and BLEU of the sums of rows are what `sacrebleu` says of the whole set, also of odd texts."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from lexloom import keys
from lexloom.errors import DataError, LexloomError
from lexloom.tasks.metrics import Bootstrap
from lexloom.tasks.overlap import Overlap

ENGLISH = "the a river house old sees, under (the) bridge. and 3.5 of it's don't — ninety-nine birds!".split()
CHINESE = list("这家酒店的房间很大，我们都喜欢。")


def texts(words: list[str], between: str, seed: int, n: int = 60) -> tuple[list[str], list[str]]:
    """Texts of 1 to 12 words, and the same with some words changed, left out or doubled."""
    gold, answers = [], []
    for i in range(n):
        drawn = keys.integers(keys.key(seed, i), 40, 1 << 30)
        right = [words[d % len(words)] for d in drawn[: 1 + drawn[12] % 12]]
        spoilt = [words[d % len(words)] if d % 3 == 0 else word for word, d in zip(right, drawn[13:], strict=False)]
        gold.append(between.join(right))
        answers.append(between.join(spoilt[: len(spoilt) - int(drawn[30] % 3 == 0)] + spoilt[:1] * int(drawn[31] % 5 == 0)))
    return gold, answers


@pytest.mark.parametrize(
    ("gold", "answers", "tokenize"),
    [
        (*texts(ENGLISH, " ", 1), "13a"),
        (*texts(CHINESE, "", 2), "zh"),
        (["a b c d e", "f g"], ["", ""], "13a"),
        (["a b c d e", "f g h i"], ["x y z", "u v"], "13a"),
        (["one two"], ["one two three four five six"], "13a"),
        (["a b c d e f g"], ["a b x d e x g"], "13a"),  # no four words in a row
        (["&quot;x&quot; a  b\tc d"], ['"x" a b c d'], "13a"),
    ],
)
def test_values_are_those_of_sacrebleu(gold: list[str], answers: list[str], tokenize: str) -> None:
    found = Overlap().scores(gold, answers)
    assert found["chrf"] == pytest.approx(CHRF().corpus_score(answers, [gold]).score / 100, abs=1e-12)
    assert found["bleu"] == pytest.approx(BLEU(tokenize=tokenize).corpus_score(answers, [gold]).score / 100, abs=1e-12)
    assert found["accuracy"] == np.mean(["".join(a.split()) == "".join(b.split()) for a, b in zip(gold, answers, strict=True)])


def test_each_resample_is_scored_as_a_set_of_its_own() -> None:
    gold, answers = texts(ENGLISH, " ", 3)
    overlap = Overlap()
    drawn = keys.integers(keys.key(8, np.arange(5)), len(gold), len(gold))
    sums = np.stack([np.asarray(overlap.rows([gold[i] for i in rows], [answers[i] for i in rows]).sum(axis=0)) for rows in drawn])
    expected = [overlap.scores([gold[i] for i in rows], [answers[i] for i in rows]) for rows in drawn]
    for metric in overlap.metrics:
        assert overlap.value(metric, sums).tolist() == [one[metric] for one in expected]
    interval = Bootstrap(gold, {"it": [answers]}, overlap, seed=1, resamples=200).interval("bleu", "it")
    assert interval.value == pytest.approx(overlap.scores(gold, answers)["bleu"])
    assert interval.low < interval.value < interval.high


def test_right_texts_score_one_and_white_space_does_not_count() -> None:
    gold, _ = texts(CHINESE, "", 4)
    assert Overlap().scores(gold, gold) == pytest.approx({"chrf": 1.0, "bleu": 1.0, "accuracy": 1.0})
    assert Overlap().scores(["a bc"], [" a b\nc "])["accuracy"] == 1.0


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        Overlap().scores([], [])
    with pytest.raises(LexloomError, match="bleu"):
        Overlap().value("blue", np.ones(30))
