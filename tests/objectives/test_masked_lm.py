from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from lexloom import keys
from lexloom.errors import DataError, TokenizerError
from lexloom.objectives import groups
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


# --- whole words and spans ------------------------------------------------------------------------------------------------------------


def worded(n: int = B, length: int = T) -> list[dict[str, Any]]:
    """The rows above, their tokens in words of one to five."""
    source = rows(n, length)
    for i, row in enumerate(source):
        row["continues"] = (keys.uniform(keys.key("continues", i), length) < 0.35) & ~row["special"]
    return source


def groups_of(row: dict[str, Any]) -> list[list[int]]:
    """The places of each word of a row."""
    found: list[list[int]] = []
    for place, (special, continues) in enumerate(zip(row["special"], row["continues"], strict=True)):
        if not special and continues and place and not row["special"][place - 1]:
            found[-1].append(place)
        elif not special:
            found.append([place])
    return found


def hidden(source: list[dict[str, Any]], batch: Any) -> list[set[int]]:
    weights = batch["masked_weights"] > 0
    return [set(batch["masked_positions"][i][weights[i]].tolist()) for i in range(len(source))]


def collated(source: list[dict[str, Any]], epoch: int = 0, length: int = T, size: int | None = None, **settings: Any) -> Any:
    n = len(source)
    return MaskedLM(MaskedLMConfig(**settings), VOCABULARY).collate(source, row_keys(n, epoch), length=length, size=size or n)


@pytest.mark.parametrize("mask", ["words", "spans"])
@pytest.mark.parametrize("rate", [0.05, 0.15, 0.4])
def test_words_are_never_parted_and_the_share_stays_the_rate(mask: str, rate: float) -> None:
    source = worded()
    batch = collated(source, mask=mask, rate=rate)
    for row, places in zip(source, hidden(source, batch), strict=True):
        assert all(set(word) <= places or not set(word) & places for word in groups_of(row))
    assert batch.counts["masked-lm"] == pytest.approx(B * round(rate * (T - 3)), rel=0.005) == batch["masked_weights"].sum()
    assert batch["masked_positions"].shape == (B, round(rate * T)) and (batch["masked_weights"].sum(1) <= round(rate * (T - 3))).all()


@pytest.mark.parametrize("mask", ["words", "spans"])
def test_long_and_short_words_are_hidden_about_as_often(mask: str) -> None:
    source, counts = worded(), np.zeros((2, T), dtype=int)
    for epoch in range(5):
        batch = collated(source, epoch, mask=mask)
        for row, places in zip(source, hidden(source, batch), strict=True):
            for word in groups_of(row):
                counts[:, len(word)] += [1, word[0] in places]
    shares = counts[1, 1:5] / counts[0, 1:5]
    assert shares[0] == pytest.approx(0.15, abs=0.02)
    assert (shares > 0.09).all() and (np.diff(shares) < 0.01).all()  # what no longer fits at the end is rather a long one


@pytest.mark.parametrize("mask", ["words", "spans"])
def test_what_stands_in_the_place_of_a_word(mask: str) -> None:
    source = worded()
    shares = np.zeros(2)
    for epoch in range(4):
        batch = collated(source, epoch, mask=mask)
        there = np.take_along_axis(batch["input_ids"].numpy(), batch["masked_positions"].numpy(), axis=1)
        weights = batch["masked_weights"].numpy() > 0
        shares += [(there == MASK)[weights].mean() / 4, (there == batch["masked_labels"].numpy())[weights].mean() / 4]
    assert shares[0] == pytest.approx(0.8, abs=0.02) and shares[1] == pytest.approx(0.1 + 0.1 / (V - 5), abs=0.015)


