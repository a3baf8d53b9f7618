"""Batch: a mapping, a pytree, and padding."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree

from lexloom.batch import Batch, padded
from lexloom.errors import LexloomError

FILLS = {"input_ids": 9, "token_type_ids": 7}


def batch() -> Batch:
    return Batch({"input_ids": torch.arange(6).reshape(2, 3), "labels": torch.ones(2)}, {"masked-lm": 3.0, "next-sentence": 2.0})


def test_a_batch_is_a_mapping_with_a_size_and_counts() -> None:
    made = batch()
    assert list(made) == ["input_ids", "labels"]
    assert len(made) == made.size == 2
    assert "labels" in made
    assert made.get("nothing") is None
    assert made["input_ids"].shape == (2, 3)
    assert made.counts == {"masked-lm": 3.0, "next-sentence": 2.0}
    assert repr(made) == "Batch(input_ids (2, 3), labels (2,); counts {'masked-lm': 3.0, 'next-sentence': 2.0})"


def test_a_missing_name_is_told_what_there_is() -> None:
    with pytest.raises(KeyError, match="no 'label'; it has input_ids, labels"):
        batch()["label"]


def test_a_batch_is_a_pytree() -> None:
    made = batch()
    leaves, spec = _pytree.tree_flatten(made)
    assert [leaf.data_ptr() for leaf in leaves] == [tensor.data_ptr() for tensor in made.values()]
    again = _pytree.tree_unflatten(leaves, spec)
    assert isinstance(again, Batch)
    assert list(again) == list(made)
    assert again.counts == made.counts
    doubled = _pytree.tree_map(lambda tensor: tensor * 2, made)
    assert torch.equal(doubled["input_ids"], made["input_ids"] * 2)
    assert _pytree.tree_flatten(batch())[1] == spec


def test_a_batch_moves_and_copies_whole() -> None:
    for other in (batch().to("cpu"), copy.deepcopy(batch())):
        assert other.counts == batch().counts
        assert torch.equal(other["labels"], batch()["labels"])


def test_changing_the_given_mapping_changes_no_batch() -> None:
    tensors, counts = {"a": torch.zeros(1)}, {"part": 1.0}
    made = Batch(tensors, counts)
    tensors["b"], counts["part"] = torch.zeros(1), 5.0
    assert list(made) == ["a"]
    assert made.counts == {"part": 1.0}


ROWS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=5)


@given(ROWS, st.integers(0, 4), st.integers(0, 3))
def test_padding_keeps_every_token_and_marks_the_rest(lists: list[list[int]], longer: int, more: int) -> None:
    length, size = max(map(len, lists)) + longer, len(lists) + more
    rows = [{"input_ids": ids, "token_type_ids": np.zeros(len(ids), dtype=np.int32)} for ids in lists]
    found = padded(rows, FILLS, length=length, size=size)
    assert {name: (tuple(t.shape), t.dtype) for name, t in found.items()} == {
        "input_ids": ((size, length), torch.int64),
        "token_type_ids": ((size, length), torch.int64),
        "attention_mask": ((size, length), torch.bool),
    }
    mask = found["attention_mask"]
    assert [found["input_ids"][i][mask[i]].tolist() for i in range(size)] == [*lists, *[[]] * more]
    assert (found["input_ids"][~mask] == 9).all()
    assert (found["token_type_ids"][~mask] == 7).all()


def test_a_name_that_a_row_lacks_is_left_out_for_all() -> None:
    found = padded([{"input_ids": [1], "token_type_ids": [0]}, {"input_ids": [1, 2]}], FILLS)
    assert sorted(found) == ["attention_mask", "input_ids"]


def test_without_rows_or_with_empty_ones_there_is_padding_alone() -> None:
    assert padded([], FILLS, length=3, size=2)["attention_mask"].tolist() == [[False] * 3] * 2
    assert padded([{"input_ids": []}], FILLS)["input_ids"].shape == (1, 1)


@pytest.mark.parametrize(
    ("rows", "length", "size", "words"),
    [
        ([[1, 2, 3]], 2, None, "expected: 1 rows of 2\n  got:      1 of 3"),
        ([[1], [2]], None, 1, "expected: 1 rows of 1\n  got:      2 of 1"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: list[list[int]], length: int | None, size: int | None, words: str) -> None:
    with pytest.raises(LexloomError, match=words):
        padded([{"input_ids": ids} for ids in rows], FILLS, length=length, size=size)


def test_parts_of_a_row_of_unequal_lengths_are_refused() -> None:
    with pytest.raises(LexloomError, match="token_type_ids"):
        padded([{"input_ids": [1, 2, 3], "token_type_ids": [1]}], FILLS)


@pytest.mark.parametrize("texts", ["one text", []])
def test_texts_are_a_list_that_is_not_empty(texts: object) -> None:
    with pytest.raises(LexloomError, match="list of texts"):
        Batch.from_texts(texts, None)  # type: ignore[arg-type]
