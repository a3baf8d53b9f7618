"""Tokenizers of every kind: trained, saved, opened by `transformers`, and texts to ids and back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from lexloom.batch import padded
from lexloom.errors import ConfigError, DataError, TokenizerError
from lexloom.text.tokenizer import MAX_CHARACTERS, Tokenizer, TokenizerConfig, train_tokenizer
from tests.text.small import CHINESE, ENGLISH, HARD, KINDS, MINILM, assert_round_trip, assert_same_as_transformers, contents, small


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"lowercase": False, "normalization": "nfkc"}, {"template": "none"}], ids=["plain", "cased", "bare"])
def test_transformers_opens_what_was_trained_and_gives_the_same(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    assert_round_trip(small(kind, ENGLISH[:6] + CHINESE, **more), tmp_path)


@pytest.mark.parametrize(("kind", "template"), [("byte-bpe", "bert"), ("unigram", "bert"), ("char", "bert"), ("wordpiece", "roberta")])
def test_either_template_stands_around_either_kind(kind: str, template: Any, tmp_path: Path) -> None:
    assert_round_trip(small(kind, ENGLISH[:6], template=template), tmp_path)


def test_a_plain_wordpiece_folder_is_a_bert_folder(tmp_path: Path) -> None:
    small("wordpiece", lowercase=False).with_max_length(128).save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (settings["tokenizer_class"], settings["do_lower_case"], settings["model_max_length"]) == ("BertTokenizer", False, 128)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(theirs, BertTokenizer) and theirs.model_max_length == Tokenizer.load(tmp_path).model_max_length == 128
    assert sorted(contents(tmp_path)) == ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_texts_give_equal_files_in_another_process(kind: str, in_child: Any, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pydoc_data.topics import topics\nfrom lexloom.text.tokenizer import TokenizerConfig, train_tokenizer\n"
        "texts = (topics[name] for name in sorted(topics)[:8])\n"
        "train_tokenizer(texts, TokenizerConfig(kind=sys.argv[1], vocab_size=600)).save(sys.argv[2])"
    )
    in_child(code, kind, tmp_path / "child")
    again = [topics[name] for name in sorted(topics)[:8]]
    train_tokenizer(lambda: iter(again), TokenizerConfig(kind=kind, vocab_size=600)).save(tmp_path / "here")
    assert contents(tmp_path / "child") == contents(tmp_path / "here")


def test_a_mere_iterator_trains_as_a_list_does() -> None:
    def once() -> Iterator[str]:
        yield from CHINESE

    listed, streamed = small("wordpiece", CHINESE), train_tokenizer(once(), TokenizerConfig(vocab_size=1200))
    assert listed.digest == streamed.digest


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return Tokenizer.load(MINILM)


@settings(max_examples=150)
@given(st.text(max_size=60), st.text(max_size=60), st.integers(5, 30), st.sampled_from(["wordpiece", "byte-bpe"]))
def test_offsets_are_places_in_the_raw_text_whatever_it_is(first: str, second: str, length: int, kind: str) -> None:
    for row in small(kind).encode([first], [second], max_length=length, offsets=True):
        texts = (first, second)
        assert len(row["input_ids"]) <= length
        for (start, end), sequence, special in zip(row["offsets"].tolist(), row["sequence"].tolist(), row["special"].tolist(), strict=True):
            assert special == (sequence < 0) and ((start, end) == (0, 0) if special else 0 <= start <= end <= len(texts[sequence]))


def test_encoding_and_padding_work_together(minilm: Tokenizer) -> None:
    rows = minilm.encode(["one two three", "one"])
    batch = padded(rows, minilm.fills)
    assert batch["input_ids"].shape == (2, 5) and batch["attention_mask"].sum() == 8 and batch["input_ids"][1, 3] == minilm.pad_id


def test_cut_says_so_and_only_where_something_is_missing(minilm: Tokenizer) -> None:
    rows = minilm.encode(["one two three", "one two"], max_length=4)
    assert [row["cut"] for row in rows] == [True, False] and [len(row["input_ids"]) for row in rows] == [4, 4]
    with pytest.raises(TokenizerError, match="no room"):
        minilm.encode(["one"], max_length=2)


def test_a_left_truncating_folder_keeps_the_end(minilm: Tokenizer, tmp_path: Path) -> None:
    minilm.save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"truncation_side": "left"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = assert_same_as_transformers(tmp_path)
    assert tokenizer.decode(tokenizer.encode(["one two three"], max_length=4)[0]["input_ids"]) == "two three"


def test_plain_ids_are_the_text_alone_and_special_tokens_in_it_are_text(minilm: Tokenizer) -> None:
    texts = ["The [MASK] barks [SEP]", "", "x\ud800y", *HARD]
    plain = minilm.encode_plain(texts)
    assert [len(ids) for ids in plain[1:2]] == [0] and plain[0].dtype == np.int32
    assert not set(np.concatenate(plain).tolist()) & {minilm.mask_id, minilm.sep_id, minilm.cls_id}
    assert minilm.mask_id in minilm.encode(texts)[0]["input_ids"], "where a user asks for a mask, it is one"
    assert plain[6].tolist() == [int(n) for n in minilm.encode([HARD[3]])[0]["input_ids"][1:-1]]


def test_lone_surrogates_are_replaced_and_offsets_stay(minilm: Tokenizer) -> None:
    row = minilm.encode(["ab \udfff cd"], offsets=True)[0]
    assert [tuple(place) for place in row["offsets"].tolist()][-2:-1] == [(5, 7)]


def test_texts_that_are_none_are_refused_with_what_they_are(minilm: Tokenizer) -> None:
    for wrong in (None, 3.5, float("nan"), b"bytes"):
        with pytest.raises(DataError, match="texts are strings"):
            minilm.encode(["fine", wrong])  # type: ignore[list-item]
    with pytest.raises(DataError, match="lists"):
        minilm.encode("one text")
    with pytest.raises(DataError, match="same length"):
        minilm.encode(["one"], ["two", "three"])
    assert minilm.encode([]) == [] and minilm.encode_plain([]) == []


def test_a_text_beyond_the_bound_is_cut_and_marked(minilm: Tokenizer) -> None:
    rows = minilm.encode([" " * MAX_CHARACTERS + "word", "word"])
    assert [row["cut"] for row in rows] == [True, False] and len(rows[0]["input_ids"]) == 2
    assert len(minilm.encode_plain([" " * MAX_CHARACTERS + "word"])[0]) == 1, "plain encoding cuts nothing"


@pytest.mark.parametrize("stride", [0, 3, 9])
def test_windows_cover_every_token_and_overlap_by_the_stride(minilm: Tokenizer, stride: int) -> None:
    text = " ".join(f"word{i}" for i in range(60))
    whole = minilm.encode_plain([text])[0]
    rows = minilm.windows(text, max_length=14, stride=stride, offsets=True)
    bodies = [row["input_ids"][~row["special"]] for row in rows]
    assert all(len(row["input_ids"]) <= 14 for row in rows) and not any(row["cut"] for row in rows)
    for left, right in itertools.pairwise(bodies):
        assert stride == 0 or left[-stride:].tolist() == right[:stride].tolist()
    assert np.concatenate([bodies[0], *(body[stride:] for body in bodies[1:])]).tolist() == whole.tolist()
    last = rows[-1]["offsets"][-2]
    assert last[1] == len(text)


def test_windows_equal_those_of_transformers(minilm: Tokenizer) -> None:
    question, context = "what is it ?", " ".join(f"w{i}" for i in range(80))
    theirs = AutoTokenizer.from_pretrained(MINILM)
    wanted = theirs(question, context, truncation="only_second", max_length=40, stride=8, return_overflowing_tokens=True)
    rows = minilm.windows(question, context, max_length=40, stride=8)
    assert [row["input_ids"].tolist() for row in rows] == wanted["input_ids"]
    assert [row["token_type_ids"].tolist() for row in rows] == wanted["token_type_ids"]


def test_windows_of_short_empty_and_crowded_texts(minilm: Tokenizer) -> None:
    assert [len(row["input_ids"]) for row in minilm.windows("", max_length=8, stride=2)] == [2]
    assert [len(row["input_ids"]) for row in minilm.windows("one two", max_length=8, stride=5)] == [4]
    crowded = minilm.windows("one " * 50, "two " * 30, max_length=20, stride=4)
    assert all(row["cut"] and len(row["input_ids"]) <= 20 for row in crowded)
    assert sum(int((row["sequence"] == 1).sum()) for row in crowded) >= 30
    short = minilm.windows("one " * 12, "two", max_length=20, stride=9)
    assert len(short) == 1 and not short[0]["cut"]
    with pytest.raises(TokenizerError, match="overlap"):
        minilm.windows("one", max_length=8, stride=6)


def test_tokens_and_ids_both_ways(minilm: Tokenizer) -> None:
    assert minilm.token(minilm.id("hello") or -1) == "hello" and minilm.id("no such token") is None
    for wrong in (-1, len(minilm)):
        with pytest.raises(TokenizerError, match="not in the vocabulary"):
            minilm.token(wrong)


def test_require_names_what_is_missing_and_what_to_do(minilm: Tokenizer) -> None:
    assert minilm.require("mask", "masked-lm") == 103
    with pytest.raises(TokenizerError, match=r"no eos token(.|\n)*causal-lm(.|\n)*eos_token"):
        minilm.require("eos", "causal-lm")


SPOKEN = ["First Citizen:\nBefore we proceed  any further,\n\nhear me speak.", "naïve Café 人工智能，真的！", " a\n b ", "x"]


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram", "char"])
@pytest.mark.parametrize("template", [None, "bert", "none"])
def test_texts_of_known_characters_come_back_to_the_letter(kind: str, template: Any, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(SPOKEN * 3, TokenizerConfig(kind=kind, vocab_size=400, template=template))  # type: ignore[arg-type]
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text, ids in zip(SPOKEN, tokenizer.encode_plain(SPOKEN), strict=True):
        assert tokenizer.decode(ids) == text == theirs.decode(ids.tolist()) and tokenizer.unk_id not in ids
    assert_same_as_transformers(tmp_path, [*SPOKEN, *HARD])


@settings(max_examples=100)
@given(st.text(st.sampled_from(sorted(set("".join(SPOKEN)))), max_size=60), st.sampled_from(["unigram", "char"]))
def test_whatever_is_made_of_known_characters_comes_back(text: str, kind: str) -> None:
    tokenizer = small(kind, SPOKEN * 3)
    assert tokenizer.decode(tokenizer.encode_plain([text])[0]) == text


def test_a_unigram_piece_is_of_one_word_and_its_space() -> None:
    tokenizer = small("unigram", ENGLISH)
    pieces = [tokenizer.token(i) for i in range(len(tokenizer)) if i not in tokenizer.special_ids]
    assert len(tokenizer) == 1200 and {"▁", "\n", "▁the"} <= set(pieces)
    assert all("▁" not in piece[1:] and (piece.strip("▁").isalnum() or not any(map(str.isalnum, piece))) for piece in pieces)
    scores = dict(json.loads(tokenizer.backend.to_str())["model"]["vocab"])
    assert [scores[piece] for piece in pieces] == sorted((scores[piece] for piece in pieces), reverse=True)
    assert max(scores[tokenizer.token(i)] for i in tokenizer.special_ids) < scores[pieces[-1]] - 1000


@pytest.mark.parametrize("kind", ["unigram", "char"])
def test_special_tokens_in_a_text_are_text(kind: str) -> None:
    text = "a <mask> of </s> <unk> <s>"
    tokenizer = train_tokenizer([text] * 3, TokenizerConfig(kind=kind, vocab_size=60, special_tokens={"mask": "of"}))  # type: ignore[arg-type]
    assert not set(tokenizer.encode_plain([text])[0].tolist()) & set(tokenizer.special_ids)
    assert tokenizer.mask_id in tokenizer.encode([text])[0]["input_ids"]


def test_a_character_is_a_token_and_rare_ones_are_unknown() -> None:
    tokenizer = train_tokenizer(["ab\nb a", "abc"], TokenizerConfig(kind="char"))
    assert [tokenizer.token(i) for i in range(len(tokenizer)) if i not in tokenizer.special_ids] == ["\n", "a", "b"]
    more = train_tokenizer(["ab\nb a", "abc"], TokenizerConfig(kind="char", min_frequency=1, limit_alphabet=4))
    assert more.encode(["cab\n "], offsets=True)[0]["offsets"].tolist() == [[0, 0], [0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [0, 0]]
    assert len(more) == len(more.special_ids) + 4 and int((more.encode_plain(["abc\n "])[0] == more.unk_id).sum()) == 1
    assert len(train_tokenizer(CHINESE, TokenizerConfig(kind="char", vocab_size=20))) == 20
    with pytest.raises(ConfigError, match="vocab_size is too small"):
        train_tokenizer(CHINESE, TokenizerConfig(kind="char", vocab_size=5))


def test_chinese_unigram_pieces_are_longer_than_characters() -> None:
    tokenizer = small("unigram", CHINESE * 2)
    text = "人工智能是计算机科学的一个分支。"
    assert len(tokenizer.encode_plain([text])[0]) <= 0.7 * len(text) and tokenizer.unk_id in tokenizer.encode_plain(["龘"])[0]


def test_settings_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="vocab_size is too small"):
        train_tokenizer(ENGLISH, TokenizerConfig(kind="byte-bpe", vocab_size=200))
    with pytest.raises(DataError, match="no text"):
        train_tokenizer([], TokenizerConfig())
    with pytest.raises(ConfigError, match="does not exist"):
        train_tokenizer(ENGLISH, TokenizerConfig(words=Path("no such file")))
    with pytest.raises(ConfigError, match="empty"):
        train_tokenizer(ENGLISH, TokenizerConfig(special_tokens={"mask": " "}))


def test_vocabulary_sizes_alphabets_and_names_are_as_asked() -> None:
    for kind in KINDS:
        config = TokenizerConfig(kind=kind, vocab_size=1200, extra_tokens=("[ASK]",), special_tokens={"mask": "<gap>"})
        tokenizer = train_tokenizer(CHINESE, config)
        assert len(tokenizer) <= 1200 and tokenizer.roles["mask"] == "<gap>" and tokenizer.id("[ASK]") in tokenizer.special_ids
    few = small("wordpiece", limit_alphabet=30)
    assert len({token for i in range(len(few)) if len(token := few.token(i)) == 1}) == 30
    assert len(small("byte-bpe", ENGLISH)) == 1200


def test_unspaced_and_endless_words_do_not_break_training() -> None:
    tokenizer = small("byte-bpe", ["人" * 50_000, "x" * 50_000, "\ud800" * 10, "\0\0", "ก" * 5000])
    assert "".join(tokenizer.decode(tokenizer.encode_plain([text])[0]) for text in ("人人人", "xx")) == "人人人xx"
