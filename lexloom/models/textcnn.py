"""TextCNN (Kim 2014, "Convolutional Neural Networks for Sentence Classification"): filters over neighbours, and the most that each finds.

Small and quick: a student for larger networks, and what they are measured against.

Letters: B rows, T tokens, E width of a word, F filters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output
from lexloom.nn.classification import ClassificationHead
from lexloom.nn.dropout import Dropout

Span = Annotated[int, Field(ge=1)]


class TextCNNConfig(Config):
    """Sizes of a TextCNN, by default those of the paper.

    Attributes:
        spans: how many words each kind of filter sees. filters: how many there are of each kind.
    """

    vocab_size: int = Field(30_000, ge=1)
    embedding_size: int = Field(300, ge=1)
    spans: list[Span] = Field(default_factory=lambda: [3, 4, 5], min_length=1)
    filters: int = Field(100, ge=1)
    embedding_dropout: float = Field(0.1, ge=0, lt=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    initializer_range: float = Field(0.1, gt=0)
    pad_token_id: int | None = None


class Filters(nn.Module):
    """One kind of filter at each place, which stands in the middle of what it sees; padding reads as zeros: (B, T, E) -> (B, T, F)."""

    def __init__(self, width: int, span: int, filters: int) -> None:
        super().__init__()
        self.linear, self.span = nn.Linear(span * width, filters), span

    def forward(self, x: Tensor) -> Tensor:
        before = (self.span - 1) // 2
        padded = F.pad(x, (0, 0, before, self.span - 1 - before))
        around = torch.cat([padded[:, k : k + x.shape[1]] for k in range(self.span)], dim=-1)
        return F.relu(self.linear(around))


@ARCHITECTURES.register("textcnn")
class TextCNN(Architecture):
    """TextCNN: filters over neighbouring words, and the most that each finds in a text (Kim 2014); small and quick."""

    Config = TextCNNConfig
    MODEL_TYPE = "lexloom-textcnn"
    ABILITIES = frozenset({"encoder"})
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "TextCNNModel",
        frozenset({"sequence-classification"}): "TextCNNForSequenceClassification",
        frozenset({"token-classification"}): "TextCNNForTokenClassification",
    }
    KEPT: ClassVar[frozenset[str]] = frozenset()
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"textcnn-kim": {}, "textcnn-small": {"embedding_size": 128}}
    TINY: ClassVar[Mapping[str, Any]] = {"vocab_size": 97, "embedding_size": 12, "filters": 8, "max_position_embeddings": 32}

    embedding: nn.Embedding

    def __init__(self, config: TextCNNConfig, *, pooler: bool = True) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embedding_dropout = Dropout(config.embedding_dropout, 0)
        self.blocks = nn.ModuleList(Filters(config.embedding_size, span, config.filters) for span in config.spans)

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False) -> Output:
        """Reads a batch.

        Args:
            batch: `input_ids` (B, T) int64; optional `attention_mask` (B, T) bool, and `row_keys` (B, 2) int32: with them dropout is on,
                without them it is off.
            layers: also return the words' own vectors, as wide as states are, and the states.

        Returns:
            `hidden` (B, T, F), what filters find around each token, and `pooled` (B, F), the most that each finds anywhere.
        """
        ids, mask, row_keys = batch["input_ids"], batch.get("attention_mask"), batch.get("row_keys")
        kept = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        words = self.embedding(ids) * kept[..., None]
        x = self.embedding_dropout(words, row_keys)
        hidden = torch.cat([block(x) for block in self.blocks], dim=-1) * kept[..., None]
        pooled = hidden.amax(1)  # nothing is below 0, which stands at padding
        return Output(hidden, pooled, (hidden,) if layers else None)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`."""
        if role in ("sequence-classification", "token-classification"):
            return ClassificationHead(self.width, labels, self.config.dropout, 1)
        raise unknown("head of textcnn", role, [role for roles in self.ROLES for role in roles])

    def spread(self, name: str) -> float:
        """Filters by what they read, so that what they find is as large as words are; words and heads as the config says."""
        c = self.config
        if ".blocks." in f".{name}":
            return float((c.spans[int(name.split("blocks.")[1].split(".")[0])] * c.embedding_size) ** -0.5)
        return float(c.initializer_range)

    @property
    def width(self) -> int:
        """F, of all kinds together."""
        return int(self.config.filters * len(self.config.spans))

    @classmethod
    def pooled(cls, roles: frozenset[str]) -> bool:
        """The most that filters find is there in any case."""
        return True
