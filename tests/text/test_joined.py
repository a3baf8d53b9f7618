"""Many texts encoded in one call: as if each had been alone."""

from __future__ import annotations

from functools import cache

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from lexloom.text.joined import SIGN, Joined
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.text.small import KINDS

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
