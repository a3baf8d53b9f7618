from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lexloom.errors import DataError, FormatError, LexloomError
from lexloom.tasks import tfidf
from lexloom.tasks.columns import ColumnsConfig
from lexloom.tasks.tfidf import TfidfClassifier, unit_of

GOOD = [
    "a warm and funny film",
    "she plays it with wit",
    "warm, funny, and a great cast",
    "the best film of the year",
    "great wit and a great heart",
]
BAD = [
    "dull from the first scene",
    "two hours that I want back",
    "a dull and ugly mess",
    "the worst film of the year",
    "an ugly script, dull players",
]
TEXTS, LABELS = GOOD + BAD, ["good"] * 5 + ["bad"] * 5


def fitted(**options: object) -> TfidfClassifier:
    return TfidfClassifier.fit(TEXTS, None, LABELS, **options)  # type: ignore[arg-type]


def test_it_learns_what_the_words_say() -> None:
    found = fitted().predict(["a warm and funny script", "dull and ugly", "great wit"])
    assert [answer["label"] for answer in found] == ["good", "bad", "good"]
    assert all(0.5 < answer["score"] < 1 for answer in found)


def test_it_is_scikit_learns() -> None:
    model = fitted()
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
    regression = LogisticRegression(C=model.config.strength, max_iter=300).fit(vectorizer.fit_transform(TEXTS), LABELS)
    shares = regression.predict_proba(vectorizer.transform(TEXTS))
    for row, share in zip(model.predict(TEXTS, top_k=None), shares, strict=True):
        assert {entry["label"]: entry["score"] for entry in row} == pytest.approx(dict(zip(["bad", "good"], share, strict=True)), rel=1e-5)


def test_three_labels() -> None:
    names = ["z", "a", "never", "m"]
    model = TfidfClassifier.fit(["x x", "x", "y y", "y", "w w", "w"], None, ["a", "a", "z", "z", "m", "m"], names=names)
    assert [answer["label"] for answer in model.predict(["x", "y", "w"])] == ["a", "z", "m"]
    everything = model.predict(["x"], top_k=None)[0]
    assert {entry["label"]: entry["score"] for entry in everything}["never"] < 1e-9
    assert model.label_counts == {"z": 2, "a": 2, "never": 0, "m": 2}


@pytest.mark.parametrize("pairs", [False, True])
def test_a_folder_predicts_the_same_to_the_bit(tmp_path: Path, pairs: bool) -> None:
    second = TEXTS[::-1] if pairs else None
    model = TfidfClassifier.fit(TEXTS, second, LABELS, columns=ColumnsConfig(text="a", pair="b" if pairs else None))
    model.about["note"] = "kept"
    folder = model.save(tmp_path / "baseline")
    again = TfidfClassifier.load(folder)
    asked = [*TEXTS, "", "nothing known", "warm \ud800 film"]
    other = asked[::-1] if pairs else None
    assert again.predict(asked, other, top_k=None) == model.predict(asked, other, top_k=None)
    assert (again.config, again.terms, again.about) == (model.config, model.terms, {"note": "kept"})
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (settings["model_type"], settings["id2label"]) == ("lexloom-tfidf", {"0": "bad", "1": "good"})
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "lexloom.json",
        "lexloom.safetensors",
        "manifest.json",
        "vocabulary.json",
    ]


def test_pairs_that_share_their_words() -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    pairs = [(f"{a} {b}", f"{a} {b}" if i % 2 else f"{b} {a}x") for i, (a, b) in enumerate((a, b) for a in words for b in words)]
    labels = ["same" if a == b else "other" for a, b in pairs]
    model = TfidfClassifier.fit([a for a, _ in pairs], [b for _, b in pairs], labels)
    found = model.predict(["red blue", "red blue"], ["red blue", "green grey"], top_k=None)
    assert len(model.predict(["one two"], ["one two"])) == 1
    assert [row[0]["label"] for row in found] == ["other", "other"]  # no known word: nothing shared
    assert [answer["label"] for answer in model.predict(["two six", "two six"], ["two six", "six twox"])] == ["same", "other"]


def test_rows_with_columns() -> None:
    model = fitted(columns=ColumnsConfig(text="review", label="mood"))
    assert model.predict([{"review": "dull"}]) == model.predict([{"text": "dull"}]) == model.predict(["dull"])
    with pytest.raises(DataError, match="no column 'review'"):
        model.predict([{"mood": "x"}])


