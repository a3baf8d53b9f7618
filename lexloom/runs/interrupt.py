"""Ctrl-C and SIGTERM during training: finish the step, save, and say how to go on. A second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Set once a signal came: `number` is its number."""

    number: int | None = None


@contextmanager
def on_signal(say: object = None) -> Iterator[Stop]:
    """Turns the first SIGINT or SIGTERM into a flag; the second has its usual effect. Elsewhere than in the main thread it does nothing.

    Args:
        say: called with a line for the user when the first signal comes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def first(number: int, frame: FrameType | None) -> None:
        stop.number = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if callable(say):
            say("saving a checkpoint after this step; once more stops at once")

    for number in _SIGNALS:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
