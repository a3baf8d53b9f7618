"""Kernels are compiled where nothing can be kept, too, and use no more threads than PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import numba
import torch

from lexloom.compute import kernel, share_threads

WHO = """\
import numba
import numpy as np
import torch
from numba import prange

from lexloom.compute import shared


def _who(found):
    for i in prange(found.size):
        found[i] = numba.get_thread_id()


who = shared(_who)

if __name__ == "__main__":
    torch.set_num_threads(2)
    for wide in (True, False, True):  # numba counts threads only after it has started them
        found = np.full(8, -1)
        who(found, wide=wide)
        print(len(set(found.tolist())), len(who.__closure__[0].cell_contents.stats.cache_hits))
"""


def added(a: int, b: int) -> int:
    return a + b


def test_a_kernel_that_cannot_be_kept_is_compiled_all_the_same() -> None:
    nowhere = types.FunctionType(added.__code__.replace(co_filename="<nowhere>"), {})
    made = kernel()(nowhere)
    assert made(2, 3) == 5
    assert made.signatures


def test_threads_are_those_of_pytorch() -> None:
    before = torch.get_num_threads()
    try:
        for n in (1, before):
            torch.set_num_threads(n)
            share_threads()
            assert numba.get_num_threads() == min(n, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(before)
        share_threads()


def test_both_kinds_of_a_shared_kernel_are_kept_from_process_to_process(tmp_path: Path) -> None:
    (tmp_path / "who.py").write_text(WHO)
    told = {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2", "NUMBA_CACHE_DIR": str(tmp_path / "kept"), "PYTHONPATH": str(Path.cwd())}
    for hits in (0, 1):
        done = subprocess.run([sys.executable, "who.py"], cwd=tmp_path, env=os.environ | told, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["2", "0", "1", str(hits), "2", str(hits)]
