"""Threads of one kernel that share phases of work: each takes pieces, its own first, then what others have left, and all meet in the end.

A thread that is late, or that the machine has put aside, holds up no more than the piece in its hands; nothing is started or joined between
two phases, and one thread alone does them all.

Counters of a phase are (threads + 1) · 8 zeros, each in a line of its own: pieces that were taken of each thread's share, and pieces done.
"""

from __future__ import annotations

import os
from typing import Any

from numba import types
from numba.core import cgutils

from lexloom.compute import kernel
from lexloom.nn.instructions import instruction
from lexloom.nn.tile import FAST

LINE = 8  # counters in a line of memory
_SPINS = 4000  # looks at a counter before other programs get a turn
_yield: Any = types.ExternalFunction("sched_yield", types.int32()) if os.name == "posix" else None
_PATIENT = _yield is not None


@instruction
def _counted(typing: Any, counters: Any, i: Any, j: Any, more: Any) -> Any:
    """Adds to a counter that threads share; its value before."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(context, builder, signature, values)
        return builder.atomic_rmw("add", place, values[3], "acq_rel")

    return types.int64(counters, types.int64, types.int64, types.int64), generate


@instruction
def _read(typing: Any, counters: Any, i: Any, j: Any) -> Any:
    """The value of a counter that threads share, and all that was written before it was counted."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, values), "acquire", 8)

    return types.int64(counters, types.int64, types.int64), generate


def _place(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, values[0])
    return cgutils.get_item_pointer(context, builder, signature.args[0], array, list(values[1:3]), wraparound=False)


@kernel(**FAST)
def take(counters, phase, thread, threads, pieces):  # type: ignore[no-untyped-def]
    """A piece of a phase that nobody has taken, or -1: of the thread's own share, one after the other, then of what others have left.

    Args:
        counters: (phases, (threads + 1) · 8) int64.
    """
    for turn in range(threads):
        share = (thread + turn) % threads
        first, last = pieces * share // threads, pieces * (share + 1) // threads
        if first + _read(counters, phase, share * LINE) < last:
            piece = first + _counted(counters, phase, share * LINE, 1)
            if piece < last:
                return piece
    return -1


@kernel(**FAST)
def meet(counters, phase, threads, pieces, done):  # type: ignore[no-untyped-def]
    """Tells that a thread has done some pieces, and waits until all are done."""
    _counted(counters, phase, threads * LINE, done)
    spins = 0
    while _read(counters, phase, threads * LINE) < pieces:
        spins += 1
        if _PATIENT and spins > _SPINS:
            _yield()
