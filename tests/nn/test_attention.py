"""Attention: written out and by PyTorch's kernel alike, heads that share keys, and what a decoder may see."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lexloom.nn.attention import MASKED, attend, causal_bias
from lexloom.nn.dropout import Dropout

OFF = Dropout(0.0, 0)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shared", [1, 2, 6])
@pytest.mark.parametrize("queries", [1, 7])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_heads_that_share_keys_are_heads_with_equal_keys(shared: int, queries: int, scale: float | None) -> None:
    q, k, v = draw(3, 6, queries, 4, seed=1), draw(3, shared, 7, 4, seed=2), draw(3, shared, 7, 4, seed=3)
    bias = torch.where(torch.rand(3, 1, queries, 7, generator=torch.Generator().manual_seed(4)) < 0.7, 0.0, MASKED).double()
    each = [tensor.repeat_interleave(6 // shared, dim=1) for tensor in (k, v)]
    expected = ((q @ each[0].transpose(-1, -2)) * (0.5 if scale is None else scale) + bias).softmax(-1) @ each[1]
    kernel = attend(q, k, v, bias, OFF, None, scale=scale)
    written = attend(q.requires_grad_(), k, v, bias, OFF, None, scale=scale)
    assert (kernel - expected).abs().max() <= 1e-12 and (written - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_causal_without_a_bias_is_causal_by_a_bias(shared: int) -> None:
    q, k, v, ids = draw(2, 4, 9, 6, seed=1), draw(2, shared, 9, 6, seed=2), draw(2, shared, 9, 6, seed=3), torch.zeros(2, 9)
    behind = torch.arange(9) < torch.tensor([[9], [5]])
    bias = causal_bias(ids, behind, q.dtype)
    assert bias is not None and bias.shape == (2, 1, 9, 9)
    with torch.no_grad():
        assert causal_bias(ids, behind, q.dtype) is None and causal_bias(ids, None, q.dtype) is None
        assert causal_bias(ids, behind.flip(1), q.dtype) is not None, "padding in front is seen by all that follows"
    found, expected = attend(q, k, v, None, OFF, None, causal=True), attend(q, k, v, bias, OFF, None)
    assert (found - expected)[behind[:, None].expand(2, 4, 9)].abs().max() <= 1e-12
    plain = causal_bias(ids, None, q.dtype)
    assert plain is not None and torch.equal(plain, torch.full((9, 9), MASKED, dtype=q.dtype).triu(1))
    with torch.no_grad():  # dropout's keys ask for attention written out, whether or not it is to be learned from
        keyed = attend(q, k, v, None, OFF, torch.ones(2, 2, dtype=torch.int32), causal=True)
    written = attend(q.requires_grad_(), k, v, None, OFF, None, causal=True)
    for other in (keyed, written):
        assert (other - expected)[behind[:, None].expand(2, 4, 9)].abs().max() <= 1e-12


def test_in_a_graph_what_may_be_seen_is_made_once() -> None:
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph.code)
        return graph.forward

    def seen(ids: Tensor, mask: Tensor) -> Tensor:
        bias = causal_bias(ids, mask, torch.float64)
        assert bias is not None
        return bias + 1.0

    ids, mask = torch.zeros(2, 5), torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)
    assert torch.equal(torch.compile(seen, backend=keep, dynamic=False)(ids, mask), seen(ids, mask))
    assert len(graphs) == 1 and "lexloom.once" in graphs[0]
