"""ModernBERT (Warner et al. 2024): pre-norm encoder, rotary positions, GeGLU, most layers with attention to the neighbourhood alone.

Batches are computed with what padding they have: rows of pre-training have none, and answers, batched by length, 1 to 11 %. Left out, each
batch would have a shape of its own, which costs a CPU more (docs/log.md).

Letters: B rows, T tokens, D width, V vocabulary, K labels, L layers, N any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output, Weight, layer, same
from lexloom.nn.attention import padding_bias
from lexloom.nn.block import activation
from lexloom.nn.dropout import Dropout
from lexloom.nn.glu import GatedFeedForward
from lexloom.nn.near import near_bias
from lexloom.nn.rotary import frequencies, tables
from lexloom.nn.rotary_attention import RotarySelfAttention

Reach = Literal["full_attention", "sliding_attention"]
GLOBAL, LOCAL = "full_attention", "sliding_attention"


class ModernBertConfig(Config):
    """Sizes of a ModernBERT, under the names of its published `config.json`.

    Newer folders say `layer_types` and `rope_parameters` where published ones say `global_attn_every_n_layers` and the two
    `…_rope_theta`. Both are read. The published names are written, which both understand, and `layer_types` where no such rule gives them.
    """

    vocab_size: int = Field(50368, ge=1)
    hidden_size: int = Field(768, ge=1)
    num_hidden_layers: int = Field(22, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = Field(1152, ge=1)
    hidden_activation: str = "gelu"
    max_position_embeddings: int = Field(8192, ge=1)
    global_attn_every_n_layers: int = Field(3, ge=1)
    global_rope_theta: float = Field(160_000.0, gt=0)
    local_rope_theta: float = Field(10_000.0, gt=0)
    local_attention: int = Field(128, ge=1)
    layer_types: list[Reach] | None = Field(None, exclude_if=lambda value: value is None)
    rope_parameters: None = Field(None, exclude=True)
    norm_eps: float = Field(1e-5, gt=0)
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    mlp_dropout: float = Field(0.0, ge=0, lt=1)
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_dropout: float = Field(0.0, ge=0, lt=1)
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    initializer_range: float = Field(0.02, gt=0)
    pad_token_id: int | None = 50283
    bos_token_id: int | None = 50281
    eos_token_id: int | list[int] | None = 50282
    cls_token_id: int | None = 50281
    sep_token_id: int | None = 50282
    tie_word_embeddings: bool = True

    @model_validator(mode="before")
    @classmethod
    def _of_newer_folders(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        found = {name: value for name, value in given.items() if name != "rope_parameters"}
        ropes = given.get("rope_parameters") or {}
        for reach, name in ((GLOBAL, "global_rope_theta"), (LOCAL, "local_rope_theta")):
            rope = (ropes.get(reach) if isinstance(ropes, dict) else None) or {}
            if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
                raise ValueError(f"rope_parameters with rope_type default, the only one here (got {rope} for {reach})")
            if "rope_theta" in rope:
                found[name] = rope["rope_theta"]
        if "local_rope_theta" in found and found["local_rope_theta"] is None:  # in published folders: as the global one
            found["local_rope_theta"] = found.get("global_rope_theta", cls.model_fields["global_rope_theta"].default)
        return _by_rule(found, cls.model_fields["num_hidden_layers"].default)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(f"a hidden_size ({self.hidden_size}) that gives each of {self.num_attention_heads} heads an even width")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"{self.num_hidden_layers} layer_types, one a layer (got {len(self.layer_types)})")
        return self

    def reaches(self) -> list[str]:
        """How far the attention of each layer reaches."""
        return list(self.layer_types or _every(self.global_attn_every_n_layers, self.num_hidden_layers))


def _every(n: int, layers: int) -> list[str]:
    return [LOCAL if i % n else GLOBAL for i in range(layers)]


def _by_rule(given: dict[str, Any], layers: int) -> dict[str, Any]:
    """The settings with `layer_types` as every n-th layer, where that says the same; `layers` where they do not say how many."""
    types = given.get("layer_types")
    if not isinstance(types, list) or len(types) != given.get("num_hidden_layers", layers):
        return given
    n = next((n for n in range(1, len(types) + 1) if types == _every(n, len(types))), None)
    rest = {name: value for name, value in given.items() if name != "layer_types"}
    return given if n is None else rest | {"global_attn_every_n_layers": n}


class Block(nn.Module):
    """Attention and gated feed-forward, each on normed states and added to what came in; the first layer's states are normed already."""

    sites = 3  # dropouts in one block

    def __init__(self, c: ModernBertConfig, i: int, site: int) -> None:
        super().__init__()
        d, attention_p = c.hidden_size, c.attention_dropout
        self.attention_norm = nn.LayerNorm(d, eps=c.norm_eps, bias=c.norm_bias) if i else nn.Identity()
        self.attention = RotarySelfAttention(d, c.num_attention_heads, bias=c.attention_bias, dropout=attention_p, site=site)
        self.attention_dropout = Dropout(attention_p, site + 1)
        self.norm = nn.LayerNorm(d, eps=c.norm_eps, bias=c.norm_bias)
        inner, act, p = c.intermediate_size, c.hidden_activation, c.mlp_dropout
        self.feed_forward = GatedFeedForward(d, inner, act=act, bias=c.mlp_bias, dropout=p, site=site + 2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None, row_keys: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention_dropout(self.attention(self.attention_norm(x), cos, sin, bias, row_keys), row_keys)
        return x + self.feed_forward(self.norm(x), row_keys)


class Prediction(nn.Module):
    """Dense, activation, norm: what stands before the last layer of every head. (N, D) -> (N, D)."""

    def __init__(self, c: ModernBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(c.hidden_size, c.hidden_size, bias=c.classifier_bias)
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.norm_eps, bias=c.norm_bias)
        self.act = activation(c.classifier_activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.act(self.dense(x)))


class MaskedLMHead(nn.Module):
    """Scores over the vocabulary, by the embedding's own matrix when tied."""

    def __init__(self, c: ModernBertConfig) -> None:
        super().__init__()
        self.prediction, self.tied = Prediction(c), c.tie_word_embeddings
        self.weight: nn.Parameter | Tensor = nn.Parameter(torch.empty(c.vocab_size, c.hidden_size))
        self.bias = nn.Parameter(torch.zeros(c.vocab_size)) if c.decoder_bias else None

    def tie(self, embedding: nn.Embedding) -> None:
        """Shares the embedding's matrix, unless the config unties them."""
        if self.tied:
            self.weight = embedding.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, D) states of the positions to predict -> (N, V) logits."""
        return F.linear(self.prediction(hidden), self.weight, self.bias)


class ClassificationHead(nn.Module):
    """(N, D) -> (N, K)."""

    def __init__(self, c: ModernBertConfig, labels: int, site: int) -> None:
        super().__init__()
        self.prediction, self.dropout = Prediction(c), Dropout(c.classifier_dropout, site)
        self.linear = nn.Linear(c.hidden_size, labels)

    def forward(self, x: Tensor, row_keys: Tensor | None = None) -> Tensor:
        return self.linear(self.dropout(self.prediction(x), row_keys))


def _head(role: str) -> list[Weight]:
    return [*layer("head.dense", f"heads.{role}.prediction.dense"), *layer("head.norm", f"heads.{role}.prediction.norm")]


_CLASSIFIERS = ("sequence-classification", "token-classification", "question-answering", "multiple-choice")
_BLOCK = {"attn.Wqkv": "attention.qkv", "attn.Wo": "attention.out", "attn_norm": "attention_norm"}
_BLOCK |= {"mlp_norm": "norm", "mlp.Wi": "feed_forward.up", "mlp.Wo": "feed_forward.down"}


@ARCHITECTURES.register("modernbert")
class ModernBert(Architecture):
    """ModernBERT: rotary positions, pre-norm, GeGLU, local and global attention in turn (Warner et al. 2024)."""

    Config = ModernBertConfig
    MODEL_TYPE = "modernbert"
    ABILITIES = frozenset({"encoder"})
    PREFIX = "model."
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "ModernBertModel",
        frozenset({"masked-lm"}): "ModernBertForMaskedLM",
        frozenset({"sequence-classification"}): "ModernBertForSequenceClassification",
        frozenset({"token-classification"}): "ModernBertForTokenClassification",
        frozenset({"question-answering"}): "ModernBertForQuestionAnswering",
        frozenset({"multiple-choice"}): "ModernBertForMultipleChoice",
    }
    WEIGHTS = (
        same("embeddings.tok_embeddings.weight", "embedding.weight"),
        *layer("embeddings.norm", "embedding_norm"),
        *(row for theirs, own in _BLOCK.items() for row in layer(f"layers.{{i}}.{theirs}", f"blocks.{{i}}.{own}")),
        *layer("final_norm", "final_norm"),
    )
    HEAD_WEIGHTS: ClassVar[Mapping[str, Any]] = {
        "masked-lm": [*_head("masked-lm"), *layer("decoder", "heads.masked-lm")],
        **{role: [*_head(role), *layer("classifier", f"heads.{role}.linear")] for role in _CLASSIFIERS},
    }
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"hidden_size": d, "num_hidden_layers": n, "num_attention_heads": h, "intermediate_size": inner}
        for name, n, d, h, inner in (
            ("modernbert-mini", 6, 256, 4, 384),  # not published
            ("modernbert-base", 22, 768, 12, 1152),
            ("modernbert-large", 28, 1024, 16, 2624),
        )
    }
    TINY: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 97,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "max_position_embeddings": 32,
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
        "embedding_dropout": 0.1,
        "attention_dropout": 0.1,
        "mlp_dropout": 0.1,
        "classifier_dropout": 0.1,
    }

    embedding: nn.Embedding

    def __init__(self, config: ModernBertConfig, *, pooler: bool = True) -> None:
        super().__init__(config)
        c, self.pools = config, pooler
        self.reaches = c.reaches()
        self.embedding = nn.Embedding(c.vocab_size, c.hidden_size)
        self.embedding_norm = nn.LayerNorm(c.hidden_size, eps=c.norm_eps, bias=c.norm_bias)
        self.embedding_dropout = Dropout(c.embedding_dropout, 0)
        self.blocks = nn.ModuleList(Block(c, i, 1 + i * Block.sites) for i in range(c.num_hidden_layers))
        self.final_norm = nn.LayerNorm(c.hidden_size, eps=c.norm_eps, bias=c.norm_bias)

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False) -> Output:
        """Encodes a batch.

        Args:
            batch: `input_ids` (B, T) int64; optional `attention_mask` (B, T) bool, `row_keys` (B, 2) int32: with them dropout is on,
                without them it is off.
            layers: also return the states of every layer, the last one normed.
        """
        ids, mask, row_keys = batch["input_ids"], batch.get("attention_mask"), batch.get("row_keys")
        x = self.embedding_dropout(self.embedding_norm(self.embedding(ids)), row_keys)
        seen = self._seen(ids, mask, x.dtype)
        states = [x]
        for block, reach in zip(self.blocks, self.reaches, strict=True):
            x = block(x, *seen[reach], row_keys)
            states.append(x)
        states[-1] = x = self.final_norm(x)
        return Output(x, self._pooled(x, mask) if self.pools else None, tuple(states) if layers else None)

    def _seen(self, ids: Tensor, mask: Tensor | None, dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
        """For layers of each reach: the rotary tables, and what is added to the scores."""
        c, t = self.config, ids.shape[1]
        places = torch.arange(t, device=ids.device)
        padding = padding_bias(mask, dtype) if mask is not None else None
        bias = {GLOBAL: padding, LOCAL: near_bias(t, c.local_attention // 2, mask, dtype, ids.device)}
        thetas = {GLOBAL: c.global_rope_theta, LOCAL: c.local_rope_theta}
        width = c.hidden_size // c.num_attention_heads
        return {reach: (*tables(places, frequencies(width, thetas[reach], ids.device)), bias[reach]) for reach in sorted(set(self.reaches))}

    def _pooled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, D): the first token that is no padding, or the mean of all those."""
        if self.config.classifier_pooling == "mean":
            if mask is None:
                return x.mean(1)
            real = mask[..., None].to(x.dtype)
            return (x * real).sum(1) / real.sum(1).clamp(min=1)
        if mask is None:
            return x[:, 0]
        return x[torch.arange(len(x), device=x.device), mask.int().argmax(1)]

    def spread(self, name: str) -> float:
        """Layers that add to the states start smaller, by the root of twice their number; the last ones of classifiers at 1 / √D."""
        c = self.config
        if name.endswith(".linear.weight"):
            return float(c.hidden_size**-0.5)
        adds = ("attention.out.weight", "feed_forward.down.weight", "prediction.dense.weight", "masked-lm.weight")
        return float(c.initializer_range / (2 * c.num_hidden_layers) ** 0.5 if name.endswith(adds) else c.initializer_range)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`; one dropout site past the blocks'."""
        if role == "masked-lm":
            return MaskedLMHead(self.config)
        if role in _CLASSIFIERS:
            labels = {"question-answering": 2, "multiple-choice": 1}.get(role, labels)
            return ClassificationHead(self.config, labels, 1 + len(self.blocks) * Block.sites)
        raise unknown("head of modernbert", role, self.HEAD_WEIGHTS)

    @classmethod
    def pooled(cls, roles: frozenset[str]) -> bool:
        """The classes that classify a whole text pool its states; there are no weights in that."""
        return bool(roles & {"sequence-classification", "multiple-choice"})
