"""BART (Lewis et al. 2019): the encoder–decoder with learned positions, and a norm over the embeddings.

Layers, head and forward pass stand in `encoder_decoder.py`. Letters: B rows, S source tokens, T target tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from lexloom.errors import ConfigError
from lexloom.models.base import ARCHITECTURES, Weight, layer, same, stored_twice
from lexloom.models.encoder_decoder import BLOCKS, EncoderDecoder, EncoderDecoderConfig

OFFSET = 2  # rows of the position tables that no token uses: there the padding stood in the code BART comes from


class BartConfig(EncoderDecoderConfig):
    """Sizes of a BART, under the names of its published `config.json`."""

    vocab_size: int = Field(50265, ge=1)
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int = Field(2, ge=0)
    forced_eos_token_id: int | list[int] | None = 2


@ARCHITECTURES.register("bart")
class Bart(EncoderDecoder):
    """BART: encoder and decoder that learn to restore a spoilt text (Lewis et al. 2019)."""

    Config = BartConfig
    MODEL_TYPE = "bart"
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
        *BLOCKS,
    )
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

    def __init__(self, config: BartConfig, *, pooler: bool = False) -> None:
        super().__init__(config)
        rows, d = config.max_position_embeddings + OFFSET, config.d_model
        self.positions, self.target_positions = nn.Embedding(rows, d), nn.Embedding(rows, d)
        self.embedding_norm, self.target_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self._stack()

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

    def placed_source(self, ids: Tensor, at: Tensor) -> Tensor:
        """See `EncoderDecoder.placed_source`."""
        return self.embedding_norm(self.embedding(ids) * self.scale + self.positions(at + OFFSET))

    def placed_target(self, ids: Tensor, at: Tensor) -> Tensor:
        """See `EncoderDecoder.placed_target`."""
        return self.target_norm(self.output_embedding(ids) * self.scale + self.target_positions(at + OFFSET))

    def target_table(self) -> tuple[Tensor, nn.Module | None]:
        """See `EncoderDecoder.target_table`."""
        return self.target_positions.weight[OFFSET:], self.target_norm
