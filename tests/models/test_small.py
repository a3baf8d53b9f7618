"""TextCNN and BiLSTM beside their equations; their bundles; what they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lexloom.batch import Batch
from lexloom.errors import ConfigError, DataError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.nn.test_characters import by_hand
from tests.nn.test_recurrent import cell_by_cell

TEXTS = ["The old house stood at the end of the lane.", "Nobody!", "那座老房子在小路的尽头。"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, TokenizerConfig(kind="word", vocab_size=40, characters=20))


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, TokenizerConfig(vocab_size=90))


def network(name: str, roles: frozenset[str] = frozenset(), **settings: Any) -> Network:
    kind = ARCHITECTURES.get(name)
    return Network.build(kind, kind.Config.read({**kind.TINY, **settings}), roles, seed=1).double()


def test_textcnn_is_each_filter_at_each_place(pieces: Tokenizer) -> None:
    model = network("textcnn", spans=[2, 5], filters=7).backbone
    batch = Batch.from_texts(TEXTS, pieces)
    output = model(batch)
    for row, kept in enumerate(batch["attention_mask"]):
        words: Tensor = model.embedding.weight[batch["input_ids"][row][kept]]  # type: ignore[union-attr, index]
        found = []
        for span, block in zip((2, 5), model.blocks, strict=True):
            weight = block.linear.weight.view(7, span, -1)  # type: ignore[union-attr, operator]
            zero = torch.zeros_like(words[0])
            places = [
                [words[p] if 0 <= p < len(words) else zero for p in range(t - (span - 1) // 2, t + span // 2 + 1)]
                for t in range(len(words))
            ]
            found.append(torch.stack([torch.einsum("fse,se->f", weight, torch.stack(seen)) for seen in places]) + block.linear.bias)  # type: ignore[union-attr]
        expected = F.relu(torch.cat(found, dim=1))
        assert torch.allclose(output.hidden[row][kept], expected, atol=1e-12)
        assert torch.allclose(output.pooled[row], expected.amax(0), atol=1e-12) and not output.hidden[row][~kept].any()


@pytest.mark.parametrize("filters", [[], [(2, 4), (3, 6)]])
def test_bilstm_reads_words_and_their_characters_both_ways(filters: list[tuple[int, int]], tokenizer: Tokenizer) -> None:
    model = network("bilstm", filters=filters).backbone
    batch = Batch.from_texts(TEXTS, tokenizer)
    output = model(batch, layers=True)
    assert len(output.layers) == 2
    for row, kept in enumerate(batch["attention_mask"]):
        x: Tensor = model.embedding.weight[batch["input_ids"][row][kept]]  # type: ignore[union-attr, index]
        if filters:
            spelt = [by_hand(model.characters, word) for word in batch["characters"][row][kept]]  # type: ignore[arg-type]
            x = torch.cat([x, torch.stack(spelt)], dim=1)
        for layer, block in zip(output.layers, model.blocks, strict=True):
            ahead, behind = (
                torch.tensor(cell_by_cell(lstm, given.detach()), dtype=torch.float64)  # type: ignore[arg-type]
                for lstm, given in ((block.forwards, x), (block.backwards, x.flip(0)))
            )
            x = torch.cat([ahead, behind.flip(0)], dim=1)
            assert torch.allclose(layer[row][kept], x, atol=1e-9)
        assert torch.allclose(output.pooled[row], x.amax(0), atol=1e-9)


def test_bilstm_without_filters_reads_any_tokens(pieces: Tokenizer) -> None:
    batch = Batch.from_texts(TEXTS, pieces)
    assert network("bilstm", filters=[]).backbone(batch).hidden.shape[:2] == batch["input_ids"].shape
    with pytest.raises(DataError, match="characters of words"):
        network("bilstm").backbone(batch)


@pytest.mark.parametrize("name", ["bilstm", "textcnn"])
@pytest.mark.parametrize("role", ["sequence-classification", "token-classification"])
def test_a_bundle_comes_back(name: str, role: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    bundle = Bundle(network(name, frozenset({role})).float(), tokenizer)
    again = Bundle.load(bundle.save(tmp_path / "bundle"))
    assert (tmp_path / "bundle/lexloom.safetensors").is_file()
    assert again.network.roles == {role} and (again.embed(TEXTS) == bundle.embed(TEXTS)).all()


def test_a_row_without_tokens_has_nothing() -> None:
    empty = {"input_ids": torch.zeros(1, 4, dtype=torch.int64), "attention_mask": torch.zeros(1, 4, dtype=torch.bool)}
    for name in ("bilstm", "textcnn"):
        output = network(name, **({"filters": []} if name == "bilstm" else {})).backbone(empty)
        assert not output.hidden.any() and not output.pooled.any()


@pytest.mark.parametrize(("name", "wrong"), [("textcnn", {"spans": []}), ("textcnn", {"spans": [0]}), ("bilstm", {"filters": [[0, 3]]})])
def test_sizes_that_cannot_be_are_told(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ARCHITECTURES.get(name).Config.read(wrong)
