"""Blocks that compute their inner values twice give the gradients of those that keep them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lexloom.train import recompute
from tests.train.test_exact import Trained, gradient


@contextmanager
def counted() -> Iterator[list[int]]:
    """Numbers of all tensors that are kept for a backward pass."""
    numbers = list[int]()

    def pack(tensor: Tensor) -> Tensor:
        numbers.append(tensor.numel())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield numbers


@pytest.mark.parametrize("micro", [32, 5])
def test_gradients_are_the_same_to_the_bit_with_dropout_on(micro: int) -> None:
    """In one micro-batch and accumulated over seven."""
    plain, again = Trained(), Trained()
    assert plain.step.network.backbone.config.hidden_dropout_prob > 0
    recompute.begin(again.step.network.backbone.blocks)
    (loss, whole), (other_loss, other) = (gradient(made, made.packed(32, micro)) for made in (plain, again))
    assert other_loss == loss and torch.equal(other, whole)
    assert list(again.step.named()) == list(plain.step.named())


def test_less_is_kept_for_the_backward_pass_and_it_can_be_undone() -> None:
    made = Trained()
    blocks = made.step.network.backbone.blocks
    batch = made.packed(32, 32).batches(0)[0].tensors
    kept_numbers = list[int]()
    for change in (None, recompute.begin, recompute.end):
        if change is not None:
            change(blocks)
        with counted() as numbers:
            made.step(batch)
        kept_numbers.append(sum(numbers))
    assert kept_numbers[1] < 0.6 * kept_numbers[0] and kept_numbers[2] == kept_numbers[0]


@pytest.mark.slow
def test_gradients_agree_under_compile() -> None:
    plain, again = Trained(), Trained()
    recompute.begin(again.step.network.backbone.blocks)
    for made in (plain, again):
        made.step.compile(dynamic=False)
    (loss, whole), (other_loss, other) = (gradient(made, made.packed(32, 16)) for made in (plain, again))
    assert other_loss == pytest.approx(loss, rel=1e-6) and (other - whole).norm() <= 1e-6 * whole.norm()
