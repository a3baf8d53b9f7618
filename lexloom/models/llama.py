"""Llama (Touvron et al. 2023; Grattafiori et al. 2024): pre-norm decoder with rotary positions, RMSNorm, SwiGLU and grouped heads.

Letters: B rows, T tokens, D width, H heads, G groups of heads that share keys and values, K head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output, fused_layer, layer, same
from lexloom.nn.attention import attend, causal_bias
from lexloom.nn.cache import Cache, Remember
from lexloom.nn.dropout import Dropout
from lexloom.nn.glu import GatedFeedForward
from lexloom.nn.next_token import NextTokenHead
from lexloom.nn.positions import places
from lexloom.nn.rotary import rotate, tables
from lexloom.nn.rotary_scaling import RotaryScaling
from lexloom.nn.step import BlockStep, DecoderStep


class LlamaConfig(Config):
    """Sizes of a Llama, under the names of its published `config.json`."""

    vocab_size: int = Field(32000, ge=1)
    hidden_size: int = Field(4096, ge=1)
    intermediate_size: int = Field(11008, ge=1)
    num_hidden_layers: int = Field(32, ge=1)
    num_attention_heads: int = Field(32, ge=1)
    num_key_value_heads: int | None = Field(None, ge=1)
    head_dim: int | None = Field(None, ge=2)
    hidden_act: str = "silu"
    max_position_embeddings: int = Field(2048, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    rms_norm_eps: float = Field(1e-6, gt=0)
    rope_theta: float = Field(10000.0, gt=1)
    rope_scaling: RotaryScaling | None = None
    # How newer folders say the two above. Folders are written with those, which all versions of `transformers` read.
    rope_parameters: None = Field(None, exclude=True)
    attention_bias: bool = False
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    mlp_bias: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = None
    tie_word_embeddings: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, values: Any) -> Any:
        """`rope_parameters` as `rope_theta` and `rope_scaling`, whose kind was once called `type`."""
        if not isinstance(values, dict):
            return values
        found = {name: value for name, value in values.items() if name != "rope_parameters"}
        scaling = values.get("rope_scaling") or values.get("rope_parameters")
        if isinstance(scaling, dict):
            kind = scaling.get("rope_type", scaling.get("type", "default"))
            scaling = {"rope_type": kind} | {name: value for name, value in scaling.items() if name not in ("rope_type", "type")}
            if (theta := scaling.pop("rope_theta", None)) is not None:
                found["rope_theta"] = theta
            if unknown := sorted(set(scaling) - set(RotaryScaling.model_fields)):
                raise ValueError(f"rotary positions without {' and '.join(unknown)}")
            found["rope_scaling"] = None if scaling == {"rope_type": "default"} else scaling
        return found

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"a hidden_size ({self.hidden_size}) that num_attention_heads ({self.num_attention_heads}) divides")
        if self.num_attention_heads % self.groups:
            raise ValueError(f"num_attention_heads ({self.num_attention_heads}) that num_key_value_heads ({self.groups}) divides")
        if self.head_width % 2:
            raise ValueError(f"heads of even width for rotary positions, not {self.head_width}")
        return self

    @property
    def groups(self) -> int:
        """G."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_width(self) -> int:
        """K."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


class GroupedAttention(nn.Module):
    """Causal self-attention in which groups of heads share keys and values (Ainslie et al. 2023), under rotary positions."""

    def __init__(self, c: LlamaConfig, site: int) -> None:
        super().__init__()
        self.heads, self.groups, self.head_width = c.num_attention_heads, c.groups, c.head_width
        self.q = nn.Linear(c.hidden_size, self.heads * c.head_width, bias=c.attention_bias)
        self.kv = nn.Linear(c.hidden_size, 2 * self.groups * c.head_width, bias=c.attention_bias)
        self.out = nn.Linear(self.heads * c.head_width, c.hidden_size, bias=c.attention_bias)
        self.dropout = Dropout(c.attention_dropout, site)

    def forward(
        self, x: Tensor, turned: tuple[Tensor, Tensor], bias: Tensor | None, row_keys: Tensor | None, remember: Remember | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); `turned` is cosines and sines of the tokens' places."""
        b, t, _ = x.shape
        q = self.q(x).view(b, t, self.heads, self.head_width).transpose(1, 2)
        k, v = self.kv(x).view(b, t, 2, self.groups, self.head_width).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, *turned), rotate(k, *turned)
        if remember is not None:
            k, v = remember(k, v)
        seen = attend(q, k, v, bias, self.dropout, row_keys, causal=bias is None)
        return self.out(seen.transpose(1, 2).reshape(b, t, -1))


