"""Sides timed in turn, A B A B …, so that a machine whose speed drifts treats both alike; medians, and the ratio pair by pair."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def paired(sides: Mapping[str, Callable[[], float]], *, rounds: int = 5, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each side, a list over the rounds; the first `warmup` rounds are not counted.

    Args:
        sides: name -> what does a side's work once and returns its seconds.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warmup + rounds):
        for name, run in sides.items():
            took = run()
            if number >= warmup:
                found[name].append(took)
    return found


def ratios(times: Mapping[str, list[float]], ours: str, theirs: str) -> list[float]:
    """How many times as fast we were, round by round."""
    return [b / a for a, b in zip(times[ours], times[theirs], strict=True)]


def show(times: Mapping[str, list[float]], ours: str, *, amount: float, unit: str) -> None:
    """A line a side: median rate; and for each peer the median ratio with its least and greatest."""
    for name, took in times.items():
        print(f"{name:<34} {amount / statistics.median(took):>14,.0f} {unit}/s   median of {len(took)}")
    for name in times:
        if name != ours:
            found = ratios(times, ours, name)
            print(f"{ours} / {name}: {statistics.median(found):.2f} × ({min(found):.2f} to {max(found):.2f})")
