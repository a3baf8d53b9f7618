"""Words are cut out of files, corpora and shards, again and again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lexloom
from lexloom.errors import ConfigError
from lexloom.vectors.sentences import SourceSentences, WordCutter, WordsConfig


def test_english_and_chinese_words() -> None:
    cut = WordCutter()
    assert cut(["Don't pay 1,000.5 — naïve!", "", "我来到北京清华大学。", "…", "a_b (c)"]) == [
        ["Don't", "pay", "1,000.5", "naïve"],
        [],
        ["我", "来到", "北京", "清华大学"],
        [],
        ["a_b", "c"],
    ]


def test_files_of_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The cat sat. The dog, too.\nIt ran!\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"body": "One more."}) + "\n{\n", encoding="utf-8")
    found = SourceSentences(tmp_path, WordsConfig.read({"columns": {"text": "body"}}))
    right = [["the", "cat", "sat"], ["the", "dog", "too"], ["it", "ran"], ["one", "more"]]
    for _ in range(2):
        assert list(found) == right
        assert found.bad.total == 1
    spaces = SourceSentences(tmp_path / "a.txt", WordsConfig.read({"words": "spaces", "lowercase": False}))
    assert list(spaces) == [["The", "cat", "sat.", "The", "dog,", "too."], ["It", "ran!"]]


def test_a_corpus_and_its_shards(tmp_path: Path) -> None:
    from lexloom.text.corpus import Corpus
    from lexloom.text.shards import write_shards
    from lexloom.text.tokenizer import Tokenizer

    lines = [{"text": f"Words stand here. A second one is number {i}."} for i in range(40)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    lexloom.prepare([tmp_path / "t.jsonl"], tmp_path / "corpus", split={"validation": 0.1})
    found = list(SourceSentences(tmp_path / "corpus"))
    assert found.count(["words", "stand", "here"]) == len(found) // 2 and 30 < len(found) // 2 < 40
    lexloom.train_tokenizer(tmp_path / "corpus", tmp_path / "tokenizer", kind="word", vocab_size=100)
    write_shards(Corpus.open(tmp_path / "corpus"), Tokenizer.load(tmp_path / "tokenizer"), tmp_path / "shards")
    tokens = list(SourceSentences(tmp_path / "shards"))
    assert len(tokens) == len(found) and list(tokens[0])[:2] == ["words", "stand"]
    lexloom.train_tokenizer(tmp_path / "corpus", tmp_path / "other", kind="char", vocab_size=100)
    with pytest.raises(ConfigError, match="another tokenizer"):
        list(SourceSentences(tmp_path / "shards", tokenizer=tmp_path / "other"))


def test_a_source_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        SourceSentences(tmp_path / "none.txt")
