"""Makes Markdown out of what the benchmarks of this machine found: the machine, then a row for each of ours beside each peer.

python benchmarks/_table.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _paired import RESULTS

from lexloom import compute


def cpu() -> str:
    """The name of the CPU, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def last() -> list[dict[str, Any]]:
    """What was measured; of several measurements of one thing the last, in the order of their works."""
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []
    found = {(line["work"], line["ours"], line["peer"]): line for line in lines}
    works = list(dict.fromkeys(work for work, *_ in found))
    return sorted(found.values(), key=lambda line: works.index(line["work"]))


def rows() -> Iterator[str]:
    """The table, line by line."""
    yield "| work | ours | a second | peer | a second | ratio | least – greatest | rounds |"
    yield "|---|---|---|---|---|---|---|---|"
    for line in last():
        rates = f"{line['rate']:,.0f} {line['unit']} | {line['peer']} | {line['peer_rate']:,.0f}"
        spread = f"{line['ratio']:.2f} × | {line['low']:.2f} – {line['high']:.2f} | {line['rounds']}"
        yield f"| {line['work']} | {line['ours']} | {rates} | {spread} |"


if __name__ == "__main__":
    print(f"{cpu()}; {', '.join(f'{name} {value}' for name, value in compute.environment().items())}")
    print()
    print("\n".join(rows()))
