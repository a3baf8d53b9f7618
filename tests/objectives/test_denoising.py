"""Denoising by its statistics: the share that is hidden, lengths by Poisson, places and orders without preference, and nothing lost."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lexloom import keys
from lexloom.batch import Batch
from lexloom.errors import TokenizerError
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.denoising import Denoising, DenoisingConfig, even_spans, poisson_spans, shuffled_sentences

PAD, START, END, MASK, FIRST = 0, 1, 2, 3, 50
SENTINELS = tuple(range(10, 50))
VOCABULARY = Vocabulary(1000, MASK, frozenset(range(FIRST)), {"input_ids": PAD, "token_type_ids": 0}, END, SENTINELS)
B, T = 60, 100


def objective(**settings: Any) -> Denoising:
    return Denoising(DenoisingConfig(**settings), VOCABULARY)


def rows(n: int = B, length: int = T, separators: int = 1) -> list[dict[str, Any]]:
    """`<s> … </s> … </s>`: tokens that stand in a row once each, in sentences of seven."""
    ids = np.arange(FIRST, FIRST + length)
    special = np.zeros(length, dtype=bool)
    for place, token in ((0, START), (length - 1, END), *((length * i // (separators + 1), END) for i in range(1, separators + 1))):
        ids[place], special[place] = token, True
    return [{"id": i, "input_ids": ids, "special": special, "sentences": np.arange(length) // 7} for i in range(n)]


def visit(made: list[dict[str, Any]], epoch: int = 0, **settings: Any) -> tuple[list[list[int]], list[list[int]], Batch]:
    """Sources and targets without their padding, and the batch."""
    batch = objective(**settings).collate(made, keys.key(1, "row", epoch, np.arange(len(made))), length=T, size=len(made))
    sources = [ids[seen].tolist() for ids, seen in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    targets = [ids[weight > 0].tolist() for ids, weight in zip(batch["target_ids"], batch["target_weights"], strict=True)]
    return sources, targets, batch


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_the_share_of_hidden_tokens_is_the_rate_and_the_target_is_the_text(rate: float) -> None:
    made = rows()
    sources, targets, batch = visit(made, rate=rate, permute=False)
    free = int((~made[0]["special"]).sum())
    for source, target in zip(sources, targets, strict=True):
        assert target == made[0]["input_ids"].tolist()
        assert len([token for token in target if token >= FIRST and token not in source]) == round(rate * free)
        kept = [token for token in source if token != MASK]
        assert kept == [token for token in target if token in kept] and [token for token in kept if token < FIRST] == [START, END, END]
    assert batch.counts == {"denoising": float(B * T)}
    # Spans are drawn until they hide so many tokens: of j of them together a Poisson distribution says how often they do not yet.
    expected = sum(stats.poisson.cdf(round(rate * free) - 1, 3 * j) for j in range(100))
    assert sum(source.count(MASK) for source in sources) / B == pytest.approx(expected, rel=0.06)


def test_masks_never_touch_but_over_a_separator_and_rows_never_grow() -> None:
    for separators in (0, 1):
        sources, _, _ = visit(rows(separators=separators), rate=0.5, permute=False)
        assert max(map(len, sources)) <= T
        for source in sources:
            assert not any(a == b == MASK for a, b in pairwise(source))


@pytest.mark.parametrize("mean", [1.0, 3.0, 7.5])
def test_lengths_of_spans_are_poisson(mean: float) -> None:
    """Of rows so long that the one span that is cut, of hundreds, does not show."""
    lengths = np.concatenate([poisson_spans(6000, 0.3, mean, keys.key("poisson", i))[1] for i in range(20)])
    edges = np.arange(int(mean + 3 * mean**0.5) + 1)
    found = np.append([(lengths == n).sum() for n in edges], (lengths > edges[-1]).sum())
    expected = len(lengths) * np.append(stats.poisson.pmf(edges, mean), stats.poisson.sf(edges[-1], mean))
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-4


def test_spans_have_no_favourite_place_and_stand_in_order() -> None:
    n, hidden, counts = 50, 15, np.zeros(36)
    for i in range(3000):
        starts, lengths = poisson_spans(n, 0.3, 3.0, keys.key("gaps", i))
        assert lengths.sum() == hidden and (np.diff(starts) > 0).all() and starts[-1] + lengths[-1] <= n
        counts += np.bincount(starts - np.cumsum(lengths) + lengths, minlength=36)
    assert stats.chisquare(counts).pvalue > 1e-4  # drawn without replacement: less spread than chi-square allows
    assert counts.min() > 0.8 * counts.mean()


def test_every_order_of_sentences_is_equally_likely() -> None:
    special = np.array([True, False, False, False, False, False, False, False, True, False, False, True])
    sentences = np.array([0, 5, 5, 6, 7, 7, 7, 8, 0, 8, 9, 0])
    orders, other = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    for i in range(2400):
        order = shuffled_sentences(special, sentences, keys.key("orders", i))
        assert (np.sort(order) == np.arange(12)).all() and (order[special] == np.flatnonzero(special)).all()
        whole = [tuple(part) for part in np.split(order[1:8], np.flatnonzero(np.diff(sentences[order[1:8]])) + 1)]
        assert sorted(whole) == [(1, 2), (3,), (4, 5, 6), (7,)], "a sentence stays together, and in its document"
        orders[tuple(part[0] for part in whole)] += 1
        other[tuple(order[9:11])] += 1
    assert len(orders) == 24 and stats.chisquare(list(orders.values())).pvalue > 1e-4
    assert len(other) == 2 and stats.chisquare(list(other.values())).pvalue > 1e-4


def test_sentences_are_shuffled_in_the_source_alone() -> None:
    made = rows(B, separators=1)
    sources, targets, _ = visit(made)
    assert all(target == made[0]["input_ids"].tolist() for target in targets)
    assert sum(sorted(kept := [t for t in s if t >= FIRST]) != kept for s in sources) > B - 2
    half = T // 2
    for source in sources:  # each document keeps its own
        first, second = source[: source.index(END)], source[source.index(END) + 1 :]
        assert all(t < FIRST + half for t in first) and all(t > FIRST + half or t < FIRST for t in second)
    plain, _, _ = visit(made, permute=False)
    assert all(sorted(kept := [t for t in s if t >= FIRST]) == kept for s in plain)


def restored(source: list[int], target: list[int]) -> list[int]:
    """The text of T5's pair, spans put back."""
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in SENTINELS:
            last = spans.setdefault(token, [])
        else:
            last.append(token)
    assert not last and target[-1] == END, "one sentinel more ends the target, before the end of the row"
    return [token for place in source for token in (spans[place] if place in SENTINELS else [place])]


