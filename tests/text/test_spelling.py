"""Spelling: bytes between marks, in rows of texts and of shards; unknown words keep theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lexloom.errors import ConfigError, FormatError
from lexloom.text.corpus import Document
from lexloom.text.pack import PackingConfig, ensure_packing
from lexloom.text.shards import Shards, write_shards
from lexloom.text.spelling import BEGIN, END, ROLE, SYMBOLS, spelled
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from lexloom.text.tokenizer_folder import ROLES

TEXTS = ["The old house stood there.", "那座老房子。", "The end of the lane, years ago."]
C = 10


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, TokenizerConfig(kind="word", vocab_size=30, characters=C, lowercase=True))


def read(symbols: np.ndarray) -> str:
    """A word out of its symbols."""
    inner = symbols[1 : list(symbols).index(END)]
    return bytes((inner - 1).astype(np.uint8)).decode("utf-8", "replace") if (inner < BEGIN).all() else f"<{ROLES[inner[0] - ROLE]}>"


def test_words_are_bytes_between_marks() -> None:
    found = spelled(["ab", "", "房", "\ud800", "abcdefghijkl", "[MASK]"], 7, {"mask": "[MASK]"})
    assert found[0].tolist() == [BEGIN, ord("a") + 1, ord("b") + 1, END, 0, 0, 0] and found[1].tolist() == [BEGIN, END, 0, 0, 0, 0, 0]
    assert [read(word) for word in found] == ["ab", "", "房", "?", "abcde", "<mask>"]
    assert found.max() == ROLE + ROLES.index("mask") == SYMBOLS - 1 and spelled([], 7).shape == (0, 7)


def test_rows_of_texts_are_spelt(tokenizer: Tokenizer) -> None:
    texts = ["The old castle", "Unheard-of words: 宫殿"]
    one, two = tokenizer.encode(texts)
    assert [read(word) for word in one["characters"]] == ["<cls>", "the", "old", "castle", "<sep>"]
    assert [read(word) for word in two["characters"]] == ["<cls>", "unheard", "-", "of", "words", ":", "宫", "殿", "<sep>"]
    assert (two["input_ids"] == tokenizer.unk_id).sum() >= 4 and "offsets" not in one and tokenizer.fills["characters"] == 0
    [pair] = tokenizer.encode(["old castle"], ["new Palace"], max_length=6)
    assert [read(word) for word in pair["characters"]] == ["<cls>", "old", "<sep>", "new", "palace", "<sep>"] or pair["cut"]
    rows = tokenizer.windows("one two three four five six", max_length=5, stride=1)
    assert [[read(word) for word in row["characters"]][1:-1] for row in rows] == [
        ["one", "two", "three"],
        ["three", "four", "five"],
        ["five", "six"],
    ]
    assert (tokenizer.encode(texts, offsets=True)[0]["characters"] == one["characters"]).all()


def test_the_setting_is_kept_with_the_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "one")
    again = Tokenizer.load(tmp_path / "one").with_max_length(8)
    assert again.characters == C and (again.spellings == tokenizer.spellings).all()
    plain = train_tokenizer(TEXTS, TokenizerConfig(vocab_size=90))
    assert plain.characters == 0 and "characters" not in plain.fills and "characters" not in plain.encode(["a"])[0]
    with pytest.raises(ConfigError):
        TokenizerConfig.read({"characters": 2})


def test_rows_of_shards_are_spelt(tokenizer: Tokenizer, tmp_path: Path) -> None:
    documents = [Document(str(i), text, (len(text),)) for i, text in enumerate(TEXTS * 4)]
    write_shards({"train": documents}, tokenizer, tmp_path / "shards")
    packing = ensure_packing(Shards.open(tmp_path / "shards", verify=True).split("train"), PackingConfig(length=12))
    for row in packing.rows(range(len(packing))):
        assert row["characters"].shape == (len(row["input_ids"]), C)
        tokens = [tokenizer.token(number) for number in row["input_ids"].tolist()]
        roles = {token: f"<{role}>" for role, token in tokenizer.roles.items()}
        assert [read(word) for word in row["characters"]] == [roles.get(token, token) for token in tokens]
    (tmp_path / "shards/characters.bin").write_bytes(b"short")
    with pytest.raises(FormatError, match="spelling of the words"):
        Shards.open(tmp_path / "shards")
