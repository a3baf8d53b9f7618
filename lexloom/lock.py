"""One writer a folder: a lock that a dead process cannot hold."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lexloom.errors import BusyError
from lexloom.files import make_folder, sweep, telling

_held: set[int] = set()  # open files whose locks this process holds


@contextmanager
def locked(folder: Path | str) -> Iterator[None]:
    """Makes this process the only writer of `folder`, and removes what a killed one left half made in it.

    The kernel drops the lock when the process dies, however it dies, and its children do not inherit it.

    Raises:
        BusyError: another process, or another part of this one, holds it; its PID and host are named. Nothing is waited for.
    """
    folder = Path(folder)
    make_folder(folder)
    owner = os.getpid()
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            got = _holder(file) or "an unknown process"
            hint = "wait for it, or choose another --out"
            raise BusyError("another process works in this folder", got=got, where=str(folder), hint=hint) from None
        _held.add(file.fileno())
        try:
            with telling(folder / ".lock"):
                file.truncate(0)
                file.write(f"process {owner} on {os.uname().nodename}")
                file.flush()
            sweep(folder)
            yield
        finally:
            _held.discard(file.fileno())
            if os.getpid() == owner:
                file.truncate(0)


def _holder(file: IO[str]) -> str:
    """Who holds a lock, in its own words, which it writes a moment after it got it."""
    for _ in range(20):
        file.seek(0)
        if told := file.read(200):
            return told
        time.sleep(0.01)
    return ""


def _let_go() -> None:
    """In a forked child: puts nothing in the place of the open lock files. It would hold its parent's locks after the parent's death."""
    for handle in _held:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, handle, inheritable=False)
        os.close(nothing)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
