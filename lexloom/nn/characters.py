"""Words by their characters: filters of several widths, the most that each finds anywhere in the word, and highway layers (Kim et al. 2016,
"Character-Aware Neural Language Models"; Srivastava et al. 2015, "Highway Networks").

A word that stands in a batch several times is read once: of 4,096 running words of English about 1,200 are different.

Letters: N words, C symbols a word, E width of a symbol, F filters, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom import keys
from lexloom.errors import DataError
from lexloom.nn.cross_entropy import at_least_fp32

BANDS = (8, 12)  # lengths up to which words are read together, so that one long word does not make all of them long


def symbols_of(batch: Mapping[str, Tensor]) -> Tensor:
    """The batch's `characters`: (B, T, C) int64, 0 behind a word and where there is none.

    Raises:
        DataError: it has none.
    """
    found = batch.get("characters")
    if found is None:
        hint = "tokenizer: {kind: word, characters: 50}, or Batch.from_texts with a tokenizer that has them"
        raise DataError("this network reads the characters of words, and the batch has none", expected="characters", hint=hint)
    return found if found.dim() == 3 else found[..., None]  # a batch without rows does not know how long words are


def distinct(symbols: Tensor) -> tuple[Tensor, Tensor]:
    """Each word once, short ones first, no wider than the longest; and which of them every word is: (N, C) -> (n, c), (N,)."""
    if symbols.is_meta:
        return symbols, torch.arange(len(symbols), device="meta")
    symbols = symbols[:, : max(1, int((symbols != 0).any(0).sum()))]
    marks = torch.from_numpy(keys.bits(keys.key("spelling"), symbols.shape[1]).view("int64") | 1).to(symbols.device)
    length = (symbols != 0).sum(1)
    # The length in the highest bits, so that what is sorted by its mark is sorted by length too.
    found, place = torch.unique(((symbols * marks).sum(1) & ((1 << 48) - 1)) | (length << 48), return_inverse=True)
    first = torch.empty_like(found).scatter_(0, place, torch.arange(len(symbols), device=symbols.device))
    words = symbols[first]
    if not torch.equal(words[place], symbols):  # two words of one mark: once in the life of a universe, but then right
        order = length.argsort(stable=True)
        return symbols[order], order.argsort()
    return words, place


class CharacterCNN(nn.Module):
    """(N, C) int64 symbols of words, short ones first -> (N, F).

    Behind a word its symbols read as zeros, at one place at least: a filter that finds nothing in a word finds that.

    Args:
        symbols: how many there are. width: E. filters: (width in symbols, how many) of each kind.
    """

    def __init__(self, symbols: int, width: int, filters: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.filters = nn.ModuleList(nn.Linear(span * width, n) for span, n in filters)
        self.widest = max(span for span, _ in filters)
        self.width = sum(n for _, n in filters)

    def forward(self, words: Tensor) -> Tensor:
        # One product for all filters: the short ones read zeros where the widest still reads symbols.
        room = self.widest * self.symbols.embedding_dim
        kinds = list(cast(Iterable[nn.Linear], self.filters))
        weight = torch.cat([F.pad(kind.weight, (0, room - kind.in_features)) for kind in kinds])
        bias = torch.cat([kind.bias for kind in kinds])
        return torch.cat([F.relu(self._most(band, weight) + bias) for band in _bands(words)])

    def _most(self, words: Tensor, weight: Tensor) -> Tensor:
        """(n, C) -> (n, F): the most that each filter finds, 0 at least."""
        x = self.symbols(words) * (words != 0)[..., None]
        width = x.shape[2]
        x = F.pad(x, (0, 0, 0, self.widest - 1)).flatten(1)
        windows = x.unfold(1, self.widest * width, width)
        return F.linear(windows, weight).max(dim=1).values.clamp(min=0)


def _bands(words: Tensor) -> list[Tensor]:
    """The words by length, each part as wide as need be."""
    if words.is_meta:
        return [words]
    ends = [*((words != 0).sum(1) <= most for most in BANDS), torch.ones(len(words), dtype=torch.bool, device=words.device)]
    borders = [0, *(int(end.sum()) for end in ends)]
    widths = [*BANDS, words.shape[1]]
    return [words[a:b, :width] for a, b, width in zip(borders, borders[1:], widths, strict=False) if b > a]


class Highway(nn.Module):
    """t · relu(W x + b) + (1 - t) · x with t = σ(V x + d): (N, D) -> (N, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, F.relu(self.change(x)), self.gate(x).sigmoid())


def everywhere(words: Tensor, place: Tensor) -> Tensor:
    """Each word's vector wherever it stands: (n, D), (N,) -> (N, D). Gradients of frequent words are summed in fp32 at least."""
    return at_least_fp32(words).index_select(0, place).to(words.dtype)