def test_sentinels_stand_for_spans_that_the_target_tells() -> None:
    made = rows(separators=0)
    sources, targets, batch = visit(made, noise="sentinels")
    free, hidden, spans = T - 2, 15, 5
    assert hidden == round(0.15 * free)
    for source, target in zip(sources, targets, strict=True):
        assert restored(source, target) == made[0]["input_ids"].tolist()
        assert [token for token in source if token in SENTINELS] == list(SENTINELS[:spans])
        assert (len(source), len(target)) == (T - hidden + spans, hidden + spans + 2)
    assert batch["target_ids"].shape == (B, objective(noise="sentinels").target_length(T)) == (B, 22)
    assert batch.counts == {"denoising": float(B * 22)}
    assert len({tuple(source) for source in sources}) == B


def test_spans_of_sentinels_are_cut_without_preference() -> None:
    found, stays = Counter[tuple[int, ...]](), Counter[int]()
    for i in range(3000):
        starts, lengths = even_spans(8, 4, 2, keys.key("even", i))
        found[tuple(lengths)] += 1
        stays[int(starts[0])] += 1
        assert starts[-1] + lengths[-1] == 8
    for counts in (found, stays):
        assert len(counts) == 3 and stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize("noise", ["infilling", "sentinels"])
def test_each_visit_is_drawn_anew_and_from_the_key_alone(noise: str) -> None:
    one, _, _ = visit(rows(), 0, noise=noise)
    again, _, _ = visit(rows(), 0, noise=noise)
    other, _, _ = visit(rows(), 1, noise=noise)
    assert one == again and sum(a != b for a, b in zip(one, other, strict=True)) == B


@pytest.mark.parametrize("noise", ["infilling", "sentinels"])
@pytest.mark.parametrize("text", [0, 1, 2, 3, 7])
def test_short_rows_and_rows_without_text(noise: str, text: int) -> None:
    ids, special = np.array([START, *range(FIRST, FIRST + text), END]), np.array([True, *[False] * text, True])
    made = [{"id": i, "input_ids": ids, "special": special, "sentences": ids} for i in range(200)]
    sources, targets, _ = visit(made, noise=noise, rate=0.3)
    for source, target in zip(sources, targets, strict=True):
        assert len(source) <= len(ids) and source[0] == START and source[-1] == END == target[-1]
        if noise == "infilling":
            assert target == ids.tolist() and source.count(MASK) <= max(1, round(0.3 * text)) and (source.count(MASK) > 0) == (text > 0)
        elif text > 1:
            assert restored(source, target) == ids.tolist()


def test_rows_whose_sentences_are_not_known_keep_their_order() -> None:
    made = [{name: value for name, value in row.items() if name != "sentences"} for row in rows()]
    sources, _, _ = visit(made)
    assert all(sorted(kept := [t for t in s if t >= FIRST]) == kept for s in sources)


def test_what_a_tokenizer_lacks_is_named() -> None:
    bare = Vocabulary(1000, None, frozenset(), {"input_ids": PAD}, END)
    with pytest.raises(TokenizerError, match="needs a mask token"):
        Denoising(DenoisingConfig(), bare)
    with pytest.raises(TokenizerError, match="needs tokens <extra_id_0>"):
        Denoising(DenoisingConfig(noise="sentinels"), bare)
    with pytest.raises(TokenizerError, match="special token at the end of a text"):
        Denoising(DenoisingConfig(), Vocabulary(1000, MASK, frozenset(), {"input_ids": PAD}, closes=False))
    few = Denoising(DenoisingConfig(noise="sentinels"), Vocabulary(1000, None, frozenset(), {"input_ids": PAD}, END, SENTINELS[:5]))
    with pytest.raises(TokenizerError, match=r"too many spans(.|\n)*6 sentinels(.|\n)*sentinels: 6"):
        few.collate(rows(1), keys.key(1, np.arange(1)), length=T, size=1)


def test_a_guess_by_frequencies_tells_of_the_loss_without_smoothing() -> None:
    counts = np.array([0, 5, 5, 0])
    assert list(objective().blind(counts)) == ["denoising"] and objective().blind(counts)["denoising"] == pytest.approx(np.log(2))
    smoothed = objective(smoothing=0.1)
    assert smoothed.parts == {"denoising": 1.0, "denoising unsmoothed": 0.0} and list(smoothed.blind(counts)) == ["denoising unsmoothed"]
    assert objective(noise="sentinels").blind(counts) == {} == objective().blind(np.zeros(4))
