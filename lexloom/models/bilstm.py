"""BiLSTM over words and their characters (Lample et al. 2016, Ma and Hovy 2016): the body of small taggers.

A word is its own vector beside what filters find among its characters; LSTMs read them in both directions, and a layer reads both
directions of the one below. Characters are read where the config has filters for them: then batches have `characters` (B, T, C).

Letters: B rows, T tokens, C symbols a word, E width of a word, H cells of a direction, D = 2 H.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output
from lexloom.nn.characters import CharacterCNN, distinct, everywhere, symbols_of
from lexloom.nn.classification import ClassificationHead
from lexloom.nn.dropout import Dropout
from lexloom.nn.eager import eager
from lexloom.nn.recurrent import LSTM
from lexloom.text.spelling import SYMBOLS

Positive = Annotated[int, Field(ge=1)]


class BiLSTMConfig(Config):
    """Sizes of a BiLSTM, by default those of Ma and Hovy 2016.

    Attributes:
        filters: (width in symbols, how many) of the filters over characters; `[]`: words alone.
        cell_size: H.
    """

    vocab_size: int = Field(30_000, ge=1)
    embedding_size: int = Field(100, ge=1)
    character_size: int = Field(30, ge=1)
    filters: list[tuple[Positive, Positive]] = Field(default_factory=lambda: [(3, 30)])
    cell_size: int = Field(200, ge=1)
    num_hidden_layers: int = Field(1, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    initializer_range: float = Field(0.1, gt=0)
    pad_token_id: int | None = None


class BothWays(nn.Module):
    """A layer: an LSTM in each direction over the same input, (B, T, E) -> (B, T, D)."""

    def __init__(self, width: int, cells: int, dropout: float, site: int) -> None:
        super().__init__()
        self.forwards, self.backwards = LSTM(width, cells), LSTM(width, cells)
        self.dropout = Dropout(dropout, site)

    def forward(self, x: Tensor, kept: Tensor, row_keys: Tensor | None) -> Tensor:
        """Padding stays 0."""
        x = self.dropout(x, row_keys)
        return torch.cat([self.forwards(x, kept), self.backwards(x, kept, backwards=True)], dim=-1)


@ARCHITECTURES.register("bilstm")
class BiLSTM(Architecture):
    """BiLSTM over words and their characters: the body of small taggers (Lample et al. 2016, Ma and Hovy 2016)."""

    Config = BiLSTMConfig
    MODEL_TYPE = "lexloom-bilstm"
    ABILITIES = frozenset({"encoder"})
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "BiLSTMModel",
        frozenset({"sequence-classification"}): "BiLSTMForSequenceClassification",
        frozenset({"token-classification"}): "BiLSTMForTokenClassification",
    }
    KEPT: ClassVar[frozenset[str]] = frozenset()
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"bilstm-cnn": {}, "bilstm-words": {"filters": []}}
    TINY: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 97,
        "embedding_size": 12,
        "character_size": 5,
        "filters": [(2, 4), (3, 6)],
        "cell_size": 14,
        "num_hidden_layers": 2,
        "dropout": 0.1,
        "max_position_embeddings": 32,
    }

    embedding: nn.Embedding

    def __init__(self, config: BiLSTMConfig, *, pooler: bool = True) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.characters = CharacterCNN(SYMBOLS, config.character_size, config.filters) if config.filters else None
        width = config.embedding_size + (self.characters.width if self.characters is not None else 0)
        widths = [width, *[2 * config.cell_size] * (config.num_hidden_layers - 1)]
        self.blocks = nn.ModuleList(BothWays(width, config.cell_size, config.dropout, site) for site, width in enumerate(widths))
        self.has_pooler = pooler

    @classmethod
    def reads(cls, config: Any) -> frozenset[str]:
        """Words, and their characters where it has filters for them."""
        return frozenset({"input_ids", "characters"} if config.filters else {"input_ids"})

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False) -> Output:
        """Reads a batch.

        Args:
            batch: `input_ids` (B, T) int64; `characters` (B, T, C) int64 as `text.spelling` writes words, where it reads them; optional
                `attention_mask` (B, T) bool, whose padding may stand anywhere, and `row_keys` (B, 2) int32: with them dropout is on,
                without them it is off.
            layers: also return the states of every layer; there are none as wide for the words themselves.

        Returns:
            `hidden` (B, T, D), both directions side by side, and `pooled` (B, D), the largest of each over the tokens.

        Raises:
            DataError: characters are missing.
        """
        ids, mask, row_keys = batch["input_ids"], batch.get("attention_mask"), batch.get("row_keys")
        kept = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        x = self.embedding(ids)
        if self.characters is not None:
            x = torch.cat([x, self._spelt(symbols_of(batch))], dim=-1)
        states = list[Tensor]()
        for block in self.blocks:
            x = block(x, kept, row_keys)
            states.append(x)
        pooled = None
        if self.has_pooler:  # a row without tokens has 0
            least = torch.finfo(x.dtype).min
            pooled = x.masked_fill(~kept[..., None], least).amax(1) * kept.any(1, keepdim=True)
        return Output(x, pooled, tuple(states) if layers else None)

    @eager  # the number of different words is another in each batch
    def _spelt(self, symbols: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, filters), each different word read once."""
        assert self.characters is not None
        words, place = distinct(symbols.flatten(0, 1))
        return everywhere(self.characters(words), place).view(*symbols.shape[:2], -1)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`."""
        if role in ("sequence-classification", "token-classification"):
            return ClassificationHead(self.width, labels, self.config.dropout, len(self.blocks))
        raise unknown("head of bilstm", role, [role for roles in self.ROLES for role in roles])

    def constant(self, name: str) -> float | Tensor | None:
        """LSTMs begin by remembering: the bias of the forget gate is 1 (Jozefowicz et al. 2015)."""
        if name.endswith(".input.bias"):
            return torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(self.config.cell_size)
        return super().constant(name)

    def spread(self, name: str) -> float:
        """LSTMs and filters by what they read; vectors of words, symbols and heads as the config says."""
        c = self.config
        if ".filters." in name:
            return float((c.filters[int(name.rsplit(".", 2)[1])][0] * c.character_size) ** -0.5)
        return float(c.cell_size**-0.5 if ".blocks." in f".{name}" else c.initializer_range)

    @property
    def width(self) -> int:
        """D."""
        return int(2 * self.config.cell_size)

    @classmethod
    def pooled(cls, roles: frozenset[str]) -> bool:
        """Tags need no state of the whole text."""
        return "token-classification" not in roles
