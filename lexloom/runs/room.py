"""How large the batches of an evaluation may be: halved where one does not fit into memory, down to a single row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lexloom.compute import release_memory
from lexloom.runs.failure import out_of_memory

BATCH_TOKENS = 4096
LEAST_TOKENS = 8  # no row is shorter, so that a batch is one row by then

T = TypeVar("T")


class Room:
    """What evaluations have learned about memory.

    Args:
        told: is told of each halving.

    Attributes:
        cut: into how many a batch of `BATCH_TOKENS` is cut. Rows do not depend on each other, so it changes roundings alone.
    """

    def __init__(self, told: Callable[[str], None], cut: int = 1) -> None:
        self.told, self.cut = told, cut

    def fit(self, work: Callable[[int], T]) -> T:
        """What `work` gives for so many tokens a batch; done again with half of them for as long as they do not fit into memory.

        Raises:
            MemoryError, torch.OutOfMemoryError: not even one row fits.
        """
        while True:
            try:
                return work(BATCH_TOKENS // self.cut)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or BATCH_TOKENS // self.cut <= LEAST_TOKENS:
                    raise
            release_memory()  # out of the handler, which holds the tensors of what failed
            self.cut *= 2
            size = f"{BATCH_TOKENS // self.cut:,} tokens or one row"
            self.told(f"out of memory in an evaluation; its batches are halved to {size}, its figures are the same but for rounding")
