from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lexloom.models.base import Network, Output
from lexloom.tasks.base import buckets, length_edges, run

LENGTHS = st.lists(st.integers(1, 512), max_size=80)


@given(LENGTHS, st.integers(64, 5000))
def test_every_row_is_in_one_bucket_that_it_fits(lengths: list[int], batch_tokens: int) -> None:
    edges = length_edges(lengths)
    found = list(buckets(lengths, batch_tokens, edges=edges))
    assert sorted(i for *_, members in found for i in members) == list(range(len(lengths)))
    assert len(edges) <= 6
    for length, size, members in found:
        assert max(lengths[i] for i in members) <= length
        assert size - 1 <= len(members) <= size
        assert size == 1 or size * length <= batch_tokens
    assert len({(length, size) for length, size, _ in found}) == len({length for length, *_ in found}) <= len(edges)
    assert [length for length, *_ in found] == sorted((length for length, *_ in found), reverse=True)


@given(LENGTHS.filter(len), st.integers(1, 4))
def test_no_other_edges_leave_less_padding(lengths: list[int], most: int) -> None:
    def positions(edges: list[int]) -> int:
        return sum(min(edge for edge in edges if edge >= length) for length in lengths)

    lengths = [min(length, 64) for length in lengths]
    found = length_edges(lengths, most)
    candidates = sorted({-(-length // 8) * 8 for length in lengths})
    others = [[*some, candidates[-1]] for n in range(most) for some in combinations(candidates[:-1], n)]
    assert len(found) <= most
    assert positions(found) <= 1.01 * min(positions(edges) for edges in others)


@given(LENGTHS.filter(len), st.integers(0, 500))
def test_no_other_edges_cost_less(lengths: list[int], shape: int) -> None:
    def cost(edges: list[int]) -> int:
        return sum(min(edge for edge in edges if edge >= length) for length in lengths) + shape * len(edges)

    lengths = [min(length, 40) for length in lengths]
    candidates = sorted({-(-length // 8) * 8 for length in lengths})
    others = [[*some, candidates[-1]] for n in range(len(candidates)) for some in combinations(candidates[:-1], n)]
    assert cost(length_edges(lengths, shape=shape)) == min(map(cost, others))


def test_few_shapes_leave_little_padding() -> None:
    lengths = [12] * 500 + [30] * 300 + [120] * 100 + [500] * 5
    edges = length_edges(lengths)
    assert edges == [16, 32, 120, 504]
    assert length_edges([]) == [8]
    assert length_edges([5, 6, 7]) == [8]
    assert max(length_edges(list(range(1, 20_000, 7)))) >= 19_993


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_rows_come_back_in_their_order(network: Callable[..., Network], batch_tokens: int) -> None:
    net = network()
    rows = [{"input_ids": np.arange(n) % 90 + 5, "token_type_ids": np.zeros(n, dtype=np.int64)} for n in (3, 40, 7, 1, 64, 7)]

    def states(output: Output, batch: Mapping[str, Tensor]) -> Tensor:
        return output.hidden[:, 0]

    def ids(output: Output, batch: Mapping[str, Tensor]) -> list[list[int]]:
        return [row[mask].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]

    fills = {"input_ids": 0, "token_type_ids": 0}
    assert run(net, rows, fills, ids, batch_tokens=batch_tokens) == [row["input_ids"].tolist() for row in rows]
    found = run(net, rows, fills, states, batch_tokens=batch_tokens)
    for row, value in zip(rows, found, strict=True):
        alone = net.backbone({"input_ids": torch.from_numpy(row["input_ids"])[None]}).hidden[0, 0]
        assert value == pytest.approx(alone.detach().numpy(), abs=1e-5)


def test_nothing_to_run(network: Callable[..., Network]) -> None:
    assert run(network(), [], {"input_ids": 0}, lambda output, batch: output.hidden) == []
