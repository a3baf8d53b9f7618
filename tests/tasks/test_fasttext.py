"""fastText's classifier: the kernel is the plain NumPy, which is autograd's gradient; it learns, and lies in a folder as a bundle."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

import lexloom
from lexloom import keys
from lexloom.console import Console
from lexloom.errors import DataError, FormatError, LexloomError
from lexloom.hub.bundle import load
from lexloom.runs.evaluate import MAJORITY, evaluate
from lexloom.runs.predict import predict_file
from lexloom.tasks.columns import ColumnsConfig
from lexloom.tasks.fasttext import CHOICES, FastTextClassifier
from lexloom.vectors import plain, supervised
from tests.tasks.test_tfidf import LABELS, TEXTS

K, D, ROWS = 3, 16, 12


def parts() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """starts, rows, labels, x, y."""
    texts = [[0, 3, 5], [0], [0, 1, 2, 4, 6, 7, 8], [0, 9, 11, 9], [0, 10]]
    starts = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    x, y = (keys.normal(keys.key(n, np.arange(size)), D).astype(np.float32) * 0.4 for n, size in ((1, ROWS), (2, K)))
    return starts, np.concatenate(texts), np.array([0, 1, 2, 0, 2]), x, y


def test_the_kernel_learns_what_plain_numpy_learns() -> None:
    starts, rows, labels, x, y = parts()
    before, order = [x.astype(np.float64), y.astype(np.float64)], np.array([3, 0, 4, 1, 2, 0])
    loss = supervised.learn(order, starts, rows, labels, 0.5, 0.01, D, x.reshape(-1), y.reshape(-1))
    expected = sum(
        plain.classifier_step(*before, rows[starts[text] : starts[text + 1]].tolist(), labels[text], 0.5 - 0.01 * i)
        for i, text in enumerate(order)
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    assert x == pytest.approx(before[0], abs=1e-5) and y == pytest.approx(before[1], abs=1e-5)


@pytest.mark.parametrize("text", range(5))
def test_one_text_moves_along_autograds_gradient(text: int) -> None:
    starts, rows, labels, x, y = parts()
    wx, wy = (torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in (x, y))
    here = rows[starts[text] : starts[text + 1]]
    loss = F.cross_entropy((wy @ wx[here].mean(0))[None], torch.tensor(labels[text : text + 1]))
    loss.backward()
    old = x.astype(np.float64), y.astype(np.float64)
    found = supervised.learn(np.array([text]), starts, rows, labels, 1e-2, 0.0, D, x.reshape(-1), y.reshape(-1))
    assert found == pytest.approx(loss.item(), rel=1e-5)
    for start, now, weight in zip(old, (x, y), (wx, wy), strict=True):
        assert (start - now) / 1e-2 == pytest.approx(weight.grad.numpy(), abs=1e-4)


def fitted(**options: Any) -> FastTextClassifier:
    return FastTextClassifier.fit(TEXTS, None, LABELS, **options)


def test_it_learns_what_the_words_say() -> None:
    found = fitted().predict(["a warm and funny script", "dull and ugly", "great wit"])
    assert [answer["label"] for answer in found] == ["good", "bad", "good"]
    assert all(0.5 < answer["score"] <= 1 for answer in found)


def test_pairs_of_words_tell_what_words_do_not() -> None:
    texts = [f"{a} {b} {n}" for n in ("one", "two", "three", "four", "five") for a, b in (("not", "good"), ("good", "not"))] * 8
    labels = ["bad" if text.startswith("not good") else "good" for text in texts]
    model = FastTextClassifier.fit(texts, None, labels)
    assert [answer["label"] for answer in model.predict(["not good six", "good not six"])] == ["bad", "good"]


def test_pairs_of_texts_have_words_of_their_own() -> None:
    texts, others = ["red", "blue"] * 20, ["blue", "red"] * 20
    model = FastTextClassifier.fit(texts, others, ["x", "y"] * 20)
    assert [answer["label"] for answer in model.predict(["red", "blue"], ["blue", "red"])] == ["x", "y"]
    with pytest.raises(LexloomError, match="trained on pairs"):
        model.predict(["red"])


def test_chinese_and_texts_without_words() -> None:
    good, bad = ["房间很大，很干净", "早餐不错，服务很好", "很满意，下次再来"], ["房间太小，很脏", "服务很差，太吵了", "很失望，不会再来"]
    model = FastTextClassifier.fit(good + bad, None, ["正"] * 3 + ["负"] * 3)
    assert [answer["label"] for answer in model.predict(["服务很好", "房间很脏"])] == ["正", "负"]
    empty = FastTextClassifier.fit(["", "!!", "…", ""], None, ["a", "a", "b", "a"])
    assert empty.predict(["", "words now"])[1]["label"] == "a" and empty.predict([]) == []


def test_labels_without_rows_and_too_few_labels() -> None:
    model = FastTextClassifier.fit(["x x", "x", "y y", "y"], None, ["a", "a", "z", "z"], names=["z", "never", "a"])
    assert [answer["label"] for answer in model.predict(["x", "y"])] == ["a", "z"]
    shares = {entry["label"]: entry["score"] for entry in model.predict(["x"], top_k=None)[0]}
    assert shares["never"] < 0.1 and sum(shares.values()) == pytest.approx(1)
    assert model.label_counts == {"z": 2, "never": 0, "a": 2}
    with pytest.raises(DataError, match="two labels"):
        FastTextClassifier.fit(["a"], None, ["x"])


def test_fitting_is_a_function_of_rows_and_seed() -> None:
    one, two, three = fitted(seed=3), fitted(seed=3), fitted(seed=4)
    assert np.array_equal(one.rows, two.rows) and one.config == two.config
    assert not np.array_equal(one.rows, three.rows)
    noise = [f"{word} w{i} v{i}" for i, word in enumerate(["up", "down"] * 40)]
    model = FastTextClassifier.fit(noise, None, ["u", "d"] * 40)
    assert (model.config.learning_rate, model.config.epochs) in CHOICES
    assert [answer["label"] for answer in model.predict(["up w1", "down v2"])] == ["u", "d"]


@pytest.mark.parametrize("pairs", [False, True])
def test_a_folder_predicts_the_same_to_the_bit(tmp_path: Path, pairs: bool) -> None:
    second = TEXTS[::-1] if pairs else None
    model = FastTextClassifier.fit(TEXTS, second, LABELS, columns=ColumnsConfig(text="a", pair="b" if pairs else None))
    model.about["note"] = "kept"
    folder = model.save(tmp_path / "baseline")
    again, asked = load(folder), [*TEXTS, "", "nothing known", "warm \ud800 film"]
    assert isinstance(again, FastTextClassifier)
    other = asked[::-1] if pairs else None
    assert again.predict(asked, other, top_k=None) == model.predict(asked, other, top_k=None)
    assert (again.config, again.words, again.about) == (model.config, model.words, {"note": "kept"})
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (settings["model_type"], settings["id2label"]) == ("lexloom-fasttext", {"0": "bad", "1": "good"})


def shorter(tensors: dict[str, Any], settings: dict[str, Any], words: list[str]) -> None:
    words.pop()


def turned(tensors: dict[str, Any], settings: dict[str, Any], words: list[str]) -> None:
    tensors["held"] = tensors["held"][::-1].copy()


def missing(tensors: dict[str, Any], settings: dict[str, Any], words: list[str]) -> None:
    del tensors["outer"]


def infinite(tensors: dict[str, Any], settings: dict[str, Any], words: list[str]) -> None:
    tensors["rows"][0, 0] = np.inf


def wider(tensors: dict[str, Any], settings: dict[str, Any], words: list[str]) -> None:
    settings["dim"] = 32


def absurd(tensors: dict[str, Any], settings: dict[str, Any], words: list[str]) -> None:
    settings["buckets"] = 1 << 40


@pytest.mark.parametrize("damage", [shorter, turned, missing, infinite, wider, absurd])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: Callable[..., None]) -> None:
    folder = fitted().save(tmp_path / "baseline")
    settings, tensors = json.loads((folder / "config.json").read_bytes()), load_file(folder / "lexloom.safetensors")
    vocabulary = json.loads((folder / "vocabulary.json").read_bytes())
    damage(tensors, settings, vocabulary["terms"])
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    save_file(tensors, folder / "lexloom.safetensors")
    with pytest.raises(FormatError) as caught:
        FastTextClassifier.load(folder)
    assert caught.value.where is not None and str(folder) in caught.value.where


def test_it_is_evaluated_and_predicts_as_a_bundle(tmp_path: Path) -> None:
    folder = fitted(columns=ColumnsConfig(text="text", label="label")).save(tmp_path / "baselines" / "fasttext")
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    found = evaluate(folder, rows, resamples=100)
    assert [score["model"] for score in found.comparison.scores if score["metric"] == "accuracy"] == ["fasttext", MAJORITY]
    assert found.comparison.scores[0]["value"] == 1.0
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert predict_file(folder, tmp_path / "rows.jsonl", tmp_path / "out.jsonl", console=Console(quiet=True)).rows == len(rows)
    assert [answer["label"] for answer in lexloom.predict(folder, TEXTS)] == LABELS


def rows_of(path: Path) -> tuple[list[str], list[str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows], [str(row["label"]) for row in rows]


@pytest.mark.data
@pytest.mark.parametrize(("name", "least"), [("sst2", 0.79), ("ag_news_16k", 0.84)])
def test_real_texts_are_told_apart(data_folder: Path, name: str, least: float) -> None:
    texts, labels = rows_of(data_folder / name / "train.jsonl.gz")
    model = FastTextClassifier.fit(texts, None, labels)
    asked, gold = rows_of(data_folder / name / "test.jsonl.gz")
    right = np.mean([answer["label"] == label for answer, label in zip(model.predict(asked), gold, strict=True)])
    assert right > least
