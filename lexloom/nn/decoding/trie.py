"""Trie: sequences of token ids, and which id may come next so that one of them comes out (De Cao et al. 2021, "GENRE")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lexloom.errors import ConfigError


class Trie:
    """A constraint: what is generated is one of these sequences, and then an end.

    `trie(made)` gives the ids that may follow the generated ones; any function of that shape is a constraint.

    Args:
        sequences: of ids.
        ends: what may stand behind a whole one.

    Raises:
        ConfigError: there is no sequence, one is empty, or there is no end.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], ends: Iterable[int]) -> None:
        self.root: dict[int | None, Any] = {}
        self.ends = tuple(sorted(set(ends)))
        for sequence in sequences:
            node = self.root
            for number in sequence:
                node = node.setdefault(int(number), {})
            node[None] = {}  # here one ends
        if not self.root or None in self.root or not self.ends:
            raise ConfigError("a trie holds sequences of one id or more, and what stands behind them", hint="give an eos_token_id")

    def __call__(self, made: Sequence[int]) -> list[int]:
        """The ids that may follow; the ends where all is said."""
        node = self.root
        for number in made:
            if number not in node:
                return list(self.ends)
            node = node[number]
        found = [number for number in node if number is not None]
        return [*found, *(end for end in self.ends if end not in found)] if None in node else found

    @property
    def ids(self) -> frozenset[int]:
        """Those that may come first: where all of them are banned, nothing comes out."""
        return frozenset(number for number in self.root if number is not None)
