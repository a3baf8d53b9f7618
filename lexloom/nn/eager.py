"""What is run as it is written, also inside of a compiled step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

F = TypeVar("F", bound=Callable[..., object])


def eager(function: F) -> F:
    """Has the compiler leave a function alone: where shapes differ from batch to batch, or a loop would be written out step by step."""
    found: F = torch.compiler.disable(function)
    return found
