"""Runs `lexloom` commands in forked children, so that a test can send them signals without paying for their start (see `runner.py`).

Reads a job a line from stdin; says the child's process number, and, once it ended, its exit status as `wait` gives it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

import torch

from lexloom.runs.report import render
from tests.kill import subjects


def child(job: dict[str, str | list[str]]) -> int:
    """The exit status of a command, as the interpreter itself would give it."""
    log = os.open(str(job["log"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        return subjects.run(list(job["arguments"]), str(job["cwd"]))
    except KeyboardInterrupt:  # before the command line is there to catch it
        return 130


def main() -> None:
    """Forks for each job."""
    torch.set_num_threads(1)
    for name in subjects.ONCE:
        importlib.import_module(name)
    render._page()
    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            os._exit(child(json.loads(line)))
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    main()
