"""Marian (Junczys-Dowmunt et al. 2018): the original encoder–decoder Transformer of Vaswani et al. 2017.

Positions are sinusoids, all sines before all cosines: the paper's values in another order. Source and target may have an embedding each.
Layers, head and forward pass stand in `encoder_decoder.py`. Letters: B rows, S source tokens, T target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom.errors import ConfigError
from lexloom.models.base import ARCHITECTURES, Weight, same, stored_twice
from lexloom.models.encoder_decoder import BLOCKS, EncoderDecoder, EncoderDecoderConfig
from lexloom.nn.positions import halved_sinusoids


class MarianConfig(EncoderDecoderConfig):
    """Sizes of a Marian, under the names of its published `config.json`."""

    vocab_size: int = Field(58101, ge=1)
    decoder_vocab_size: int | None = Field(None, ge=1)
    share_encoder_decoder_embeddings: bool = True
    pad_token_id: int | None = 58100
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 0
    decoder_start_token_id: int = Field(58100, ge=0)
    forced_eos_token_id: int | list[int] | None = 0

    @model_validator(mode="before")
    @classmethod
    def _one_vocabulary(cls, values: Any) -> Any:
        """Of two sizes that are the same by name, only one is kept: it may grow."""
        if isinstance(values, dict) and values.get("decoder_vocab_size") == values.get("vocab_size", 58101):
            return {name: value for name, value in values.items() if name != "decoder_vocab_size"}
        return values

    @model_validator(mode="after")
    def _one_embedding_of_one_size(self) -> Self:
        if self.share_encoder_decoder_embeddings and self.decoder_vocab_size is not None:
            raise ValueError(f"a decoder_vocab_size ({self.decoder_vocab_size}) only without share_encoder_decoder_embeddings")
        return self

    @property
    def target_size(self) -> int:
        """V of the target."""
        return self.decoder_vocab_size or self.vocab_size

    @property
    def one_embedding(self) -> bool:
        """See `EncoderDecoderConfig.one_embedding`."""
        return self.share_encoder_decoder_embeddings and self.tie_word_embeddings


@ARCHITECTURES.register("marian")
class Marian(EncoderDecoder):
    """Marian: the original encoder–decoder Transformer, for translation (Vaswani et al. 2017)."""

    Config = MarianConfig
    MODEL_TYPE = "marian"
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
        *BLOCKS,
    )
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

    def __init__(self, config: MarianConfig, *, pooler: bool = False) -> None:
        super().__init__(config)
        self._stack()

    @property
    def conditions(self) -> frozenset[str]:
        """See `Architecture.conditions`; how many embeddings stand on disk."""
        c = self.config
        number = "two" if not c.share_encoder_decoder_embeddings else "one" if c.tie_word_embeddings else "three"
        return super().conditions | {f"{number} embedding{'s' * (number != 'one')}"}

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

    def placed_source(self, ids: Tensor, at: Tensor) -> Tensor:
        """See `EncoderDecoder.placed_source`."""
        return self._placed(self.embedding(ids), at)

    def placed_target(self, ids: Tensor, at: Tensor) -> Tensor:
        """See `EncoderDecoder.placed_target`."""
        return self._placed(self.output_embedding(ids), at)

    def target_table(self) -> tuple[Tensor, nn.Module | None]:
        """See `EncoderDecoder.target_table`."""
        return halved_sinusoids(torch.arange(self.max_length), self.width), None

    def _placed(self, x: Tensor, at: Tensor) -> Tensor:
        return x * self.scale + halved_sinusoids(at, self.width).to(x.dtype)
