"""Folders of tokenizers: those of `transformers`, old ones and damaged ones; what is read is written back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, GPT2Tokenizer, RobertaTokenizer

from lexloom.errors import TokenizerError
from lexloom.text.tokenizer import Tokenizer
from tests.text.small import ENGLISH, HARD, MINILM, assert_round_trip, assert_same_as_transformers, contents, small


def test_minilm_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    tokenizer = assert_same_as_transformers(MINILM)
    tokenizer.save(tmp_path)
    written = contents(tmp_path)
    assert set(written) >= {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"}
    assert all(written[name] == (MINILM / name).read_bytes() for name in written)
    assert (len(tokenizer), tokenizer.model_max_length, tokenizer.mask_id) == (30522, 512, 103)


@pytest.mark.parametrize("lower", [None, False])
def test_an_old_folder_with_only_vocab_txt(lower: bool | None, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes((MINILM / "vocab.txt").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    if lower is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower, "model_max_length": 77}))
    tokenizer = assert_same_as_transformers(tmp_path)
    assert (tokenizer.cls_id, tokenizer.mask_id) == (101, 103)
    assert_round_trip(tokenizer, tmp_path)


def test_a_vocabulary_with_windows_line_ends_and_a_mark_in_front(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\nhi\r\n")
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.pad_id, tokenizer.id("hi"), len(tokenizer)) == (0, 5, 6)


def test_settings_beside_tokenizer_json_decide_for_bert_classes(tmp_path: Path) -> None:
    # transformers builds BertTokenizer from tokenizer_config.json, whatever tokenizer.json says about capitals
    small("wordpiece", ENGLISH).save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = assert_same_as_transformers(tmp_path)
    assert tokenizer.unk_id in tokenizer.encode(["THE"])[0]["input_ids"] or len(tokenizer.encode(["THE"])[0]["input_ids"]) > 3


@pytest.mark.parametrize("kind", [GPT2Tokenizer, RobertaTokenizer])
@pytest.mark.parametrize("prefix", [False, True])
def test_byte_level_folders_of_transformers(kind: Any, prefix: bool, tmp_path: Path) -> None:
    small("byte-bpe").save(tmp_path / "made")
    vocabulary = json.loads((tmp_path / "made" / "vocab.json").read_text())
    merges = [tuple(line.split(" ")) for line in (tmp_path / "made" / "merges.txt").read_text().split("\n")[1:] if line]
    theirs = kind(vocab=vocabulary, merges=merges, add_prefix_space=prefix)
    theirs.save_pretrained(tmp_path / "saved")
    assert_round_trip(assert_same_as_transformers(tmp_path / "saved"), tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tmp_path / "made" / name, bare / name)
    settings = {"tokenizer_class": kind.__name__, "add_prefix_space": prefix}
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    assert_same_as_transformers(bare)


def test_special_tokens_as_mappings_unknown_keys_and_more_special_tokens(tmp_path: Path) -> None:
    small("wordpiece", ENGLISH).save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["mask_token"]
    settings |= {
        "extra_special_tokens": ["[ASK]", "[TELL]"],
        "house": {"colour": "red"},
        "pad_token": {"content": "[PAD]", "lstrip": False},
    }
    settings["pad_token"] |= {"__type": "AddedToken", "rstrip": False, "normalized": False, "single_word": False, "special": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "special_tokens_map.json").write_text('{"mask_token": {"content": "[MASK]", "lstrip": true, "rstrip": false}}')
    tokenizer = assert_same_as_transformers(tmp_path)
    assert tokenizer.roles["pad"] == "[PAD]" and tokenizer.roles["mask"] == "[MASK]"
    assert {tokenizer.id("[ASK]"), tokenizer.id("[TELL]")} <= tokenizer.special_ids
    tokenizer.save(tmp_path / "kept")
    assert json.loads((tmp_path / "kept" / "tokenizer_config.json").read_text()) == settings
    assert_same_as_transformers(tmp_path / "kept")


def test_a_special_token_that_the_vocabulary_lacks_gets_an_id_as_in_transformers(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\nworld\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert assert_same_as_transformers(tmp_path).mask_id == 6


def test_templates_of_pretrained_models_are_read_off() -> None:
    tokenizer = Tokenizer.load(MINILM)
    single, pair = tokenizer.templates
    assert single.items == ((101, 0), (-1, 0), (102, 0)) and pair.items == ((101, 0), (-1, 0), (102, 0), (-2, 1), (102, 1))
    assert (single.added, pair.added) == (2, 3)


def test_bad_folders_are_named_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no such tokenizer folder"):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json, or vocab\.txt"):
        Tokenizer.load(tmp_path)
    for content in ("{}", "not json", '{"model": {"type": "WordPiece", "vocab": {"a": -1}}}', "[" * 100_000):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(TokenizerError, match="cannot be read"):
            Tokenizer.load(tmp_path)
    small("word").save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(TokenizerError, match="JSON object"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": 7}')
    with pytest.raises(TokenizerError, match="pad_token is no token"):
        Tokenizer.load(tmp_path)


def test_lists_of_added_tokens_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhi\n")
    (tmp_path / "added_tokens.json").write_text('{"<new>": 9}')
    with pytest.raises(TokenizerError, match="another id"):
        Tokenizer.load(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<new>": 6}')
    assert Tokenizer.load(tmp_path).id("<new>") == 6


def test_added_tokens_with_flags_survive(tmp_path: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(MINILM)
    theirs.add_tokens([AddedToken("<tag>", lstrip=True, rstrip=True, normalized=False), AddedToken("ﬁrst", single_word=True)])
    theirs.save_pretrained(tmp_path / "saved")
    assert_round_trip(assert_same_as_transformers(tmp_path / "saved", [*HARD, "a <tag> b ﬁrst ﬁrstly"]), tmp_path)
