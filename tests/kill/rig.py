"""Faults at every call: a Python with `shim.c` under it that forks for each job, and a model of what a power cut leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lexloom import files

ROOT = Path(__file__).resolve().parent.parent.parent
FOREVER = -1


def why_not() -> str | None:
    """Why there can be no shim here."""
    if not sys.platform.startswith("linux"):
        return "the shim is for Linux"
    return None if compiler() else "there is no C compiler"


def compiler() -> str | None:
    """`cc`, `gcc` or `clang`."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


@dataclass(frozen=True)
class Call:
    """One call that changed something."""

    number: int
    name: str
    path: Path
    other: Path
    n_bytes: int
    full: bool
    done: bool


@dataclass
class Done:
    """What came of a job."""

    signal: int
    found: dict[str, Any]
    calls: list[Call]
    output: str

    @property
    def value(self) -> Any:
        """What the subject returned; the test fails with its traceback where it raised."""
        assert self.signal == 0 and "error" not in self.found, self.found.get("traceback") or self.output
        return self.found["value"]


class Rig:
    """The Python with the shim."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, library = scratch, scratch / "shim.so"
        command = [compiler() or "cc", "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("shim.c"), "-ldl"]
        subprocess.run(command, check=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(library)}
        command = [sys.executable, "-m", "tests.kill.subjects"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._expect("ready")

    def _expect(self, wanted: str | None = None) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line and (wanted is None or line == wanted), "the Python with the shim ended"
        return line

    def do(
        self,
        subject: str,
        root: Path | None = None,
        *,
        kill: int = 0,
        full: int = 0,
        times: int = FOREVER,
        free: int = -1,
        **arguments: Any,
    ) -> Done:
        """Runs a subject.

        Args:
            root: the folder whose calls are counted.
            kill: the call at which the process dies; a write is half done then.
            full: the call from which the disk is full, for so many calls that take room as `times` says.
            free: bytes that the system says are free.
        """
        assert self.process.stdin is not None
        trace, result, log = (self.scratch / name for name in ("trace", "result", "log"))
        for path in (trace, result, log):
            path.unlink(missing_ok=True)
        job = {"subject": subject, "root": str(root or ""), "kill": kill, "full": full, "times": times, "free": free}
        job |= {"trace": str(trace), "result": str(result), "log": str(log), "arguments": arguments}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        status = int(self._expect())
        found = files.read_json(result) if result.is_file() else {}
        calls = parsed(trace) if trace.is_file() else []
        return Done(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, found, calls, log.read_text(encoding="utf-8"))

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.communicate()


def log_ahead(calls: list[Call], log: Path) -> list[int]:
    """Steps of the checkpoints that got their name, after a look whether the log was on the disk up to that step by then."""
    steps, lines = [], log.read_bytes().splitlines(keepends=True)
    for i, call in enumerate(calls):
        if call.name == "rename" and call.other.name.startswith("step-"):
            steps.append(int(call.other.name[5:]))
            there = Disk().replay(calls[:i]).synced.get(log, 0)
            assert there >= sum(map(len, lines[: steps[-1]])) > 0, f"the log is not on the disk before the checkpoint of step {steps[-1]}"
    return steps


def parsed(trace: Path) -> list[Call]:
    """The calls of a trace."""
    found = []
    for line in trace.read_text(encoding="utf-8").splitlines():
        number, name, path, other, n_bytes, full, done = line.split("\t")
        normal = [Path(os.path.normpath(p)) if p else Path() for p in (path, other)]
        found.append(Call(int(number), name, normal[0], normal[1], int(n_bytes), full == "1", done == "1"))
    return found


@dataclass
class Disk:
    """What a power cut would leave after the calls so far: contents count once synced, names once their folder is.

    Attributes:
        faults: each rename of something that is not wholly on the disk, and each manifest that was not written last.
    """

    unsynced: set[Path] = field(default_factory=set)  # files written since they were synced
    entries: dict[Path, set[str]] = field(default_factory=dict)  # folder -> names made or renamed into it since it was synced
    last: dict[Path, Path] = field(default_factory=dict)  # folder -> the file changed last in it or below
    written: dict[Path, int] = field(default_factory=dict)
    synced: dict[Path, int] = field(default_factory=dict)  # file -> bytes that had been written when it was synced
    faults: list[str] = field(default_factory=list)

    def replay(self, calls: list[Call]) -> Disk:
        """Takes in calls in their order."""
        for call in filter(lambda call: call.done, calls):
            getattr(self, f"_{call.name}")(call)
        return self

    def _touch(self, path: Path) -> None:
        for folder in path.parents:
            self.last[folder] = path

    def _create(self, call: Call) -> None:
        self.unsynced.add(call.path)
        self.written[call.path] = 0
        self.entries.setdefault(call.path.parent, set()).add(call.path.name)
        self._touch(call.path)

    def _mkdir(self, call: Call) -> None:
        self.entries.setdefault(call.path.parent, set()).add(call.path.name)

    def _truncate(self, call: Call) -> None:
        self.unsynced.add(call.path)
        self.written[call.path] = 0

    def _write(self, call: Call) -> None:
        self.unsynced.add(call.path)
        self.written[call.path] = self.written.get(call.path, 0) + call.n_bytes
        self._touch(call.path)

    def _fsync(self, call: Call) -> None:
        self.unsynced.discard(call.path)
        self.entries.pop(call.path, None)
        self.synced[call.path] = self.written.get(call.path, 0)

    def _unlink(self, call: Call) -> None:
        self.unsynced.discard(call.path)
        self.written.pop(call.path, None)
        self.entries.get(call.path.parent, set()).discard(call.path.name)

    def _rmdir(self, call: Call) -> None:
        self.entries.pop(call.path, None)
        self.entries.get(call.path.parent, set()).discard(call.path.name)

    def _rename(self, call: Call) -> None:
        inside = [path for path in self.unsynced if path == call.path or call.path in path.parents]
        inside += [
            folder / name for folder, names in self.entries.items() if folder == call.path or call.path in folder.parents for name in names
        ]
        self.faults += [f"{path} is not on the disk when {call.other.name} gets its name" for path in sorted(inside)]
        if (call.path / files.MANIFEST) in self.written and self.last[call.path] != call.path / files.MANIFEST:
            self.faults.append(f"{self.last[call.path]} was written after the manifest of {call.other.name}")
        for table in (self.written, self.entries, self.last):
            self._move(table, call)
        if call.path in self.written or call.other in self.written:
            self._touch(call.other)
        self.entries.get(call.path.parent, set()).discard(call.path.name)
        self.entries.setdefault(call.other.parent, set()).add(call.other.name)

    @staticmethod
    def _move(table: dict[Path, Any], call: Call) -> None:
        def moved(path: Path) -> Path:
            return call.other / path.relative_to(call.path) if path == call.path or call.path in path.parents else path

        for path in [path for path in table if path == call.other or call.other in path.parents]:
            del table[path]
        for path in list(table):
            value = table.pop(path)
            table[moved(path)] = moved(value) if isinstance(value, Path) else value
