"""Words kept whole, and more of them: dictionaries, vocabularies that grow, and which words to add."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import BertTokenizer

from lexloom.errors import TokenizerError
from lexloom.text.tokenizer import Tokenizer, extend, propose_words
from tests.text.small import ENGLISH, KINDS, MINILM, assert_round_trip, small


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_a_dictionary_are_never_cut(kind: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("人工智能\n机器学习\nT恤\ntransmogrify\nthe\n\nNew York\t7\n", encoding="utf-8")
    tokenizer = small(kind, words=tmp_path / "words.txt")
    assert len(tokenizer) <= 1200
    text = "我爱人工智能和机器学习，穿T恤. They transmogrify transmogrifying New York."
    row = tokenizer.encode([text], offsets=True)[0]
    pieces = [text[start:end] for start, end in row["offsets"].tolist()]
    for word in ("人工智能", "机器学习", "T恤", "transmogrify", "New York"):
        assert word in pieces
    assert pieces.count("transmogrify") == 1, "a word is not found inside a longer one"
    assert tokenizer.decode(tokenizer.encode(["机器学习"])[0]["input_ids"]) == "机器学习"
    assert_round_trip(tokenizer, tmp_path)


@pytest.mark.parametrize("source", ["wordpiece", "byte-bpe", "minilm"])
def test_extending_keeps_old_ids_and_names_the_pieces(source: str, tmp_path: Path) -> None:
    old = Tokenizer.load(MINILM) if source == "minilm" else small(source)
    new, pieces = extend(old, ["zirconium-plated", "Hyperparameter", "深度学习", "the", "Hyperparameter"])
    assert sorted(pieces) == list(range(len(old), len(old) + 3)) and len(new) == len(old) + 3
    assert all(new.token(i) == old.token(i) for i in range(0, len(old), 97))
    for place, parts in pieces.items():
        word = new.token(place)
        assert len(parts) > 1 and all(0 <= part < len(old) for part in parts)
        assert place in new.encode_plain([f"a {word} b"])[0] and place in new.encode([f"a {word} b"])[0]["input_ids"]
    if source == "minilm":
        first = next(place for place in pieces if new.token(place) == "hyperparameter")
        assert [old.token(part) for part in pieces[first]] == ["hyper", "##para", "##meter"]
        assert first in new.encode_plain(["HYPERPARAMETER!"])[0], "capitals are found where the tokenizer makes small letters"
    assert_round_trip(new, tmp_path)


def test_extending_a_folder_that_lists_its_added_tokens(tmp_path: Path) -> None:
    BertTokenizer.from_pretrained(MINILM).save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    listed = {"0": {"content": "[PAD]", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}}
    (tmp_path / "saved" / "tokenizer_config.json").write_text(json.dumps({**settings, "added_tokens_decoder": listed}))
    new, _ = extend(Tokenizer.load(tmp_path / "saved"), ["zirconiumplated"])
    assert_round_trip(new, tmp_path)


def test_words_that_cannot_be_tokens_are_refused() -> None:
    with pytest.raises(TokenizerError, match="no word"):
        extend(small("wordpiece"), ["x" * 101])
    with pytest.raises(TokenizerError, match="byte-level"):
        extend(small("byte-bpe"), ["café"])


def test_proposed_words_are_those_that_save_most_tokens() -> None:
    tokenizer = small("wordpiece", ENGLISH)
    texts = ["The zygomorphic flower is zygomorphic.", "Zygomorphic! 机器学习真好，机器学习。", "a quokka or quokka"] * 3
    words = propose_words(iter(texts), tokenizer, 3)
    assert words[0] == "zygomorphic" and "quokka" in propose_words(texts, tokenizer, 10) and "the" not in words
    assert any(set(word) <= set("机器学习") and len(word) >= 2 for word in propose_words(texts, tokenizer, 10))
    before = sum(len(ids) for ids in tokenizer.encode_plain(texts))
    assert sum(len(ids) for ids in extend(tokenizer, words)[0].encode_plain(texts)) < before
