"""Counter-based random numbers: everything random in lexloom is a function of integers, so nothing depends on order or workers.

A *key* is a 64-bit integer, made by `key(seed, epoch, row, …)`. Numbers are drawn from a key by place, never from a state.
The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
"""

from __future__ import annotations

import hashlib
from typing import overload

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(x: npt.ArrayLike) -> Keys:
    """SplitMix64's finaliser, elementwise: a bijection of 64-bit integers that looks random."""
    z = np.asarray(x, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * _M1
        z = (z ^ (z >> np.uint64(27))) * _M2
    return np.asarray(z ^ (z >> np.uint64(31)))


def key(*parts: int | str | npt.ArrayLike) -> Keys:
    """A key out of integers, names and integer arrays (which broadcast): `key(seed, epoch, row_ids)` has one key a row.

    Raises:
        TypeError: a part is no integer and no name.
    """
    state: Keys = np.asarray(0, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = mix((state ^ mix(_integer(part) + _GOLDEN)) + _GOLDEN)
    return state


def _integer(part: int | str | npt.ArrayLike) -> Keys:
    if isinstance(part, str):
        part = int.from_bytes(hashlib.blake2b(part.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    if isinstance(part, int):
        return np.asarray(part & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    found = np.asarray(part)
    if found.size and found.dtype.kind not in "iub":
        raise TypeError(f"keys are made of integers and names, got {found.dtype}")
    return found.astype(np.uint64)


def bits(keys: npt.ArrayLike, n: int) -> Keys:
    """`n` 64-bit integers for each key: (…,) -> (…, n)."""
    places = np.arange(1, n + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        return mix(np.asarray(keys, dtype=np.uint64)[..., None] + places * _GOLDEN)


def uniform(keys: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    """`n` numbers in [0, 1) for each key: (…,) -> (…, n), with 53 random bits."""
    return (bits(keys, n) >> np.uint64(11)).astype(np.float64) * (1.0 / (1 << 53))


def normal(keys: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    """`n` normally distributed numbers for each key, by Box and Muller 1958: (…,) -> (…, n)."""
    half = (n + 1) // 2
    drawn = uniform(keys, 2 * half)
    radius, angle = np.sqrt(-2.0 * np.log1p(-drawn[..., :half])), 2.0 * np.pi * drawn[..., half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)[..., :n]


def integers(keys: npt.ArrayLike, n: int, high: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """`n` integers in [0, high) for each key: (…,) -> (…, n). `high` broadcasts against the result.

    Raises:
        ValueError: there is nothing to choose from, `high` being below 1.
    """
    if np.any(np.asarray(high) < 1):
        raise ValueError("high is at least 1")
    return np.minimum((uniform(keys, n) * np.asarray(high)).astype(np.int64), np.asarray(high, dtype=np.int64) - 1)


def poisson(keys: npt.ArrayLike, n: int, mean: float) -> npt.NDArray[np.int64]:
    """`n` Poisson-distributed numbers for each key, by the inverse of the distribution function: (…,) -> (…, n).

    Raises:
        ValueError: the mean is not above 0 and at most 500.
    """
    if not 0 < mean <= 500:
        raise ValueError("mean is above 0 and at most 500")
    steps = np.arange(1, int(mean + 12 * mean**0.5) + 24)
    shares = np.exp(np.cumsum(np.log(mean / np.concatenate([[1.0], steps]))) - np.log(mean) - mean)
    return np.searchsorted(np.cumsum(shares), uniform(keys, n), side="right").astype(np.int64)


def shuffled(key_: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """A random order of 0 … n-1, held in memory; for long ones see `permute`."""
    return np.argsort(bits(key_, n), kind="stable").astype(np.int64)


@overload
def permute(index: int, n: int, key_: npt.ArrayLike) -> int: ...
@overload
def permute(index: npt.NDArray[np.int64], n: int, key_: npt.ArrayLike) -> npt.NDArray[np.int64]: ...
def permute(index: int | npt.NDArray[np.int64], n: int, key_: npt.ArrayLike) -> int | npt.NDArray[np.int64]:
    """Where place `index` of a random order of 0 … n-1 points to, without making the order.

    An eight-round Feistel network over the next even power of two, walked until the result is below n
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Four rounds are seen by a chi-square test of the distance
    of two places, and below some hundred places no number of rounds makes all orders equally likely: those are shuffled.

    Raises:
        IndexError: an index is outside 0 … n-1.
    """
    places = np.atleast_1d(np.asarray(index, dtype=np.int64))
    if n < 1 or (places.size and (places.min() < 0 or places.max() >= n)):
        raise IndexError(f"places of an order of {n} are 0 to {n - 1}, got {index}")
    result = shuffled(key_, n)[places] if n <= 256 else _walk(places.astype(np.uint64), n, bits(key_, 8))
    return int(result[0]) if np.ndim(index) == 0 else result.reshape(np.shape(index))


def _walk(places: Keys, n: int, rounds: Keys) -> npt.NDArray[np.int64]:
    half = (int(n - 1).bit_length() + 1) // 2
    found = _feistel(places, half, rounds)
    while (outside := found >= np.uint64(n)).any():
        found[outside] = _feistel(found[outside], half, rounds)
    return found.astype(np.int64)


def _feistel(x: Keys, half: int, rounds: Keys) -> Keys:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = x >> shift, x & mask
    for round_key in rounds:
        left, right = right, left ^ (mix(right ^ round_key) & mask)
    return (left << shift) | right
