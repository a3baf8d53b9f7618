"""Whole words of real text, English and Chinese, under three kinds of tokenizers: none is ever parted by a mask."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexloom import keys
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.text.encoding import sentences_of
from lexloom.text.pack import PackingConfig, ensure_packing
from lexloom.text.segment import sentences
from lexloom.text.shards import write_shards
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests import words as reference

WORDS = 1_000_000 // 6
LENGTH, ROWS = 128, 256


class Text:
    def __init__(self, name: str, text: str, language: str) -> None:
        self.id, self.text, self.borders = name, text, tuple(sentences(text, language))


def documents(folder: Path, language: str) -> list[Text]:
    """So much of the encyclopedia that it has WORDS words, and some more."""
    found, held = [], 0
    with gzip.open(folder / f"wikipedia_{language}" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            found.append(Text(str(row["id"]), row["text"], language))
            held += len(row["text"])
            if held > WORDS * (7 if language == "en" else 2.2):
                return found
    raise AssertionError("there is less text than words are asked for")


def words_of_tokens(texts: list[Text], tokenizer: Tokenizer) -> np.ndarray:
    """The number of the first and of the last word that each token of all documents covers: (N, 2)."""
    found, number = [], 0
    for document in texts:
        parts = sentences_of(document)
        ragged, offsets = tokenizer.plain_offsets(parts)
        for part, (a, b) in zip(parts, ragged.spans(), strict=True):
            words = reference.words(part)
            word_at = np.repeat(np.arange(number, number + len(words)), list(map(len, words)))
            first = np.minimum(offsets[a:b, 0], len(part) - 1)
            found.append(np.stack([word_at[first], word_at[np.maximum(offsets[a:b, 1] - 1, first)]], axis=1))
            number += len(words)
    return np.concatenate(found)


@pytest.mark.data
@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe", "unigram"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_word_of_real_text_is_parted(language: str, kind: Any, data_folder: Path, tmp_path: Path) -> None:
    texts = documents(data_folder, language)
    tokenizer = train_tokenizer([text.text for text in texts[:100]], TokenizerConfig(kind=kind, vocab_size=8000))
    split = write_shards({"train": texts}, tokenizer, tmp_path / "shards", words=True).split("train")
    covered = words_of_tokens(texts, tokenizer)
    assert len(covered) == len(split.tokens)
    packing = ensure_packing(split, PackingConfig(length=LENGTH, documents="isolated"))
    added = split.templates["single"].added
    starts = [split.span(int(d))[0] + int(o) for d, o in zip(packing.arrays["document"], packing.arrays["offset"], strict=True)]
    for mask in ("words", "spans"):
        objective = MaskedLM(MaskedLMConfig(mask=mask), Vocabulary.of(tokenizer))  # type: ignore[arg-type]
        seen = parted = chosen = maskable = several = 0
        for first in range(0, len(packing), ROWS):
            ids = np.arange(first, min(len(packing), first + ROWS))
            rows = packing.rows(ids)
            batch = objective.collate(rows, keys.key(1, "row", 0, ids), length=LENGTH, size=len(ids))
            chosen += int(batch.counts["masked-lm"])
            for i, row in zip(ids.tolist(), range(len(rows)), strict=True):
                size = len(rows[row]["input_ids"]) - added
                hidden = np.zeros(LENGTH, dtype=bool)
                hidden[batch["masked_positions"][row][batch["masked_weights"][row] > 0].numpy()] = True
                hidden = hidden[1 : 1 + size]  # behind what stands before a text
                words = covered[starts[i] : starts[i] + size]
                together = words[1:, 0] <= words[:-1, 1]  # tokens that share a word
                parted += int((hidden[1:] != hidden[:-1])[together].sum())
                seen += len(np.unique(words))
                several += int(together.sum())
                maskable += size
        assert parted == 0 and seen >= WORDS and several > WORDS / 20
        assert chosen / maskable == pytest.approx(0.15, rel=0.01)
