"""Gated feed-forward (Shazeer 2020, "GLU Variants Improve Transformer"): GeGLU, SwiGLU and their like, by the activation."""

from __future__ import annotations

from torch import Tensor, nn

from lexloom.nn.block import activation
from lexloom.nn.dropout import Dropout


class GatedFeedForward(nn.Module):
    """down(act(a) · g), where one fused product gives both halves a and g. (…, D) -> (…, D).

    Args:
        act: `gelu` makes it GeGLU, `silu` SwiGLU.
        dropout: of the inner values, at `site`.
    """

    def __init__(self, width: int, inner: int, *, act: str, bias: bool = False, dropout: float = 0.0, site: int = 0) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * inner, bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)
        self.act, self.dropout = activation(act), Dropout(dropout, site)

    def forward(self, x: Tensor, row_keys: Tensor | None = None) -> Tensor:
        first, gate = self.up(x).chunk(2, dim=-1)
        inner: Tensor = self.act(first) * gate
        return self.down(self.dropout(inner, row_keys))
