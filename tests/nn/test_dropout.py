from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from lexloom import keys
from lexloom.nn import mask_kernel
from lexloom.nn.dropout import ONE_PASS_FROM, Dropout, keep_mask, mix32
from lexloom.objectives.base import dropout_keys

B, N = 64, 4096  # rows, places


def row_keys(seed: int = 1, rows: int = B) -> torch.Tensor:
    return dropout_keys(keys.key(seed, "row", np.arange(rows)), rows)


def masks(*, site: int = 3, p: float = 0.1, seed: int = 1) -> np.ndarray:
    """(B, N) bool."""
    return keep_mask(row_keys(seed), site, torch.Size((B, N)), p).numpy()


def agreement(a: np.ndarray, b: np.ndarray, p: float) -> float:
    """How far two masks agree beyond chance, in standard deviations."""
    both = (~a & ~b).sum()
    expected = a.size * p * p
    return float((both - expected) / np.sqrt(expected * (1 - p * p)))


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_the_share_that_is_dropped(p: float) -> None:
    dropped = (~masks(p=p)).mean()
    assert abs(dropped - p) < 5 * np.sqrt(p * (1 - p) / (B * N))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_every_row_and_every_place_drops_its_share(p: float) -> None:
    dropped = ~masks(p=p)
    for axis, n in ((1, N), (0, B)):
        counts = dropped.sum(axis=axis)
        statistic = ((counts - n * p) ** 2 / (n * p * (1 - p))).sum()
        assert chi2.sf(statistic, len(counts)) > 1e-4 < chi2.cdf(statistic, len(counts))


def test_rows_sites_and_seeds_are_independent() -> None:
    p = 0.1
    here = masks(p=p)
    assert abs(agreement(here, masks(p=p, site=4), p)) < 5
    assert abs(agreement(here, masks(p=p, seed=2), p)) < 5
    assert abs(agreement(here[:-1], here[1:], p)) < 5
    for shift in (1, 2, 3, 64, 256, N // 2):
        assert abs(agreement(here[:, shift:], here[:, :-shift], p)) < 5
        assert abs(agreement(here[:-1, shift:], here[1:, :-shift], p)) < 5


def test_runs_of_places_are_as_long_as_chance_makes_them() -> None:
    kept = masks(p=0.5).astype(np.int64)
    words = kept[:, 0::4] * 8 + kept[:, 1::4] * 4 + kept[:, 2::4] * 2 + kept[:, 3::4]
    counts = np.bincount(words.ravel(), minlength=16)
    expected = counts.sum() / 16
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert chi2.sf(statistic, 15) > 1e-4 < chi2.cdf(statistic, 15)


def test_sites_next_to_each_other_share_no_sequence() -> None:
    drops = [~keep_mask(row_keys(rows=4), site, torch.Size((4, 512)), 0.5).numpy() for site in range(40)]
    for a, b in pairwise(drops):
        assert abs(agreement(~a, ~b, 0.5)) < 6


def test_a_row_has_its_mask_in_any_batch() -> None:
    words = row_keys()
    shape = torch.Size((7, 12))
    whole = keep_mask(words, 5, torch.Size((B, *shape)), 0.3)
    order = torch.tensor([9, 0, 63, 4])
    assert torch.equal(keep_mask(words[order], 5, torch.Size((4, *shape)), 0.3), whole[order])


def test_what_stays_is_scaled_so_that_the_mean_stays() -> None:
    x = torch.ones(B, N)
    y = Dropout(0.2, 7)(x, row_keys())
    assert set(y.unique().tolist()) == {0.0, 1.25}
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)


def test_the_gradient_goes_where_the_value_went() -> None:
    x = torch.ones(4, 9, requires_grad=True)
    y = Dropout(0.5, 1)(x, row_keys(rows=4))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_it_is_off_without_keys_or_rate() -> None:
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    assert Dropout(0.5, 1)(x, None) is x
    assert Dropout(0.0, 1)(x, row_keys(rows=4)) is x


def test_no_global_random_state_is_touched() -> None:
    before = torch.get_rng_state()
    Dropout(0.5, 1)(torch.ones(4, 9), row_keys(rows=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mixer_is_murmur3s() -> None:
    def finaliser(h: int) -> int:
        h = ((h ^ (h >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        return h ^ (h >> 16)

    numbers = np.array([0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 123456789], dtype=np.uint32)
    found = mix32(torch.from_numpy(numbers.view(np.int32))).numpy().view(np.uint32)
    assert found.tolist() == [finaliser(int(n)) for n in numbers]


@pytest.mark.parametrize("shape", [(3, 5), (40, 4096), (7, 2, 100, 129)])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_kernel_gives_the_same_masks(shape: tuple[int, ...], threads: int) -> None:
    before, words = torch.get_num_threads(), row_keys(rows=shape[0])
    torch.set_num_threads(threads)
    try:
        found = mask_kernel.kept(words, 77, int(np.prod(shape[1:])), int(0.3 * (1 << 24)))
    finally:
        torch.set_num_threads(before)
    places = torch.arange(found.shape[1], dtype=torch.int32)
    hashed = mix32(mix32(places * -1640531527 + mix32(words[:, :1] + 77)) + words[:, 1:])
    assert torch.equal(found, ((hashed >> 8) & 0xFFFFFF) >= int(0.3 * (1 << 24)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_kernel_writes_ones_and_zeros_of_any_dtype(dtype: torch.dtype) -> None:
    numbers = row_keys(rows=3), 77, 1000, int(0.3 * (1 << 24))
    found = mask_kernel.kept(*numbers, dtype)
    assert found.dtype == dtype and torch.equal(found, mask_kernel.kept(*numbers).to(dtype))


def test_large_batches_have_the_masks_of_small_ones() -> None:
    words, shape = row_keys(rows=8), torch.Size((8, ONE_PASS_FROM // 8))
    rows = [keep_mask(words[i : i + 1], 5, torch.Size((1, *shape[1:])), 0.3) for i in range(8)]
    assert torch.equal(keep_mask(words, 5, shape, 0.3), torch.cat(rows))


def dropped(x: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """What a head makes of what dropout leaves."""
    return torch.nn.functional.linear(Dropout(0.1, 1)(x, words), torch.ones(2, x.shape[1], dtype=x.dtype)).float()


def test_in_a_graph_the_mask_of_a_small_batch_is_one_operation_too() -> None:
    graphs: list[str] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph.code)
        return graph.forward

    x, words = torch.randn(8, 36).bfloat16(), row_keys(rows=8)
    assert torch.equal(torch.compile(dropped, backend=keep, dynamic=False)(x, words), dropped(x, words))
    assert len(graphs) == 1 and "lexloom.keep_mask" in graphs[0]


@pytest.mark.slow
def test_compiled_a_row_of_any_size_is_dropped_as_eager() -> None:
    """36 values are no whole number of vectors: Inductor's own code for the mask wrote beyond their end."""
    x, words = torch.randn(8, 36, generator=torch.Generator().manual_seed(1)).bfloat16(), row_keys(rows=8)
    filled = [torch.full((size,), 3e36) for size in (100, 300, 1000)]  # so that memory which nobody writes is told from zeros
    del filled
    torch.testing.assert_close(torch.compile(dropped, dynamic=False)(x, words), dropped(x, words), rtol=0.02, atol=0.05)
