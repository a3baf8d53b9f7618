"""One writer a folder, and a lock dies with its process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lexloom.errors import BusyError
from lexloom.lock import locked

HOLD = """
import sys, time
from lexloom.lock import locked
with locked(sys.argv[1]):
    print("ready", flush=True); sys.stdin.readline()
"""


def test_a_second_process_is_refused_and_told_who_works_there(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    child = start(HOLD, tmp_path)
    with pytest.raises(BusyError, match=f"process {child.pid} on {os.uname().nodename}"), locked(tmp_path):
        pass
    child.communicate("\n")
    with locked(tmp_path):
        pass


@pytest.mark.kill
def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    child = start(HOLD, tmp_path)
    child.kill()
    child.wait()
    with locked(tmp_path), pytest.raises(BusyError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass


@pytest.mark.kill
def test_the_lock_of_a_killed_process_is_free_though_its_child_lives_on(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    code = """
import os, sys, time
from lexloom.lock import locked
with locked(sys.argv[1]):
    if os.fork():
        time.sleep(60)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)
"""
    child = start(code, tmp_path)
    with pytest.raises(BusyError), locked(tmp_path):
        pass
    child.kill()
    child.wait()
    with locked(tmp_path):
        pass
    child.communicate()


def test_a_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path / "new"):
            raise ZeroDivisionError
