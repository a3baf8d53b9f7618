"""GPT-2 (Radford et al. 2019): pre-norm decoder with learned positions; and its head.

Letters: B rows, T tokens, D width, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Output, Weight, layer, same
from lexloom.nn.attention import attend, causal_bias
from lexloom.nn.block import activation
from lexloom.nn.cache import Cache, Remember
from lexloom.nn.dropout import Dropout
from lexloom.nn.next_token import NextTokenHead
from lexloom.nn.positions import places
from lexloom.nn.step import BlockStep, DecoderStep

# What `transformers` takes too, and what recipes call these sizes whatever the architecture.
_OTHER_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}


def _by_own_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes under the names of GPT-2; of two names for one the later counts."""
    return {_OTHER_NAMES.get(name, name): value for name, value in values.items()}


class GPT2Config(Config):
    """Sizes of a GPT-2, under the names of its published `config.json`."""

    vocab_size: int = Field(50257, ge=1)
    n_positions: int = Field(1024, ge=1)
    n_embd: int = Field(768, ge=1)
    n_layer: int = Field(12, ge=1)
    n_head: int = Field(12, ge=1)
    n_inner: int | None = Field(None, ge=1)
    activation_function: str = "gelu_new"
    resid_pdrop: float = Field(0.1, ge=0, lt=1)
    embd_pdrop: float = Field(0.1, ge=0, lt=1)
    attn_pdrop: float = Field(0.1, ge=0, lt=1)
    layer_norm_epsilon: float = Field(1e-5, gt=0)
    initializer_range: float = Field(0.02, gt=0)
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True

    @model_validator(mode="before")
    @classmethod
    def _by_other_names(cls, values: Any) -> Any:
        return _by_own_names(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.n_embd % self.n_head:
            raise ValueError(f"an n_embd ({self.n_embd}) that n_head ({self.n_head}) divides")
        return self

    @property
    def inner(self) -> int:
        """Width of the feed-forward layer."""
        return self.n_inner or 4 * self.n_embd


class CausalAttention(nn.Module):
    """Multi-head self-attention that sees what stands before, with one fused projection."""

    def __init__(self, c: GPT2Config, layer: int, site: int) -> None:
        super().__init__()
        self.heads = c.n_head
        self.scale = ((c.n_embd // c.n_head) ** -0.5 if c.scale_attn_weights else 1.0) / (
            layer + 1 if c.scale_attn_by_inverse_layer_idx else 1
        )
        self.qkv = nn.Linear(c.n_embd, 3 * c.n_embd)
        self.out = nn.Linear(c.n_embd, c.n_embd)
        self.dropout = Dropout(c.attn_pdrop, site)

    def forward(self, x: Tensor, bias: Tensor | None, row_keys: Tensor | None, remember: Remember | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if remember is not None:
            k, v = remember(k, v)
        seen = attend(q, k, v, bias, self.dropout, row_keys, scale=self.scale, causal=bias is None)
        return self.out(seen.transpose(1, 2).reshape(b, t, d))


class PreNormBlock(nn.Module):
    """One layer: norm, attention and add; norm, feed-forward and add."""

    sites = 3  # dropouts in one block

    def __init__(self, c: GPT2Config, layer: int, site: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(c.n_embd, eps=c.layer_norm_epsilon)
        self.attention = CausalAttention(c, layer, site)
        self.norm = nn.LayerNorm(c.n_embd, eps=c.layer_norm_epsilon)
        self.up, self.down = nn.Linear(c.n_embd, c.inner), nn.Linear(c.inner, c.n_embd)
        self.attention_dropout, self.dropout = Dropout(c.resid_pdrop, site + 1), Dropout(c.resid_pdrop, site + 2)
        self.act = activation(c.activation_function)

    def forward(self, x: Tensor, bias: Tensor | None, row_keys: Tensor | None, remember: Remember | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention_dropout(self.attention(self.attention_norm(x), bias, row_keys, remember), row_keys)
        return x + self.dropout(self.down(self.act(self.up(self.norm(x)))), row_keys)


def _turned(tensors: Any) -> list[Tensor]:
    return [tensors[0].T]


def _linear(theirs: str, own: str) -> tuple[Weight, Weight]:
    """A layer that is stored as a convolution of width 1: (in, out) where ours is (out, in)."""
    return Weight((f"{theirs}.weight",), (f"{own}.weight",), _turned, _turned), same(f"{theirs}.bias", f"{own}.bias")


@ARCHITECTURES.register("gpt2")
class GPT2(Architecture):
    """GPT-2: the pre-norm decoder with learned positions (Radford et al. 2019)."""

    Config = GPT2Config
    MODEL_TYPE = "gpt2"
    ABILITIES = frozenset({"decoder"})
    PREFIX = "transformer."
    ROLES: ClassVar[Mapping[frozenset[str], str]] = {
        frozenset(): "GPT2Model",
        frozenset({"causal-lm"}): "GPT2LMHeadModel",
    }
    WEIGHTS = (
        same("wte.weight", "embedding.weight"),
        same("wpe.weight", "positions.weight"),
        *layer("h.{i}.ln_1", "blocks.{i}.attention_norm"),
        *_linear("h.{i}.attn.c_attn", "blocks.{i}.attention.qkv"),
        *_linear("h.{i}.attn.c_proj", "blocks.{i}.attention.out"),
        *layer("h.{i}.ln_2", "blocks.{i}.norm"),
        *_linear("h.{i}.mlp.c_fc", "blocks.{i}.up"),
        *_linear("h.{i}.mlp.c_proj", "blocks.{i}.down"),
        *layer("ln_f", "norm"),
    )
    HEAD_WEIGHTS: ClassVar[Mapping[str, Any]] = {"causal-lm": [same("lm_head.weight", "heads.causal-lm.weight")]}
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"n_embd": d, "n_layer": n, "n_head": h}
        for name, n, d, h in (
            ("gpt-mini", 6, 384, 6),
            ("distilgpt2", 6, 768, 12),
            ("gpt2-small", 12, 768, 12),
            ("gpt2-medium", 24, 1024, 16),
            ("gpt2-large", 36, 1280, 20),
            ("gpt2-xl", 48, 1600, 25),
        )
    }
    TINY: ClassVar[Mapping[str, Any]] = {"vocab_size": 97, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_inner": 40}

    embedding: nn.Embedding

    def __init__(self, config: GPT2Config, *, pooler: bool = False) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.n_positions, config.n_embd)
        self.embedding_dropout = Dropout(config.embd_pdrop, 0)
        self.blocks = nn.ModuleList(PreNormBlock(config, i, 1 + i * PreNormBlock.sites) for i in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    @classmethod
    def fitted(cls, model: Mapping[str, Any], *, length: int, vocabulary: int, ids: Mapping[str, int | None]) -> dict[str, Any]:
        """See `Architecture.fitted`; what the recipe says of positions counts under either name."""
        return super().fitted(_by_own_names(model), length=length, vocabulary=vocabulary, ids=ids)

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
        x = self.embedding_dropout(self.embedding(ids) + self.positions(at), row_keys)
        bias = causal_bias(ids, mask, x.dtype) if cache is None else cache.bias()
        states = [x]
        for i, block in enumerate(self.blocks):
            x = block(x, bias, row_keys, cache.layer(i) if cache is not None else None)
            states.append(x)
        states[-1] = self.norm(x)
        return Output(states[-1], None, tuple(states) if layers else None)

    def step(self) -> DecoderStep:
        """See `Architecture.step`."""
        c, blocks = self.config, []
        block: Any
        for block in self.blocks:
            norms, own, layers = (block.attention_norm, block.norm), block.attention, (block.up, block.down)
            blocks.append(BlockStep(norms[0], [own.qkv], own.out, norms[1], *layers, block.act, False, own.scale))
        return DecoderStep(blocks, self.embedding, self.positions.weight, None, self.norm, c.n_head, c.n_head, c.n_embd // c.n_head)

    def cache(self, rows: int, length: int) -> Cache:
        """An empty cache for `rows` texts of at most `length` tokens."""
        c, weight = self.config, self.embedding.weight
        slots = min(length, c.n_positions)
        return Cache(c.n_layer, rows, c.n_head, slots, c.n_embd // c.n_head, dtype=weight.dtype, device=weight.device)

    def head(self, role: str, labels: int) -> nn.Module:
        """A head for `role`."""
        if role == "causal-lm":
            return NextTokenHead(self.config.vocab_size, self.config.n_embd, tied=self.config.tie_word_embeddings)
        raise unknown("head of gpt2", role, self.HEAD_WEIGHTS)

    def spread(self, name: str) -> float:
        """What layers add to their sum starts smaller, by the root of how many terms there are (Radford et al. 2019, section 2.3)."""
        terms = 2 * self.config.n_layer if name.endswith((".attention.out.weight", ".down.weight")) else 1
        return float(self.config.initializer_range * terms**-0.5)

    @property
    def width(self) -> int:
        """D."""
        return int(self.config.n_embd)

    @property
    def max_length(self) -> int:
        """As many tokens as there are position embeddings."""
        return int(self.config.n_positions)
