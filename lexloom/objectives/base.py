"""What an objective is: rows -> batch -> {part: loss sum}, with each part's denominator in `batch.counts`.

Letters: B rows, T tokens, M predicted positions a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lexloom import keys
from lexloom.batch import Batch
from lexloom.config import Config
from lexloom.keys import Keys
from lexloom.models.base import Output
from lexloom.nn.cross_entropy import at_least_fp32 as at_least_fp32  # every loss needs it
from lexloom.registry import Registry

Row = Mapping[str, Any]
"""One row as a plain mapping: `id`, `input_ids`, `token_type_ids`, `special`, `continues` where words are marked, labels …"""


@dataclass(frozen=True)
class Vocabulary:
    """What an objective knows of a tokenizer: the size, the ids of special tokens by role, and what stands at padding.

    `end` is the token that ends a document where a text has no special tokens around it; `sentinels` stand for spans, in T5's order;
    `closes` says whether a special token stands at the end of a text; `characters` is the symbols of a word where rows have them, else 0.
    """

    size: int
    mask: int | None
    special: frozenset[int]
    fills: Mapping[str, int]
    end: int | None = None
    sentinels: tuple[int, ...] = ()
    closes: bool = True
    characters: int = 0

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Reads it off a lexloom tokenizer."""
        return cls(
            len(tokenizer),
            tokenizer.mask_id,
            frozenset(tokenizer.special_ids),
            tokenizer.fills,
            tokenizer.eos_id,
            tokenizer.sentinels,
            tokenizer.templates[0].items[-1][0] >= 0,
            tokenizer.characters,
        )


class Objective:
    """A training goal. A subclass is one file: its Config, what it needs, `collate`, and `loss`.

    Attributes of a subclass:
        needs: abilities of the architecture it works on.
        rows: the kind of row it wants: `block`, `ordered-pair`, `sentence-pair` or `labelled`.
        borders: whether its blocks say where their sentences begin.
        specials: whether blocks have the special tokens that the tokenizer puts around a text.
        roles: the heads it asks the architecture for.
        parts: the names of its losses, each with its weight in the total.
        couples: which rows must not be parted: `row` (none), `group`, `batch`.
        sides: of rows with several sequences of tokens the names of these, each with the tensors of a batch that are as wide.
    """

    Config: ClassVar[type[Config]] = Config
    needs: ClassVar[frozenset[str]] = frozenset({"encoder"})
    rows: ClassVar[str] = "block"
    borders: ClassVar[bool] = False
    specials: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = ()
    parts: Mapping[str, float] = {}
    couples: ClassVar[str] = "row"
    sides: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, config: Any, vocabulary: Vocabulary) -> None:
        self.config, self.vocabulary = config, vocabulary

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """A batch out of rows: a pure function of its arguments.

        Args:
            rows: at most `size`; the rest of the batch is padding that counts 0.
            row_keys: (len(rows),) uint64, one key a row: all that is random comes from them.
            length: T, the shape to pad to.
            size: B, the shape to pad to.
        """
        raise NotImplementedError

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """The sum of each part's loss over the batch, in fp32, to be divided by its count over all micro-batches and ranks."""
        raise NotImplementedError

    @classmethod
    def needs_words(cls, config: Any) -> bool:
        """Whether, under these settings, rows have to say where words begin: `continues` (T,) bool, see `Packing.rows`."""
        return False

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """The loss of a guess that knows how often tokens occur and does not look at the text, by part, where there is such a thing.

        Args:
            counts: (V,) how often each token stands in the training text.
        """
        return {}


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "OBJECTIVES", "lexloom.objectives")


def entropy(counts: np.ndarray) -> float | None:
    """In nats, of how often tokens occur, (V,): the loss of a guess by frequencies. None where none occurs."""
    shares = np.asarray(counts, dtype=np.float64)
    shares = shares[shares > 0] / max(1.0, shares.sum())
    return float(-(shares * np.log(shares)).sum()) if shares.size else None


def dropout_keys(row_keys: Keys, size: int) -> Tensor:
    """The two 32-bit words a row that `nn.dropout` takes, out of the rows' keys: (n,) uint64 -> (size, 2) int32."""
    words = keys.mix(row_keys ^ np.uint64(0xD6E8FEB86659FD93))
    found = np.zeros((size, 2), dtype=np.uint32)
    found[: len(words), 0] = words & np.uint64(0xFFFFFFFF)
    found[: len(words), 1] = words >> np.uint64(32)
    return torch.from_numpy(found.view(np.int32))
