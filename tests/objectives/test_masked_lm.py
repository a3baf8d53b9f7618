from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from lexloom import keys
from lexloom.errors import TokenizerError
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.objectives.next_sentence import IGNORED, NextSentence, NextSentenceConfig
from lexloom.objectives.together import Together

V, T, B = 500, 128, 400
PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY = Vocabulary(V, MASK, frozenset(range(5)), {"input_ids": PAD, "token_type_ids": 0})


def rows(n: int = B, length: int = T) -> list[dict[str, Any]]:
    """[CLS] … [SEP] … [SEP], as pairs of sentences are packed."""
    found = []
    for i in range(n):
        ids = 5 + keys.integers(keys.key("rows", i), length, V - 5)
        special = np.zeros(length, dtype=bool)
        for place, token in ((0, CLS), (length // 3, SEP), (length - 1, SEP)):
            ids[place], special[place] = token, True
        types = (np.arange(length) > length // 3).astype(np.int64)
        found.append({"id": i, "input_ids": ids, "token_type_ids": types, "special": special, "next_sentence_label": i % 2})
    return found


def row_keys(n: int = B, epoch: int = 0) -> keys.Keys:
    return keys.key(1, "row", epoch, np.arange(n))


def masked(epoch: int = 0, **settings: float) -> tuple[dict[str, np.ndarray], list[dict[str, Any]], float]:
    """A collated batch as arrays, its rows, and its count."""
    source = rows()
    batch = MaskedLM(MaskedLMConfig(**settings), VOCABULARY).collate(source, row_keys(epoch=epoch), length=T, size=B)
    return {name: tensor.numpy() for name, tensor in batch.items()}, source, batch.counts["masked-lm"]


def test_the_share_of_masked_tokens_is_the_rate() -> None:
    batch, _, count = masked()
    assert count == B * round(0.15 * (T - 3)) == batch["masked_weights"].sum()
    assert batch["masked_positions"].shape == (B, round(0.15 * T))


@pytest.mark.parametrize(("mask", "random"), [(0.8, 0.1), (1.0, 0.0), (0.0, 0.5)])
def test_what_stands_in_the_place_of_a_masked_token(mask: float, random: float) -> None:
    batch, _, n = masked(replaced_by_mask=mask, replaced_by_random=random)
    there = np.take_along_axis(batch["input_ids"], batch["masked_positions"], axis=1)[batch["masked_weights"] > 0]
    gold = batch["masked_labels"][batch["masked_weights"] > 0]
    kept = 1 - mask - random + random / (V - 5)  # a random token may be the old one
    for share, expected in (((there == MASK).mean(), mask), ((there == gold).mean(), kept)):
        assert abs(share - expected) < 5 * np.sqrt(max(expected * (1 - expected), 1e-9) / n) + 1e-9


def test_labels_are_the_tokens_that_stood_there_and_nothing_else_changes() -> None:
    batch, source, _ = masked()
    before = np.stack([row["input_ids"] for row in source])
    weights = batch["masked_weights"] > 0
    assert (batch["masked_labels"] == np.take_along_axis(before, batch["masked_positions"], axis=1))[weights].all()
    touched = np.zeros((B, T), dtype=bool)
    for i in range(B):
        touched[i, batch["masked_positions"][i][weights[i]]] = True
    assert (batch["input_ids"] == before)[~touched].all()
    assert (np.diff(batch["masked_positions"], axis=1)[weights[:, 1:]] > 0).all()  # each place once


def test_special_tokens_are_never_masked_nor_drawn() -> None:
    batch, source, _ = masked(replaced_by_mask=0.0, replaced_by_random=1.0)
    special = np.stack([row["special"] for row in source])
    weights = batch["masked_weights"] > 0
    assert not np.take_along_axis(special, batch["masked_positions"], axis=1)[weights].any()
    drawn = np.take_along_axis(batch["input_ids"], batch["masked_positions"], axis=1)[weights]
    assert drawn.min() >= 5


def test_random_tokens_are_uniform_over_the_vocabulary() -> None:
    drawn = []
    for epoch in range(5):
        batch, _, _ = masked(epoch, replaced_by_mask=0.0, replaced_by_random=1.0)
        drawn.append(np.take_along_axis(batch["input_ids"], batch["masked_positions"], axis=1)[batch["masked_weights"] > 0])
    counts = np.bincount(np.concatenate(drawn), minlength=V)[5:]
    expected = counts.sum() / len(counts)
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, len(counts) - 1) > 1e-4 < chi2.cdf(statistic, len(counts) - 1)


def test_masks_are_uniform_over_positions() -> None:
    counts = np.zeros(T)
    for epoch in range(5):
        batch, _, n = masked(epoch)
        counts += np.bincount(batch["masked_positions"][batch["masked_weights"] > 0], minlength=T)
    maskable = np.setdiff1d(np.arange(T), [0, T // 3, T - 1])
    assert counts.sum() == 5 * n == counts[maskable].sum()
    share = 5 * n / len(maskable)
    # Drawn without replacement within a row, so the counts vary a little less than a binomial's.
    variance = share * (1 - n / B / len(maskable)) * len(maskable) / (len(maskable) - 1)
    statistic = ((counts[maskable] - share) ** 2 / variance).sum()
    assert chi2.sf(statistic, len(maskable) - 1) > 1e-4 < chi2.cdf(statistic, len(maskable) - 1)


def test_every_epoch_masks_anew() -> None:
    first, _, n = masked(0)
    second, _, _ = masked(1)
    hidden = np.zeros((2, B, T), dtype=bool)
    for e, batch in enumerate((first, second)):
        for i in range(B):
            hidden[e, i, batch["masked_positions"][i][batch["masked_weights"][i] > 0]] = True
    both, share = (hidden[0] & hidden[1]).sum(), n / B / (T - 3)
    assert abs(both - n * share) < 5 * np.sqrt(n * share)


def test_a_row_is_masked_by_its_key_alone() -> None:
    objective, source = MaskedLM(MaskedLMConfig(), VOCABULARY), rows(8)
    whole = objective.collate(source, row_keys(8), length=T, size=8)
    part = objective.collate([source[5], source[2]], row_keys(8)[[5, 2]], length=T, size=4)
    for name in ("input_ids", "masked_positions", "masked_labels", "row_keys"):
        assert whole[name][[5, 2]].equal(part[name][:2])


def by_row(row: dict[str, Any], key: keys.Keys, length: int, rate: float) -> tuple[list[int], list[int]]:
    """The masks of one row as they are defined: the positions, and what stands there instead."""
    free = np.flatnonzero(~row["special"])
    n = min(max(1, round(rate * len(free))), len(free), max(1, round(rate * length)))
    places = np.sort(free[keys.shuffled(keys.key(key, "mask"), len(free))[:n]])
    draw, pick = keys.uniform(keys.key(key, "replace"), n), keys.uniform(keys.key(key, "random"), n)
    random = 5 + (pick * (V - 5)).astype(np.int64)
    return places.tolist(), np.where(draw < 0.8, MASK, np.where(draw < 0.8 + 0.1, random, row["input_ids"][places])).tolist()


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.15, 0.5, 0.99])
def test_all_rows_at_once_are_masked_as_one_by_one(rate: float) -> None:
    source = rows(80, 40)
    for i, row in enumerate(source):  # of all lengths, with few special ones and with many
        row |= {name: row[name][: 1 + i % 40] for name in ("input_ids", "token_type_ids", "special")}
        row["special"] = row["special"] | (keys.uniform(keys.key("special", i), len(row["special"])) < (i // 40) * (i % 7) / 6)
    objective = MaskedLM(MaskedLMConfig(rate=rate), VOCABULARY)
    batch = objective.collate(source, row_keys(80), length=44, size=84)
    wanted = [by_row(row, key, 44, rate) for row, key in zip(source, row_keys(80), strict=True)]
    assert {len(places) for places, _ in wanted} >= ({0, 1, 2, 3, 4} if rate == 0.1 else {0, 1})
    for i, (places, instead) in enumerate(wanted):
        ids, n = batch["input_ids"][i].clone(), len(places)
        assert batch["masked_positions"][i].tolist() == places + [0] * (objective.places(44) - n)
        assert ids[places].tolist() == instead and batch["masked_weights"][i].tolist() == [1.0] * n + [0.0] * (objective.places(44) - n)
        ids[places] = batch["masked_labels"][i, :n]
        assert ids.tolist() == [*source[i]["input_ids"].tolist(), *[PAD] * (44 - len(source[i]["input_ids"]))]
    assert batch.counts == {"masked-lm": float(sum(len(places) for places, _ in wanted))}
    assert not batch["masked_weights"][80:].any() and not batch["input_ids"][80:].any()


def test_short_rows_and_rows_without_anything_to_mask() -> None:
    source = rows(3, 12)
    source[1] = {**source[1], **{name: source[1][name][:4] for name in ("input_ids", "token_type_ids", "special")}}
    source[1]["special"] = np.array([True, False, True, True])
    source[2] = {**source[2], "special": np.ones(12, dtype=bool)}
    batch = MaskedLM(MaskedLMConfig(), VOCABULARY).collate(source, row_keys(3), length=16, size=4)
    assert batch["masked_weights"].sum(1).tolist() == [1, 1, 0, 0]
    assert int(batch["masked_positions"][1, 0]) == 1
    assert batch.counts == {"masked-lm": 2.0}


def test_together_passes_next_sentence_labels_through_beside_the_masks() -> None:
    source = rows(6)
    objectives = [MaskedLM(MaskedLMConfig(), VOCABULARY), NextSentence(NextSentenceConfig(weight=0.5), VOCABULARY)]
    for order in (objectives, objectives[::-1]):
        joined = Together(order)
        batch = joined.collate(source, row_keys(6), length=T, size=8)
        alone = objectives[0].collate(source, row_keys(6), length=T, size=8)
        assert batch["next_sentence_label"].tolist() == [0, 1, 0, 1, 0, 1, IGNORED, IGNORED]
        assert batch["input_ids"].equal(alone["input_ids"])
        assert batch.counts == {"masked-lm": alone.counts["masked-lm"], "next-sentence": 6.0}
        assert (joined.rows, set(joined.roles)) == ("sentence-pair", {"masked-lm", "next-sentence"})
        assert joined.parts == {"masked-lm": 1.0, "next-sentence": 0.5}


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(TokenizerError, match="mask token"):
        MaskedLM(MaskedLMConfig(), Vocabulary(V, None, frozenset(), {}))
