"""Self-attention whose queries and keys are turned by their places (Su et al. 2021).

Letters: B rows, H heads, T tokens, K head width, D = H · K.
"""

from __future__ import annotations

from torch import Tensor, nn

from lexloom.nn.dropout import Dropout
from lexloom.nn.near import attend_near
from lexloom.nn.rotary import rotate


class RotarySelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values, and rotary positions."""

    def __init__(self, width: int, heads: int, *, bias: bool, dropout: float, site: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.dropout = Dropout(dropout, site)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None, row_keys: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D); `cos` and `sin` from `rotary.tables`, `bias` as `near.attend_near` takes it."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        found = attend_near(rotate(q, cos, sin), rotate(k, cos, sin), v, bias, self.dropout, row_keys)
        return self.out(found.transpose(1, 2).reshape(b, t, d))
