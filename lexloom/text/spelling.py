"""Spelling: a word as a row of symbols, for networks that read the characters of words (Peters et al. 2018, section 3.4, and its code).

A word is its UTF-8 bytes between a mark for its beginning and one for its end, and 0 behind. Bytes and not code points: 256 of them write
every language, so that there is no alphabet to choose and no character that is unknown, and a Chinese character is three symbols, of which
the filters of a network see two characters together. A special token has a symbol of its own for its role.

Letters: N words, C symbols a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lexloom.text.tokenizer_folder import ROLES

Symbols = npt.NDArray[np.int16]
BYTE, BEGIN, END = 1, 257, 258  # byte b is symbol b + BYTE
ROLE = 259  # and on: the roles of special tokens, in the order of ROLES
SYMBOLS = ROLE + len(ROLES)


def spelled(words: Sequence[str], width: int, roles: Mapping[str, str] | None = None) -> Symbols:
    """(N, C) symbols of words; those of more than C - 2 bytes are cut.

    Args:
        width: C, at least 3.
        roles: role -> special token, each of which is one symbol.
    """
    special = {token: ROLE + ROLES.index(role) for role, token in (roles or {}).items()}
    found = np.zeros((len(words), width), dtype=np.int16)
    for row, word in zip(found, words, strict=True):
        inner = [special[word]] if word in special else _bytes(word, width - 2)
        row[0], row[1 : len(inner) + 1], row[len(inner) + 1] = BEGIN, inner, END
    return found


def _bytes(word: str, most: int) -> Symbols:
    content = word.encode("utf-8", "replace")[:most]
    return np.frombuffer(content, dtype=np.uint8).astype(np.int16) + BYTE
