"""Likelihoods: beside the plain way to find them, over windows, tokenizers and architectures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lexloom.errors import ConfigError, LexloomError, TokenizerError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.tasks.likelihoods.base import LIKELIHOODS, stretches
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

TEXTS = ["the cat sat on the mat", "a dog!", "", "深度学习 and the cat", "the cat and " * 20, "</s> and [MASK] 🙂"]
KINDS = [
    (name, role)
    for name in ARCHITECTURES.names()
    for role in LIKELIHOODS.names()
    if any(role in roles for roles in ARCHITECTURES.get(name).ROLES)
]
LENGTH = 24
kinds = pytest.mark.parametrize(("kind", "role"), KINDS)


def tokenizer(role: str, kind: str = "byte-bpe") -> Tokenizer:
    lines = ["the cat sat on the mat", "a dog and a cat", "深度学习", "quotes and the mat and the dog"] * 30
    settings = {"kind": kind, "vocab_size": 300 if kind == "byte-bpe" else 90}
    if role == "causal-lm":
        settings["template"] = "none"
    return train_tokenizer(lines, TokenizerConfig.read(settings)).with_max_length(LENGTH)


def bundle(kind: str, role: str, words: Tokenizer | None = None) -> Bundle:
    words = words or tokenizer(role)
    found = ARCHITECTURES.get(kind)
    model = {**found.TINY, "initializer_range": 0.3, "max_position_embeddings": LENGTH}
    if kind == "roberta":
        model.pop("max_position_embeddings")
    config = found.Config.read(found.fitted(model, length=LENGTH, vocabulary=len(words), ids=words.ids))
    return Bundle(Network.build(found, config, (role,), seed=5), words)


def plainly(made: Bundle, role: str, ids: list[int]) -> list[tuple[float, bool]]:
    """The log-probability of each token of a short text, and whether it is the likeliest, one forward each."""
    words, head = made.tokenizer, made.network.heads[role]
    template = words.templates[0]
    found = []
    for i, token in enumerate(ids):
        if role == "causal-lm":
            row, place = [words.bos_id, *ids[:i]], i
        else:
            masked = [words.mask_id if k == i else number for k, number in enumerate(ids)]
            row = [number for item, _ in template.items for number in (masked if item < 0 else [item])]
            place = i + [item < 0 for item, _ in template.items].index(True)
        with torch.inference_mode():
            states = made.network.backbone({"input_ids": torch.tensor([row])}).hidden
            logs = head(states)[0, place].log_softmax(-1)
            found.append((float(logs[token]), int(logs.argmax()) == token))
    return found


@kinds
def test_each_token_is_judged_as_one_pass_for_it_alone_would(kind: str, role: str) -> None:
    made = bundle(kind, role)
    for text, sure in zip(TEXTS, made.likelihood()(TEXTS), strict=True):
        ids = made.tokenizer.encode_plain([text])[0].tolist()
        assert len(sure.logs) == len(ids) == len(sure.best)
        if len(ids) <= made.likelihood().room:
            expected = plainly(made, role, ids)
            np.testing.assert_allclose(sure.logs, [log for log, _ in expected], atol=1e-4)
            assert sure.best.tolist() == [best for _, best in expected]


@kinds
def test_with_the_smallest_stride_every_token_has_all_the_context_there_is_room_for(kind: str, role: str) -> None:
    made = bundle(kind, role)
    likelihood, text = made.likelihood(), TEXTS[4]
    ids = made.tokenizer.encode_plain([text])[0]
    whole = likelihood([text], stride=1)[0]
    tail = likelihood.of_stretches([ids], [(0, stretch) for stretch in stretches(len(ids), likelihood.room, 1)][-1:])[0]
    assert len(whole.logs) == len(ids) > likelihood.room and len(tail) == 1
    assert whole.logs[-1] == pytest.approx(float(tail[0, 0]), abs=1e-5)
    far = likelihood([text], stride=likelihood.room)[0]
    assert len(far.logs) == len(ids) and not np.allclose(far.logs, whole.logs, atol=1e-3)
    np.testing.assert_allclose(far.logs[: likelihood.room], whole.logs[: likelihood.room], atol=1e-5)


@kinds
def test_company_changes_nothing(kind: str, role: str) -> None:
    likelihood = bundle(kind, role).likelihood()
    together = likelihood(TEXTS)
    for text, sure in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(likelihood([text])[0].logs, sure.logs, atol=1e-5)


@pytest.mark.parametrize(("n", "room", "stride"), [(0, 4, 2), (1, 4, 2), (4, 4, 4), (5, 4, 1), (23, 4, 3), (100, 7, 7)])
def test_every_token_is_new_in_one_stretch(n: int, room: int, stride: int) -> None:
    found = list(stretches(n, room, stride))
    assert [place for s in found for place in range(s.first, s.end)] == list(range(n))
    assert all(0 <= s.begin <= s.first < s.end <= s.begin + room for s in found)
    assert all(s.end - s.begin == min(n, room) for s in found)


def test_a_text_begins_after_the_token_that_ended_the_one_before() -> None:
    words = tokenizer("causal-lm")
    assert words.bos_id == words.eos_id is not None
    named = train_tokenizer(["a b"] * 9, TokenizerConfig.read({"kind": "byte-bpe", "template": "none", "special_tokens": {"bos": "<|b|>"}}))
    assert named.token(named.bos_id or 0) == "<|b|>"
    assert tokenizer("masked-lm").bos_id != tokenizer("masked-lm").eos_id


def test_in_bfloat16_sums_differ_a_little(tmp_path: Path) -> None:
    made = bundle("gpt2", "causal-lm")
    low = Bundle.load(made.save(tmp_path / "b")).to(dtype="bfloat16").likelihood()(TEXTS)
    full = made.likelihood()(TEXTS)
    assert any((a.logs != b.logs).any() for a, b in zip(low, full, strict=True))
    np.testing.assert_allclose([a.logs.sum() for a in low], [a.logs.sum() for a in full], rtol=0.05, atol=0.5)


def test_what_cannot_be_judged_is_named() -> None:
    words = tokenizer("causal-lm", "word")
    with pytest.raises(TokenizerError, match="no eos token"):
        bundle("gpt2", "causal-lm", words).likelihood()(["the cat"])
    bare = ARCHITECTURES.get("gpt2")
    with pytest.raises(LexloomError, match="does not say how likely"):
        Bundle(Network.build(bare, bare.Config.read(bare.TINY), (), seed=1), words).likelihood()
    with pytest.raises(ConfigError, match="stride of 1 to 24"):
        bundle("gpt2", "causal-lm").likelihood()(["the cat"], stride=25)
