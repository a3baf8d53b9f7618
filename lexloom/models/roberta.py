"""RoBERTa (Liu et al. 2019): BERT's encoder with positions counted from the padding token on, one segment, and heads of its own.

Letters: B rows, T tokens, D width, K labels, N any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom import keys
from lexloom.config import Config
from lexloom.errors import ConfigError, unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output, fused_layer, layer, same, stored_twice
from lexloom.nn.attention import padding_bias
from lexloom.nn.block import PostNormBlock
from lexloom.nn.classification import ClassificationHead
from lexloom.nn.dropout import Dropout
from lexloom.nn.masked_token import MaskedLMHead
from lexloom.nn.mimetic import contrast, look_beside
from lexloom.nn.positions import sinusoids


class RobertaConfig(Config):
    """Sizes of a RoBERTa, under the names of its published `config.json`."""

    vocab_size: int = Field(50265, ge=1)
    hidden_size: int = Field(768, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = Field(3072, ge=1)
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float | None = None
    max_position_embeddings: int = Field(514, ge=1)
    type_vocab_size: int = Field(1, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    initialization: Literal["normal", "mimetic"] = Field("normal", exclude_if=lambda value: value == "normal")
    layer_norm_eps: float = Field(1e-5, gt=0)
    pad_token_id: int = Field(1, ge=0)
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"a hidden_size ({self.hidden_size}) that num_attention_heads ({self.num_attention_heads}) divides")
        if self.max_position_embeddings <= self.pad_token_id + 1:
            raise ValueError(f"max_position_embeddings over {self.pad_token_id + 1}: positions are counted from pad_token_id + 1 on")
        return self


class TextClassificationHead(nn.Module):
    """Over the first token's state, where BERT has its pooler: dropout, dense, tanh, dropout, linear: (N, D) -> (N, K)."""

    def __init__(self, width: int, labels: int, dropout: float, site: int) -> None:
        super().__init__()
        self.dense, self.linear = nn.Linear(width, width), nn.Linear(width, labels)
        self.dropout, self.inner_dropout = Dropout(dropout, site), Dropout(dropout, site + 1)

    def forward(self, x: Tensor, row_keys: Tensor | None = None) -> Tensor:
        return self.linear(self.inner_dropout(torch.tanh(self.dense(self.dropout(x, row_keys))), row_keys))


_L = "encoder.layer.{i}."
_B = "blocks.{i}."
_BLOCK = {"attention.output.dense": "attention.out", "attention.output.LayerNorm": "attention_norm"}
_BLOCK |= {"intermediate.dense": "up", "output.dense": "down", "output.LayerNorm": "norm"}


