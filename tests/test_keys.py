"""Randomness is a function of integers: golden values, statistics, independence.

The golden values were printed by:

    import numpy as np
    from lexloom import keys
    print(keys.key(1, 2, 3), keys.key("a"), keys.key("masked-lm", 5))
    k = keys.key(7)
    print(keys.bits(k, 2).tolist(), keys.uniform(k, 2).tolist(), keys.integers(k, 8, 100).tolist())
    print(keys.permute(np.arange(5), 1000, k).tolist(), keys.shuffled(k, 10).tolist(), keys.poisson(k, 8, 3.0).tolist())

and the first outputs of SplitMix64 from seed 0 stand in its published reference (Steele, Lea, Flood 2014; Vigna's splitmix64.c).
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lexloom import keys


def test_the_mixer_is_splitmix64() -> None:
    assert keys.bits(0, 3).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_golden_values() -> None:
    assert int(keys.key(1, 2, 3)) == 9812528628958509896
    assert int(keys.key("a")) == 16274894380668736608
    assert int(keys.key("masked-lm", 5)) == 971636118409414670
    assert keys.bits(keys.key(7), 2).tolist() == [11241344834629033336, 7548029490970160968]
    assert keys.uniform(keys.key(7), 2).tolist() == [0.609394524568175, 0.40917949860472513]
    assert keys.integers(keys.key(7), 8, 100).tolist() == [60, 40, 99, 10, 51, 75, 50, 14]
    assert keys.permute(np.arange(5), 1000, keys.key(7)).tolist() == [97, 394, 314, 31, 637]
    assert keys.poisson(keys.key(7), 8, 3.0).tolist() == [3, 2, 9, 1, 3, 4, 3, 1]
    assert keys.shuffled(keys.key(7), 10).tolist() == [3, 7, 1, 6, 4, 0, 9, 5, 8, 2]


@pytest.mark.parametrize("mean", [0.4, 3.0, 40.0, 500.0])
def test_poisson_numbers_are_poisson(mean: float) -> None:
    drawn = keys.poisson(keys.key("poisson", np.arange(50)), 400, mean).ravel()
    edges = np.unique(stats.poisson.ppf(np.linspace(0.02, 0.98, 20), mean).astype(int))
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=len(edges) + 1)
    expected = len(drawn) * np.diff(np.concatenate([[0.0], stats.poisson.cdf(edges, mean), [1.0]]))
    assert stats.chisquare(counts, expected).pvalue > 1e-4
    with pytest.raises(ValueError, match="at most 500"):
        keys.poisson(keys.key(7), 1, 501.0)


def test_one_key_a_row_equals_rows_one_by_one() -> None:
    rows = np.array([0, 1, 5, 2**40])
    together = keys.key(3, "epoch", 2, rows)
    assert together.tolist() == [int(keys.key(3, "epoch", 2, int(row))) for row in rows]
    assert keys.bits(together, 3).tolist() == [keys.bits(k, 3).tolist() for k in together]


def test_parts_and_their_order_matter() -> None:
    found = [keys.key(1, 2), keys.key(2, 1), keys.key(1, 2, 0), keys.key(0, 1, 2), keys.key(3), keys.key(1), keys.key("1")]
    assert len({int(k) for k in found}) == len(found)


@pytest.mark.parametrize(
    ("one", "other"), [("a", "b"), ("dropout-first", "dropout-other"), ("abcdefgh1", "abcdefgh2"), ("", "\0"), ("\u00e9", "e\u0301")]
)
def test_names_differ_however_long(one: str, other: str) -> None:
    assert int(keys.key(one)) != int(keys.key(other))


def test_negative_and_wide_integers_are_taken_modulo_two_to_the_64() -> None:
    assert int(keys.key(-1)) == int(keys.key(2**64 - 1)) == int(keys.key(np.array([-1]))[0])


def test_only_integers_and_names_are_keys() -> None:
    with pytest.raises(TypeError, match="float"):
        keys.key(np.array([0.5]))
    assert keys.key(1, np.array([])).shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 255, 257, 1000, 4096, 4097, 65537])
@pytest.mark.parametrize("key", [0, 1, 12345])
def test_an_order_holds_every_place_once(n: int, key: int) -> None:
    order = keys.permute(np.arange(n), n, keys.key(key))
    assert np.array_equal(np.sort(order), np.arange(n))
    assert [keys.permute(int(i), n, keys.key(key)) for i in (0, n - 1)] == [order[0], order[-1]]


def test_orders_of_long_lists_need_no_memory() -> None:
    n = 10**15 + 7
    places = np.array([0, 1, n - 1])
    found = keys.permute(places, n, keys.key(4))
    assert len(set(found.tolist())) == 3
    assert found.min() >= 0
    assert found.max() < n


@pytest.mark.parametrize("place", [-1, 10])
def test_a_place_outside_the_order_is_refused(place: int) -> None:
    with pytest.raises(IndexError, match="0 to 9"):
        keys.permute(place, 10, keys.key(1))


def test_the_distance_of_two_places_is_uniform() -> None:
    n = 1024
    places = np.array([0, 1, n // 2])
    found = np.array([keys.permute(places, n, k) for k in keys.key(3, np.arange(10_000))])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        distances = np.bincount((found[:, one] - found[:, other]) % n, minlength=n)[1:]
        assert stats.chisquare(distances).pvalue > 1e-4


def test_every_order_of_four_comes_about_equally_often() -> None:
    orders = [tuple(keys.permute(np.arange(4), 4, k)) for k in keys.key(9, np.arange(4800))]
    counts = np.unique(np.array(orders), axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


def test_shuffled_is_an_order_and_depends_on_the_key() -> None:
    one, other = keys.shuffled(keys.key(1), 500), keys.shuffled(keys.key(2), 500)
    assert np.array_equal(np.sort(one), np.arange(500))
    assert not np.array_equal(one, other)


def test_uniform_numbers_are_uniform() -> None:
    found = keys.uniform(keys.key(1, np.arange(400)), 250).ravel()
    assert 0 <= found.min() <= found.max() < 1
    assert stats.chisquare(np.histogram(found, bins=100, range=(0, 1))[0]).pvalue > 1e-4
    assert stats.kstest(found, "uniform").pvalue > 1e-4


def test_first_numbers_of_adjacent_keys_are_uniform_and_independent() -> None:
    first = keys.uniform(keys.key(5, 0, np.arange(100_001)), 1)[:, 0]
    cells = np.histogram2d(first[:-1], first[1:], bins=10, range=((0, 1), (0, 1)))[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-4
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.015


def test_adjacent_epochs_and_seeds_are_independent() -> None:
    rows = np.arange(50_000)
    for one, other in ((keys.key(1, 0, rows), keys.key(1, 1, rows)), (keys.key(1, 0, rows), keys.key(2, 0, rows))):
        assert abs(np.corrcoef(keys.uniform(one, 1)[:, 0], keys.uniform(other, 1)[:, 0])[0, 1]) < 0.02


def test_each_bit_flips_half_of_all_bits() -> None:
    base = keys.key(np.arange(2000))
    for bit in range(0, 64, 7):
        changed = keys.key(np.arange(2000).astype(np.uint64) ^ np.uint64(1 << bit))
        assert abs(np.bitwise_count(base ^ changed).mean() - 32) < 0.5


def test_integers_reach_every_value_and_no_other() -> None:
    found = keys.integers(keys.key(np.arange(1000)), 10, 7)
    assert stats.chisquare(np.bincount(found.ravel(), minlength=7)).pvalue > 1e-4
    assert keys.integers(keys.key(1), 50, 1).max() == 0
    assert (keys.integers(keys.key(np.arange(3)), 2, [3, 4]) < [3, 4]).all()
    with pytest.raises(ValueError, match="at least 1"):
        keys.integers(keys.key(1), 1, 0)


@given(st.lists(st.one_of(st.integers(-(2**70), 2**70), st.text()), max_size=6))
def test_a_key_is_a_function_of_its_parts(parts: list[int | str]) -> None:
    assert int(keys.key(*parts)) == int(keys.key(*list(parts)))
    assert keys.key(*parts).dtype == np.uint64


def test_names_are_hashed_whole() -> None:
    """So that no two of many names that begin alike share a key: the number of a name is BLAKE2b over all of it."""
    names = [f"objective.masked-lm.part-{i}" for i in range(2000)]
    assert len({int(keys.key(name)) for name in names}) == len(names)
    number = int.from_bytes(hashlib.blake2b(b"seed", digest_size=8).digest(), "little")
    assert int(keys.key("seed")) == int(keys.key(number))
