"""Pairs for sentence order: whole sentences of one document side by side, half of them swapped, and nothing that tells which."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lexloom.errors import ConfigError, DataError
from lexloom.runs.origin import pieces
from lexloom.text.pack import Packing, ensure_packing
from lexloom.text.shards import Split
from tests.text.test_pack import all_rows, config, document, documents, made


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return made(documents(400, 3, words=12), tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def packing(split: Split) -> Packing:
    return ensure_packing(split, config(kind="ordered-pairs", length=64), seed=5)


def spans(packing: Packing) -> tuple[np.ndarray, ...]:
    """Start and end of A and of B, and the label."""
    arrays = {name: np.asarray(values).astype(np.int64) for name, values in packing.arrays.items()}
    a, b = arrays["first"], arrays["second"]
    return a, a + arrays["first_length"], b, b + arrays["second_length"], arrays["label"]


def test_both_are_whole_sentences_side_by_side_in_one_document(packing: Packing, split: Split) -> None:
    a, a_end, b, b_end, label = spans(packing)
    borders = {0, *split.sentence_ends.tolist()}
    assert all(set(ends.tolist()) <= borders for ends in (a, a_end, b, b_end))
    assert (np.where(label == 0, a_end == b, b_end == a)).all() and len(packing) > 1000
    assert ((a_end > a) & (b_end > b)).all() and packing.lengths.max() <= 64
    for row in range(0, len(packing), 97):
        first, second = pieces(packing, row)
        assert first.document == second.document


def test_half_of_them_are_swapped_and_every_border_is_as_likely(packing: Packing, split: Split) -> None:
    a, a_end, b, b_end, label = spans(packing)
    assert stats.binomtest(int(label.sum()), len(label)).pvalue > 1e-3
    assert packing.counts["negatives"] == label.sum() and packing.counts["rows"] == len(label)
    low, high, cut = np.minimum(a, b), np.maximum(a_end, b_end), np.where(label == 0, a_end, b_end)
    ends = split.sentence_ends
    inner = np.searchsorted(ends, high, side="left") - np.searchsorted(ends, low, side="right")
    rank = np.searchsorted(ends, cut, side="left") - np.searchsorted(ends, low, side="right")
    for n in np.unique(inner)[np.bincount(inner)[np.unique(inner)] > 100]:
        assert stats.chisquare(np.bincount(rank[inner == n], minlength=n)).pvalue > 1e-4


def test_lengths_do_not_tell_the_classes_apart(packing: Packing) -> None:
    a, a_end, _, _, label = spans(packing)
    assert stats.ks_2samp((a_end - a)[label == 0], (a_end - a)[label == 1]).pvalue > 1e-3


def test_rows_are_template_and_both_stretches(packing: Packing, split: Split) -> None:
    a, a_end, b, b_end, label = spans(packing)
    template = split.templates["pair"].added
    for row in all_rows(packing):
        i = row["id"]
        text = [*split.tokens[a[i] : a_end[i]].tolist(), *split.tokens[b[i] : b_end[i]].tolist()]
        assert row["input_ids"][~row["special"]].tolist() == text and row["special"].sum() == template
        assert row["next_sentence_label"] == label[i] and row["token_type_ids"].sum() == b_end[i] - b[i] + 1


def test_every_token_is_used_or_counted(packing: Packing, split: Split) -> None:
    assert packing.counts["tokens"] + packing.counts["dropped_tokens"] == len(split.tokens)


def test_sentences_longer_than_a_row_and_documents_of_one_are_left_out(tmp_path: Path) -> None:
    texts = [document(0, [5, 6]), document(1, [9]), document(2, [100, 4, 4]), document(3, [8, 100, 7])]
    packing = ensure_packing(made(texts, tmp_path), config(kind="ordered-pairs", length=32, minimum=1), seed=1)
    assert packing.counts["tokens"] >= 11 and packing.counts["dropped_single"] >= 9 and packing.counts["dropped_long"] > 150
    with pytest.raises(DataError, match="documents of several sentences"):
        ensure_packing(made([document(1, [9])] * 3, tmp_path / "one"), config(kind="ordered-pairs", length=32), seed=1)
    with pytest.raises(ConfigError, match="special tokens between them"):
        ensure_packing(packing.split, config(kind="ordered-pairs", length=32, specials=False), seed=1)


def test_another_seed_swaps_others(packing: Packing, split: Split) -> None:
    other = ensure_packing(split, config(kind="ordered-pairs", length=64), seed=6)
    assert 0.4 < np.mean(other.arrays["label"] != packing.arrays["label"]) < 0.6


# --- sentences within blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("documents_", ["joined", "isolated"])
@pytest.mark.parametrize("sentences", ["cut", "whole"])
def test_blocks_say_where_their_sentences_begin(documents_: str, sentences: str, split: Split) -> None:
    settings = {"length": 64, "documents": documents_, "sentences": sentences}
    plain, marked = (ensure_packing(split, config(**settings, **more)) for more in ({}, {"borders": True}))
    assert len(plain) == len(marked)
    for one, other in zip(all_rows(plain), all_rows(marked), strict=True):
        assert "sentences" not in one and (one["input_ids"] == other["input_ids"]).all()
        numbers, ids = other["sentences"][~other["special"]], other["input_ids"][~other["special"]]
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(ids)]
        for a, b in pairwise(starts):
            begin = int(split.sentence_ends[numbers[a] - 1]) if numbers[a] else 0
            whole = split.tokens[begin : int(split.sentence_ends[numbers[a]])].tolist()
            part = ids[a:b].tolist()
            assert part == whole or (a == 0 and whole[-len(part) :] == part) or (b == len(ids) and whole[: len(part)] == part)
