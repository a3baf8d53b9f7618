"""ELMo (Peters et al. 2018, "Deep contextualized word representations"): a character CNN, two stacked biLSTMs, a learned mix of layers.

Words come as characters, so that none is unknown: batches have `characters` (B, T, C) beside `input_ids`. Each direction has LSTMs of its
own and never meets the other before the mix: the state that predicts a word has not seen it. From the second layer on, input is added to
output. The published code also cuts cells and projections off at 3, which is left out here.

Letters: B rows, T tokens, C symbols a word, P width of a direction, D = 2 P, V words, N tokens, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom.config import Config, Count
from lexloom.errors import unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output
from lexloom.nn.characters import CharacterCNN, Highway, distinct, everywhere, symbols_of
from lexloom.nn.classification import ClassificationHead
from lexloom.nn.dropout import Dropout
from lexloom.nn.eager import eager
from lexloom.nn.mix import LayerMix
from lexloom.nn.recurrent import LSTM
from lexloom.nn.softmax import AdaptiveSoftmax, cutoffs
from lexloom.text.spelling import SYMBOLS

TWO_WAY = "two-way-lm"
_PUBLISHED = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))

Positive = Annotated[int, Field(ge=1)]


class ElmoConfig(Config):
    """Sizes of an ELMo, by default those of the paper.

    Attributes:
        vocab_size: words of the tokenizer. predicted_words: how many of them, the most frequent, the language model tells apart; the others
            are one unknown word to it, and are read by their characters all the same. All where None.
        cutoffs: where the clusters of rare words begin in the adaptive softmax, `[]` for a full one; by size where None. divide: how much
            narrower the states of each further cluster are.
        filters: (width in symbols, how many).
        cell_size: H of an LSTM. projection_size: P.
    """

    vocab_size: int = Field(50_000, ge=1)
    predicted_words: Count | None = Field(None, ge=2)
    cutoffs: list[int] | None = None
    divide: float = Field(2.0, ge=1)
    character_size: int = Field(16, ge=1)
    filters: list[tuple[Positive, Positive]] = Field(default_factory=lambda: list(_PUBLISHED), min_length=1)
    highway_layers: int = Field(2, ge=0)
    cell_size: int = Field(4096, ge=1)
    projection_size: int = Field(512, ge=1)
    num_hidden_layers: int = Field(2, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float = Field(0.1, ge=0, lt=1)
    pad_token_id: int | None = None
    unk_token_id: int | None = None

    @property
    def words(self) -> int:
        """V: how many words are told apart."""
        return min(self.predicted_words or self.vocab_size, self.vocab_size)

    @property
    def borders(self) -> list[int]:
        """Where the clusters of rare words begin."""
        return cutoffs(self.words) if self.cutoffs is None else [cut for cut in self.cutoffs if cut < self.words]

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.cutoffs is not None and (sorted(set(self.cutoffs)) != self.cutoffs or min(self.cutoffs, default=1) < 1):
            raise ValueError(f"cutoffs that rise from 1 or more, not {self.cutoffs}")
        if self.unk_token_id is not None and self.unk_token_id >= self.words:
            raise ValueError(f"predicted_words above the number of the unknown word, {self.unk_token_id}")
        return self


class TwoWayLayer(nn.Module):
    """An LSTM in each direction, which do not meet."""

    sites = 2  # dropouts in one layer

    def __init__(self, c: ElmoConfig, site: int, *, residual: bool) -> None:
        super().__init__()
        self.forwards, self.backwards = (LSTM(c.projection_size, c.cell_size, c.projection_size) for _ in range(2))
        self.dropout, self.backwards_dropout = Dropout(c.dropout, site), Dropout(c.dropout, site + 1)
        self.residual = residual

    def forward(self, forward: Tensor, backward: Tensor, kept: Tensor, row_keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, P) of each direction -> the same."""
        first = self.forwards(self.dropout(forward, row_keys), kept)
        second = self.backwards(self.backwards_dropout(backward, row_keys), kept, backwards=True)
        return (forward + first, backward + second) if self.residual else (first, second)


