"""What BART and Marian have in common: the post-norm encoder–decoder Transformer (Vaswani et al. 2017), its head, its forward pass.

No architecture by itself: a subclass says how embeddings get their positions, and under which names they stand on disk.

Letters: B rows, S source tokens, T target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import unknown
from lexloom.models.base import Architecture, Output, Weight, fused_layer, layer, same
from lexloom.nn.attention import causal_bias, padding_bias
from lexloom.nn.cache import SourceCache
from lexloom.nn.dropout import Dropout
from lexloom.nn.encoder_decoder import DecoderBlock, EncoderBlock, Rates, TargetHead, decoder_inputs
from lexloom.nn.positions import places
from lexloom.nn.step import BlockStep, CrossStep, DecoderStep


class EncoderDecoderConfig(Config):
    """Sizes under the names of a published `config.json`; the defaults are those that BART and Marian share."""

    vocab_size: int = Field(ge=1)
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
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | list[int] | None
    decoder_start_token_id: int = Field(ge=0)
    forced_eos_token_id: int | list[int] | None
    is_encoder_decoder: Literal[True] = True
    tie_word_embeddings: bool = True

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        for part in ("encoder", "decoder"):
            if self.d_model % (heads := getattr(self, f"{part}_attention_heads")):
                raise ValueError(f"a d_model ({self.d_model}) that {part}_attention_heads ({heads}) divides")
        return self

    @property
    def target_size(self) -> int:
        """V of the target."""
        return self.vocab_size

    @property
    def one_embedding(self) -> bool:
        """Whether source and target are read by the same embedding."""
        return self.tie_word_embeddings


_SHARED = {"self_attn.out_proj": "attention.out", "self_attn_layer_norm": "attention_norm"}
_SHARED |= {"fc1": "up", "fc2": "down", "final_layer_norm": "norm"}
_CROSS = {"encoder_attn.q_proj": "cross.q", "encoder_attn.out_proj": "cross.out", "encoder_attn_layer_norm": "cross_norm"}


def _block(theirs: str, own: str, names: Mapping[str, str]) -> list[Weight]:
    plain = [row for their, mine in names.items() for row in layer(f"{theirs}.{their}", f"{own}.{mine}")]
    return [*fused_layer([f"{theirs}.self_attn.{part}_proj" for part in "qkv"], f"{own}.attention.qkv"), *plain]


def _flat(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensors[0].reshape(-1)]


def _row(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensors[0].reshape(1, -1)]


BLOCKS = (
    *_block("encoder.layers.{i}", "encoder.{i}", _SHARED),
    *_block("decoder.layers.{i}", "decoder.{i}", _SHARED | _CROSS),
    *fused_layer([f"decoder.layers.{{i}}.encoder_attn.{part}_proj" for part in "kv"], "decoder.{i}.cross.kv"),
)
"""The rows of a weight table for all layers."""


class EncoderDecoder(Architecture):
    """A subclass builds in `__init__` what places its embeddings, then the layers by `_stack`."""

    ABILITIES = frozenset({"encoder", "decoder", "cross-attention"})
    PREFIX = "model."
    HEAD_WEIGHTS: ClassVar[Mapping[str, Any]] = {
        "seq-to-seq": [
            same("lm_head.weight", "heads.seq-to-seq.weight"),
            Weight(("final_logits_bias",), ("heads.seq-to-seq.bias",), _flat, _row),
        ],
    }

    embedding: nn.Embedding

    def __init__(self, config: EncoderDecoderConfig, *, pooler: bool = False) -> None:
        super().__init__(config)
        c, d = config, config.d_model
        self.embedding = nn.Embedding(c.vocab_size, d)
        self.target_embedding = None if c.one_embedding else nn.Embedding(c.target_size, d)
        self.scale = d**0.5 if c.scale_embedding else 1.0

    def _stack(self) -> None:
        """Builds the layers; what a subclass has of its own stands before them in the order of the weights."""
        c, d = self.config, self.config.d_model
        self.embedding_dropout, self.target_dropout = Dropout(c.dropout, 0), Dropout(c.dropout, 1)
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

    def placed_source(self, ids: Tensor, at: Tensor) -> Tensor:
        """(B, S) ids at places (S,) -> (B, S, D), as the first layer of the encoder reads them."""
        raise NotImplementedError

    def placed_target(self, ids: Tensor, at: Tensor) -> Tensor:
        """(B, T) ids at places (T,) or (B, T) -> (B, T, D), as the first layer of the decoder reads them."""
        raise NotImplementedError

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
        x = self.placed_source(ids, places(ids, None, self.max_length))
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
        x = self.placed_target(ids, places(ids, mask, self.max_length) if cache is None else cache.enter(ids, mask))
        states = [self.target_dropout(x, row_keys)]
        bias = causal_bias(ids, mask, x.dtype) if cache is None else cache.bias()
        for i, block in enumerate(self.decoder):
            kept = () if cache is None else (cache.layer(i), cache.source(i))
            states.append(block(states[-1], bias, source, source_bias, row_keys, *kept))
        return states

    def step(self) -> DecoderStep:
        """See `Architecture.step`."""
        c, blocks = self.config, []
        heads = c.decoder_attention_heads
        block: Any
        for block in self.decoder:
            own, cross = block.attention, CrossStep(block.cross.q, block.cross.out, block.cross_norm)
            layers, scale = (block.up, block.down, block.act, False), (c.d_model // heads) ** -0.5
            blocks.append(BlockStep(block.attention_norm, [own.qkv], own.out, block.norm, *layers, scale, cross))
        positions, norm = self.target_table()
        sizes = (heads, heads, c.d_model // heads)
        return DecoderStep(blocks, self.output_embedding, positions, None, None, *sizes, self.scale, norm)

    def target_table(self) -> tuple[Tensor, nn.Module | None]:
        """(places, D), what `placed_target` adds for a place, and the norm that follows, or None."""
        raise NotImplementedError

    def cache(self, rows: int, length: int) -> SourceCache:
        """An empty cache for `rows` targets of at most `length` tokens."""
        c, weight = self.config, self.embedding.weight
        heads, slots = c.decoder_attention_heads, min(length, self.max_length)
        return SourceCache(c.decoder_layers, rows, heads, slots, c.d_model // heads, dtype=weight.dtype, device=weight.device)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`."""
        if role == "seq-to-seq":
            return TargetHead(self.config.target_size, self.config.d_model, tied=self.config.tie_word_embeddings)
        raise unknown(f"head of {self.MODEL_TYPE}", role, self.HEAD_WEIGHTS)

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
