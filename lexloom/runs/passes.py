"""Passes: how far work has come that goes through the same bytes several times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PASSES = 3
EVERY_BYTES = 4 << 20
Report = Callable[[dict[str, Any]], None]


class Passes:
    """Tells how far the work has come, in bytes of the sources, which are gone through once in each pass."""

    def __init__(self, report: Report | None, size: int) -> None:
        self.report, self.size = report, size
        self.step, self.before, self.whole_files, self.told, self.documents = "read", 0, 0, 0, 0

    def in_file(self, done: int) -> None:
        self._tell(self.before + min(self.size, self.whole_files + done))

    def file_done(self, size: int) -> None:
        self.whole_files += size
        self.in_file(0)

    def next_pass(self, step: str) -> None:
        self.step, self.before = step, self.before + self.size
        self._tell(self.before, always=True)

    def within(self, done: int, total: int) -> None:
        self._tell(self.before + self.size * done // max(1, total), always=done == total)

    def _tell(self, done: int, *, always: bool = False) -> None:
        if self.report is not None and (always or done - self.told >= EVERY_BYTES):
            self.told = done
            self.report({"step": self.step, "documents": self.documents, "done_bytes": done, "total_bytes": PASSES * self.size})
