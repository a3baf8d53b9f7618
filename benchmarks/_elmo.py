"""The same pre-training step on both sides: ELMo of one size, random rows of words with frequencies and lengths like a text's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _ours import Loop, MadeRows
from torch import Tensor, nn

from lexloom import compute, keys
from lexloom.batch import padded
from lexloom.models.base import Network
from lexloom.models.elmo import Elmo, ElmoConfig
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.two_way_lm import ROLE, TwoWayLM, TwoWayLMConfig
from lexloom.text.spelling import SYMBOLS, spelled

SPECIAL = 7  # ids below are special tokens; 2 and 3 stand around a row
FILLS = {"input_ids": 0, "characters": 0}
_LETTERS = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))


@dataclass(frozen=True)
class Size:
    """What is trained: a preset of ELMo over V words, rows of T tokens, B rows a step, words of C symbols at most."""

    preset: str = "elmo-small"
    vocabulary: int = 50_000
    length: int = 64
    rows: int = 32
    characters: int = 50
    dropout: float = 0.1

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.rows * self.length

    def __str__(self) -> str:
        return f"{self.preset}, V = {self.vocabulary:,}, {self.rows} × {self.length} a step, dropout {self.dropout}"

    def config(self, **changes: Any) -> ElmoConfig:
        """Its settings."""
        sizes = {**Elmo.PRESETS[self.preset], "vocab_size": self.vocabulary, "dropout": self.dropout}
        return ElmoConfig.read({**sizes, **changes})


def words(size: Size) -> np.ndarray:
    """(V, C) made-up words: the n-th most frequent has about 1 + log2(n) letters, as English words have."""
    drawn = keys.integers(keys.key(1, "words", np.arange(size.vocabulary)), 24, len(_LETTERS))
    lengths = 2 + np.log2(1 + np.arange(size.vocabulary) / 4).astype(int)
    return spelled(["".join(_LETTERS[row[:n]]) for row, n in zip(drawn, lengths, strict=True)], size.characters)


class RandomRows(MadeRows):
    """A packing of `n` rows: words drawn by Zipf's law, p(n) ~ 1 / (n + 2.7) (Mandelbrot's form)."""

    def __init__(self, size: Size, n: int = 1024) -> None:
        drawn = keys.uniform(keys.key(1, "rows", np.arange(n)), size.length)
        shares = np.cumsum(1 / (np.arange(size.vocabulary - SPECIAL) + 2.7))
        ids = SPECIAL + np.searchsorted(shares / shares[-1], drawn)
        ids[:, 0], ids[:, -1] = 2, 3
        special = np.zeros(size.length, dtype=bool)
        special[[0, -1]] = True
        spellings = words(size)
        super().__init__([{"id": i, "input_ids": row, "special": special, "characters": spellings[row]} for i, row in enumerate(ids)])


class Ours(Loop):
    """See `Loop`.

    Args:
        size: the fields of a `Size`. full: a full softmax. overrides: of what `compute.choose` picks: dtype, threads, compile.
    """

    def __init__(self, size: Mapping[str, Any], *, full: bool = False, **overrides: Any) -> None:
        wanted = Size(**size)
        chosen = compute.choose(compute.ComputeConfig(**overrides), steps=0)
        chosen.apply()
        vocabulary = Vocabulary(wanted.vocabulary, None, frozenset(range(SPECIAL)), FILLS, characters=wanted.characters)
        network = Network.build(Elmo, wanted.config(**({"cutoffs": []} if full else {})), (ROLE,), seed=1)
        self.about = f"{chosen.line()}; {sum(p.numel() for p in network.parameters()):,} weights"
        objective = TwoWayLM(TwoWayLMConfig(), vocabulary)
        super().__init__(network, objective, chosen, RandomRows(wanted), rows=wanted.rows, length=wanted.length)


class Plain(nn.Module):
    """The same network as one writes it in PyTorch: a convolution over each word's characters, `nn.LSTM` with `proj_size`, full softmax."""

    def __init__(self, c: ElmoConfig) -> None:
        super().__init__()
        total = sum(n for _, n in c.filters)
        self.symbols = nn.Embedding(SYMBOLS, c.character_size, padding_idx=0)
        self.filters = nn.ModuleList(nn.Conv1d(c.character_size, n, span) for span, n in c.filters)
        self.change = nn.ModuleList(nn.Linear(total, total) for _ in range(c.highway_layers))
        self.gates = nn.ModuleList(nn.Linear(total, total) for _ in range(c.highway_layers))
        self.project, self.dropout = nn.Linear(total, c.projection_size), nn.Dropout(c.dropout)
        layers = [[nn.LSTM(c.projection_size, c.cell_size, proj_size=c.projection_size, batch_first=True) for _ in "ab"] for _ in "12"]
        self.layers = nn.ModuleList(map(nn.ModuleList, layers))
        self.softmax = nn.Linear(c.projection_size, c.vocab_size)

    def forward(self, characters: Tensor, ids: Tensor) -> Tensor:
        """(B, T, C), (B, T) -> the mean loss of both directions."""
        x = self.symbols(characters.flatten(0, 1)).transpose(1, 2)
        x = torch.cat([F.relu(kind(x).amax(-1)) for kind in self.filters], dim=-1)
        for change, gate in zip(self.change, self.gates, strict=True):
            x = torch.lerp(x, F.relu(change(x)), torch.sigmoid(gate(x)))
        ahead = self.dropout(self.project(x).view(*ids.shape, -1))
        behind = ahead.flip(1)
        for i, (first, second) in enumerate(self.layers):  # type: ignore[misc]
            one, two = first(self.dropout(ahead))[0], second(self.dropout(behind))[0]
            ahead, behind = (ahead + one, behind + two) if i else (one, two)
        scores = self.softmax(torch.cat([ahead[:, :-1], behind[:, :-1]]))
        return F.cross_entropy(scores.flatten(0, 1).float(), torch.cat([ids[:, 1:], ids.flip(1)[:, 1:]]).flatten())


class PlainPeer:
    """Steps of `Plain` with fused AdamW and clipping, over rows made beforehand.

    Args:
        bf16: autocast.
    """

    def __init__(self, size: Mapping[str, Any], *, bf16: bool) -> None:
        self.size = Size(**size)
        torch.set_num_threads(compute.cores())
        torch.manual_seed(1)
        self.network, self.bf16 = Plain(self.size.config()), bf16
        self.about = f"{sum(p.numel() for p in self.network.parameters()):,} weights"
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=True)
        self.packing, self.done = RandomRows(self.size), 0

    def steps(self, n: int) -> float:
        """Seconds of `n` steps, after one that is not counted."""
        self._step()
        began = time.perf_counter()
        for _ in range(n):
            self._step()
        return time.perf_counter() - began

    def _step(self) -> None:
        places = np.arange(self.done * self.size.rows, (self.done + 1) * self.size.rows) % len(self.packing)
        batch = padded(self.packing.rows(places), FILLS)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.network(batch["characters"], batch["input_ids"])
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.done += 1
