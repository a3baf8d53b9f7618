"""Unigram pieces (Kudo 2018, "Subword Regularization"): spaces are written as `▁`, words, numbers, signs and white space apart.

The library trains by expectation and maximisation over words in the order of a hash table, which is another one each time: sums differ
in their last bits, and characters that no longer are a piece of their own come back in any order. `model` takes both out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

SPACE = "▁"
NEVER = -1e4
"""The score of special tokens: no text is read as one."""
_WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s"
_STEP, _DIGITS = 1e-4, 6


def parts() -> tuple[Any, Any]:
    """What stands before the model, and behind it: text in words with the space before them, and back."""
    spaces = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False)
    return (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_WORDS), "isolated"), spaces]),
        decoders.Metaspace(replacement=SPACE, prepend_scheme="never"),
    )


def known(pieces: Iterable[str], normalizer: normalizers.Normalizer | None, letters: Sequence[str]) -> Iterator[str]:
    """Normalised pieces of text, cut where a character is that the tokenizer will not know: the library would learn every one.

    `normalizer` is no part of the tokenizer in training, which is locked meanwhile.
    """
    other = re.compile(f"[^ {re.escape(''.join(letters))}]+")
    for piece in pieces:
        yield from other.split(piece if normalizer is None else normalizer.normalize_str(piece))


def model(vocabulary: Sequence[tuple[str, float]], special: Sequence[str], unk: str) -> models.Unigram:
    """The trained pieces with their scores, best first, behind the special tokens; equal for equal texts.

    Single characters that are no piece any more have the lowest score, and a ten-thousandth more each in the order of a hash table:
    here all have the lowest.
    """
    learned = [(piece, score) for piece, score in vocabulary if piece not in special]
    lowest, singles = min(score for _, score in learned), sum(len(piece) == 1 for piece, _ in learned)

    def settled(piece: str, score: float) -> float:
        steps = (score - lowest) / _STEP
        left_over = len(piece) == 1 and steps < singles and abs(steps - round(steps)) < _STEP
        return round(lowest if left_over else score, _DIGITS)

    scored = sorted(((piece, settled(piece, score)) for piece, score in learned), key=lambda entry: (-entry[1], entry[0]))
    return models.Unigram([*((token, NEVER) for token in special), *scored], list(special).index(unk), byte_fallback=False)
