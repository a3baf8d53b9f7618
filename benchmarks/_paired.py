"""Sides timed in turn, A B A B …, so that a machine whose speed drifts treats both alike; medians, and the ratio pair by pair."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

RESULTS = Path("runs/bench/results.jsonl")


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


def show(work: str, times: Mapping[str, list[float]], ours: Sequence[str], *, amount: float, unit: str) -> None:
    """A line a side: median rate; then, for each of ours and each peer, the median ratio with its least and greatest.

    The ratios are also kept in `runs/bench/results.jsonl`, out of which `_table.py` makes the table of docs/performance.md.
    """
    rates = {name: amount / statistics.median(took) for name, took in times.items()}
    for name, took in times.items():
        print(f"{name:<40} {rates[name]:>14,.0f} {unit}/s   median of {len(took)}")
    for one in ours:
        for peer in times:
            if peer not in ours:
                found = ratios(times, one, peer)
                spread = {"ratio": statistics.median(found), "low": min(found), "high": max(found), "rounds": len(found)}
                print(f"{one} / {peer}: {spread['ratio']:.2f} × ({spread['low']:.2f} to {spread['high']:.2f})", flush=True)
                keep({"work": work, "ours": one, "peer": peer, "rate": rates[one], "peer_rate": rates[peer], "unit": unit, **spread})


def keep(line: Mapping[str, object]) -> None:
    """Adds a line to the results of this machine."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
