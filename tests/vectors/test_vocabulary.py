"""Words are counted exactly in any memory, and drawn as their counts say."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lexloom import keys
from lexloom.errors import DataError, FormatError
from lexloom.vectors.vocabulary import Vocabulary, VocabularyConfig, count
from tests.vectors.texts import zipf


def brute(sentences: list[list[str]], least: int) -> list[tuple[str, int]]:
    counts = Counter(word for sentence in sentences for word in sentence)
    return sorted(((word, n) for word, n in counts.items() if n >= least), key=lambda entry: (-entry[1], entry[0]))


@pytest.mark.parametrize("held", [7, 100, 10**6])
def test_counts_are_those_of_a_dictionary_however_little_is_held(tmp_path: Path, held: int) -> None:
    sentences = zipf(words=300, sentences=400)
    found = count(sentences, tmp_path, VocabularyConfig(min_count=3), held=held)
    assert list(zip(found.words, found.counts.tolist(), strict=True)) == brute(sentences, 3)
    assert found.text_words == sum(map(len, sentences))
    assert bool(list(tmp_path.glob("*.jsonl"))) is (held <= 100)


def test_a_cap_keeps_the_most_frequent(tmp_path: Path) -> None:
    sentences = zipf(words=3000, sentences=2000)
    found = count(sentences, tmp_path, VocabularyConfig(min_count=1, max_words=20))
    assert list(zip(found.words, found.counts.tolist(), strict=True)) == brute(sentences, 1)[:20]


def test_words_may_hold_anything(tmp_path: Path) -> None:
    odd = ["a b", "tab\t", "line\n", "\ud800", '"', "词"]
    found = count([odd, odd], tmp_path, VocabularyConfig(min_count=2), held=2)
    assert sorted(found.words) == sorted(odd)
    found.save(tmp_path / "vocabulary.json")
    again = Vocabulary.load(tmp_path / "vocabulary.json")
    assert (again.words, again.counts.tolist(), again.text_words) == (found.words, [2] * 6, 12)


def test_nothing_left_says_how_far_off_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no word"):
        count([[], []], tmp_path)
    with pytest.raises(DataError, match="min_count 5") as caught:
        count([["a", "b", "a"]], tmp_path)
    assert caught.value.got == "3 words, 2 different ones, none more than 2 times"


@pytest.mark.parametrize("content", ["{", '{"format": 9}', '{"format": 1, "words": ["a"], "counts": [], "text_words": 1}'])
def test_a_broken_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "v.json").write_text(content, encoding="utf-8")
    with pytest.raises(FormatError):
        Vocabulary.load(tmp_path / "v.json")


def test_subsampling_is_that_of_word2vec_c() -> None:
    counts, t = np.array([5000, 400, 20, 1]), 1e-3
    share = counts / counts.sum()
    right = np.minimum(1, (np.sqrt(share / t) + 1) * t / share)
    assert np.allclose(Vocabulary(list("abcd"), counts).keep(t) / 2.0**32, right, rtol=1e-9)
    assert (Vocabulary(list("abcd"), counts).keep(0) == 1 << 32).all()


def test_negatives_are_drawn_by_count_to_three_quarters() -> None:
    counts = np.array([1000, 300, 300, 20, 3])
    noise = Vocabulary(list("abcde"), counts).noise(0.75).astype(np.float64)
    found = noise[:, 0] / 2**32
    for place, (bound, other) in enumerate(noise):
        found[int(other)] += 1 - bound / 2**32 if int(other) != place else 0
    alone = noise[:, 1] == np.arange(5)
    found[alone] += 1 - noise[alone, 0] / 2**32
    right = counts**0.75 / (counts**0.75).sum()
    assert np.allclose(found / 5, right, atol=1e-9)


def test_frequent_words_stand_near_the_root() -> None:
    counts = np.sort(keys.integers(keys.key(1), 500, 1000))[::-1] + 1
    tree = Vocabulary([str(i) for i in range(500)], counts).huffman()
    lengths = np.diff(tree.starts)
    share = counts / counts.sum()
    entropy = float(-(share * np.log2(share)).sum())
    assert entropy <= (share * lengths).sum() < entropy + 1  # Huffman's bound
    assert (2.0**-lengths).sum() == pytest.approx(1)  # Kraft: a full binary tree
    paths = {
        tuple(zip(tree.nodes[a:b].tolist(), tree.turns[a:b].tolist(), strict=True))
        for a, b in zip(tree.starts, tree.starts[1:], strict=False)
    }
    assert len(paths) == 500 and {path[0][0] for path in paths} == {498}  # the root, made last
    assert set(tree.nodes.tolist()) == set(range(499))
    ways = {(turn, node) for path in paths for turn, (node, _) in pairwise(path)}
    assert len({turn for turn, _ in ways}) == len(ways)  # each turn leads to one node


def test_new_words_come_behind_the_old() -> None:
    found = Vocabulary(["a", "b"], [5, 3]).joined(Vocabulary(["c", "b"], [9, 1]))
    assert (found.words, found.counts.tolist(), found.text_words) == (["a", "b", "c"], [5, 4, 9], 18)
