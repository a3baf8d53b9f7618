from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lexloom import keys
from lexloom.batch import padded
from lexloom.errors import ConfigError, DataError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.tasks.classification import TextClassification, TextClassificationConfig, summary
from lexloom.text.rows import Placed
from lexloom.text.tokenizer import Tokenizer

Make = Callable[..., TextClassification]
HEAD = "sequence-classification"


def rows(*labels: Any, column: str = "label") -> list[dict[str, Any]]:
    return [{"text": f"text {i}", column: label} for i, label in enumerate(labels)]


def read_labels(found: list[Any], **settings: Any) -> list[str]:
    return TextClassification.read_labels(TextClassificationConfig.read(settings), found)


# Labels


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 0, 1], ["0", "1"]),
        (["10", "9", "-1"], ["-1", "9", "10"]),
        ([True, False], ["false", "true"]),
        ([1.0, 2.0], ["1", "2"]),
        (["pos", " neg ", "pos"], ["neg", "pos"]),
        (["b", "10", "9"], ["10", "9", "b"]),
        (["负面", "正面"], ["正面", "负面"]),
    ],
)
def test_labels_are_sorted_by_what_they_are(values: list[Any], labels: list[str]) -> None:
    assert read_labels(rows(*values)) == labels


def test_labels_get_readable_names(classifier: Make) -> None:
    names = {0: "negative", 1: "positive", 10: "unsure"}
    assert read_labels(rows(1, 0), names=names) == ["negative", "positive", "unsure"]
    assert read_labels(rows("positive", "negative", 10), names=names) == ["negative", "positive", "unsure"]
    task = classifier(["negative", "positive", "unsure"], names=names)
    assert task.gold(rows(1, "0", "positive", 10)) == ["positive", "negative", "positive", "unsure"]
    with pytest.raises(DataError, match="no name for the label '2'"):
        read_labels(rows(1, 0, 2), names=names)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (["a", "a"], "same label"),
        (["a", None], "no label"),
        (["a", ""], "no label"),
        (["a", 0.5], "no label"),
        (["a", ["b"]], "no label"),
        ([f"label {i}" for i in range(101)], "is 'label' the column of the labels"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(values: list[Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_labels([Placed(row, "t.csv", i + 2) for i, row in enumerate(rows(*values))])


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        read_labels([])


def test_a_label_unseen_in_training_is_named_with_its_place(classifier: Make) -> None:
    with pytest.raises(DataError, match="'godd' was never seen in training") as caught:
        classifier().gold([Placed(row, "test.jsonl", 7 + i) for i, row in enumerate(rows("good", "godd"))])
    assert (caught.value.where, caught.value.hint) == ("test.jsonl:8", "did you mean 'good'?")
    with pytest.raises(DataError, match="'2' was never seen"):
        classifier().gold(rows(2))


def test_whole_numbers_are_ids_where_names_are_words(classifier: Make) -> None:
    assert classifier().gold(rows(1, 0)) == ["good", "bad"]
    assert classifier(["LABEL_0", "LABEL_1"]).gold(rows("1", False)[:1]) == ["LABEL_1"]
    with pytest.raises(DataError, match="never seen"):
        classifier(["1", "2"]).gold(rows(0))


# Rows, batches, loss


def encoded(task: TextClassification, tokenizer: Tokenizer, *labels: str, max_length: int = 64) -> list[dict[str, Any]]:
    return task.encode(rows(*labels), tokenizer, max_length=max_length, labelled=True)


def test_pairs_are_two_segments(classifier: Make, tokenizer: Tokenizer) -> None:
    (row,) = classifier().encode([{"sentence1": "a film", "sentence2": "the wit"}], tokenizer, max_length=64, labelled=False)
    assert tokenizer.decode(row["input_ids"], skip_special=False) == "[CLS] a film [SEP] the wit [SEP]"
    assert row["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_an_empty_text_is_special_tokens_alone(classifier: Make, tokenizer: Tokenizer) -> None:
    (row,) = classifier().encode([{"text": ""}], tokenizer, max_length=64, labelled=False)
    assert row["input_ids"].tolist() == [tokenizer.cls_id, tokenizer.sep_id]


def test_long_texts_are_cut_and_counted(classifier: Make, tokenizer: Tokenizer) -> None:
    found = classifier().encode([{"text": "one two"}, {"text": "one two " * 50}], tokenizer, max_length=16, labelled=False)
    assert [len(row["input_ids"]) for row in found] == [4, 16]
    assert summary(found) == {"texts": 2, "rows": 2, "tokens": 20, "cut_texts": 1}


def test_long_texts_become_windows_that_share_a_weight(classifier: Make, tokenizer: Tokenizer) -> None:
    task = classifier(long_texts="windows", stride=2)
    source = [{"text": "one two", "label": "good"}, {"text": "one two three four five six seven eight nine ten", "label": "bad"}]
    found = task.encode(source, tokenizer, max_length=9, labelled=True)
    assert [row["row"] for row in found] == [0, 1, 1]
    first, second = (row["input_ids"][1:-1].tolist() for row in found[1:])
    assert (len(first), first[-2:]) == (7, second[:2])
    assert tokenizer.decode(first + second[2:]) == source[1]["text"]
    assert [(row["label"], row["weight"]) for row in found] == [(1, 1.0), (0, 0.5), (0, 0.5)]
    assert task.collate(found, keys.key(np.arange(3)), length=9, size=4).counts == {"text-classification": 2.0}
    assert summary(found)["cut_texts"] == 0


@pytest.mark.parametrize("max_length", [4, 5, 8])
def test_windows_get_on_in_the_smallest_room(classifier: Make, tokenizer: Tokenizer, max_length: int) -> None:
    found = classifier(long_texts="windows").encode([{"text": "one two three four " * 4}], tokenizer, max_length=max_length, labelled=False)
    assert len(found) > 2 and max(len(row["input_ids"]) for row in found) == max_length


def test_balanced_weights_give_every_label_the_same_say(classifier: Make, tokenizer: Tokenizer) -> None:
    found = encoded(classifier(class_weights="balanced"), tokenizer, "good", "good", "good", "bad")
    weights = np.array([row["weight"] for row in found])
    assert weights[:3].sum() == pytest.approx(weights[3]) and weights.sum() == pytest.approx(4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_a_weighted_sum(classifier: Make, tokenizer: Tokenizer, network: Callable[..., Network], smoothing: float) -> None:
    task, net = classifier(class_weights="balanced", label_smoothing=smoothing), network(HEAD)
    found = encoded(task, tokenizer, "good", "good", "bad")
    batch = task.collate(found, keys.key(np.arange(3)), length=8, size=5)
    tensors = {name: tensor for name, tensor in batch.items() if name != "row_keys"}
    loss = task.loss(net.backbone(tensors), tensors, net.heads)["text-classification"]
    logits = net.heads[HEAD](net.backbone(tensors).pooled)[:3]
    weights = torch.tensor([row["weight"] for row in found])
    expected = F.cross_entropy(logits, torch.tensor([1, 1, 0]), reduction="none", label_smoothing=smoothing) @ weights
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert batch.counts["text-classification"] == pytest.approx(3.0)


# Answers


def test_answers_are_shaped_like_the_pipelines(classifier: Make, tokenizer: Tokenizer, network: Callable[..., Network]) -> None:
    labels = ["a", "b", "c"]
    task, net, source = classifier(labels), network(HEAD, labels=3), [{"text": "one"}, {"text": "two three"}]
    best = task.predict(net, tokenizer, source, max_length=64)
    everything = task.predict(net, tokenizer, source, max_length=64, top_k=None)
    assert [sorted(row) for row in best] == [["label", "score"]] * 2
    assert [row[0] for row in everything] == best
    assert [row[:2] for row in everything] == task.predict(net, tokenizer, source, max_length=64, top_k=2)
    for row in everything:
        assert sorted(entry["label"] for entry in row) == labels
        assert sum(entry["score"] for entry in row) == pytest.approx(1, abs=1e-6)
        assert [entry["score"] for entry in row] == sorted((entry["score"] for entry in row), reverse=True)
    with pytest.raises(ConfigError, match="how many labels"):
        task.predict(net, tokenizer, source, max_length=64, top_k=0)


def test_scores_are_the_softmax_of_the_logits(classifier: Make, tokenizer: Tokenizer, network: Callable[..., Network]) -> None:
    task, net = classifier(), network(HEAD)
    row = tokenizer.encode(["a warm film"])[0]
    with torch.inference_mode():
        batch = padded([dict(row)], tokenizer.fills)
        shares = net.heads[HEAD](net.backbone(batch).pooled).softmax(-1)[0].tolist()
    (answer,) = task.predict(net, tokenizer, [{"text": "a warm film"}], max_length=64)
    assert answer == {"label": ["bad", "good"][int(np.argmax(shares))], "score": pytest.approx(max(shares), rel=1e-5)}


def test_logits_of_windows_are_averaged_by_their_tokens(classifier: Make, tokenizer: Tokenizer, network: Callable[..., Network]) -> None:
    task, net = classifier(long_texts="windows", stride=0), network(HEAD)
    words = tokenizer.encode_plain(["one two three four five six seven eight nine ten"])[0]
    parts = task.encode([{"text": tokenizer.decode(words)}], tokenizer, max_length=8, labelled=False)
    sizes = np.array([len(part["input_ids"]) for part in parts])
    assert set(sizes.tolist()) == {8, 6}
    alone = np.concatenate([task.logits(net, [{**part, "row": 0}], 1) for part in parts])
    together = task.logits(net, parts, 1)[0]
    assert together == pytest.approx((alone * sizes[:, None]).sum(0) / sizes.sum(), rel=1e-4)


@pytest.mark.parametrize("labels", [["bad", "good"], ["a", "b", "c"]])
def test_the_same_answers_as_transformers(
    classifier: Make, tokenizer: Tokenizer, network: Callable[..., Network], tmp_path: Path, labels: list[str]
) -> None:
    from transformers import pipeline

    bundle = Bundle(network(HEAD, labels=len(labels)), tokenizer, classifier(labels))
    theirs = pipeline("text-classification", model=str(bundle.save(tmp_path / "bundle")))
    texts, pair = ["a warm film", "", "one two " * 20], {"text": "a warm film", "text_pair": "real wit"}
    found = [*bundle.predict(texts), *bundle.predict([texts[0]], [pair["text_pair"]]), *bundle.predict([pair])]
    expected = [*theirs(texts), theirs(pair), theirs(pair)]
    assert [answer["label"] for answer in found] == [answer["label"] for answer in expected]
    assert [answer["score"] for answer in found] == pytest.approx([answer["score"] for answer in expected], rel=1e-4)
    assert bundle.predict(texts[:1], top_k=None)[0] == [
        {"label": entry["label"], "score": pytest.approx(entry["score"], rel=1e-4)} for entry in theirs(texts[0], top_k=None)
    ]


def test_right_and_wrong_are_counted(classifier: Make) -> None:
    task = classifier()
    answers = task.perfect(["good", "bad", "good", "good"])
    answers[0] = [{"label": "bad", "score": 0.6}, {"label": "good", "score": 0.4}]
    scores = task.score(["good", "bad", "good", "good"], answers)
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx(0.8)
