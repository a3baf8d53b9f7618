"""Bundles of decoders: `transformers` opens them by its Auto classes, and writes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.base import plain_task
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.hub.beside import LINES, in_their_hands, same_bytes
from tests.parity.test_decoders import greedy

TEXTS = ["the cat sat on the mat", "a dog!", "深度学习 and the cat", "the " * 60, "and “quotes”\tand 🙂"]
ROLES = {"causal": ("causal-lm",), "bare": ()}
KINDS = [name for name in ARCHITECTURES.names() if frozenset({"causal-lm"}) in ARCHITECTURES.get(name).ROLES]
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(LINES, TokenizerConfig(kind="byte-bpe", vocab_size=300, template="none")).with_max_length(64)


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random bundles with weights large enough that tokens differ."""
    root, found = tmp_path_factory.mktemp("bundles"), {}
    for kind, name in ((kind, name) for kind in KINDS for name in ROLES):
        cls = ARCHITECTURES.get(kind)
        model = {**cls.TINY, "initializer_range": 0.3, "max_position_embeddings": 64, "tie_word_embeddings": False}
        config = cls.Config.read(cls.fitted(model, length=64, vocabulary=len(tokenizer), ids=tokenizer.ids))
        task = plain_task(ROLES[name], Vocabulary.of(tokenizer))
        found[f"{kind} {name}"] = Bundle(Network.build(cls, config, ROLES[name], seed=5), tokenizer, task).save(root / kind / name)
    return found


@pytest.fixture(scope="module")
def oracle(folders: dict[str, Path]) -> dict[str, Any]:
    return in_their_hands(folders, TEXTS)


@pytest.mark.parametrize("name", ROLES)
@kinds
def test_transformers_opens_it_without_a_word(kind: str, name: str, oracle: dict[str, Any], tokenizer: Tokenizer) -> None:
    found = oracle[f"{kind} {name}"]
    assert (oracle["lexloom"], found["problems"]) == (False, {})
    assert found["class"] == ARCHITECTURES.get(kind).ROLES[frozenset(ROLES[name])]
    assert (found["max_length"], found["ids"]) == (64, [row["input_ids"].tolist() for row in tokenizer.encode(TEXTS)])


@kinds
def test_it_writes_the_same(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    bundle, short = Bundle.load(folders[f"{kind} causal"]), [text for text in TEXTS if len(text) < 100]
    rows = [torch.from_numpy(row["input_ids"]).long() for row in bundle.tokenizer.encode(short)]
    longest = max(map(len, rows))
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows])
    ids = torch.full(mask.shape, int(bundle.tokenizer.pad_id or 0))
    ids[mask] = torch.cat(rows)
    found = greedy(bundle.network, ids, mask, 8)
    assert found.tolist() == oracle[f"{kind} causal"]["generated"] and found.unique().numel() > 8
    assert short[0] + bundle.tokenizer.decode(found[0].tolist()) == oracle[f"{kind} causal"]["written"]


@kinds
def test_embed_is_the_mean_of_the_states(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    found = Bundle.load(folders[f"{kind} bare"]).embed(TEXTS)
    np.testing.assert_allclose(found, np.asarray(oracle[f"{kind} bare"]["vectors"]), atol=1e-5)


@pytest.mark.parametrize("name", ROLES)
@kinds
def test_saving_what_was_loaded_changes_no_byte(kind: str, name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders[f"{kind} {name}"]
    same_bytes(Bundle.load(folder).save(tmp_path / name), folder)
