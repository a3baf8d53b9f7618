"""The random numbers of `lexloom.keys` inside compiled loops: the same bits for the same integers.

For the state `key(seed, …)`, `key_at(state, place)` is `keys.key(seed, …, place)` and `bits_at(key, n)` is `keys.bits(key, n + 1)[n]`.
"""

from __future__ import annotations

import numpy as np

from lexloom.compute import kernel

_GOLDEN, _M1, _M2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _32 = (np.uint64(n) for n in (30, 27, 31, 32))
LOW = np.uint64(0xFFFFFFFF)


@kernel(forceinline=True)
def _mix(z):  # type: ignore[no-untyped-def]
    z = (z ^ (z >> _30)) * _M1
    z = (z ^ (z >> _27)) * _M2
    return z ^ (z >> _31)


@kernel(forceinline=True)
def key_at(state, place):  # type: ignore[no-untyped-def]
    """The key of a place."""
    return _mix((state ^ _mix(np.uint64(place) + _GOLDEN)) + _GOLDEN)


@kernel(forceinline=True)
def bits_at(key, n):  # type: ignore[no-untyped-def]
    """The n-th 64 bits of a key, from 0."""
    return _mix(key + np.uint64(n + 1) * _GOLDEN)


@kernel(forceinline=True)
def below(bits, n):  # type: ignore[no-untyped-def]
    """An integer in [0, n) out of the upper half of 64 bits, n being less than 2³²."""
    return np.int64(((bits >> _32) * np.uint64(n)) >> _32)