class LlamaBlock(nn.Module):
    """One layer: norm, attention and add; norm, gated feed-forward and add."""

    sites = 2  # dropouts in one block; published networks have none in the feed-forward

    def __init__(self, c: LlamaConfig, site: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.attention = GroupedAttention(c, site)
        self.norm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.mlp = GatedFeedForward(c.hidden_size, c.intermediate_size, act=c.hidden_act, bias=c.mlp_bias, site=site + 1)

    def forward(
        self, x: Tensor, turned: tuple[Tensor, Tensor], bias: Tensor | None, row_keys: Tensor | None, remember: Remember | None = None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), turned, bias, row_keys, remember)
        return x + self.mlp(self.norm(x), row_keys)


_L, _B = "layers.{i}.", "blocks.{i}."


@ARCHITECTURES.register("llama")
class Llama(Architecture):
    """Llama: the pre-norm decoder with rotary positions, RMSNorm, SwiGLU and grouped heads (Touvron et al. 2023)."""

    Config = LlamaConfig
    MODEL_TYPE = "llama"
    ABILITIES = frozenset({"decoder"})
    PREFIX = "model."
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "LlamaModel",
        frozenset({"causal-lm"}): "LlamaForCausalLM",
    }
    WEIGHTS = (
        same("embed_tokens.weight", "embedding.weight"),
        same(f"{_L}input_layernorm.weight", f"{_B}attention_norm.weight"),
        *layer(f"{_L}self_attn.q_proj", f"{_B}attention.q"),
        *fused_layer([f"{_L}self_attn.{part}_proj" for part in "kv"], f"{_B}attention.kv"),
        *layer(f"{_L}self_attn.o_proj", f"{_B}attention.out"),
        same(f"{_L}post_attention_layernorm.weight", f"{_B}norm.weight"),
        *fused_layer([f"{_L}mlp.{part}_proj" for part in ("gate", "up")], f"{_B}mlp.up"),
        *layer(f"{_L}mlp.down_proj", f"{_B}mlp.down"),
        same("norm.weight", "norm.weight"),
    )
    HEAD_WEIGHTS: ClassVar[Mapping[str, Any]] = {"causal-lm": [same("lm_head.weight", "heads.causal-lm.weight")]}
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "llama-mini": {
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
        "llama-3.2-1b": {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            "tie_word_embeddings": True,
        },
        "llama-3-8b": {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
        },
    }
    TINY: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 97,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "attention_dropout": 0.1,
    }

    embedding: nn.Embedding

    def __init__(self, config: LlamaConfig, *, pooler: bool = False) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(LlamaBlock(config, i * LlamaBlock.sites) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        scaling = config.rope_scaling or RotaryScaling(rope_type="default")
        # No buffer: it stays in float32 where the network does not, and on the CPU where the network has no storage yet.
        self._turns, self._scale = scaling.turns(config.head_width, config.rope_theta, config.max_position_embeddings)

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False, cache: Cache | None = None) -> Output:
        """Reads a batch, or the next tokens of one whose past a cache holds.

        Args:
            batch: `input_ids` (B, T) int64; optional `attention_mask` (B, T) bool, whose padding may stand before or behind a row, and
                `row_keys` (B, 2) int32: with them dropout is on, without them it is off.
            layers: also return the states of every layer; the last ones are those after the last norm.
            cache: is read and filled.
        """
        ids, mask, row_keys = batch["input_ids"], batch.get("attention_mask"), batch.get("row_keys")
        at = places(ids, mask, self.max_length) if cache is None else cache.enter(ids, mask)
        x = self.embedding(ids)
        turned = tables(at, self._turns.to(ids.device), self._scale)
        bias = causal_bias(ids, mask, x.dtype) if cache is None else cache.bias()
        states = [x]
        for i, block in enumerate(self.blocks):
            x = block(x, turned, bias, row_keys, cache.layer(i) if cache is not None else None)
            states.append(x)
        states[-1] = self.norm(x)
        return Output(states[-1], None, tuple(states) if layers else None)

    def step(self) -> DecoderStep:
        """See `Architecture.step`."""
        c, blocks = self.config, []
        block: Any
        for block in self.blocks:
            attention, mlp = block.attention, block.mlp
            projections, scale = [attention.q, attention.kv], c.head_width**-0.5
            blocks.append(BlockStep(block.attention_norm, projections, attention.out, block.norm, mlp.up, mlp.down, mlp.act, True, scale))
        turned = partial(tables, turns=self._turns, scale=self._scale)
        return DecoderStep(blocks, self.embedding, None, turned, self.norm, c.num_attention_heads, c.groups, c.head_width)

    def cache(self, rows: int, length: int) -> Cache:
        """An empty cache for `rows` texts of at most `length` tokens."""
        c, weight = self.config, self.embedding.weight
        slots = min(length, c.max_position_embeddings)
        return Cache(c.num_hidden_layers, rows, c.groups, slots, c.head_width, dtype=weight.dtype, device=weight.device)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`."""
        if role == "causal-lm":
            return NextTokenHead(self.config.vocab_size, self.config.hidden_size, tied=self.config.tie_word_embeddings)
        raise unknown("head of llama", role, self.HEAD_WEIGHTS)
