"""Marian (Junczys-Dowmunt et al. 2018): the original encoder–decoder Transformer of Vaswani et al. 2017; and its head.

Positions are sinusoids, all sines before all cosines: the paper's values in another order. Source and target may have an embedding each.

Letters: B rows, S source tokens, T target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import ConfigError, unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output, Weight, fused_layer, layer, same, stored_twice
from lexloom.nn.attention import causal_bias, padding_bias
from lexloom.nn.cache import SourceCache
from lexloom.nn.dropout import Dropout
from lexloom.nn.encoder_decoder import DecoderBlock, EncoderBlock, Rates, TargetHead, decoder_inputs
from lexloom.nn.positions import halved_sinusoids, places


class MarianConfig(Config):
    """Sizes of a Marian, under the names of its published `config.json`."""

    vocab_size: int = Field(58101, ge=1)
    decoder_vocab_size: int | None = Field(None, ge=1)
    d_model: int = Field(1024, ge=1)
    encoder_layers: int = Field(12, ge=1)
    decoder_layers: int = Field(12, ge=1)
    encoder_attention_heads: int = Field(16, ge=1)
    decoder_attention_heads: int = Field(16, ge=1)
    encoder_ffn_dim: int = Field(4096, ge=1)
    decoder_ffn_dim: int = Field(4096, ge=1)
    max_position_embeddings: int = Field(1024, ge=1)
    activation_function: str = "gelu"
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    activation_dropout: float = Field(0.0, ge=0, lt=1)
    init_std: float = Field(0.02, gt=0)
    scale_embedding: bool = False
    share_encoder_decoder_embeddings: bool = True
    pad_token_id: int | None = 58100
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 0
    decoder_start_token_id: int = Field(58100, ge=0)
    forced_eos_token_id: int | list[int] | None = 0
    is_encoder_decoder: Literal[True] = True
    tie_word_embeddings: bool = True

    @model_validator(mode="before")
    @classmethod
    def _one_vocabulary(cls, values: Any) -> Any:
        """Of two sizes that are the same by name, only one is kept: it may grow."""
        if isinstance(values, dict) and values.get("decoder_vocab_size") == values.get("vocab_size", 58101):
            return {name: value for name, value in values.items() if name != "decoder_vocab_size"}
        return values

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        for part in ("encoder", "decoder"):
            if self.d_model % (heads := getattr(self, f"{part}_attention_heads")):
                raise ValueError(f"a d_model ({self.d_model}) that {part}_attention_heads ({heads}) divides")
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size is not None:
            raise ValueError(f"a decoder_vocab_size ({self.decoder_vocab_size}) only without share_encoder_decoder_embeddings")
        return self

    @property
    def target_size(self) -> int:
        """V of the target."""
        return self.decoder_vocab_size or self.vocab_size


def _flat(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensors[0].reshape(-1)]


def _row(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensors[0].reshape(1, -1)]


_SHARED = {"self_attn.out_proj": "attention.out", "self_attn_layer_norm": "attention_norm"}
_SHARED |= {"fc1": "up", "fc2": "down", "final_layer_norm": "norm"}
_CROSS = {"encoder_attn.q_proj": "cross.q", "encoder_attn.out_proj": "cross.out", "encoder_attn_layer_norm": "cross_norm"}


def _fused(theirs: str, parts: str, own: str) -> list[Weight]:
    return fused_layer([f"{theirs}.{part}_proj" for part in parts], own)


def _block(theirs: str, own: str, names: Mapping[str, str]) -> list[Weight]:
    plain = [row for their, mine in names.items() for row in layer(f"{theirs}.{their}", f"{own}.{mine}")]
    return [*_fused(f"{theirs}.self_attn", "qkv", f"{own}.attention.qkv"), *plain]


@ARCHITECTURES.register("marian")
class Marian(Architecture):
    """Marian: the original encoder–decoder Transformer, for translation (Vaswani et al. 2017)."""

    Config = MarianConfig
    MODEL_TYPE = "marian"
    ABILITIES = frozenset({"encoder", "decoder", "cross-attention"})
    PREFIX = "model."
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "MarianModel",
        frozenset({"seq-to-seq"}): "MarianMTModel",
    }
    WEIGHTS = (
        Weight(("shared.weight",), ("embedding.weight",), when="one embedding"),
        # Shared and yet untied, the class on disk holds three embeddings and reads two.
        stored_twice(("encoder.embed_tokens.weight", "shared.weight"), "embedding.weight", when="three embeddings"),
        Weight(("encoder.embed_tokens.weight",), ("embedding.weight",), when="two embeddings"),
        same("decoder.embed_tokens.weight", "target_embedding.weight"),
        *_block("encoder.layers.{i}", "encoder.{i}", _SHARED),
        *_block("decoder.layers.{i}", "decoder.{i}", _SHARED | _CROSS),
        *_fused("decoder.layers.{i}.encoder_attn", "kv", "decoder.{i}.cross.kv"),
    )
    HEAD_WEIGHTS: ClassVar[Mapping[str, Any]] = {
        "seq-to-seq": [
            same("lm_head.weight", "heads.seq-to-seq.weight"),
            Weight(("final_logits_bias",), ("heads.seq-to-seq.bias",), _flat, _row),
        ],
    }
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {
            **{"d_model": d, "encoder_layers": n, "decoder_layers": n, "encoder_attention_heads": h, "decoder_attention_heads": h},
            **{"encoder_ffn_dim": 4 * d, "decoder_ffn_dim": 4 * d, "activation_function": act, "dropout": p, "scale_embedding": True},
            "max_position_embeddings": 512,
        }
        for name, n, d, h, act, p in (
            ("marian-tiny", 2, 128, 2, "relu", 0.1),  # not published
            ("marian-base", 6, 512, 8, "relu", 0.1),  # these two: Vaswani et al. 2017, table 3
            ("marian-big", 6, 1024, 16, "relu", 0.3),
            ("opus-mt", 6, 512, 8, "swish", 0.1),
        )
    }
    TINY: ClassVar[Mapping[str, Any]] = {
        **{"vocab_size": 97, "d_model": 24, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 3},
        **{"decoder_attention_heads": 2, "encoder_ffn_dim": 40, "decoder_ffn_dim": 32, "max_position_embeddings": 32},
        **{"attention_dropout": 0.1, "activation_dropout": 0.1, "scale_embedding": True},
        **{"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0, "forced_eos_token_id": 2},
    }

    embedding: nn.Embedding

    def __init__(self, config: MarianConfig, *, pooler: bool = False) -> None:
        super().__init__(config)
        c, d = config, config.d_model
        one = c.share_encoder_decoder_embeddings and c.tie_word_embeddings
        self.embedding = nn.Embedding(c.vocab_size, d)
        self.target_embedding = None if one else nn.Embedding(c.target_size, d)
        self.embedding_dropout, self.target_dropout = Dropout(c.dropout, 0), Dropout(c.dropout, 1)
        self.scale = d**0.5 if c.scale_embedding else 1.0
        common: Any = {"act": c.activation_function, "rates": Rates(c.dropout, c.attention_dropout, c.activation_dropout)}
        sizes = (d, c.encoder_attention_heads, c.encoder_ffn_dim)
        self.encoder = nn.ModuleList(EncoderBlock(*sizes, **common, site=2 + i * EncoderBlock.sites) for i in range(c.encoder_layers))
        sizes, site = (d, c.decoder_attention_heads, c.decoder_ffn_dim), 2 + c.encoder_layers * EncoderBlock.sites
        self.decoder = nn.ModuleList(DecoderBlock(*sizes, **common, site=site + i * DecoderBlock.sites) for i in range(c.decoder_layers))

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        """Those of the encoder, then those of the decoder."""
        return nn.ModuleList([*self.encoder, *self.decoder])

    @property
    def conditions(self) -> frozenset[str]:
        """See `Architecture.conditions`; how many embeddings stand on disk."""
        c = self.config
        number = "two" if not c.share_encoder_decoder_embeddings else "one" if c.tie_word_embeddings else "three"
        return super().conditions | {f"{number} embedding{'s' * (number != 'one')}"}

    @property
    def output_embedding(self) -> nn.Embedding:
        """That of the target."""
        return self.embedding if self.target_embedding is None else self.target_embedding

    def fixed(self) -> dict[str, Tensor]:
        """The positions, which the bare class stores for encoder and decoder."""
        table = halved_sinusoids(torch.arange(self.max_length), self.width)
        return {"encoder.embed_positions.weight": table, "decoder.embed_positions.weight": table.clone()}

    @classmethod
    def fitted(cls, model: Mapping[str, Any], *, length: int, vocabulary: int, ids: Mapping[str, int | None]) -> dict[str, Any]:
        """See `Architecture.fitted`; a target begins with the padding token; without an end token, what ends a text stands for it.

        Raises:
            ConfigError: the tokenizer has no padding token, or nothing that ends a text.
        """
        ends = {**ids, "eos": ids.get("sep") if ids.get("eos") is None else ids["eos"]} if ids else {}
        found = super().fitted(model, length=length, vocabulary=vocabulary, ids=ends)
        for role, what in (
            (("pad", "begins its target with the padding token"), ("eos", "ends its target with the end token")) if ids else ()
        ):
            if ends.get(role) is None:
                raise ConfigError(f"marian {what}, and this tokenizer has none", hint=f"special_tokens: {{{role}: '[{role.upper()}]'}}")
        return found | ({"decoder_start_token_id": ends["pad"], "forced_eos_token_id": ends["eos"]} if ids else {})

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False, cache: SourceCache | None = None) -> Output:
        """Reads a source and, knowing it, a target; or the next tokens of a target whose past a cache holds.

        Args:
            batch: `input_ids` (B, S) int64 of the source, without which a cache has read it; optional `attention_mask` (B, S) bool,
                `row_keys` (B, 2) int32: with them dropout is on. The target is what `decoder_inputs` makes of the batch. Padding may
                stand before or behind a row; the source's positions count it, as in `transformers`, the target's do not.
            layers: also return the states of every layer.
            cache: is read and filled.
        """
        row_keys = batch.get("row_keys")
        encoded: list[Tensor] = []
        if cache is None or cache.begins("input_ids" in batch):
            encoded, bias = self._encode(batch["input_ids"], batch.get("attention_mask"), row_keys)
            if cache is not None:
                cache.source_bias = bias
        else:
            bias = cache.source_bias
        states = self._decode(batch, encoded[-1] if encoded else None, bias, row_keys, cache)
        found = Output(states[-1], encoder=encoded[-1] if encoded else None)
        if layers:
            found.layers, found.encoder_layers = tuple(states), tuple(encoded)
        return found

    def _encode(self, ids: Tensor, mask: Tensor | None, row_keys: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        """The states of every layer, and what keeps padding from being seen."""
        x = self._placed(self.embedding(ids), places(ids, None, self.max_length))
        states = [self.embedding_dropout(x, row_keys)]
        bias = padding_bias(mask, x.dtype) if mask is not None else None
        for block in self.encoder:
            states.append(block(states[-1], bias, row_keys))
        return states, bias

    def _decode(
        self,
        batch: Mapping[str, Tensor],
        source: Tensor | None,
        source_bias: Tensor | None,
        row_keys: Tensor | None,
        cache: SourceCache | None,
    ) -> list[Tensor]:
        """The states of every layer."""
        ids, mask = decoder_inputs(batch, self.config.decoder_start_token_id)
        at = places(ids, mask, self.max_length) if cache is None else cache.enter(ids, mask)
        x = self._placed(self.output_embedding(ids), at)
        states = [self.target_dropout(x, row_keys)]
        bias = causal_bias(ids, mask, x.dtype) if cache is None else cache.bias()
        for i, block in enumerate(self.decoder):
            kept = () if cache is None else (cache.layer(i), cache.source(i))
            states.append(block(states[-1], bias, source, source_bias, row_keys, *kept))
        return states

    def _placed(self, x: Tensor, at: Tensor) -> Tensor:
        """(B, T, D) embeddings at places (T,) or (B, T), as the first layer reads them."""
        return x * self.scale + halved_sinusoids(at, self.width).to(x.dtype)

    def cache(self, rows: int, length: int) -> SourceCache:
        """An empty cache for `rows` targets of at most `length` tokens."""
        c, weight = self.config, self.embedding.weight
        heads, slots = c.decoder_attention_heads, min(length, self.max_length)
        return SourceCache(c.decoder_layers, rows, heads, slots, c.d_model // heads, dtype=weight.dtype, device=weight.device)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`."""
        if role == "seq-to-seq":
            return TargetHead(self.config.target_size, self.config.d_model, tied=self.config.tie_word_embeddings)
        raise unknown("head of marian", role, self.HEAD_WEIGHTS)

    def spread(self, name: str) -> float:
        """The same for all weights."""
        return float(self.config.init_std)

    @property
    def depth(self) -> int:
        """Of the decoder."""
        return len(self.decoder)

    @property
    def width(self) -> int:
        """D."""
        return int(self.config.d_model)

    @property
    def max_length(self) -> int:
        """Of source and target each."""
        return int(self.config.max_position_embeddings)

    @classmethod
    def pooled(cls, roles: frozenset[str]) -> bool:
        """There is no pooler."""
        return False