def test_a_span_is_replaced_as_one_and_is_3_8_words_long_in_the_mean() -> None:
    lengths = groups.span_lengths(row_keys(2000), 10).ravel()
    chances = 0.2 * 0.8 ** np.arange(10) / (1 - 0.8**10)
    expected = chances * len(lengths)
    counts = np.bincount(lengths, minlength=11)[1:]
    assert counts.sum() == len(lengths) and chi2.sf(((counts - expected) ** 2 / expected).sum(), 9) > 1e-4
    assert lengths.mean() == pytest.approx(3.8, abs=0.05)
    sizes = np.ones((300, 400), dtype=np.int64)
    spans = groups.hidden_spans(row_keys(300), sizes, np.full(300, 60), 60)
    assert ((spans > 0).sum(1) == 60).all()
    runs = [len(list(run)) for row in spans.tolist() for number, run in itertools.groupby(row) if number]
    assert 3.0 < np.mean(runs) < 3.8 and max(runs) == 10  # some end early, at a span that is there or where the row's share is full
    assert all(len(list(itertools.groupby(row))) - 1 <= 2 * len(set(row)) for row in spans.tolist()), "a span is one stretch"


def test_all_of_a_span_is_masked_or_random_or_kept() -> None:
    source = worded(100)
    objective = MaskedLM(MaskedLMConfig(mask="spans"), VOCABULARY)
    batch = objective.collate(source, row_keys(100), length=T, size=100)
    _, place, _, span = objective._places(source, row_keys(100), T)
    row = np.nonzero(batch["masked_weights"].numpy())[0]
    ids, before = batch["input_ids"].numpy()[row, place], np.stack([r["input_ids"] for r in source])[row, place]
    fates: dict[tuple[int, int], set[str]] = {}
    for i, number, now, was in zip(row, span, ids, before, strict=True):
        fates.setdefault((int(i), int(number)), set()).add("mask" if now == MASK else "kept" if now == was else "random")
    assert all(len(fate - {"kept"}) <= 1 and fate != {"mask", "kept"} for fate in fates.values())  # a random token may be the old one
    assert {"mask", "random", "kept"} <= set().union(*fates.values()) and len(fates) > 300


@pytest.mark.parametrize("mask", ["words", "spans"])
def test_a_row_of_words_is_masked_by_its_key_alone_and_anew_at_every_visit(mask: str) -> None:
    objective, source = MaskedLM(MaskedLMConfig(mask=mask), VOCABULARY), worded(8)  # type: ignore[arg-type]
    whole = objective.collate(source, row_keys(8), length=T, size=8)
    part = objective.collate([source[5], source[2]], row_keys(8)[[5, 2]], length=T, size=4)
    for name in ("input_ids", "masked_positions", "masked_labels", "row_keys"):
        assert whole[name][[5, 2]].equal(part[name][:2])
    later = objective.collate(source, row_keys(8, epoch=1), length=T, size=8)
    assert all(a != b for a, b in zip(hidden(source, whole), hidden(source, later), strict=True))


@pytest.mark.parametrize("mask", ["words", "spans"])
def test_words_longer_than_a_rows_share_and_rows_without_words(mask: str) -> None:
    source = worded(4, 20)
    for row, ends in zip(source, (20, 20, 20, 5), strict=True):
        row |= {name: row[name][:ends] for name in ("input_ids", "token_type_ids", "special", "continues")}
        row["special"] = np.zeros(ends, dtype=bool)
    source[0]["continues"] = np.ones(20, dtype=bool)  # one word, longer than may be hidden
    source[1]["continues"] = np.arange(20) % 2 == 1  # none fits into a share of one, but into the places of a row
    source[1] |= {"input_ids": source[1]["input_ids"][:6], "token_type_ids": source[1]["token_type_ids"][:6]}
    source[1] |= {"special": source[1]["special"][:6], "continues": source[1]["continues"][:6]}
    source[2]["special"] = np.ones(20, dtype=bool)
    batch = collated(source, length=24, size=6, mask=mask)
    counts = batch["masked_weights"].sum(1).tolist()
    assert counts[:3] == [0, 2, 0] and counts[3] >= 1 and counts[4:] == [0, 0] and batch.counts["masked-lm"] == sum(counts)
    first, second = batch["masked_positions"][1, :2].tolist()
    assert (first % 2, second) == (0, first + 1)


def test_rows_that_do_not_say_where_words_begin_are_refused() -> None:
    with pytest.raises(DataError, match="where words begin"):
        collated(rows(4), mask="words")
    assert MaskedLM.needs_words(MaskedLMConfig(mask="spans")) and not MaskedLM.needs_words(MaskedLMConfig())
