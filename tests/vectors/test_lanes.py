"""Sixteen numbers at a time are what NumPy says they are."""

from __future__ import annotations

import numpy as np

from lexloom import keys
from lexloom.compute import kernel
from lexloom.vectors import lanes, word2vec
from lexloom.vectors.draws import below, bits_at, key_at


@kernel()
def _sums(numbers, out):  # type: ignore[no-untyped-def]
    p, o = lanes.pointer(numbers), lanes.pointer(out)
    a, b, c, d = lanes.load(p, 0), lanes.load(p, 16), lanes.load(p, 32), lanes.load(p, 48)
    lanes.store_totals(o, 0, a, b, c, d)
    out[4] = lanes.total(a)
    lanes.store(o, 8, lanes.where_above_zero(a, b + c * d, b / (c - d)))


@kernel()
def _loss(numbers, out):  # type: ignore[no-untyped-def]
    p, o = lanes.pointer(numbers), lanes.pointer(out)
    for n in range(0, numbers.size, 16):
        e = word2vec._exp_minus(lanes.load(p, n))
        lanes.store(o, n, e)
        lanes.store(o, numbers.size + n, word2vec._log_one_plus(e))


@kernel()
def _bits(state, place, out):  # type: ignore[no-untyped-def]
    key = key_at(state, place)
    for n in range(out.size):
        out[n] = bits_at(key, n)
    return below(out[0], 1000)


def test_sums_and_choices() -> None:
    numbers = keys.normal(keys.key(3), 64).astype(np.float32)
    out = np.zeros(24, dtype=np.float32)
    _sums(numbers, out)
    a, b, c, d = numbers.reshape(4, 16)
    assert np.allclose(out[:4], numbers.reshape(4, 16).sum(1), rtol=1e-5, atol=1e-5)
    assert np.isclose(out[4], a.sum(), rtol=1e-5)
    assert np.allclose(out[8:], np.where(a > 0, b + c * d, b / (c - d)), rtol=1e-6)


def test_the_loss_is_exact_to_float32() -> None:
    numbers = np.concatenate([np.linspace(0, 30, 1584), 10.0 ** np.linspace(-8, 2.5, 1600)]).astype(np.float32)
    out = np.zeros(2 * len(numbers), dtype=np.float32)
    _loss(numbers, out)
    right = np.exp(-numbers.astype(np.float64))
    assert np.abs(out[: len(numbers)] / np.maximum(right, 1e-37) - 1)[numbers < 80].max() < 5e-6
    assert np.abs(out[len(numbers) :] - np.log1p(right)).max() < 5e-7
    assert (out[: len(numbers)][numbers > 100] < 1e-37).all()


def test_random_numbers_are_those_of_keys() -> None:
    out = np.zeros(6, dtype=np.uint64)
    for place in (0, 1, 2**40):
        drawn = _bits(np.uint64(keys.key(5, "word2vec", 3)), place, out)
        right = keys.bits(keys.key(5, "word2vec", 3, place), 6)
        assert (out == right).all()
        assert drawn == (int(right[0]) >> 32) * 1000 >> 32


def test_rows_of_a_table_begin_with_a_line_of_memory() -> None:
    for rows, width in ((1, 1), (3, 100), (5, 16)):
        found = lanes.table(rows, width)
        assert found.ctypes.data % 64 == 0 and found.shape == (rows, -(-width // 16) * 16) and found.flags.c_contiguous and not found.any()
