"""Neighbours, analogies and odd ones out, beside a plain search of all words and beside gensim."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from lexloom import keys
from lexloom.errors import ConfigError, LexloomError
from lexloom.vectors.keyed import MULTIPLICATIVE_EPSILON, UnknownWordError, WordVectors

WORDS = [f"w{number}" for number in range(60)]


def made() -> WordVectors:
    return WordVectors(WORDS, (keys.normal(keys.key(3, np.arange(60)), 8) * np.linspace(0.1, 4, 60)[:, None]).astype(np.float32))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def unit(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) / np.linalg.norm(a.astype(np.float64))


def ranked(scores: dict[str, float]) -> list[str]:
    return sorted(scores, key=lambda word: -scores[word])


def test_neighbours_are_those_of_a_plain_search() -> None:
    wv = made()
    query = unit(wv["w1"]) + unit(wv["w2"]) - unit(wv["w3"])
    scores = {word: cosine(wv[word], query) for word in WORDS if word not in ("w1", "w2", "w3")}
    found = wv.most_similar(["w1", "w2"], ["w3"], topn=7)
    assert [word for word, _ in found] == ranked(scores)[:7]
    assert all(abs(score - scores[word]) < 1e-6 for word, score in found)
    assert abs(wv.similarity("w4", "w9") - cosine(wv["w4"], wv["w9"])) < 1e-6
    assert wv.most_similar(wv["w5"], topn=1)[0][0] == "w5", "a vector is no word, so nothing is left out"
    assert {word for word, _ in wv.most_similar("w1", topn=9, restrict_vocab=5)} == {"w0", "w2", "w3", "w4"}
    assert wv.most_similar("w1", topn=0) == [] and wv[["w1", "w2"]].shape == (2, 8)


def test_multiplied_cosines_are_those_of_the_paper() -> None:
    wv, scores = made(), {}
    for word in set(WORDS) - {"w1", "w2", "w3"}:
        to_a, to_b, to_c = ((1 + cosine(wv[word], wv[other])) / 2 for other in ("w1", "w2", "w3"))
        scores[word] = to_b * to_c / (to_a + MULTIPLICATIVE_EPSILON)
    found = wv.analogy("w1", "w2", "w3", method="multiplicative", topn=6)
    assert [word for word, _ in found] == ranked(scores)[:6]
    assert all(abs(score - scores[word]) < 1e-5 * scores[word] for word, score in found)
    assert wv.analogy("w1", "w2", "w3", topn=4) == wv.most_similar(["w2", "w3"], ["w1"], topn=4)


def test_planted_relations_are_found() -> None:
    man, royal, female, fish = np.eye(4, dtype=np.float32)
    planted = {"man": man, "king": man + royal, "woman": man + female, "queen": man + royal + female, "throne": royal, "fish": fish}
    wv = WordVectors(list(planted), np.stack(list(planted.values())))
    assert wv.analogy("man", "king", "woman")[0][0] == wv.analogy("man", "king", "woman", method="multiplicative")[0][0] == "queen"
    assert wv.doesnt_match(["man", "king", "fish", "woman"]) == "fish"


def test_mapped_vectors_and_those_of_nothing_but_zeros(tmp_path: Path) -> None:
    wv = made()
    wv.vectors[7] = 0
    wv.save(tmp_path / "v.safetensors")
    mapped = WordVectors.load(tmp_path / "v.safetensors")
    assert mapped.most_similar("w1", topn=60) == wv.most_similar("w1", topn=60) and len(mapped.most_similar("w1", topn=60)) == 59
    assert mapped.similarity("w7", "w1") == 0 and dict(wv.most_similar("w1", topn=60))["w7"] == 0


def test_a_map_keeps_what_is_near_near() -> None:
    names = ["near", "beside", "词 & <b>", "far"]
    wv = WordVectors(names, np.array([[1, 0, 0.1], [1, 0.1, 0], [-1, 1, 0], [-1, -1, 0]], dtype=np.float32))
    drawn = wv.map(names, title="A map")
    root = ElementTree.fromstring(drawn)
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")] == ["A map", *names]
    assert math.dist(dots[0], dots[1]) < 0.2 * min(math.dist(dots[0], dots[2]), math.dist(dots[0], dots[3]), math.dist(dots[2], dots[3]))
    assert all(0 < x < 760 and 0 < y < 560 for x, y in dots) and drawn == wv.map(names, title="A map")
    # Both directions are to one scale: as far apart on paper as in the vectors' plane.
    flat = WordVectors(["a", "b", "c"], np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)).map(["a", "b", "c"])
    a, b, c = ((float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', flat))
    assert abs(math.dist(a, b) / math.dist(a, c) - math.sqrt(0.5)) < 1e-3
    with pytest.raises(ConfigError, match="three words"):
        wv.map(["near", "far"])


def test_names_on_a_map_do_not_cover_each_other() -> None:
    words = ["here", "too", "also", "well", "left", "right"]
    wv = WordVectors(words, np.array([[1, 0], [1, 0.01], [1, -0.01], [1, 0.02], [-1, 1], [-1, -1]], dtype=np.float32))
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"(?: text-anchor="(\w+)")?>(\w+)</text>', wv.map(words, title="-"))
    back = {"": 0.0, "end": 1.0, "middle": 0.5}
    boxes = [(float(x) - back[anchor] * 6 * len(name), float(y), 6 * len(name)) for x, y, anchor, name in found]
    assert len(boxes) == len(words)
    for (ax, ay, along), (bx, by, blong) in itertools.combinations(boxes, 2):
        assert abs(ay - by) >= 11 or ax + along <= bx or bx + blong <= ax


def test_what_was_asked_wrongly_is_named() -> None:
    wv = made()
    for wrong in (lambda: wv["W1"], lambda: wv.most_similar("W1"), lambda: wv.similarity("w1", "W1"), lambda: wv.doesnt_match(["W1"])):
        with pytest.raises(UnknownWordError, match=r"'W1'\n.*there is 'w1'") as caught:
            wrong()
        assert isinstance(caught.value, KeyError) and isinstance(caught.value, LexloomError)
    for wrong, problem in [
        (lambda: wv.most_similar(), "nothing to be similar to"),
        (lambda: wv.most_similar(np.ones(3)), "another width"),
        (lambda: wv.analogy("w1", "w2", "w3", method="cosmul"), "no such method"),  # type: ignore[arg-type]
        (lambda: wv.doesnt_match("w1 w2"), "list of words"),
        (lambda: wv.texts([["w1"]], method="tfidf"), "no such method"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(ConfigError, match=problem):
            wrong()


def test_answers_are_gensims() -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    wv, theirs = made(), keyed(vector_size=8)
    theirs.add_vectors(WORDS, wv.vectors)

    def same(ours: list[tuple[str, float]], other: list[tuple[str, float]], limit: float = 1e-5) -> bool:
        return [word for word, _ in ours] == [word for word, _ in other] and all(
            abs(a - b) < limit * max(1, abs(b)) for (_, a), (_, b) in zip(ours, other, strict=True)
        )

    assert same(wv.most_similar("w1"), theirs.most_similar("w1"))
    assert same(wv.most_similar(["w1", "w2"], ["w3"], 5), theirs.most_similar(["w1", "w2"], ["w3"], 5))
    assert same(wv.most_similar(positive=[wv["w1"], "w2"], topn=5), theirs.most_similar(positive=[wv["w1"], "w2"], topn=5))
    assert same(
        wv.analogy("w1", "w2", "w3", method="multiplicative", topn=5), theirs.most_similar_cosmul(["w2", "w3"], ["w1"], topn=5), limit=2e-2
    )
    assert wv.doesnt_match(WORDS[:6]) == theirs.doesnt_match(WORDS[:6])
    assert abs(wv.similarity("w1", "w2") - theirs.similarity("w1", "w2")) < 1e-6
