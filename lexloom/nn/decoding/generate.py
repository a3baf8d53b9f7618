"""Generate: continuations of prompts, all at once or token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lexloom.nn.decoding.beams import search
from lexloom.nn.decoding.request import Decoder, End, Generated, Request
from lexloom.nn.decoding.scheduler import Chosen, Scheduler

ROWS = 32  # that are worked on at once


def generate(decoder: Decoder, requests: Sequence[Request], *, rows: int = ROWS) -> list[list[Generated]]:
    """`num_return_sequences` continuations of each prompt, in order; of a beam search best first.

    A row's ids depend neither on its neighbours nor on how many there are, to the last digit of a score.

    Args:
        rows: prompts, or beams, that are worked on at once.

    Raises:
        DataError, ConfigError: see `Request.check`; nothing was generated.
    """
    for request in requests:
        request.check(decoder)
    found: list[list[Generated]] = [[] for _ in requests]
    single = [i for i, request in enumerate(requests) if request.config.num_beams == 1]
    copies = [(i, copy) for i in single for copy in range(requests[i].config.num_return_sequences)]
    for (i, _), one in zip(copies, _singly(decoder, [replace(requests[i], copy=copy) for i, copy in copies], rows), strict=True):
        found[i].append(one)
    for members in _batches(requests, rows):
        for i, texts in zip(members, search(decoder, [requests[i] for i in members]), strict=True):
            found[i] = texts
    return found


def stream(decoder: Decoder, requests: Sequence[Request], *, rows: int = ROWS) -> Iterator[list[Chosen]]:
    """Token by token: yields what each step chose; `ticket` is the number of a request, from 1 in their order.

    Args:
        rows: requests that are worked on at once; others follow as these end.

    Raises:
        DataError, ConfigError: see `Request.check`; nothing was generated.
        LexloomError: a beam search has no single tokens to tell.
    """
    for request in requests:
        request.check(decoder)
    if not requests:
        return
    longest = max(len(request.prompt) + request.most(decoder) for request in requests)
    scheduler = Scheduler(decoder, rows=min(rows, len(requests)), length=longest)
    for request in requests:
        scheduler.add(request)
    while not scheduler.idle:
        yield scheduler.step()


def _singly(decoder: Decoder, requests: Sequence[Request], rows: int) -> list[Generated]:
    ids, logprobs = [list[int]() for _ in requests], [list[float]() for _ in requests]
    ends: list[End] = ["length"] * len(requests)
    for step in stream(decoder, requests, rows=rows):
        for chosen in step:
            ids[chosen.ticket - 1].append(chosen.token)
            logprobs[chosen.ticket - 1].append(chosen.logprob)
            ends[chosen.ticket - 1] = chosen.end or "length"
    return [Generated(*one, sum(one[1])) for one in zip(ids, logprobs, ends, strict=True)]


def _batches(requests: Sequence[Request], rows: int) -> Iterator[list[int]]:
    """Requests for a beam search, with equal settings together."""
    left = [i for i, request in enumerate(requests) if request.config.num_beams > 1]
    while left:
        config = requests[left[0]].config
        same = [i for i in left if requests[i].config == config][: max(1, rows // config.num_beams)]
        yield same
        left = [i for i in left if i not in same]
