"""Bundles of every encoder but BERT, whose own tests go further: `transformers` opens them by its Auto classes and answers the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.base import TASKS
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.hub.beside import LINES, in_their_hands, same_bytes

TEXTS = ["the cat sat on the mat", "a dog!", "", "深度学习 and the cat", "the " * 90, "Ünïcode ﬁ — “quotes”\tand 🙂"]
LABELS = ["bad", "so-so", "好"]
ROLES = {"classifier": ("sequence-classification",), "masked": ("masked-lm",), "bare": ()}
LENGTH = 64
KINDS = ["modernbert", "roberta"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(LINES, TokenizerConfig(kind="byte-bpe", vocab_size=300)).with_max_length(LENGTH)


def bundle(kind: str, name: str, tokenizer: Tokenizer) -> Bundle:
    """A random bundle with weights large enough that answers differ."""
    found = ARCHITECTURES.get(kind)
    tiny = {key: value for key, value in found.TINY.items() if key != "max_position_embeddings"}
    settings = found.fitted({**tiny, "initializer_range": 0.3}, length=LENGTH, vocabulary=len(tokenizer), ids=tokenizer.ids)
    network = Network.build(found, found.Config.read(settings), ROLES[name], labels=3, seed=5)
    task = {"classifier": "text-classification", "masked": "fill-mask"}.get(name)
    labels = LABELS if name == "classifier" else []
    return Bundle(network, tokenizer, TASKS.get(task)(TASKS.get(task).Config(), Vocabulary.of(tokenizer), labels) if task else None)


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    return {f"{kind} {name}": bundle(kind, name, tokenizer).save(root / kind / name) for kind in KINDS for name in ROLES}


@pytest.fixture(scope="module")
def oracle(folders: dict[str, Path]) -> dict[str, Any]:
    return in_their_hands(folders, TEXTS)


@pytest.mark.parametrize("name", ROLES)
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_it_without_a_word(kind: str, name: str, oracle: dict[str, Any], tokenizer: Tokenizer) -> None:
    found = oracle[f"{kind} {name}"]
    assert (oracle["lexloom"], found["problems"]) == (False, {})
    assert found["class"] == ARCHITECTURES.get(kind).ROLES[frozenset(ROLES[name])]
    assert (found["max_length"], found["ids"]) == (LENGTH, [row["input_ids"].tolist() for row in tokenizer.encode(TEXTS)])


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_the_pipelines(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    opened, theirs = Bundle.load(folders[f"{kind} classifier"]), oracle[f"{kind} classifier"]
    pairs = [(text, other) for text, other in zip(TEXTS, TEXTS[::-1], strict=True) if other]
    both = opened.predict([a for a, _ in pairs], [b for _, b in pairs])
    for ours, expected in ((opened.predict(TEXTS), theirs["answers"]), (both, theirs["pairs"])):
        assert [a["label"] for a in ours] == [a["label"] for a in expected]
        np.testing.assert_allclose([a["score"] for a in ours], [a["score"] for a in expected], rtol=0, atol=1e-5)
    assert opened.labels == LABELS


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_filled_as_the_pipeline_does(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    opened = Bundle.load(folders[f"{kind} masked"])
    ours = opened.predict([f"{text} <mask>" for text in TEXTS if 0 < len(text) < 100], top_k=3)
    for one, theirs in zip(ours, oracle[f"{kind} masked"]["answers"], strict=True):
        assert [(a["token"], a["token_str"]) for a in one] == [(a["token"], a["token_str"]) for a in theirs]
        np.testing.assert_allclose([a["score"] for a in one], [a["score"] for a in theirs], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_inside_a_text_too_and_the_texts_with_them_filled(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    opened, theirs = Bundle.load(folders[f"{kind} masked"]), oracle[f"{kind} masked"]
    texts = ["the <mask>", "the <mask> sat", "the<mask>sat", "<mask>, the cat", "<mask> and the <mask> sat."]
    ours = [*opened.predict(texts, top_k=3), *opened.predict(texts[1:2], targets=[" cat", " the"])]
    flat = [one if isinstance(one[0], dict) else [entry for mask in one for entry in mask] for one in ours]
    other = [
        one if isinstance(one[0], dict) else [entry for mask in one for entry in mask] for one in [*theirs["inside"], theirs["targets"]]
    ]
    for mine, expected in zip(flat, other, strict=True):
        for name in ("token", "token_str", "sequence"):
            assert [entry[name] for entry in mine] == [entry[name] for entry in expected]
        np.testing.assert_allclose([entry["score"] for entry in mine], [entry["score"] for entry in expected], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_embed_is_the_mean_of_the_states(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    found = Bundle.load(folders[f"{kind} bare"]).embed(TEXTS)
    np.testing.assert_allclose(found, np.asarray(oracle[f"{kind} bare"]["vectors"]), atol=1e-5)


@pytest.mark.parametrize("name", ROLES)
@pytest.mark.parametrize("kind", KINDS)
def test_saving_what_was_loaded_changes_no_byte(kind: str, name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders[f"{kind} {name}"]
    same_bytes(Bundle.load(folder).save(tmp_path / name), folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_names_no_task_answers_that_of_its_head(kind: str, folders: dict[str, Path]) -> None:
    """As one that `transformers` saved: the task of each role is told by the tasks themselves."""
    for name, task in (("classifier", "text-classification"), ("masked", "fill-mask"), ("bare", None)):
        folder = folders[f"{kind} {name}"]
        own = (folder / "lexloom.json").read_bytes()
        (folder / "lexloom.json").unlink()
        try:
            found = Bundle.load(folder)
        finally:
            (folder / "lexloom.json").write_bytes(own)
        assert type(found.task) is (TASKS.get(task) if task else type(None))
        assert found.labels == (LABELS if name == "classifier" else [])


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_pre_training_learned_stay_and_those_of_tasks_are_new(kind: str, tokenizer: Tokenizer) -> None:
    masked, classifier = (bundle(kind, name, tokenizer).network for name in ("masked", "classifier"))
    assert masked.with_heads({"masked-lm"}, labels=2, seed=9)[1] == []
    fresh = classifier.with_heads({"sequence-classification"}, labels=3, seed=9)[1]
    assert fresh and all(name.startswith("heads.sequence-classification.") for name in fresh)
