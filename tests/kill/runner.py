"""Starts `lexloom run` in forked children of `signalled.py`, which cost no start of Python and torch, and can be sent signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import tiny


class Runner:
    """Starts commands and sends them signals."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        environment = {**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.kill.signalled"]
        self.server = subprocess.Popen(command, cwd=tiny.ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline().strip()

    def start(self, out: str, *settings: str, recipe: str = "recipe.yaml") -> int:
        """The process number of a run that has just been started."""
        given = [word for setting in settings for word in ("--set", setting)]
        job = {"arguments": ["run", recipe, "--out", out, *given], "cwd": str(self.folder), "log": str(self.log)}
        assert self.server.stdin is not None
        self.log.write_text("")  # what the run before said must not be taken for its words
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """The exit status of the run, negative where a signal ended it."""
        return os.waitstatus_to_exitcode(int(self._line()))

    def close(self) -> None:
        """Ends the server."""
        self.server.kill()
        self.server.communicate()

    @property
    def said(self) -> str:
        """What the last run has said so far."""
        return self.log.read_text(encoding="utf-8")
