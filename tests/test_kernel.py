"""Kernels are compiled where nothing can be kept, too, and use no more threads than PyTorch."""

from __future__ import annotations

import types

import numba
import torch

from lexloom.compute import kernel, share_threads


def added(a: int, b: int) -> int:
    return a + b


def test_a_kernel_that_cannot_be_kept_is_compiled_all_the_same() -> None:
    nowhere = types.FunctionType(added.__code__.replace(co_filename="<nowhere>"), {})
    made = kernel()(nowhere)
    assert made(2, 3) == 5
    assert made.signatures


def test_threads_are_those_of_pytorch() -> None:
    before = torch.get_num_threads()
    try:
        for n in (1, before):
            torch.set_num_threads(n)
            share_threads()
            assert numba.get_num_threads() == min(n, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(before)
        share_threads()
