"""BERT (Devlin et al. 2018): post-norm encoder, learned positions, segments, pooler; and its heads.

Letters: B rows, T tokens, D width.
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
from lexloom.errors import unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output, fused_layer, layer, same, stored_twice
from lexloom.nn.attention import padding_bias
from lexloom.nn.block import PostNormBlock
from lexloom.nn.classification import ClassificationHead
from lexloom.nn.dropout import Dropout
from lexloom.nn.masked_token import MaskedLMHead
from lexloom.nn.mimetic import contrast, look_beside
from lexloom.nn.positions import sinusoids


class BertConfig(Config):
    """Sizes of a BERT, under the names of its published `config.json`."""

    vocab_size: int = Field(30522, ge=1)
    hidden_size: int = Field(768, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = Field(3072, ge=1)
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float | None = None
    max_position_embeddings: int = Field(512, ge=1)
    type_vocab_size: int = Field(2, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    initialization: Literal["normal", "mimetic"] = Field("normal", exclude_if=lambda value: value == "normal")
    layer_norm_eps: float = Field(1e-12, gt=0)
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"a hidden_size ({self.hidden_size}) that num_attention_heads ({self.num_attention_heads}) divides")
        return self


_L = "encoder.layer.{i}."
_B = "blocks.{i}."


@ARCHITECTURES.register("bert")
class Bert(Architecture):
    """BERT: the post-norm encoder with learned positions and segments (Devlin et al. 2018)."""

    Config = BertConfig
    MODEL_TYPE = "bert"
    ABILITIES = frozenset({"encoder"})
    PREFIX = "bert."
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "BertModel",
        frozenset({"masked-lm", "next-sentence"}): "BertForPreTraining",
        frozenset({"masked-lm"}): "BertForMaskedLM",
        frozenset({"next-sentence"}): "BertForNextSentencePrediction",
        frozenset({"sequence-classification"}): "BertForSequenceClassification",
        frozenset({"token-classification"}): "BertForTokenClassification",
        frozenset({"question-answering"}): "BertForQuestionAnswering",
        frozenset({"multiple-choice"}): "BertForMultipleChoice",
    }
    _POOLED = frozenset({"next-sentence", "sequence-classification", "multiple-choice"})
    WEIGHTS = (
        same("embeddings.word_embeddings.weight", "embedding.weight"),
        same("embeddings.position_embeddings.weight", "positions.weight"),
        same("embeddings.token_type_embeddings.weight", "segments.weight"),
        *layer("embeddings.LayerNorm", "embedding_norm"),
        *fused_layer([f"{_L}attention.self.{part}" for part in ("query", "key", "value")], f"{_B}attention.qkv"),
        *layer(f"{_L}attention.output.dense", f"{_B}attention.out"),
        *layer(f"{_L}attention.output.LayerNorm", f"{_B}attention_norm"),
        *layer(f"{_L}intermediate.dense", f"{_B}up"),
        *layer(f"{_L}output.dense", f"{_B}down"),
        *layer(f"{_L}output.LayerNorm", f"{_B}norm"),
        *layer("pooler.dense", "pooler"),
    )
    HEAD_WEIGHTS: ClassVar[Mapping[str, Any]] = {
        "masked-lm": [
            *layer("cls.predictions.transform.dense", "heads.masked-lm.dense"),
            *layer("cls.predictions.transform.LayerNorm", "heads.masked-lm.norm"),
            same("cls.predictions.decoder.weight", "heads.masked-lm.weight"),
            replace(same("cls.predictions.bias", "heads.masked-lm.bias"), when="tied"),
            # Untied, the class on disk holds the bias twice and reads the decoder's.
            stored_twice(("cls.predictions.decoder.bias", "cls.predictions.bias"), "heads.masked-lm.bias", when="untied"),
        ],
        "next-sentence": layer("cls.seq_relationship", "heads.next-sentence.linear"),
        "sequence-classification": layer("classifier", "heads.sequence-classification.linear"),
        "token-classification": layer("classifier", "heads.token-classification.linear"),
        "question-answering": layer("qa_outputs", "heads.question-answering.linear"),
        "multiple-choice": layer("classifier", "heads.multiple-choice.linear"),
    }
    ALIASES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"hidden_size": d, "num_hidden_layers": n, "num_attention_heads": h, "intermediate_size": 4 * d}
        for name, n, d, h in (
            ("bert-tiny", 2, 128, 2),
            ("bert-mini", 4, 256, 4),
            ("bert-small", 4, 512, 8),
            ("bert-medium", 8, 512, 8),
            ("bert-base", 12, 768, 12),
            ("bert-large", 24, 1024, 16),
        )
    }
    TINY: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 97,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 32,
    }

    embedding: nn.Embedding

    def __init__(self, config: BertConfig, *, pooler: bool = True) -> None:
        super().__init__(config)
        d, p = config.hidden_size, config.hidden_dropout_prob
        self.embedding = nn.Embedding(config.vocab_size, d)
        self.positions = nn.Embedding(config.max_position_embeddings, d)
        self.segments = nn.Embedding(config.type_vocab_size, d)
        self.embedding_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.embedding_dropout = Dropout(p, 0)
        self.blocks = nn.ModuleList(self._block(config, 1 + i * PostNormBlock.sites) for i in range(config.num_hidden_layers))
        self.pooler: nn.Linear | None = nn.Linear(d, d) if pooler else None

    @staticmethod
    def _block(c: BertConfig, site: int) -> PostNormBlock:
        p, attention_p = c.hidden_dropout_prob, c.attention_probs_dropout_prob
        sizes = (c.hidden_size, c.num_attention_heads, c.intermediate_size)
        return PostNormBlock(*sizes, act=c.hidden_act, dropout=p, attention_dropout=attention_p, eps=c.layer_norm_eps, site=site)

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False) -> Output:
        """Encodes a batch.

        Args:
            batch: `input_ids` (B, T) int64; optional `token_type_ids` (B, T) int64, `attention_mask` (B, T) bool,
                `row_keys` (B, 2) int32: with them dropout is on, without them it is off.
            layers: also return the states of every layer.
        """
        ids = batch["input_ids"]
        row_keys, mask, segments = batch.get("row_keys"), batch.get("attention_mask"), batch.get("token_type_ids")
        x = self.embedding(ids) + self.positions.weight[: ids.shape[1]]
        x = x + (self.segments(segments) if segments is not None else self.segments.weight[0])
        x = self.embedding_dropout(self.embedding_norm(x), row_keys)
        bias = padding_bias(mask, x.dtype) if mask is not None else None
        states = [x]
        for block in self.blocks:
            x = block(x, bias, row_keys)
            states.append(x)
        pooled = torch.tanh(self.pooler(x[:, 0])) if self.pooler is not None else None
        return Output(x, pooled, tuple(states) if layers else None)

    @torch.no_grad()
    def imitate(self, seed: int) -> None:
        """Positions start as sinusoids, the heads of the first layer at the neighbours of each token, every value path as contrast.

        The last is after Trockman and Kolter 2023; what each part does to the masked-LM loss stands in docs/log.md.
        """
        std = self.config.initializer_range
        self.positions.weight.copy_(std * 2**0.5 * sinusoids(*self.positions.weight.shape))
        for i, block in enumerate(self.blocks):
            assert isinstance(block, PostNormBlock)
            contrast(block.attention, keys.key(seed, "contrast", i))
            block.down.weight.mul_(0.3)
        if self.blocks:
            look_beside(self.blocks[0].attention, self.embedding)  # type: ignore[arg-type]

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`; one dropout site past the blocks'."""
        c, site = self.config, 1 + len(self.blocks) * PostNormBlock.sites
        p = c.hidden_dropout_prob if c.classifier_dropout is None else c.classifier_dropout
        if role == "masked-lm":
            return MaskedLMHead(c.vocab_size, c.hidden_size, act=c.hidden_act, eps=c.layer_norm_eps, tied=c.tie_word_embeddings)
        widths = {"next-sentence": 2, "question-answering": 2, "multiple-choice": 1}
        if role in ("sequence-classification", "token-classification", *widths):
            plain = role in ("next-sentence", "question-answering")
            return ClassificationHead(c.hidden_size, widths.get(role, labels), 0.0 if plain else p, site)
        raise unknown("head of bert", role, self.HEAD_WEIGHTS)

    @classmethod
    def pooled(cls, roles: frozenset[str]) -> bool:
        """BertModel and the classes that classify a whole text hold the pooler."""
        return not roles or bool(roles & cls._POOLED)
