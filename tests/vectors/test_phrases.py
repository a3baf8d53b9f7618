"""Phrases: counts and scores beside a dictionary and beside gensim, longer phrases, Chinese, files, and their use in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import lexloom
from lexloom import files
from lexloom.config import Config
from lexloom.console import Console
from lexloom.errors import ConfigError, FormatError
from lexloom.vectors.phrases import Phrased, Phrases, PhrasesConfig
from lexloom.vectors.sentences import SourceSentences, WordsConfig
from tests.vectors.texts import zipf

CITIES = [["we", "saw", "new", "york", "city"], ["york", "is", "new"], ["a", "city", "saw", "new", "york"], ["new", "york", "city"]]


def text() -> list[list[str]]:
    """Words by Zipf's law, with words that often come together between them."""
    found = zipf(words=40, sentences=900, seed=4)
    return [[*row[:4], "san", "marco", *row[4:]] if i % 7 == 0 else ["marco", *row] if i % 5 == 0 else row for i, row in enumerate(found)]


def by_dictionary(sentences: Sequence[Sequence[str]], threshold: float, discount: float) -> dict[tuple[str, str], float]:
    words = Counter(word for sentence in sentences for word in sentence)
    pairs = Counter(pair for sentence in sentences for pair in pairwise(sentence))
    scores = {(a, b): (n - discount) / (words[a] * words[b]) * words.total() for (a, b), n in pairs.items()}
    return {pair: score for pair, score in scores.items() if score > threshold}


def scored(worda_count: int, wordb_count: int, bigram_count: int, len_vocab: int, min_count: int, corpus_word_count: int) -> float:
    """As gensim calls it; its own one has the number of different words and pairs where word2phrase.c has the words of the text."""
    return (bigram_count - min_count) / (worda_count * wordb_count) * corpus_word_count


@pytest.mark.parametrize(("threshold", "discount", "held"), [(1.0, 5.0, 2_000_000), (1.3, 0.0, 7), (0.5, 2.5, 20), (1e9, 5.0, 7)])
def test_scores_are_those_of_a_dictionary(threshold: float, discount: float, held: int) -> None:
    (found,) = Phrases.fit(text(), phrase_threshold=threshold, discount=discount, held=held).passes
    right = by_dictionary(text(), threshold, discount)
    assert dict(found) == pytest.approx(right, rel=1e-12) and set(found) == set(right)
    assert (("san", "marco") in found) == (threshold < 1e6)


def test_phrases_are_gensims() -> None:
    models = pytest.importorskip("gensim.models.phrases")
    theirs = models.Phrases(text(), min_count=5, threshold=0.8, scoring=scored)
    ours = Phrases.fit(text(), phrase_threshold=0.8, discount=5)
    assert {f"{a}_{b}": score for (a, b), score in ours.passes[0].items()} == pytest.approx(theirs.export_phrases(), rel=1e-12)
    assert len(ours.passes[0]) > 10
    assert [ours(sentence) for sentence in text()] == [list(theirs[sentence]) for sentence in text()]


def test_longer_phrases_grow_by_passes() -> None:
    fitted = {n: Phrases.fit(CITIES * 3, phrases=n, phrase_threshold=1.2, discount=1) for n in (1, 2)}
    assert fitted[1](["in", "new", "york", "city"]) == ["in", "new_york", "city"]
    assert fitted[2](["in", "new", "york", "city"]) == ["in", "new_york_city"]
    assert fitted[2](["york", "new"]) == ["york", "new"] and fitted[2]([]) == [] and fitted[2](["new"]) == ["new"]


def test_overlapping_pairs_are_joined_from_the_left() -> None:
    assert Phrases([{("a", "a"): 1.0, ("a", "b"): 1.0}])(["a", "a", "a", "b", "a"]) == ["a_a", "a_b", "a"]


def test_nothing_stands_between_chinese_words() -> None:
    phrases = Phrases.fit(
        [["机器", "学习", "的", "x光"], ["机器", "学习"], ["的", "3d", "打印"], ["打印"], ["3d", "打印"]] * 4,
        phrase_threshold=1,
        discount=1,
    )
    assert phrases(["机器", "学习", "3d", "打印"]) == ["机器学习", "3d_打印"]
    assert Phrases([{("서울", "시장"): 1.0}])(["서울", "시장"]) == ["서울_시장"]  # which Korean writes with a space


def test_a_stream_is_enough_and_a_text_without_phrases_has_none() -> None:
    assert Phrases.fit(iter(text()), phrases=2, phrase_threshold=1).passes == Phrases.fit(text(), phrases=2, phrase_threshold=1).passes
    for nothing in ([], [[]], [["a"]], [["a"], ["b"]] * 9, [["a", "b"]]):
        assert Phrases.fit(nothing, phrases=2).passes == [{}, {}]
    for settings in ({"phrases": -1}, {"phrase_threshold": 0}, {"discount": -1}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            Phrases.fit(text(), **settings)


def test_saved_and_loaded(tmp_path: Path) -> None:
    phrases = Phrases.fit([*text(), *[["odd \ud800", 'wo"rd\n']] * 9], phrases=2, phrase_threshold=1)
    phrases.save(tmp_path / "phrases.json")
    again = Phrases.load(tmp_path / "phrases.json")
    assert again.passes == phrases.passes and ("odd \ud800", 'wo"rd\n') in again.passes[0]
    for content in (
        b"",
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "phrases": [[["a", "b"]]]}',
        b'{"format": 1, "phrases": 3}',
        b"\xff",
        b"[]",
    ):
        files.write_bytes(tmp_path / "broken.json", content)
        with pytest.raises(FormatError):
            Phrases.load(tmp_path / "broken.json")


def test_a_source_is_read_with_its_phrases(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(" ".join(row) + "\n" for row in text()), encoding="utf-8")
    settings: dict[str, Any] = {"phrases": 1, "phrase_threshold": 1.2}
    config = WordsConfig.read({"words": "spaces", **settings})
    source = SourceSentences(tmp_path / "text.txt", config)
    right = list(map(Phrases.fit(text(), **settings), text()))
    assert [list(row) for row in source if row] == right == [list(row) for row in source if row]
    assert isinstance(PhrasesConfig(), Config) and list(Phrased(text(), PhrasesConfig())) == text()
    options: dict[str, Any] = {"dim": 4, "epochs": 1, "min_count": 1, "words": "spaces", "console": Console(quiet=True), **settings}
    trained = lexloom.train_vectors(tmp_path / "text.txt", tmp_path / "v.bin", **options)
    assert "san_marco" in trained.vectors and "w0" in trained.vectors
