"""Makes Markdown out of what the benchmarks of this machine found: the machine, then a row for each of ours beside each peer.

python benchmarks/_table.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from _paired import RESULTS

from lexloom import compute


def cpu() -> str:
    """The name of the CPU, as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def rows() -> Iterator[str]:
    """The table, line by line; of several measurements of one thing the last."""
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []
    last = {(line["work"], line["ours"], line["peer"]): line for line in lines}
    yield "| work | ours | a second | peer | a second | ratio | least – greatest | rounds |"
    yield "|---|---|---|---|---|---|---|---|"
    for (work, ours, peer), line in last.items():
        rates = f"{line['rate']:,.0f} {line['unit']} | {peer} | {line['peer_rate']:,.0f}"
        yield f"| {work} | {ours} | {rates} | {line['ratio']:.2f} × | {line['low']:.2f} – {line['high']:.2f} | {line['rounds']} |"


if __name__ == "__main__":
    print(f"{cpu()}; {', '.join(f'{name} {value}' for name, value in compute.environment().items())}")
    print()
    print("\n".join(rows()))
