"""A side of a benchmark in a process of its own: neither profits from what the other sets (threads, memory, kernels chosen).

python benchmarks/_apart.py MODULE CLASS JSON    the child: makes CLASS(**JSON), then does `steps(n)` for each n on its input
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path


class Apart:
    """A side whose `steps(n)` runs in a child.

    Args:
        module, name: a class of a file beside this one, which has `steps(n) -> seconds`.
        settings: its arguments, as JSON can hold them.
    """

    def __init__(self, module: str, name: str, **settings: object) -> None:
        command = [sys.executable, __file__, module, name, json.dumps(settings)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._answer()

    def steps(self, n: int) -> float:
        """Seconds of `n` steps."""
        assert self.child.stdin is not None
        self.child.stdin.write(f"{n}\n")
        self.child.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self.child.stdout is not None
        for line in self.child.stdout:  # libraries talk, too
            if line.startswith(_MARK):
                return line.removeprefix(_MARK).strip()
        raise SystemExit(f"a side of the benchmark ended with status {self.child.wait()}")


_MARK = "answer: "


def main() -> None:
    """The child."""
    module, name, settings = sys.argv[1:]
    side = getattr(importlib.import_module(module), name)(**json.loads(settings))
    print(f"{_MARK}{getattr(side, 'about', '')}", flush=True)
    for line in sys.stdin:
        print(f"{_MARK}{side.steps(int(line))}", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
