from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexloom.errors import FormatError
from lexloom.text.encoding import sentences_of
from lexloom.text.pack import PackingConfig, ensure_packing
from lexloom.text.shards import Shards, Split, write_shards
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from lexloom.text.words import WordBorders
from tests import words as reference

BORDERS = WordBorders()
KINDS = ("wordpiece", "bpe", "byte-bpe", "unigram", "word", "char")
ODD = [
    "It's 2024 — naïve café, don't pay $1,000.50!",
    "See https://example.org/a_b?c=1&d=%20 or mail a.b@c.de ...",
    "👩‍👩‍👧‍👦 and 👍🏽🇩🇪🇨🇳 e\u0301te\u0301 a\u200bb 1️⃣",
    "我爱人工智能 and iPhone手机，T恤真的！2024年，第3次。",
    "ひらがなカタカナー漢字 ภาษาไทย 한국어 단어 हिन्दी العربية\u200cن",
    "  two  spaces\n\nand\tlines \u3000全角　空格 ",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "\u0301a \ufe0f \u200d x \0 \ud800y",
    "",
    " ",
    "……——《红楼梦》“好”",
]


def cut(text: str) -> list[str]:
    numbers = BORDERS.numbers([text])
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(text)]
    return [text[a:b] for a, b in pairwise(edges) if a < b]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It's 1,000.5 co-op, naïve.", "It's| 1,000.5| co|-|op|,| naïve|."),
        ("'quoted' rock 'n' roll, 5. 6", "'|quoted|'| rock| '|n|'| roll|,| 5|.| 6"),
        ("e\u0301te\u0301 👩‍👧👍🏽🇩🇪 a_b", "e\u0301te\u0301| 👩‍👧|👍🏽|🇩🇪| a_b"),
        ("我们学习人工智能，iPhone手机。", "我们|学习|人工智能|，|iPhone|手机|。"),
        ("a  b\n\nc \n", "a| | b|\n\n|c| |\n"),
        ("ไทย カタカナひら 한국어", "ไ|ท|ย| カタカナ|ひ|ら| 한국어"),
        ("wait...!! ——", "wait|...|!!| ——"),
    ],
)
def test_what_a_word_is(text: str, wanted: str) -> None:
    assert cut(text) == wanted.split("|") == reference.words(text)


LETTERS = st.sampled_from([*"ab1'’.,- \n_\u3000", *"我们爱人工智能年", *"カひไ한é", "\u0301", "\u200d", "👍", "🏽", "🇩", "\ufe0f", "\0"])


@settings(max_examples=300)
@given(st.lists(st.text(LETTERS, max_size=30) | st.text(max_size=20) | st.sampled_from(ODD), max_size=5))
def test_all_at_once_is_as_one_by_one(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    numbers, place, last = BORDERS.numbers(texts), 0, -1
    for text in texts:
        assert "".join(reference.words(text)) == text
        for word in reference.words(text):
            found = set(numbers[place : place + len(word)].tolist())
            assert found == {last + 1}, (text, word)
            place, last = place + len(word), last + 1


@cache
def tokenizer(kind: Any) -> Tokenizer:
    texts = [*(topics[name] for name in sorted(topics)[:8]), *ODD * 3, *["我们学习人工智能。机器学习很有意思，人工智能也是。"] * 9]
    return train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=900))


