"""Word sets: planted answers, coverage, intervals beside scipy, and faults named with their line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from lexloom import keys
from lexloom.errors import ConfigError, DataError
from lexloom.vectors.evaluate import evaluate
from lexloom.vectors.keyed import WordVectors

COUNTRIES, CAPITALS = [f"land{i}" for i in range(12)], [f"town{i}" for i in range(12)]


def made() -> WordVectors:
    """Capitals are their countries and one direction more, but for the last, which is nowhere near."""
    countries = keys.normal(keys.key(2, np.arange(12)), 24)
    capitals = countries + 2.0 * np.eye(24)[0]
    capitals[-1] = -countries[-1]
    return WordVectors([*COUNTRIES, *CAPITALS], np.concatenate([countries, capitals]).astype(np.float32))


def questions(last: int = 12) -> str:
    rows = [f"{COUNTRIES[i]} {CAPITALS[i]} {COUNTRIES[j]} {CAPITALS[j]}" for i in range(6) for j in range(last) if i != j]
    return ": capitals\n" + "\n".join(rows) + "\n: none\nland1 nowhere land2 town2\n"


@pytest.mark.parametrize("method", ["additive", "multiplicative"])
def test_analogies_are_those_that_analogy_answers(tmp_path: Path, method: str) -> None:
    with gzip.open(tmp_path / "q.txt.gz", "wt", encoding="utf-8") as file:
        file.write(questions())
    wv = made()
    whole, capitals, none = evaluate(wv, tmp_path / "q.txt.gz", method=method)
    asked = [line.split() for line in questions().splitlines() if line.startswith("land") and "nowhere" not in line]
    right = [wv.analogy(a, b, c, method=method, topn=1)[0][0] == d for a, b, c, d in asked]  # type: ignore[arg-type]
    assert whole.value == capitals.value == np.mean(right) and 0.8 < np.mean(right) < 1
    assert (whole.covered, whole.n, capitals.n) == (66, 67, 66) and (none.covered, none.n, none.value, none.low) == (0, 1, None, None)


def test_wilsons_interval(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text(questions(11))
    score = evaluate(made(), tmp_path / "q.txt")[0]
    n, z = score.covered, 1.959964
    assert score.value == 1 and score.high == 1 and score.low is not None
    assert abs(score.low - n / (n + z * z)) < 1e-6


def test_words_are_found_in_small_letters_and_among_the_most_frequent(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("\ufeff: s\nLand0 TOWN0 land1 town1\n", encoding="utf-8")
    assert evaluate(made(), tmp_path / "q.txt")[0].covered == 1
    assert evaluate(made(), tmp_path / "q.txt", max_words=13)[0].covered == 0
    assert evaluate(made(), tmp_path / "q.txt", max_words=14)[0].value == 1


def test_correlations_are_scipys_and_their_intervals_are_repeatable(tmp_path: Path) -> None:
    wv, rows, judged, cosines = made(), [], [], []
    for number in range(40):
        a, b = wv.index_to_key[number % 24], wv.index_to_key[(5 * number + 1) % 24]
        judged.append(round(4 * wv.similarity(a, b) + float(keys.normal(keys.key(9, number), 1)[0])))
        cosines.append(wv.similarity(a, b))
        rows.append(f"{a}\t{b}\t{judged[-1]}")
    (tmp_path / "pairs.tsv").write_text("\n".join([*rows, "land1\tnowhere\t3"]))
    score = evaluate(wv, tmp_path / "pairs.tsv")[0]
    assert score.value == pytest.approx(spearmanr(judged, cosines).statistic, abs=1e-6) and (score.covered, score.n) == (40, 41)
    assert score.low is not None and score.high is not None and score.value is not None
    assert score.value - 0.4 < score.low < score.value < score.high <= 1
    assert evaluate(wv, tmp_path)[0] == score != evaluate(wv, tmp_path, seed=2)[0]
    (tmp_path / "pairs.tsv").write_text("land1\tnowhere\t3\n")
    assert evaluate(wv, tmp_path / "pairs.tsv")[0].value is None


def test_figures_are_gensims(tmp_path: Path) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    wv, theirs = made(), keyed(vector_size=24)
    theirs.add_vectors(wv.index_to_key, wv.vectors)
    (tmp_path / "q.txt").write_text(questions())
    (tmp_path / "pairs.tsv").write_text("\n".join(f"land{i}\ttown{i * i % 12}\t{i % 5}" for i in range(12)))
    assert evaluate(wv, tmp_path / "q.txt")[0].value == theirs.evaluate_word_analogies(str(tmp_path / "q.txt"))[0]
    ours = evaluate(wv, tmp_path / "pairs.tsv")[0].value
    assert ours == pytest.approx(theirs.evaluate_word_pairs(str(tmp_path / "pairs.tsv"))[1].statistic, abs=1e-9)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b": s\na b c\n", "q.txt:2: this line is no analogy"),
        (b"a\tb\t1\nc\td\n", "q.txt:2: this line is no pair"),
        (b"a\tb\tx\n", "q.txt:1: this line is no pair"),
        (b"a\tb\tnan\n", "q.txt:1: this line is no pair"),
        (b": s\n\xff\n", "q.txt:2: this line cannot be read"),
    ],
)
def test_a_broken_set_is_named_with_its_line(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "q.txt").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        evaluate(made(), tmp_path / "q.txt")


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        evaluate(made(), tmp_path / "none.txt")
    with pytest.raises(DataError, match="holds no sets"):
        evaluate(made(), tmp_path)
    with pytest.raises(ConfigError, match="max_words"):
        evaluate(made(), tmp_path, max_word=3)