@pytest.mark.parametrize(
    ("texts", "language", "unit"),
    [
        (["plain English words"], None, "word"),
        (["这家酒店的房间很大"], None, "char"),
        (["iPhone 的屏幕很好"], None, "char"),
        (["He wrote 中 on the board and left the room"], None, "word"),
        (["カタカナとひらがな"], None, "char"),
        (["สวัสดีครับ"], None, "char"),
        (["안녕하세요 여러분"], None, "word"),
        (["", "1234 !!"], None, "word"),
        (["plain English words"], "zh-CN", "char"),
        (["这家酒店"], "en", "word"),
    ],
)
def test_words_or_characters(texts: list[str], language: str | None, unit: str) -> None:
    assert unit_of(texts, language) == unit


def test_chinese() -> None:
    good, bad = ["房间很大，很干净", "早餐不错，服务很好", "很满意，下次再来"], ["房间太小，很脏", "服务很差，太吵了", "很失望，不会再来"]
    model = TfidfClassifier.fit(good + bad, None, ["正"] * 3 + ["负"] * 3)
    assert model.config.unit == "char" and "很" in model.terms and max(map(len, model.terms)) == 3
    assert [answer["label"] for answer in model.predict(["服务很好", "太脏了"])] == ["正", "负"]


def test_texts_without_any_word() -> None:
    model = TfidfClassifier.fit(["", "!!", "…"], None, ["a", "a", "b"])
    assert model.terms == []
    assert model.predict(["!", "words now"])[1] == {"label": "a", "score": pytest.approx(2 / 3, rel=1e-6)}


def test_one_label_is_refused() -> None:
    with pytest.raises(DataError, match="two labels"):
        TfidfClassifier.fit(["a", "b"], None, ["x", "x"])
    with pytest.raises(DataError, match="two labels"):
        TfidfClassifier.fit([], None, [])


def test_what_it_is_asked_must_fit() -> None:
    model = fitted()
    assert model.predict([]) == []
    with pytest.raises(LexloomError, match="list of texts"):
        model.predict("one text")
    with pytest.raises(LexloomError, match="single texts"):
        model.predict(["a"], ["b"])
    with pytest.raises(LexloomError, match="NoneType at place 1"):
        model.predict(["a", None])  # type: ignore[list-item]
    with pytest.raises(LexloomError, match="trained on pairs"):
        TfidfClassifier.fit(TEXTS, TEXTS, LABELS).predict(["a"])
    with pytest.raises(LexloomError, match="needs its pair"):
        TfidfClassifier.fit(TEXTS, TEXTS, LABELS).predict(["a"], ["b", "c"])


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf, "MAX_TERMS", 7)
    assert len(fitted().terms) == 7
    monkeypatch.setattr(tfidf, "MAX_WEIGHTS", 6)
    assert len(fitted().terms) == 3
    monkeypatch.setattr(tfidf, "MAX_ROWS", 4)
    assert fitted().label_counts == {"bad": 5, "good": 5}


def test_fitting_is_a_function_of_rows_and_seed() -> None:
    one, two = fitted(seed=3), fitted(seed=3)
    assert np.array_equal(one.coef, two.coef) and one.config == two.config


def test_the_penalty_is_chosen_on_held_out_rows() -> None:
    noise = [f"{word} w{i} v{i}" for i, word in enumerate(["up", "down"] * 40)]
    model = TfidfClassifier.fit(noise, None, ["u", "d"] * 40)
    assert model.config.strength in tfidf.STRENGTHS
    assert [answer["label"] for answer in model.predict(["up w1", "down v2"])] == ["u", "d"]


@pytest.mark.parametrize("damage", ["config", "terms", "twice", "tensor", "shape", "infinite", "missing", "newer", "labels", "bytes"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    folder = fitted().save(tmp_path / "baseline")
    settings, tensors = json.loads((folder / "config.json").read_bytes()), load_file(folder / "lexloom.safetensors")
    vocabulary = json.loads((folder / "vocabulary.json").read_bytes())
    if damage == "terms":
        vocabulary["terms"] = vocabulary["terms"][:-1]
    if damage == "twice":
        vocabulary["terms"][0] = vocabulary["terms"][1]
    if damage == "tensor":
        del tensors["idf"]
    if damage == "shape":
        tensors["coef"] = tensors["coef"][:1].copy()
    if damage == "infinite":
        tensors["intercept"][0] = np.inf
    if damage == "newer":
        settings["format"] = 2
    if damage == "labels":
        settings["labels"] = "good"
    (folder / "config.json").write_text("[]" if damage == "config" else json.dumps(settings), encoding="utf-8")
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    save_file(tensors, folder / "lexloom.safetensors")
    if damage == "bytes":
        (folder / "lexloom.safetensors").write_bytes(b"\x00" * 40)
    if damage == "missing":
        (folder / "vocabulary.json").unlink()
    with pytest.raises(FormatError) as caught:
        TfidfClassifier.load(folder)
    assert caught.value.where is not None and str(folder) in caught.value.where
