from __future__ import annotations

from typing import Any

import pytest

from lexloom.errors import DataError
from lexloom.tasks.classification import TextClassification, TextClassificationConfig
from lexloom.tasks.columns import Columns, ColumnsConfig
from lexloom.text.rows import Placed


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "label": 1}, "text: text, label: label"),
        ({"sentence": "a", "intent": "x", "id": 7}, "text: sentence, label: intent"),
        ({"label": 0, "sentence1": "a", "sentence2": "b", "genre": "news"}, "text: sentence1, pair: sentence2, label: label"),
        ({"premise": "a", "hypothesis": "b", "label": 0}, "text: premise, pair: hypothesis, label: label"),
        ({"text": "a", "pair": "b", "label": 0}, "text: text, pair: pair, label: label"),
        ({"tokens": ["a", "b"], "slots": ["O", "O"], "intent": "x"}, "text: tokens, label: intent"),
        ({"comment": "a", "label": 0, "stars": 4}, "text: comment, label: label"),
    ],
)
def test_columns_are_found_by_their_usual_names(row: dict[str, Any], said: str) -> None:
    assert TextClassification.settle(TextClassificationConfig(), [row])[1] == said


def test_columns_that_are_named_are_taken() -> None:
    row = {"text": "no", "body": "yes", "title": "pair", "label": 0, "topic": "x"}
    config = TextClassificationConfig.read({"columns": {"text": "body", "pair": "title", "label": "topic"}})
    settled, said = TextClassification.settle(config, [row])
    assert said == "text: body, pair: title, label: topic"
    columns = Columns.find(settled.columns, [row], labelled=True)
    assert (columns.texts([row]), columns.pairs([row]), columns.raw_label(row, 0)) == (["yes"], ["pair"], "x")


@pytest.mark.parametrize(
    ("columns", "row", "problem"),
    [
        ({"text": "bdoy"}, {"body": "a", "label": 0}, "did you mean 'body'"),
        ({}, {"text": "a", "lable": 0}, "did you mean 'lable'"),
        ({"text": "body"}, {"text": "a", "label": 0}, "there is no column 'body'"),
        ({}, {"first": "a", "second": "b", "label": 0}, "name the columns under `columns`"),
        ({"pair": "other"}, {"text": "a", "label": 0}, "there is no column 'other'"),
    ],
)
def test_a_missing_column_is_named(columns: dict[str, str], row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        TextClassification.settle(TextClassificationConfig.read({"columns": columns}), [Placed(row, "a.jsonl", 3)])
    assert caught.value.where == "a.jsonl:3"


def test_a_model_trained_on_named_columns_answers_plain_rows() -> None:
    config = ColumnsConfig(text="body", label="topic")
    assert Columns.find(config, [{"text": "a"}], labelled=False).text == "text"
    assert Columns.find(config, [{"sentence": "a"}], labelled=False).text == "sentence"
    assert Columns.find(ColumnsConfig(text="a", pair="b"), [{"premise": "x", "hypothesis": "y"}], labelled=False).pair == "hypothesis"
    with pytest.raises(DataError, match="no column 'b'"):
        Columns.find(ColumnsConfig(text="a", pair="b"), [{"text": "x"}], labelled=False)


def test_texts_of_a_row() -> None:
    found = [{"text": ""}, {"text": 12}, {"text": ["two", "words"]}, {"text": "x\ud800y"}, Placed({"text": "placed"}, "f", 1)]
    assert Columns("text").texts(found) == ["", "12", "two words", "x\ufffdy", "placed"]
    for value in (None, {"a": 1}, True, ["a", 1]):
        with pytest.raises(DataError, match="no text under 'text'") as caught:
            Columns("text").texts([Placed({"text": "a"}, "f.csv", 2), Placed({"text": value}, "f.csv", 3)])
        assert caught.value.where == "f.csv:3"


def test_a_named_label_that_is_not_there_is_no_other_column() -> None:
    rows = [{"text": "a", "label": 0, "mood": 1}, {"text": "b", "label": 1, "mood": 0}]
    assert Columns.find(ColumnsConfig(label="mood"), rows, labelled=True, strict=True).label == "mood"
    with pytest.raises(DataError, match="modo"):
        Columns.find(ColumnsConfig(label="modo"), rows, labelled=True, strict=True)
