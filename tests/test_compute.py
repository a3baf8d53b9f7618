"""What is chosen for a machine: overrides win, the affinity and OMP_NUM_THREADS are kept to, choices say why."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lexloom import compute
from lexloom.compute import ComputeConfig
from lexloom.errors import ConfigError


def test_threads_keep_to_what_the_process_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    everything = compute.cores()
    assert 1 <= everything <= (os.cpu_count() or 1)
    for value, expected in (("1", 1), ("100000", everything), ("0", everything), ("many", everything), ("", everything)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert compute.choose(ComputeConfig(), steps=1).threads == expected, value


def test_overrides_win_and_choices_say_why() -> None:
    plain = compute.choose(ComputeConfig(device="cpu"), steps=10)
    assert not plain.compile and "10 steps" in plain.reasons["compile"] and "dtype" in plain.reasons
    mine = compute.choose(ComputeConfig(device="cpu", dtype="float64", threads=1, compile=False), steps=10**9)
    assert (mine.dtype, mine.threads, mine.compile, mine.reasons) == ("float64", 1, False, {})
    assert compute.Compute(**mine.plain()) == mine


def test_small_networks_and_short_trainings_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute.shutil, "which", lambda name: f"/bin/{name}")
    settings, many = ComputeConfig(device="cpu"), 1e7 * 4096
    chosen = {at: compute.choose(settings, steps=at[0], work=at[1]) for at in ((999, many), (2000, many), (2000, 8e5 * 780), (2000, None))}
    assert [found.compile for found in chosen.values()] == [False, True, False, True]
    assert "as small as these" in chosen[2000, 8e5 * 780].reasons["compile"]
    assert compute.choose(ComputeConfig(device="cpu", compile=True), steps=1, work=1.0).compile


@pytest.mark.parametrize("device", ["tpu", "mps:0", "CPU"])
def test_an_unknown_device_is_an_error(device: str) -> None:
    with pytest.raises(ConfigError, match="unknown device"):
        compute.choose(ComputeConfig(device=device), steps=1)


FAULTS = """
import resource, sys
import torch
from lexloom import compute

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(8 << 20).add_(1)  # 32 MB, written whole
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
print(compute.keep_memory())
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux" or not os.confstr("CS_GNU_LIBC_VERSION"), reason="only glibc is told to keep memory")
def test_memory_that_is_kept_costs_no_new_pages() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=300, check=True)
    before, kept, after = done.stdout.split()
    assert kept == "True" and int(after) < int(before) / 100
