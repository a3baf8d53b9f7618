"""Transformer blocks and the activations that published configs name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.errors import unknown
from lexloom.nn.attention import SelfAttention
from lexloom.nn.cross_entropy import at_least_fp32
from lexloom.nn.dropout import Dropout

_SLOPE = 2 * (2 / math.pi) ** 0.5


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016), `gelu_new` in published configs.

    Compiled it is x · σ(2u), the same function of x, for (1 + tanh u) / 2 = σ(2u): half as long on a CPU, forward and backward.
    """
    if not torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    wide = at_least_fp32(x)
    return (wide * torch.sigmoid(_SLOPE * (wide + 0.044715 * wide * wide * wide))).to(x.dtype)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


class PostNormBlock(nn.Module):
    """One layer of the original Transformer encoder: attention and feed-forward, each followed by add and norm.

    Vaswani et al. 2017, section 3.1; dropout as in Devlin et al. 2018.
    """

    sites = 3  # dropouts in one block

    def __init__(
        self, width: int, heads: int, inner: int, *, act: str, dropout: float, attention_dropout: float, eps: float, site: int
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout=attention_dropout, site=site)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.attention_dropout, self.dropout = Dropout(dropout, site + 1), Dropout(dropout, site + 2)
        self.act = activation(act)

    def forward(self, x: Tensor, bias: Tensor | None, row_keys: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = self.attention_norm(x + self.attention_dropout(self.attention(x, bias, row_keys), row_keys))
        return self.norm(x + self.dropout(self.down(self.act(self.up(x))), row_keys))
