"""Many short texts in few calls: the `tokenizers` library spends as long on each call as on a dozen characters.

Texts are joined by a sign that no text holds, which is made a token of its own. The library parts a text at such tokens before it
normalizes anything, so that what stands between two of them is encoded as if it stood alone. Where a tokenizer does not keep to that
(some put a mark at the start of a whole text), the probes below say so and texts are encoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import tokenizers

from lexloom.text.encoded import Ragged

SIGN = "\U0010fffe"
"""A code point that Unicode sets aside: no text in exchange has it."""
JOINED = 2000
"""Characters that are put into one call, about."""
_WORDS = ("a", " b", " ab cd.", "“x” y", " don't", "的", "中文 text", "[MASK] x", "##ing", "1,000.5", "🤯")
_PROBES = (*_WORDS, "", " ", "\n\n", "a\tb", "é e\u0301", "\u0301a")


class Joined:
    """A tokenizer that takes joined texts.

    Args:
        backend: encodes texts as they are, special tokens as signs.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.plain = backend
        self.twin = tokenizers.Tokenizer.from_str(backend.to_str())
        self.twin.encode_special_tokens = True
        self.twin.add_tokens([tokenizers.AddedToken(SIGN, normalized=False, special=False)])
        self.sign = self.twin.token_to_id(SIGN)
        self.faithful = self._is_faithful()

    def _is_faithful(self) -> bool:
        probes = [*_PROBES, *reversed(_PROBES)]
        alone = [e.ids for e in self.plain.encode_batch_fast(probes, add_special_tokens=False)]
        joined = self._encode(probes)
        return joined is not None and [row.tolist() for row in joined.rows()] == alone

    def encode(self, texts: Sequence[str]) -> Ragged | None:
        """Ids of each text, or None where these texts, or this tokenizer, have to be encoded one by one."""
        return self._encode(texts) if self.faithful else None

    def _encode(self, texts: Sequence[str]) -> Ragged | None:
        made = self.twin.encode_batch_fast(_in_calls(texts), add_special_tokens=False)
        total = sum(map(len, made))
        ids = np.fromiter(chain.from_iterable(e.ids for e in made), dtype=np.int32, count=total)
        borders = np.flatnonzero(ids == self.sign)
        if len(borders) != len(texts):
            return None  # a text holds the sign itself
        lengths = np.diff(borders, prepend=-1) - 1
        return Ragged(np.delete(ids, borders), lengths)


def _in_calls(texts: Sequence[str]) -> list[str]:
    calls: list[str] = []
    start = held = 0
    for place, text in enumerate(texts):
        held += len(text)
        if held >= JOINED:
            calls.append(SIGN.join(texts[start : place + 1]) + SIGN)
            start, held = place + 1, 0
    if start < len(texts):
        calls.append(SIGN.join(texts[start:]) + SIGN)
    return calls