@ARCHITECTURES.register("roberta")
class Roberta(Architecture):
    """RoBERTa: BERT's encoder for byte-level text, trained longer and without sentence pairs (Liu et al. 2019)."""

    Config = RobertaConfig
    MODEL_TYPE = "roberta"
    ABILITIES = frozenset({"encoder"})
    PREFIX = "roberta."
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "RobertaModel",
        frozenset({"masked-lm"}): "RobertaForMaskedLM",
        frozenset({"sequence-classification"}): "RobertaForSequenceClassification",
        frozenset({"token-classification"}): "RobertaForTokenClassification",
        frozenset({"question-answering"}): "RobertaForQuestionAnswering",
        frozenset({"multiple-choice"}): "RobertaForMultipleChoice",
    }
    WEIGHTS = (
        same("embeddings.word_embeddings.weight", "embedding.weight"),
        same("embeddings.position_embeddings.weight", "positions.weight"),
        same("embeddings.token_type_embeddings.weight", "segments.weight"),
        *layer("embeddings.LayerNorm", "embedding_norm"),
        *fused_layer([f"{_L}attention.self.{part}" for part in ("query", "key", "value")], f"{_B}attention.qkv"),
        *(row for theirs, own in _BLOCK.items() for row in layer(_L + theirs, _B + own)),
        *layer("pooler.dense", "pooler"),
    )
    HEAD_WEIGHTS: ClassVar[Mapping[str, Any]] = {
        "masked-lm": [
            *layer("lm_head.dense", "heads.masked-lm.dense"),
            *layer("lm_head.layer_norm", "heads.masked-lm.norm"),
            same("lm_head.decoder.weight", "heads.masked-lm.weight"),
            replace(same("lm_head.bias", "heads.masked-lm.bias"), when="tied"),
            # Untied, the class on disk holds the bias twice and reads the decoder's.
            stored_twice(("lm_head.decoder.bias", "lm_head.bias"), "heads.masked-lm.bias", when="untied"),
        ],
        "sequence-classification": [
            *layer("classifier.dense", "heads.sequence-classification.dense"),
            *layer("classifier.out_proj", "heads.sequence-classification.linear"),
        ],
        "token-classification": layer("classifier", "heads.token-classification.linear"),
        "question-answering": layer("qa_outputs", "heads.question-answering.linear"),
        "multiple-choice": layer("classifier", "heads.multiple-choice.linear"),
    }
    ALIASES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"hidden_size": d, "num_hidden_layers": n, "num_attention_heads": h, "intermediate_size": 4 * d}
        for name, n, d, h in (
            ("roberta-mini", 4, 256, 4),  # not published: the sizes of bert-mini
            ("distilroberta-base", 6, 768, 12),
            ("roberta-base", 12, 768, 12),
            ("roberta-large", 24, 1024, 16),
        )
    }
    TINY: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 97,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 34,
    }

    embedding: nn.Embedding

    def __init__(self, config: RobertaConfig, *, pooler: bool = True) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, d)
        self.positions = nn.Embedding(config.max_position_embeddings, d)
        self.segments = nn.Embedding(config.type_vocab_size, d)
        self.embedding_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.embedding_dropout = Dropout(config.hidden_dropout_prob, 0)
        self.blocks = nn.ModuleList(self._block(config, 1 + i * PostNormBlock.sites) for i in range(config.num_hidden_layers))
        self.pooler: nn.Linear | None = nn.Linear(d, d) if pooler else None

    @staticmethod
    def _block(c: RobertaConfig, site: int) -> PostNormBlock:
        p, attention_p = c.hidden_dropout_prob, c.attention_probs_dropout_prob
        sizes = (c.hidden_size, c.num_attention_heads, c.intermediate_size)
        return PostNormBlock(*sizes, act=c.hidden_act, dropout=p, attention_dropout=attention_p, eps=c.layer_norm_eps, site=site)

    @classmethod
    def fitted(cls, model: Mapping[str, Any], *, length: int, vocabulary: int, ids: Mapping[str, int | None]) -> dict[str, Any]:
        """See `Architecture.fitted`; the rows of the position table up to the padding token's id are never a text's.

        Raises:
            ConfigError: the tokenizer has no padding token to count from.
        """
        pad = ids.get("pad", model.get("pad_token_id", RobertaConfig.model_fields["pad_token_id"].default))
        if pad is None:
            hint = "name one as pad_token in tokenizer_config.json, or train a tokenizer that has one"
            raise ConfigError("roberta counts positions from the id of the padding token, and this tokenizer has none", hint=hint)
        return super().fitted(model, length=length + pad + 1, vocabulary=vocabulary, ids=ids)

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False) -> Output:
        """Encodes a batch.

        Args:
            batch: `input_ids` (B, T) int64; optional `attention_mask` (B, T) bool, `row_keys` (B, 2) int32: with them dropout is on,
                without them it is off; `token_type_ids` (B, T) int64, which a network with one segment leaves aside.
            layers: also return the states of every layer.
        """
        ids = batch["input_ids"]
        row_keys, mask, segments = batch.get("row_keys"), batch.get("attention_mask"), batch.get("token_type_ids")
        x = self.embedding(ids) + self.positions(self.places(ids))
        one = segments is None or self.config.type_vocab_size == 1
        x = x + (self.segments.weight[0] if one else self.segments(segments))
        x = self.embedding_dropout(self.embedding_norm(x), row_keys)
        bias = padding_bias(mask, x.dtype) if mask is not None else None
        states = [x]
        for block in self.blocks:
            x = block(x, bias, row_keys)
            states.append(x)
        pooled = torch.tanh(self.pooler(x[:, 0])) if self.pooler is not None else None
        return Output(x, pooled, tuple(states) if layers else None)

    def places(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T) rows of the position table: texts count from pad + 1 on wherever they start, padding stays at pad."""
        text = (ids != self.config.pad_token_id).long()
        return text.cumsum(1) * text + self.config.pad_token_id

    @torch.no_grad()
    def imitate(self, seed: int) -> None:
        """As BERT starts: positions as sinusoids, the first heads at each token's neighbours, every value path as contrast."""
        self.positions.weight.copy_(self.config.initializer_range * 2**0.5 * sinusoids(*self.positions.weight.shape))
        for i, block in enumerate(self.blocks):
            assert isinstance(block, PostNormBlock)
            contrast(block.attention, keys.key(seed, "contrast", i))
            block.down.weight.mul_(0.3)
        first = self.blocks[0]
        assert isinstance(first, PostNormBlock)
        look_beside(first.attention, self.embedding)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`; its dropouts' sites come after the blocks'."""
        c, site = self.config, 1 + len(self.blocks) * PostNormBlock.sites
        p = c.hidden_dropout_prob if c.classifier_dropout is None else c.classifier_dropout
        if role == "masked-lm":
            # Its activation is GELU, whatever the encoder's is.
            return MaskedLMHead(c.vocab_size, c.hidden_size, act="gelu", eps=c.layer_norm_eps, tied=c.tie_word_embeddings)
        if role == "sequence-classification":
            return TextClassificationHead(c.hidden_size, labels, p, site)
        plain = {"token-classification": (labels, p), "question-answering": (2, 0.0), "multiple-choice": (1, c.hidden_dropout_prob)}
        if role in plain:
            return ClassificationHead(c.hidden_size, *plain[role], site)
        raise unknown("head of roberta", role, self.HEAD_WEIGHTS)

    @property
    def max_length(self) -> int:
        """The positions that are left after those up to the padding token's id."""
        return int(self.config.max_position_embeddings - self.config.pad_token_id - 1)

    @classmethod
    def pooled(cls, roles: frozenset[str]) -> bool:
        """RobertaModel and the class for multiple choice hold the pooler; that for texts has a layer of its own in its place."""
        return not roles or "multiple-choice" in roles
