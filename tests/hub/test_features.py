"""Features: states of every layer as `transformers` gives them, with their places in the text, and of words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.hub.pooling import Pooling
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.text.tokenizer import TokenizerConfig, train_tokenizer
from tests.hub.beside import LINES, in_their_hands

TEXTS = ["the cat sat — on the mat", "a dog!", "深度学习 and the cat", "the " * 60, "and “quotes”\tand 🙂"]
KINDS = [name for name in ARCHITECTURES.names() if ARCHITECTURES.get(name).WEIGHTS]  # those that `transformers` has
kinds = pytest.mark.parametrize("kind", KINDS)
LENGTH = 40


@pytest.fixture(scope="module")
def bundles() -> dict[str, Bundle]:
    found = {}
    for name in KINDS:
        kind = ARCHITECTURES.get(name)
        words = TokenizerConfig(kind="wordpiece", vocab_size=90) if name == "bert" else TokenizerConfig(kind="byte-bpe", vocab_size=300)
        tokenizer = train_tokenizer(LINES, words).with_max_length(LENGTH)
        tiny = {key: value for key, value in kind.TINY.items() if "position" not in key}
        spread = "init_std" if "init_std" in kind.Config.model_fields else "initializer_range"
        model = {**tiny, spread: 0.3, "max_position_embeddings": LENGTH + (2 if name == "roberta" else 0)}
        config = kind.Config.read(kind.fitted(model, length=LENGTH, vocabulary=len(tokenizer), ids=tokenizer.ids))
        found[name] = Bundle(Network.build(kind, config, (), seed=5), tokenizer)
    return found


@pytest.fixture(scope="module")
def oracle(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("bundles")
    return in_their_hands({f"{kind} bare": bundle.save(root / kind) for kind, bundle in bundles.items()}, TEXTS)


def close(ours: Any, theirs: Any) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape and (np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))).max() <= 1e-5


@kinds
def test_every_layer_is_pooled_as_transformers_would(kind: str, bundles: dict[str, Bundle], oracle: dict[str, Any]) -> None:
    theirs = oracle[f"{kind} bare"]["layers"]
    assert len(theirs) == bundles[kind].network.backbone.depth + 1
    for place, expected in enumerate(theirs):
        close(bundles[kind].embed(TEXTS, layer=place), expected)
        close(bundles[kind].embed(TEXTS, layer=place - len(theirs)), expected)
    close(bundles[kind].embed(TEXTS), theirs[-1])


@kinds
def test_tokens_have_their_states_and_places(kind: str, bundles: dict[str, Bundle], oracle: dict[str, Any]) -> None:
    bundle = bundles[kind]
    every = bundle.features(TEXTS, layers="all")
    row = bundle.tokenizer.encode(TEXTS[:1], max_length=LENGTH)[0]
    kept = np.flatnonzero(~row["special"])
    close(every[0].states, np.asarray(oracle[f"{kind} bare"]["states"])[:, kept])
    last, two = bundle.features(TEXTS), bundle.features(TEXTS, layers=[-1, 0])
    for text, all_, one, both in zip(TEXTS, every, last, two, strict=True):
        assert one.states.shape == (len(one.tokens), bundle.network.backbone.width) and one.states.dtype == np.float32
        assert (one.states == all_.states[-1]).all() and (both.states == all_.states[[-1, 0]]).all()
        assert one.offsets.tolist() == all_.offsets.tolist() and one.offsets.max() <= len(text)
    assert [found.cut for found in last] == [False, False, False, True, False]
    if kind == "bert":
        assert last[0].tokens[:2] == ["the", "cat"] and [TEXTS[0][a:b] for a, b in last[0].offsets[:2]] == ["the", "cat"]


@kinds
def test_words_are_made_of_their_tokens(kind: str, bundles: dict[str, Bundle]) -> None:
    found = bundles[kind].features(TEXTS[:1])[0]
    assert [found.text[a:b] for a, b in found.spans] == TEXTS[0].split()
    for i, (start, end) in enumerate(found.spans):
        places = [t for t, (a, b) in enumerate(found.offsets) if a < end and b > start]
        assert places
        close(found.words()[i], found.states[places].mean(0))
        assert (found.words("first")[i] == found.states[places[0]]).all() and (found.words("last")[i] == found.states[places[-1]]).all()
    again = bundles[kind].features([TEXTS[0].split()], layers=[0, -1])[0]
    assert again.text == TEXTS[0] and again.words().shape == (2, 7, bundles[kind].network.backbone.width)
    close(again.words()[1], found.words())
    close(found.words(spans=[(0, 7)])[0], found.states[: next(t for t, (a, _) in enumerate(found.offsets) if a >= 7)].mean(0))


def test_a_word_without_tokens_is_no_number(bundles: dict[str, Bundle]) -> None:
    found = bundles["bert"].features([["the"] * 60, ["cat", "\u200b", "dog"]])
    assert found[0].cut and np.isnan(found[0].words()[-1]).all() and not np.isnan(found[0].words()[0]).any()
    assert np.isnan(found[1].words()).all(axis=1).tolist() == [False, True, False]
    assert bundles["bert"].features([]) == [] and bundles["bert"].features([""])[0].states.shape == (0, 24)


def test_pooling_files_hold_for_every_layer(bundles: dict[str, Bundle]) -> None:
    plain = bundles["bert"]
    pooled = Bundle(plain.network, plain.tokenizer, pooling=Pooling(mode="max", normalize=True))
    found = pooled.embed(TEXTS, layer=1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    assert not np.allclose(found, pooled.embed(TEXTS, layer=2), atol=1e-3)


@pytest.mark.parametrize("layer", [3, -4, "last", [0, 9], 1.0])
def test_layers_that_are_not_there_are_named(layer: Any, bundles: dict[str, Bundle]) -> None:
    with pytest.raises(ConfigError, match="no such layer"):
        bundles["bert"].features(TEXTS, layers=layer)
    with pytest.raises(ConfigError, match="no such layer"):
        bundles["bert"].embed(TEXTS, layer=layer)


def test_what_is_no_text_is_named(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(DataError, match="list of texts"):
        bundles["bert"].features("the cat")
    with pytest.raises(DataError, match="at place 1"):
        bundles["bert"].features(["the cat", [1, 2]])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="mean, first, last"):
        bundles["bert"].features(["the cat"])[0].words("median")  # type: ignore[arg-type]
    with pytest.raises(LexloomError):
        bundles["bert"].features([None])  # type: ignore[list-item]
