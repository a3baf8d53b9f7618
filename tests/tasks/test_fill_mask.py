from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexloom.batch import padded
from lexloom.errors import ConfigError, DataError
from lexloom.models.base import Network
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.fill_mask import FillMask, FillMaskConfig
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer


@pytest.fixture
def fill(tokenizer: Tokenizer, network: Callable[..., Network]) -> Callable[..., list[Any]]:
    task, net = FillMask(FillMaskConfig(), Vocabulary.of(tokenizer)), network("masked-lm")

    def answer(*texts: str, max_length: int = 64, **options: Any) -> list[Any]:
        return task.predict(net, tokenizer, [{"text": text} for text in texts], max_length=max_length, **options)

    return answer


def test_answers_are_shaped_like_the_pipelines(fill: Callable[..., list[Any]], tokenizer: Tokenizer) -> None:
    one, several = fill("One [MASK] three.", "[MASK] and [MASK] make four.")
    assert [sorted(entry) for entry in one] == [["score", "sequence", "token", "token_str"]] * 5
    assert [len(entries) for entries in several] == [5, 5]
    for entry in one:
        assert entry["token_str"] == tokenizer.decode([entry["token"]], skip_special=False)
    first, second = several[0][0], several[1][0]
    assert "[MASK] make four" in first["sequence"] and first["sequence"].startswith("[CLS]")
    assert "[MASK] and" in second["sequence"]


def test_scores_are_shares_of_the_vocabulary(fill: Callable[..., list[Any]], tokenizer: Tokenizer, network: Callable[..., Network]) -> None:
    text, net = "One [MASK] three.", network("masked-lm")
    batch = padded([dict(tokenizer.encode([text])[0])], tokenizer.fills)
    with torch.inference_mode():
        states = net.backbone(batch).hidden[batch["input_ids"] == tokenizer.mask_id]
        shares = net.heads["masked-lm"](states).softmax(-1)[0].numpy()
    found = fill(text, top_k=len(tokenizer))[0]
    assert [entry["token"] for entry in found][:5] == np.argsort(-shares)[:5].tolist()
    assert {entry["token"]: entry["score"] for entry in found} == pytest.approx(dict(enumerate(shares.tolist())), rel=1e-4)


def test_rows_do_not_touch_each_other(fill: Callable[..., list[Any]]) -> None:
    texts = ["One [MASK] three.", "[MASK] [MASK] [MASK]", "the last [MASK] " + "one two " * 20, "[MASK]"]
    together, alone = fill(*texts), [fill(text)[0] for text in texts]
    assert [len(entries) for entries in together] == [5, 3, 5, 5]
    flat = [entry for entries in (together[0], *together[1], *together[2:]) for entry in entries]
    expected = [entry for entries in (alone[0], *alone[1], *alone[2:]) for entry in entries]
    assert [entry["score"] for entry in flat] == pytest.approx([entry["score"] for entry in expected], rel=1e-4)


def test_the_mask_of_another_family_is_understood(fill: Callable[..., list[Any]]) -> None:
    assert fill("One <mask> three.") == fill("One [MASK] three.")
    assert "mask" in fill("One [MASK] three <mask>.")[0][0]["sequence"]  # with its own mask there, the other is text


def test_bytes_and_their_mask(network: Callable[..., Network]) -> None:
    tokenizer = train_tokenizer(["one two three"] * 3, TokenizerConfig(kind="byte-bpe", vocab_size=300, min_frequency=1))
    task = FillMask(FillMaskConfig(top_k=2), Vocabulary.of(tokenizer))
    own, other = (tokenizer.token(tokenizer.require("mask", "this test")), "[MASK]")
    assert own == "<mask>"
    encoded = [task.encode([{"text": f"one {mask} three"}], tokenizer, max_length=32)[0]["input_ids"].tolist() for mask in (own, other)]
    assert encoded[0] == encoded[1]


