"""Every matrix product of a pre-training step, forward and both gradients: what no step can be faster than on this machine."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from _bert import Size
from torch import Tensor

from lexloom import compute


@dataclass(frozen=True)
class Product:
    """A matrix product of a step.

    Attributes:
        times: in a step. left, right: shapes of what is multiplied. turned: which of the two lies transposed in memory in a step.
    """

    name: str
    times: int
    left: tuple[int, ...]
    right: tuple[int, ...]
    turned: tuple[bool, bool]

    def operands(self, dtype: torch.dtype, *, lie: bool) -> tuple[Tensor, Tensor]:
        """Random ones, as they lie in a step, or both contiguous, which is what the library likes best."""
        return _random(self.left, dtype, lie and self.turned[0]), _random(self.right, dtype, lie and self.turned[1])


def _random(shape: tuple[int, ...], dtype: torch.dtype, turned: bool) -> Tensor:
    return torch.randn(*shape[:-2], shape[-1], shape[-2], dtype=dtype).mT if turned else torch.randn(shape, dtype=dtype)


def products(size: Size) -> Iterator[Product]:
    """Of each linear layer three, of attention six batched ones."""
    n, d = size.tokens, size.width
    linear = [("qkv", size.layers, n, d, 3 * d), ("attention out", size.layers, n, d, d), ("up", size.layers, n, d, 4 * d)]
    linear += [("down", size.layers, n, 4 * d, d), *((name, 1, *shape) for name, *shape in size.head())]
    for name, times, rows, inner, outer in linear:
        yield Product(f"{name}, forward", times, (rows, inner), (inner, outer), (False, True))
        yield Product(f"{name}, gradient of input", times, (rows, outer), (outer, inner), (False, False))
        yield Product(f"{name}, gradient of weight", times, (outer, rows), (rows, inner), (True, False))
    groups, t, k = size.rows * size.heads, size.length, size.width // size.heads
    yield Product("scores and one like it", 2 * size.layers, (groups, t, k), (groups, k, t), (False, True))
    yield Product("context and one like it", 2 * size.layers, (groups, t, t), (groups, t, k), (False, False))
    yield Product("two like it, turned", 2 * size.layers, (groups, t, t), (groups, t, k), (True, False))


def milliseconds(product: Product, dtype: torch.dtype, *, lie: bool, repeats: int = 15) -> float:
    """Median time of one product."""
    a, b = product.operands(dtype, lie=lie)
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        a @ b
        found.append(time.perf_counter() - began)
    return 1e3 * statistics.median(found[3:])


class Floor:
    """The products of a step alone, one after the other.

    Args:
        size: the fields of the `Size` of the module `sized`.
        lie: with operands as they lie in a step, some of them transposed; else all contiguous.
    """

    def __init__(self, size: Mapping[str, Any], sized: str = "_bert", lie: bool = False) -> None:
        chosen = compute.for_inference(dtype="auto")
        chosen.apply()
        wanted = importlib.import_module(sized).Size(**size)
        self.work = [(product.times, *product.operands(chosen.torch_dtype, lie=lie)) for product in products(wanted)]

    def steps(self, n: int) -> float:
        """Seconds of `n` steps' products."""
        began = time.perf_counter()
        for times, left, right in self.work:
            for _ in range(n * times):
                left @ right
        return time.perf_counter() - began