class TwoWayHead(nn.Module):
    """One softmax for both directions, over the most frequent words; all others are the unknown word."""

    def __init__(self, c: ElmoConfig) -> None:
        super().__init__()
        self.softmax = AdaptiveSoftmax(c.projection_size, c.words, c.borders, divide=c.divide)
        self.words, self.unknown = c.words, c.unk_token_id or 0

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, 2 P) states of both directions -> (…, 2 V) log-probabilities: of the word behind, then of the one before."""
        return torch.cat([self.softmax(states) for states in hidden.chunk(2, dim=-1)], dim=-1)

    def loss(self, states: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """(N, P) states of one direction, (N,) word ids, (N,) weights -> Σ weights · -log p(word)."""
        return self.softmax.loss(states, labels.masked_fill(labels >= self.words, self.unknown), weights)


@ARCHITECTURES.register("elmo")
class Elmo(Architecture):
    """ELMo: words by their characters, two stacked biLSTMs with projections, a learned mix of layers (Peters et al. 2018)."""

    Config = ElmoConfig
    MODEL_TYPE = "lexloom-elmo"
    ABILITIES = frozenset({"encoder", "two-way"})
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "ElmoModel",
        frozenset({TWO_WAY}): "ElmoForTwoWayLM",
        frozenset({"sequence-classification"}): "ElmoForSequenceClassification",
        frozenset({"token-classification"}): "ElmoForTokenClassification",
    }
    KEPT = frozenset({TWO_WAY})
    # The names and sizes of the published models; mini is our own.
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "elmo-original": {},
        "elmo-medium": {"cell_size": 2048, "projection_size": 256, "highway_layers": 1},
        "elmo-small": {"cell_size": 1024, "projection_size": 128, "highway_layers": 1},
        "elmo-mini": {
            "cell_size": 512,
            "projection_size": 128,
            "highway_layers": 1,
            "filters": [(1, 32), (2, 32), (3, 64), (4, 128), (5, 256)],
        },
    }
    TINY: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 97,
        "cutoffs": [20, 50],
        "character_size": 5,
        "filters": [(1, 8), (2, 8), (3, 16)],
        "highway_layers": 1,
        "cell_size": 40,
        "projection_size": 24,
    }

    embedding = None

    def __init__(self, config: ElmoConfig, *, pooler: bool = True) -> None:
        super().__init__(config)
        self.characters = CharacterCNN(SYMBOLS, config.character_size, config.filters)
        self.highway = nn.Sequential(*(Highway(self.characters.width) for _ in range(config.highway_layers)))
        self.project = nn.Linear(self.characters.width, config.projection_size)
        self.word_dropout = Dropout(config.dropout, 0)
        sites = range(1, 1 + config.num_hidden_layers * TwoWayLayer.sites, TwoWayLayer.sites)
        self.blocks = nn.ModuleList(TwoWayLayer(config, site, residual=i > 0) for i, site in enumerate(sites))
        self.mix = LayerMix(config.num_hidden_layers + 1) if pooler else None

    @classmethod
    def fitted(cls, model: Mapping[str, Any], *, length: int, vocabulary: int, ids: Mapping[str, int | None]) -> dict[str, Any]:
        """See `Architecture.fitted`; there are no positions."""
        found = super().fitted(model, length=length, vocabulary=vocabulary, ids=ids)
        return {name: value for name, value in found.items() if name != "max_position_embeddings"}

    @classmethod
    def reads(cls, config: Any) -> frozenset[str]:
        """The characters of words."""
        return frozenset({"input_ids", "characters"})

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False) -> Output:
        """Reads a batch.

        Args:
            batch: `characters` (B, T, C) int64 as `text.spelling` writes words; optional `attention_mask` (B, T) bool, whose padding may
                stand anywhere, and `row_keys` (B, 2) int32: with them dropout is on, without them it is off.
            layers: also return the states of every layer, both directions side by side; of the words themselves twice the same.

        Returns:
            `hidden` (B, T, D), the mix of the layers; in a network with a `two-way-lm` head, where no task teaches a mix, their mean.

        Raises:
            DataError: there are no characters.
        """
        symbols, row_keys = symbols_of(batch), batch.get("row_keys")
        kept = batch.get("attention_mask")
        kept = torch.ones(symbols.shape[:2], dtype=torch.bool, device=symbols.device) if kept is None else kept.bool()
        forward = backward = self.word_dropout(self._words(symbols), row_keys)
        states = [torch.cat([forward, backward], dim=-1)]
        for block in self.blocks:
            forward, backward = block(forward, backward, kept, row_keys)
            states.append(torch.cat([forward, backward], dim=-1))
        hidden = torch.stack(states).mean(0) if self.mix is None else self.mix(states)
        pooled = None
        if self.mix is not None:
            weights = kept[..., None].to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        return Output(hidden, pooled, tuple(states) if layers else None, forward, backward)

    @eager  # the number of different words is another in each batch
    def _words(self, symbols: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, P), each different word read once."""
        words, place = distinct(symbols.flatten(0, 1))
        found = self.project(self.highway(self.characters(words)))
        return everywhere(found, place).view(*symbols.shape[:2], -1)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`."""
        if role == TWO_WAY:
            return TwoWayHead(self.config)
        if role in ("sequence-classification", "token-classification"):
            site = 1 + len(self.blocks) * TwoWayLayer.sites
            return ClassificationHead(self.width, labels, self.config.classifier_dropout, site)
        raise unknown("head of elmo", role, [role for roles in self.ROLES for role in roles])

    def constant(self, name: str) -> float | Tensor | None:
        """LSTMs begin by remembering (bias 1 of the forget gate), highways by carrying words through, the mix with the mean."""
        if name.endswith(".input.bias"):
            return torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(self.config.cell_size)
        if name.endswith(".gate.bias"):
            return -2.0
        return 1.0 if name.endswith("mix.gamma") else 0.0 if name.endswith("mix.scores") else super().constant(name)

    def spread(self, name: str) -> float:
        """The root of what a layer reads, so that values stay as large from layer to layer; symbols at 1."""
        if name.endswith("characters.symbols.weight"):
            return 1.0
        c = self.config
        if name.endswith(".projection.weight"):
            return float(c.cell_size**-0.5)
        if ".filters." in name:
            return float((c.filters[int(name.rsplit(".", 2)[1])][0] * c.character_size) ** -0.5)
        return float((self.characters.width if ".highway." in name or ".project." in name else c.projection_size) ** -0.5)

    @property
    def width(self) -> int:
        """D."""
        return int(2 * self.config.projection_size)

    @property
    def max_length(self) -> int:
        """There are no positions that could run out: a bound for memory alone."""
        return 1 << 16

    @classmethod
    def pooled(cls, roles: frozenset[str]) -> bool:
        """Whether there is a mix to learn, and of it the mean over the tokens: everywhere but in pre-training, which has no use for it."""
        return TWO_WAY not in roles
