"""Charts as plain SVG text: no script, no font, no outside request; light and dark; a line chart and a small mark for intervals."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lexloom.console import count, neutral

Point = tuple[float, float]

# A page that shows a chart inline puts this into its own style sheet; a chart on its own carries it.
STYLE = """
.chart { --ink: #1f2630; --soft: #5b6572; --grid: #e3e6ea; --paper: #ffffff; --c1: #1d5fbf; --c2: #b34700; --c3: #1f7a4d; --c4: #7a4bb0;
  font: 12px system-ui, -apple-system, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
.chart text { fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart .title { fill: var(--ink); font-size: 15px; font-weight: 600; }
.chart .value { fill: var(--ink); font-weight: 600; }
.chart .paper { fill: var(--paper); }
.chart .grid { stroke: var(--grid); stroke-width: 1; }
.chart .axis { stroke: var(--soft); stroke-width: 1; }
.chart .line, .chart .faint { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .faint { stroke-width: 1; stroke-opacity: .35; }
.chart .k1 { stroke: var(--c1); } .chart .k2 { stroke: var(--c2); } .chart .k3 { stroke: var(--c3); } .chart .k4 { stroke: var(--c4); }
.chart .d1 { fill: var(--c1); } .chart .d2 { fill: var(--c2); } .chart .d3 { fill: var(--c3); } .chart .d4 { fill: var(--c4); }
.chart .span { stroke: var(--soft); stroke-width: 2; } .chart .zero { stroke: var(--soft); stroke-dasharray: 2 2; }
.chart .own { stroke: var(--c1); }
@media screen and (prefers-color-scheme: dark) {
  .chart { --ink: #e8ebef; --soft: #a3adb9; --grid: #2b323b; --paper: #14181d; --c1: #7fb0ff; --c2: #ffab70; --c3: #6fd3a0; --c4: #c9a3ff; }
}
""".strip()


@dataclass(frozen=True)
class Series:
    """What one colour of a chart shows.

    Args:
        points: (x, y) in the order of x; those that are not finite are left out.
        kind: a line, a faint line behind all others, or a line with a dot at every point and the last value written beside it.
        colour: 1 to 4.
    """

    name: str
    points: Sequence[Point]
    kind: Literal["line", "faint", "dots"] = "line"
    colour: int = 1

    def finite(self) -> list[Point]:
        """The points that can be drawn."""
        return [(float(x), float(y)) for x, y in self.points if math.isfinite(x) and math.isfinite(y)]


def text(value: str) -> str:
    """`value` as it may stand in SVG and HTML, whatever it holds."""
    return html.escape(neutral(value), quote=True)


def ticks(low: float, high: float, n: int) -> list[float]:
    """About `n` round numbers from `low` to `high`: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(1, n)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((m * power for m in (1, 2, 5) if m * power >= rough * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Frame:
    """Where the chart's inner rectangle lies, and what numbers its edges stand for."""

    left: float
    top: float
    right: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, point: Point) -> Point:
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (min(max(point[1], self.y[0]), self.y[1]) - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    description: str = "",
    width: int = 760,
    height: int = 420,
    alone: bool = True,
) -> str:
    """A line chart with axes, grid and legend.

    Args:
        title: its accessible name; also drawn above a chart that stands alone.
        description: the same facts in words, for those who do not see it.
        alone: a file of its own, with style and background; otherwise a part of a page that holds `STYLE`.
    """
    drawn = [one for one in series if one.finite()]
    low, high = _y_range(drawn)
    y_marks = ticks(low, high, max(3, height // 70))
    labels = [_number(mark, y_marks) for mark in y_marks]
    left = 30.0 + 7 * max(map(len, labels), default=1)
    legend = _legend_rows(drawn, width - left)
    first = 50.0 if alone else 16.0
    frame = _Frame(left, first + 18 * len(legend), width - 44.0, height - 46.0, _x_range(drawn), (low, high))
    parts = [_grid(frame, y_marks, labels), _x_axis(frame), _labels(frame, x_label, y_label), _legend(legend, left, first)]
    parts += [_series(one, frame) for one in sorted(drawn, key=lambda one: one.kind != "faint")]
    if not drawn:
        parts.append(f'<text x="{width / 2}" y="{(frame.top + frame.bottom) / 2}" text-anchor="middle">nothing was logged yet</text>')
    heading = f'<text class="title" x="{frame.left:.1f}" y="26">{text(title)}</text>' if alone else ""
    return _svg(heading + "".join(parts), title, description, width, height, alone)


def named_points(
    points: Sequence[Point],
    names: Sequence[str],
    *,
    title: str,
    description: str = "",
    width: int = 760,
    height: int = 560,
    alone: bool = True,
) -> str:
    """A map: a dot and its name at each place, both directions to one scale. What the directions are is not told: distances count.

    Args: see `line_chart`.
    """
    across_all, up_all = [x for x, _ in points], [y for _, y in points]
    left, right = min(across_all, default=0.0), max(across_all, default=0.0)
    low, high = min(up_all, default=0.0), max(up_all, default=0.0)
    inner = (40.0, 50.0 if alone else 16.0, width - 110.0, height - 24.0)
    scale = max((right - left) / (inner[2] - inner[0]), (high - low) / (inner[3] - inner[1])) or 1.0
    parts = [f'<text class="title" x="{inner[0]:.1f}" y="26">{text(title)}</text>'] if alone else []
    dots = [
        ((inner[0] + inner[2] + (2 * x - left - right) / scale) / 2, (inner[1] + inner[3] - (2 * y - low - high) / scale) / 2)
        for x, y in points
    ]
    for (x, y), name, (dx, dy, anchor) in zip(dots, names, _beside(dots, names, width), strict=True):
        parts.append(f'<circle class="d1" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        parts.append(f'<text x="{x + dx:.1f}" y="{y + dy:.1f}"{anchor}>{text(name)}</text>')
    return _svg("".join(parts), title, description, width, height, alone)


_SIDES = ((6, 4, 0.0, ""), (-6, 4, 1.0, ' text-anchor="end"'), (0, -7, 0.5, ' text-anchor="middle"'), (0, 15, 0.5, ' text-anchor="middle"'))


def _beside(dots: Sequence[Point], names: Sequence[str], width: float) -> list[tuple[int, int, str]]:
    """Where each name stands by its dot: on the first side where it covers no dot and no name before it, else on the right."""
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in dots]
    found = list[tuple[int, int, str]]()
    for (x, y), name in zip(dots, names, strict=True):
        long = _long(name)
        boxes = [(x + dx - back * long, y + dy - 10, x + dx + (1 - back) * long, y + dy + 2) for dx, dy, back, _ in _SIDES]
        free = [not any(_meet(box, other) for other in taken) and box[0] > 0 and box[2] < width for box in boxes]
        side = free.index(True) if any(free) else 0
        taken.append(boxes[side])
        dx, dy, _, anchor = _SIDES[side]
        found.append((dx, dy, anchor))
    return found


def _meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _long(name: str) -> float:
    """About how wide a text is."""
    return sum(12.0 if ord(letter) > 0x2E80 else 6.6 for letter in name)


def interval_mark(
    value: float, low: float | None, high: float | None, scale: tuple[float, float], *, own: bool = False, zero: bool = False
) -> str:
    """A value and its interval as a dot on a bar, 180 by 16, for a row of a table; all rows of a table share one `scale`.

    Args:
        own: drawn in the first colour, to stand out.
        zero: a dashed line at 0, if that lies on the scale.
    """
    width, height, middle = 180, 16, 8

    def place(number: float) -> float:
        share = (number - scale[0]) / ((scale[1] - scale[0]) or 1.0)
        return 6 + min(max(share, 0.0), 1.0) * (width - 12)

    colour = " own" if own else ""
    parts = [f'<line class="grid" x1="6" x2="{width - 6}" y1="{middle}" y2="{middle}"/>']
    if zero and scale[0] <= 0 <= scale[1]:
        parts.append(f'<line class="zero" x1="{place(0):.1f}" x2="{place(0):.1f}" y1="0" y2="{height}"/>')
    if low is not None and high is not None:
        parts.append(f'<line class="span{colour}" x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle class="{"d1" if own else "dot"}" cx="{place(value):.1f}" cy="{middle}" r="4.5"/>')
    head = f'<svg class="chart mark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
    return f"{head}{''.join(parts)}</svg>"


def _svg(inner: str, title: str, description: str, width: int, height: int, alone: bool) -> str:
    name = f"<title>{text(title)}</title>" + (f"<desc>{text(description)}</desc>" if description else "")
    label = text(f"{title}. {description}" if description else title)
    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    style = f'<style>{STYLE}</style><rect class="paper" width="{width}" height="{height}"/>' if alone else ""
    head = f'<svg{space} class="chart" role="img" aria-label="{label}" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    return f"{head}{name}{style}{inner}</svg>" + ("\n" if alone else "")


def _x_range(series: Iterable[Series]) -> Point:
    places = [x for one in series for x, _ in one.finite()] or [0.0, 1.0]
    low, high = min(places), max(places)
    low = 0.0 if 0 < low <= high / 20 else low
    return (low, high) if _apart(low, high) else (low - 1 - abs(low) / 100, high + 1 + abs(high) / 100)


def _y_range(series: Sequence[Series]) -> Point:
    """The range of all clear series; a faint one's rare spikes may be cut, so that they do not flatten the rest."""
    values = sorted(y for one in series if one.kind != "faint" for _, y in one.finite())
    faint = sorted(y for one in series if one.kind == "faint" for _, y in one.finite())
    if faint:
        cut = len(faint) // 200
        values += [faint[cut], faint[-1 - cut]]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * 0.06 if _apart(low, high) else abs(high) * 0.05 + 1e-3
    return (low - room if low - room > 0 or low < 0 else 0.0), high + room


def _apart(low: float, high: float) -> bool:
    """Whether two ends are far enough apart for numbers between them to be told apart in few digits."""
    return high - low > 1e-6 * max(abs(low), abs(high), 1e-3)


def _number(value: float, among: Sequence[float]) -> str:
    if max(map(abs, among), default=0.0) >= 10_000:
        return count(value, short=True)
    step = min((b - a for a, b in itertools.pairwise(among)), default=abs(value) or 1.0)
    decimals = max(0, min(6, -math.floor(math.log10(step) + 1e-9)))
    return f"{value:,.{decimals}f}"


def _grid(frame: _Frame, marks: Sequence[float], labels: Sequence[str]) -> str:
    parts = []
    for mark, label in zip(marks, labels, strict=True):
        y = frame.at((frame.x[0], mark))[1]
        parts.append(f'<line class="grid" x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{frame.left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    return "".join(parts)


def _x_axis(frame: _Frame) -> str:
    marks = ticks(*frame.x, max(2, int((frame.right - frame.left) / 110)))
    parts = [f'<line class="axis" x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{frame.bottom:.1f}" y2="{frame.bottom:.1f}"/>']
    for mark in marks:
        x = frame.at((mark, frame.y[0]))[0]
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.bottom:.1f}" y2="{frame.bottom + 4:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{frame.bottom + 18:.1f}" text-anchor="middle">{_number(mark, marks)}</text>')
    return "".join(parts)


def _labels(frame: _Frame, x_label: str, y_label: str) -> str:
    middle = (frame.top + frame.bottom) / 2
    across = f'<text x="{(frame.left + frame.right) / 2:.1f}" y="{frame.bottom + 38:.1f}" text-anchor="middle">{text(x_label)}</text>'
    return across + f'<text x="14" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 14 {middle:.1f})">{text(y_label)}</text>'


def _legend_rows(series: Sequence[Series], width: float) -> list[list[tuple[Series, float]]]:
    """Each row as (series, x from the left), as many rows as the width asks for."""
    rows: list[list[tuple[Series, float]]] = [[]]
    x = 0.0
    for one in series:
        needed = 24 + _long(one.name)
        if rows[-1] and x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((one, x))
        x += needed + 18
    return rows


def _legend(rows: Sequence[Sequence[tuple[Series, float]]], left: float, y: float) -> str:
    parts = []
    for i, row in enumerate(rows):
        for one, right in row:
            x, line = left + right, y + 18 * i
            style = f"{'faint' if one.kind == 'faint' else 'line'} k{one.colour}"
            parts.append(f'<line class="{style}" x1="{x:.1f}" x2="{x + 18:.1f}" y1="{line - 4:.1f}" y2="{line - 4:.1f}"/>')
            if one.kind == "dots":
                parts.append(f'<circle class="d{one.colour}" cx="{x + 9:.1f}" cy="{line - 4:.1f}" r="3.5"/>')
            parts.append(f'<text x="{x + 24:.1f}" y="{line:.1f}">{text(one.name)}</text>')
    return "".join(parts)


def _series(one: Series, frame: _Frame) -> str:
    places = [frame.at(point) for point in one.finite()]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path class="{"faint" if one.kind == "faint" else "line"} k{one.colour}" d="{path}"/>'] if len(places) > 1 else []
    if one.kind == "dots" or len(places) == 1:
        parts += [f'<circle class="d{one.colour}" cx="{x:.1f}" cy="{y:.1f}" r="{3.5 if len(places) <= 60 else 2}"/>' for x, y in places]
    if one.kind == "dots":
        x, y = places[-1]
        parts.append(f'<text class="value" x="{x + 7:.1f}" y="{y + 4:.1f}">{one.finite()[-1][1]:.3g}</text>')
    return "".join(parts)
