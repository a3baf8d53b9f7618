"""What is run as it is written, also inside of a compiled step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])
_WAITING: list[list[Callable[..., Any]]] = []


def eager(function: F) -> F:
    """Has the compiler leave a function alone: where shapes differ from batch to batch, or a loop would be written out step by step.

    The compiler, which takes a second to load, is told by `leave_alone`.
    """
    cell: list[Callable[..., Any]] = [function]
    _WAITING.append(cell)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        return cell[0](*arguments, **options)

    return cast(F, call)


def once(x: Tensor) -> Tensor:
    """A tensor without gradient that many operations read, made once. Compiled for a CPU, each would make it anew from what it is made of.

    A mask of tokens in the scores of attention, for one, took longer than their softmax.
    """
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting() or x.device.type != "cpu":
        return x
    found: Tensor = _once(x)
    return found


@torch.library.custom_op("lexloom::once", mutates_args=(), device_types="cpu")
def _once(x: Tensor) -> Tensor:
    return x.clone()


@_once.register_fake
def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def leave_alone() -> None:
    """To be called before anything is compiled."""
    while _WAITING:
        cell = _WAITING.pop()
        cell[0] = torch.compiler.disable(cell[0])