def test_only_the_targets_are_answered(fill: Callable[..., list[Any]]) -> None:
    whole = {entry["token_str"]: entry["score"] for entry in fill("One [MASK] three.", top_k=400)[0]}
    found = fill("One [MASK] three.", targets=["two", "four", "two"])[0]
    assert {entry["token_str"] for entry in found} == {"two", "four"}
    assert {entry["token_str"]: entry["score"] for entry in found} == pytest.approx({word: whole[word] for word in ("two", "four")})
    assert fill("One [MASK] three.", targets="two")[0][0]["token_str"] == "two"


@pytest.mark.parametrize("target", ["two three", "xylophone", "", "☃"])
def test_a_target_is_one_token(fill: Callable[..., list[Any]], target: str) -> None:
    with pytest.raises(ConfigError, match="not one token"):
        fill("One [MASK] three.", targets=[target])
    with pytest.raises(ConfigError, match="words to choose from"):
        fill("One [MASK] three.", targets=[])


def test_a_text_without_a_mask_is_refused_by_name(fill: Callable[..., list[Any]]) -> None:
    with pytest.raises(DataError, match="no mask") as caught:
        fill("One [MASK] three.", "One two three.")
    assert caught.value.where == "row 2"
    assert caught.value.hint == "write [MASK] where the word is missing"
    with pytest.raises(ConfigError, match="how many words"):
        fill("One [MASK] three.", top_k=0)


@pytest.mark.parametrize("before", [0, 3, 200])
@pytest.mark.parametrize("after", [0, 3, 200])
def test_a_long_text_is_cut_around_its_mask(tokenizer: Tokenizer, before: int, after: int) -> None:
    task = FillMask(FillMaskConfig(), Vocabulary.of(tokenizer))
    text = "one " * before + "[MASK] " + "two " * after
    (row,) = task.encode([{"text": text}], tokenizer, max_length=16)
    words = tokenizer.decode(row["input_ids"], skip_special=False).split()
    assert (words[0], words[-1], words.count("[MASK]")) == ("[CLS]", "[SEP]", 1)
    assert len(words) == min(16, before + after + 3)
    assert row["cut"] == (before + after > 13)
    place = words.index("[MASK]")
    assert place - 1 == before or len(words) - 2 - place == after or 6 <= place <= 9


def test_masks_too_far_apart_are_refused(fill: Callable[..., list[Any]]) -> None:
    assert len(fill("[MASK] " + "one " * 12 + "[MASK]", max_length=16)[0]) == 2
    with pytest.raises(DataError, match="too far apart"):
        fill("[MASK] " + "one " * 13 + "[MASK]", max_length=16)


def test_scoring_folds_case(tokenizer: Tokenizer) -> None:
    task = FillMask(FillMaskConfig(), Vocabulary.of(tokenizer))
    gold = task.gold([{"text": "a [MASK]", "label": "Two"}, {"text": "[MASK]", "label": "four"}])
    wrong = [{"score": 0.5, "token": 1, "token_str": "six", "sequence": ""}, *task.perfect(["four"])[0]]
    assert task.score(gold, [task.perfect(["TWO"])[0], wrong]) == {"accuracy": 0.5, "among_answers": 1.0}
    with pytest.raises(DataError, match="several masks"):
        task.score(["a"], [[[], []]])


def test_the_same_answers_as_transformers(tokenizer: Tokenizer, network: Callable[..., Network], tmp_path: Path) -> None:
    from transformers import pipeline

    from lexloom.hub.bundle import Bundle

    task = FillMask(FillMaskConfig(), Vocabulary.of(tokenizer))
    bundle = Bundle(network("masked-lm"), tokenizer, task)
    theirs = pipeline("fill-mask", model=str(bundle.save(tmp_path / "bundle")))
    for text in ("One [MASK] three.", "[MASK] and two make [MASK].", "这家[MASK]店的房间很大"):
        ours, others = bundle.predict([text], top_k=3)[0], theirs(text, top_k=3)
        flat = [
            (a, b)
            for x, y in (zip(ours, others, strict=True) if isinstance(ours[0], list) else [(ours, others)])
            for a, b in zip(x, y, strict=True)
        ]
        for a, b in flat:
            assert (a["token"], a["token_str"], a["sequence"]) == (b["token"], b["token_str"], b["sequence"])
            assert a["score"] == pytest.approx(b["score"], rel=1e-4)
