"""BART (Lewis et al. 2019): the post-norm encoder–decoder with learned positions; and its head.

Letters: B rows, S source tokens, T target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import ConfigError, unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output, Weight, fused_layer, layer, same, stored_twice
from lexloom.nn.attention import causal_bias, padding_bias
from lexloom.nn.cache import SourceCache
from lexloom.nn.dropout import Dropout
from lexloom.nn.encoder_decoder import DecoderBlock, EncoderBlock, Rates, TargetHead, decoder_inputs
from lexloom.nn.positions import places

OFFSET = 2  # rows of the position tables that no token uses: there the padding stood in the code BART comes from


class BartConfig(Config):
    """Sizes of a BART, under the names of its published `config.json`."""

    vocab_size: int = Field(50265, ge=1)
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
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int = Field(2, ge=0)
    forced_eos_token_id: int | list[int] | None = 2
    is_encoder_decoder: Literal[True] = True
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        for part in ("encoder", "decoder"):
            if self.d_model % (heads := getattr(self, f"{part}_attention_heads")):
                raise ValueError(f"a d_model ({self.d_model}) that {part}_attention_heads ({heads}) divides")
        return self


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


@ARCHITECTURES.register("bart")
class Bart(Architecture):
    """BART: encoder and decoder that learn to restore a spoilt text (Lewis et al. 2019)."""

    Config = BartConfig
    MODEL_TYPE = "bart"
    ABILITIES = frozenset({"encoder", "decoder", "cross-attention"})
    PREFIX = "model."
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "BartModel",
        frozenset({"seq-to-seq"}): "BartForConditionalGeneration",
    }
    WEIGHTS = (
        Weight(("shared.weight",), ("embedding.weight",), when="tied"),
        # Untied, the class on disk holds three embeddings and reads two.
        stored_twice(("encoder.embed_tokens.weight", "shared.weight"), "embedding.weight", when="untied"),
        same("decoder.embed_tokens.weight", "target_embedding.weight"),
        same("encoder.embed_positions.weight", "positions.weight"),
        same("decoder.embed_positions.weight", "target_positions.weight"),
        *layer("encoder.layernorm_embedding", "embedding_norm"),
        *layer("decoder.layernorm_embedding", "target_norm"),
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
            **{"encoder_ffn_dim": 4 * d, "decoder_ffn_dim": 4 * d, "attention_dropout": 0.1, "activation_dropout": 0.1},
        }
        for name, n, d, h in (
            ("bart-tiny", 2, 128, 2),  # these two are not published: the widths of bert-tiny and bert-mini
            ("bart-mini", 4, 256, 4),
            ("bart-base", 6, 768, 12),
            ("bart-large", 12, 1024, 16),
        )
    }
    TINY: ClassVar[Mapping[str, Any]] = {
        **{"vocab_size": 97, "d_model": 24, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 3},
        **{"decoder_attention_heads": 2, "encoder_ffn_dim": 40, "decoder_ffn_dim": 32, "max_position_embeddings": 32},
        **{"attention_dropout": 0.1, "activation_dropout": 0.1},
    }

    embedding: nn.Embedding

    def __init__(self, config: BartConfig, *, pooler: bool = False) -> None:
        super().__init__(config)
        c, d = config, config.d_model
        self.embedding = nn.Embedding(c.vocab_size, d)
        self.target_embedding = None if c.tie_word_embeddings else nn.Embedding(c.vocab_size, d)
        self.positions = nn.Embedding(c.max_position_embeddings + OFFSET, d)
        self.target_positions = nn.Embedding(c.max_position_embeddings + OFFSET, d)
        self.embedding_norm, self.target_norm = nn.LayerNorm(d), nn.LayerNorm(d)
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
    def output_embedding(self) -> nn.Embedding:
        """That of the target."""
        return self.embedding if self.target_embedding is None else self.target_embedding

    @classmethod
    def fitted(cls, model: Mapping[str, Any], *, length: int, vocabulary: int, ids: Mapping[str, int | None]) -> dict[str, Any]:
        """See `Architecture.fitted`; where a tokenizer has no begin and end token, those around a text stand for them.

        Raises:
            ConfigError: the tokenizer has no end token to begin and end a target with.
        """
        ends = dict(ids)
        for role, other in (("bos", "cls"), ("eos", "sep")) if ids else ():
            ends[role] = ids.get(other) if ids.get(role) is None else ids[role]
        found = super().fitted(model, length=length, vocabulary=vocabulary, ids=ends)
        if not ids:
            return found
        if ends["eos"] is None:
            raise ConfigError(
                "bart begins and ends its target with the end token, and this tokenizer has none", hint="special_tokens: {eos: '[EOS]'}"
            )
        return found | {"decoder_start_token_id": ends["eos"], "forced_eos_token_id": ends["eos"]}

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
        x = self.embedding(ids) * self.scale + self.positions(places(ids, None, self.max_length) + OFFSET)
        states = [self.embedding_dropout(self.embedding_norm(x), row_keys)]
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
        x = self.output_embedding(ids) * self.scale + self.target_positions(at + OFFSET)
        states = [self.target_dropout(self.target_norm(x), row_keys)]
        bias = causal_bias(ids, mask, x.dtype) if cache is None else cache.bias()
        for i, block in enumerate(self.decoder):
            kept = () if cache is None else (cache.layer(i), cache.source(i))
            states.append(block(states[-1], bias, source, source_bias, row_keys, *kept))
        return states

    def cache(self, rows: int, length: int) -> SourceCache:
        """An empty cache for `rows` targets of at most `length` tokens."""
        c, weight = self.config, self.embedding.weight
        heads, slots = c.decoder_attention_heads, min(length, self.max_length)
        return SourceCache(c.decoder_layers, rows, heads, slots, c.d_model // heads, dtype=weight.dtype, device=weight.device)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`."""
        if role == "seq-to-seq":
            return TargetHead(self.config.vocab_size, self.config.d_model, tied=self.config.tie_word_embeddings)
        raise unknown("head of bart", role, self.HEAD_WEIGHTS)

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