@settings(max_examples=100)
@given(st.sampled_from(KINDS), st.lists(st.text(LETTERS, max_size=30) | st.text(max_size=20) | st.sampled_from(ODD), max_size=4))
def test_the_tokens_of_a_word_go_together_under_any_tokenizer(kind: str, texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    ragged, offsets = tokenizer(kind).plain_offsets(texts)
    assert ragged.values.tolist() == tokenizer(kind).plain(texts).values.tolist()
    continues = BORDERS.continuing(texts, ragged.lengths, offsets)
    assert continues.shape == ragged.values.shape
    for text, (a, b) in zip(texts, ragged.spans(), strict=True):
        check(text, offsets[a:b].tolist(), continues[a:b].tolist())


def check(text: str, offsets: list[list[int]], continues: list[bool]) -> None:
    """Tokens of one word are in one group; a group begins where a word does, unless a token reaches over two."""
    word_at = [number for number, word in enumerate(reference.words(text)) for _ in word]
    covered = [set(word_at[a:b] or word_at[a : a + 1] or word_at[-1:]) for a, b in offsets]
    group = np.cumsum(~np.array(continues, dtype=bool)).tolist()
    for i in range(1, len(covered)):
        assert (group[i] == group[i - 1]) == bool(covered[i] & covered[i - 1] or min(covered[i]) < max(covered[i - 1])), (text, offsets, i)
    assert not continues or not continues[0]


def test_whole_words_are_single_tokens_of_a_word_tokenizer() -> None:
    words = tokenizer("word")
    ragged, offsets = words.plain_offsets(["the value of this statement is not known"])
    assert not BORDERS.continuing(["the value of this statement is not known"], ragged.lengths, offsets).any()


# --- in shards and rows ---------------------------------------------------------------------------------------------------------------


class Text:
    def __init__(self, name: str, text: str) -> None:
        self.id, self.text, self.borders = name, text, tuple(i + 1 for i, letter in enumerate(text) if letter in ".。\n")


DOCUMENTS = [Text(name, topics[name]) for name in sorted(topics)[:12]] + [Text(f"odd {i}", text) for i, text in enumerate(ODD)]


def marked(documents: list[Text], words: Tokenizer) -> list[bool]:
    """Which tokens go on with a word, sentence by sentence."""
    found = []
    for document in documents:
        for sentence in sentences_of(document):
            ragged, offsets = words.plain_offsets([sentence])
            found += BORDERS.continuing([sentence], ragged.lengths, offsets).tolist()
    return found


def made(folder: Path, kind: str, *, words: bool = True) -> Split:
    return write_shards({"train": DOCUMENTS}, tokenizer(kind), folder, words=words).split("train")


@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe", "unigram"])
def test_shards_hold_a_bit_for_each_token(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexloom.text.encoding.BATCH", 1000)  # many batches, so that marks do not end with bytes
    split = made(tmp_path / "shards", kind)
    found = split.continues(np.arange(len(split.tokens)))
    assert found is not None and found.tolist() == marked(DOCUMENTS, tokenizer(kind)) and 0.1 < found.mean() < 0.9
    assert split.words is not None and split.words.nbytes == -(-len(split.tokens) // 8)
    plain = made(tmp_path / "plain", kind, words=False)
    assert plain.tokens.tolist() == split.tokens.tolist() and plain.continues(np.arange(3)) is None and plain.digest != split.digest
    assert Shards.open(tmp_path / "shards", verify=True).split("train").digest == split.digest


@pytest.mark.parametrize(
    "settings",
    [
        {"documents": "joined"},
        {"documents": "isolated"},
        {"sentences": "whole"},
        {"specials": False},
        {"kind": "sentence-pairs"},
    ],
    ids=lambda value: "-".join(map(str, value.values())),
)
def test_rows_say_which_of_their_tokens_go_on_with_a_word(settings: dict[str, Any], tmp_path: Path) -> None:
    kind = "byte-bpe" if settings.get("specials") is False else "wordpiece"
    split, plain = made(tmp_path / "shards", kind), made(tmp_path / "plain", kind, words=False)
    packing, other = (ensure_packing(s, PackingConfig.read({"length": 32, **settings}), seed=1) for s in (split, plain))
    whole = split.continues(np.arange(len(split.tokens)))
    assert whole is not None
    stream, marks = split.tokens.tobytes(), whole.tobytes()
    size = split.tokens.dtype.itemsize
    for row, same in zip(packing.rows(np.arange(len(packing))), other.rows(np.arange(len(other))), strict=True):
        assert row["input_ids"].tolist() == same["input_ids"].tolist() and "continues" not in same
        assert row["continues"].shape == row["input_ids"].shape and not row["continues"][row["special"]].any()
        for a, b in stretches(~row["special"]):
            ids = row["input_ids"][a:b].astype(split.tokens.dtype).tobytes()
            assert any(marks[i // size :][: b - a] == row["continues"][a:b].tobytes() for i in places(stream, ids, size)), row["id"]


def stretches(there: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def places(stream: bytes, part: bytes, size: int) -> list[int]:
    found, start = [], stream.find(part)
    while start >= 0:
        found += [start] if start % size == 0 else []
        start = stream.find(part, start + 1)
    return found


def test_marks_that_are_too_few_are_found(tmp_path: Path) -> None:
    made(tmp_path / "shards", "word")
    path = tmp_path / "shards" / "shards.json"
    marks = tmp_path / "shards" / "words-train.bin"
    size = marks.stat().st_size
    marks.write_bytes(marks.read_bytes()[:-1])
    path.write_text(path.read_text().replace(f'"bytes": {size}', f'"bytes": {size - 1}'))
    with pytest.raises(FormatError, match="marks of words"):
        Shards.open(tmp_path / "shards")
