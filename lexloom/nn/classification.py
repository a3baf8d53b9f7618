"""The head of a classifier, of whole texts or of their tokens."""

from __future__ import annotations

from torch import Tensor, nn

from lexloom.nn.dropout import Dropout


class ClassificationHead(nn.Module):
    """Dropout and one linear layer: (…, D) states -> (…, labels)."""

    def __init__(self, width: int, labels: int, dropout: float, site: int) -> None:
        super().__init__()
        self.dropout, self.linear = Dropout(dropout, site), nn.Linear(width, labels)

    def forward(self, x: Tensor, row_keys: Tensor | None = None) -> Tensor:
        return self.linear(self.dropout(x, row_keys))
