"""Draws how many times as fast lexloom was as each peer: a row a pair, median and spread on a logarithmic axis.

python benchmarks/_plot.py FILE.svg
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _table import last

from lexloom import files, svg

WIDTH, LEFT, RIGHT, ROW, TOP = 900, 470, 850, 20, 40
STYLE = (
    "text{font:12px sans-serif;fill:#222}.head{font-weight:600}.grid{stroke:#ddd}.one{stroke:#888}"
    ".spread{stroke:#2b6cb0;stroke-width:2}.dot{fill:#2b6cb0}"
)


def picture(lines: Sequence[Mapping[str, Any]]) -> str:
    """SVG of the results, those of one work together under its name."""
    top = max([10.0, *(line["high"] for line in lines)])
    low = min([1.0, *(line["low"] for line in lines)])

    def x(ratio: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log(ratio) - math.log(low)) / (math.log(top) - math.log(low))

    rows, y, work = list[str](), TOP, None
    for line in lines:
        if line["work"] != work:
            work, y = line["work"], y + ROW + 6
            rows.append(f'<text class="head" x="10" y="{y}">{svg.text(str(work))}</text>')
        y += ROW
        rows.append(f'<text x="24" y="{y}">{svg.text(line["ours"])} / {svg.text(line["peer"])}</text>')
        rows.append(f'<line class="spread" x1="{x(line["low"]):.1f}" x2="{x(line["high"]):.1f}" y1="{y - 4}" y2="{y - 4}"/>')
        rows.append(f'<circle class="dot" cx="{x(line["ratio"]):.1f}" cy="{y - 4}" r="4"/>')
        rows.append(f'<text x="{RIGHT + 8}" y="{y}">{line["ratio"]:.1f} ×</text>')
    grid = [
        f'<line class="{"one" if n == 1 else "grid"}" x1="{x(n):.1f}" x2="{x(n):.1f}" y1="{TOP}" y2="{y + 8}"/>'
        f'<text x="{x(n) - 8:.1f}" y="{TOP - 6}">{n:g} ×</text>'
        for n in (0.25, 0.5, 1, 2, 4, 8, 16, 32)
        if low <= n <= top
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 20}" role="img" aria-label="times as fast as each peer">'
    return f'{head}<style>{STYLE}</style><rect width="{WIDTH}" height="{y + 20}" fill="#fff"/>{"".join(grid + rows)}</svg>\n'


if __name__ == "__main__":
    files.write_text(Path(sys.argv[1]), picture(last()))
