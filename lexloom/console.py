"""What a person sees: results on stdout, all else on stderr; tables, progress, JSON lines, units. Never asks anything.

Data is data: control characters, terminal sequences and writing-direction overrides inside of it are shown, never obeyed.
"""

from __future__ import annotations

import dataclasses
import io
import json as json_module
import math
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ODD = (*range(0x80, 0xA0), *_BIDI, 0x2028, 0x2029, 0xFFFE, 0xFFFF)
_SHOWN: dict[int, str] = {code: f"<U+{code:04X}>" for code in (*_ODD, *range(0xD800, 0xE000))}
_SHOWN |= {code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)} | {0x7F: "\u2421"}
_UNSAFE_IN_JSON = re.compile("[" + "".join(map(chr, (0x7F, *_ODD))) + "\ud800-\udfff]")
_STYLES = {"warning": "33", "error": "1;31", "debug": "2", "done": "36", "todo": "2"}


def neutral(text: str) -> str:
    """`text` with everything that could steer a terminal or a reader's eye made visible; line ends and tabs stay."""
    return str(text).replace("\r\n", "\n").translate(_SHOWN)


def one_line(text: str) -> str:
    """As `neutral`, and line ends too become visible."""
    return neutral(text).replace("\n", "⏎").replace("\t", " ")


def duration(seconds: float) -> str:
    """A length of time for reading: `0.4 s`, `12 s`, `5 min 03 s`, `1 h 03 min`, `2 d 04 h`."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def count(number: float, *, short: bool = False) -> str:
    """A number of things: `12,345,678`, or `12.3M` when short."""
    if not math.isfinite(number):
        return "?"
    if not short or abs(number) < 10_000:
        return f"{round(number):,}"
    for power, letter in ((3, "k"), (6, "M"), (9, "G"), (12, "T")):
        if abs(number) < 999.5 * 10**power:
            return f"{number / 10**power:.3g}{letter}"
    return f"{number:.3g}"


def size(n_bytes: float) -> str:
    """An amount of memory or disk in powers of ten: `512 MB`, `1.2 GB`."""
    if not math.isfinite(n_bytes) or n_bytes < 0:
        return "?"
    for power, unit in ((0, "B"), (3, "kB"), (6, "MB"), (9, "GB")):
        if n_bytes < 999.5 * 10**power:
            return f"{n_bytes / 10**power:.{2 if power == 9 else 0}f} {unit}"
    return f"{n_bytes / 1e12:,.2f} TB"


def plain(value: Any) -> Any:
    """JSON-like data out of `value`: numbers of numpy and torch, paths, sets and dataclasses included.

    Numbers that are not finite become the strings "nan", "inf" and "-inf", since JSON has no others; `float` reads them back.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return sorted((plain(inner) for inner in value), key=str)
    if isinstance(value, Iterable) and not hasattr(value, "tolist") and not isinstance(value, bytes):
        return [plain(inner) for inner in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def json_line(value: Any) -> str:
    """One line of JSON; floats read back exactly, and nothing in it steers a terminal."""
    text = json_module.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Rate:
    """Things a second over the last `window_seconds`, so that a run that slows down says so within that time."""

    def __init__(self, window_seconds: float = 60.0) -> None:
        self.window_seconds = window_seconds
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, now: float, done: float) -> None:
        """Notes that `done` things were done at `now` seconds."""
        if len(self._samples) > 1 and now - self._samples[-2][0] < self.window_seconds / 60:
            self._samples.pop()
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= self.window_seconds:
            self._samples.popleft()

    def per_second(self) -> float | None:
        """The rate, or None before two samples or without headway."""
        if len(self._samples) < 2:
            return None
        (start, before), (end, after) = self._samples[0], self._samples[-1]
        return (after - before) / (end - start) if end > start and after > before else None


class Console:
    """Where a verb writes. It is handed down by the command line; nothing here is global.

    Args:
        quiet: only results, warnings and errors.
        verbose: `debug` lines too.
        json: results are one JSON object a line.
        interval_seconds: without a terminal, the least time between two lines of progress.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        verbose: bool = False,
        json: bool = False,
        interval_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quiet, self.verbose, self.json = quiet, verbose and not quiet, json
        self.interval_seconds, self.clock = interval_seconds, clock
        self._lock = threading.RLock()
        self._live = ""

    def say(self, text: str = "") -> None:
        """A line of the log."""
        if not self.quiet:
            self._log("", text)

    def debug(self, text: str) -> None:
        """A line of the log for those who asked for more."""
        if self.verbose:
            self._log("debug", text)

    def warn(self, text: str) -> None:
        """Something to look at; the work goes on."""
        self._log("warning", text)

    def error(self, problem: str | Exception) -> None:
        """What stopped the work."""
        self._log("error", str(problem))

    def result(self, value: Any, text: str | None = None) -> None:
        """What the user asked for: `value` under --json, else `text`, or `value` laid out for reading."""
        shown = json_line(value) if self.json else neutral(_readable(value) if text is None else text)
        self._write(sys.stdout, shown + "\n")

    def table(
        self, columns: Sequence[str] | Mapping[str, str], rows: Iterable[Sequence[Any] | Mapping[str, Any]], *, title: str | None = None
    ) -> None:
        """Rows under headings, aligned by width on screen; under --json one object a row.

        Args:
            columns: the keys, or key -> heading.
            rows: a value for each key, by place or by name. Figures are aligned, None is a dash.
        """
        headings = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
        found = [row if isinstance(row, Mapping) else dict(zip(headings, row, strict=True)) for row in rows]
        if self.json:
            for row in found:
                self.result({key: row.get(key) for key in headings})
        else:
            self._write(sys.stdout, self._drawn_table(headings, found, title))

    @contextmanager
    def progress(self, title: str, total: float | None = None, unit: str = "steps", *, start: float = 0) -> Iterator[Progress]:
        """Shows how far a piece of work is: one live line on a terminal, else a plain line now and then, and one at the end.

        Args:
            total: what `done` will be at the end, where that is known.
            unit: what is counted; "bytes" is shown as sizes.
            start: what `done` is already, as in a resumed run.
        """
        progress = Progress(self, title, total, unit, start)
        try:
            yield progress
        except BaseException:
            progress.close(whole=False)
            raise
        progress.close(whole=True)

    def live(self, line: str) -> None:
        """Draws `line` in place of the last live line; an empty one takes it away."""
        with self._lock:
            if line or self._live:
                sys.stderr.write("\r\x1b[2K" + line)
                sys.stderr.flush()
            self._live = line

    def width(self, stream: TextIO) -> int | None:
        """Columns of the screen: COLUMNS, else the terminal's; None where nothing limits them."""
        if (wanted := os.environ.get("COLUMNS", "")).isdigit() and int(wanted) > 0:
            return max(20, int(wanted))
        if not stream.isatty():
            return None
        try:
            return os.get_terminal_size(stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def paint(self, stream: TextIO, style: str, text: str) -> str:
        """`text` in a style, where the stream is a terminal that wants colours."""
        wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if wanted and text else text

    def _log(self, kind: str, text: str) -> None:
        label = self.paint(sys.stderr, kind, f"{kind}:") + " " if kind else ""
        self._write(sys.stderr, label + neutral(text) + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        encoding = stream.encoding or "utf-8"
        with self._lock:
            live = self._live
            self.live("")
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
            self.live(live)

    def _drawn_table(self, headings: Mapping[str, str], rows: Sequence[Mapping[str, Any]], title: str | None) -> str:
        from rich import box
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD if _has_lines(sys.stdout) else box.ASCII2, show_edge=False, pad_edge=False)
        table.title, table.title_justify = Text(one_line(title)) if title else None, "left"
        for key, heading in headings.items():
            figures = [row.get(key) for row in rows]
            numeric = all(figure is None or isinstance(figure, int | float) for figure in figures) and rows
            table.add_column(Text(one_line(heading)), justify="right" if numeric else "left", overflow="fold")
        cells = [_cells([row.get(key) for row in rows]) for key in headings]
        for row in zip(*cells, strict=True):
            table.add_row(*(Text(cell) for cell in row))
        colours = bool(self.paint(sys.stdout, "done", "x") != "x")
        page = io.StringIO()
        RichConsole(file=page, width=self.width(sys.stdout) or 10_000, force_terminal=colours, no_color=not colours).print(table)
        return "".join(line.rstrip() + "\n" for line in page.getvalue().splitlines())


class Progress:
    """How far a piece of work is; made by `Console.progress`."""

    def __init__(self, console: Console, title: str, total: float | None, unit: str, start: float) -> None:
        self.console, self.title, self.total, self.unit = console, one_line(title), total, unit
        self.done, self.fields = start, {}  # type: float, dict[str, Any]
        self._rate, self._begun = Rate(), console.clock()
        self._next = self._begun + 2.0
        self._rate.add(self._begun, start)

    def update(self, done: float, **fields: Any) -> None:
        """Notes that `done` of the total is done.

        Args:
            fields: figures to show beside it, each kept until it is given anew: `loss`, `tokens_per_second`, …
        """
        if self.console.quiet:
            return
        now = self.console.clock()
        self.done = done
        self.fields |= fields
        self._rate.add(now, done)
        terminal = sys.stderr.isatty()
        if now >= self._next or (terminal and not self.console._live):
            self._next = now + (0.1 if terminal else self.console.interval_seconds)
            if terminal:
                self.console.live(self._live_line())
            else:
                self.console.say(f"{self.title}: " + ", ".join(self._parts(running=True)))

    def advance(self, more: float = 1, **fields: Any) -> None:
        """As `update`, by how much was done since."""
        self.update(self.done + more, **fields)

    def seconds_left(self) -> float | None:
        """Time to the end at the rate of the last minute, or None while nobody can know."""
        rate = self._rate.per_second()
        return None if rate is None or self.total is None else max(0.0, self.total - self.done) / rate

    def close(self, *, whole: bool) -> None:
        """Takes the live line away and leaves one line that stays."""
        if self.console.quiet:
            return
        self.console.live("")
        parts = self._parts(running=False)
        parts.append(f"{'' if whole else 'stopped after '}{duration(self.console.clock() - self._begun)}")
        self.console.say(f"{self.title}: " + ", ".join(parts))

    def _parts(self, *, running: bool) -> list[str]:
        parts = [self._counted(), *(_field(name, value) for name, value in self.fields.items())]
        rate = self._rate.per_second()
        if rate is not None and not any(name.endswith("_per_second") for name in self.fields):
            parts.append(f"{size(rate)}/s" if self.unit == "bytes" else f"{_speed(rate)} {self.unit}/s")
        if running and (left := self.seconds_left()) is not None:
            parts.append(f"{duration(left)} left")
        return [*parts, f"{size(memory())} of memory"]

    def _counted(self) -> str:
        shown = size if self.unit == "bytes" else count
        unit = "" if self.unit == "bytes" else f" {self.unit}"
        if not self.total:
            return f"{shown(self.done)}{unit}"
        return f"{shown(self.done)} of {shown(self.total)}{unit} ({int(100 * self.done / self.total)} %)"

    def _live_line(self) -> str:
        from rich.cells import cell_len, set_cell_size

        room = (self.console.width(sys.stderr) or 80) - 1
        text = "  ".join(self._parts(running=True))
        free = room - cell_len(self.title) - cell_len(text) - 4
        if not self.total or free < 8:
            line = f"{self.title}  {text}"
            return line if cell_len(line) <= room else set_cell_size(line, room - 1) + ("…" if _has_lines(sys.stderr) else " ")
        cells = min(free, 40)
        done = min(cells, int(cells * self.done / self.total))
        full, empty = ("━", "─") if _has_lines(sys.stderr) else ("#", ".")
        bar = self.console.paint(sys.stderr, "done", full * done) + self.console.paint(sys.stderr, "todo", empty * (cells - done))
        return f"{self.title}  {bar}  {text}"


def memory() -> int:
    """Bytes of memory that this process holds (resident set)."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def _has_lines(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def _speed(rate: float) -> str:
    return count(rate) if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _field(name: str, value: Any) -> str:
    words, value = one_line(name).replace("_", " "), plain(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return f"{words} {one_line(str(value))}"
    if name.endswith("_per_second"):
        return f"{_speed(value)} {words.removesuffix(' per second')}/s"
    if name.endswith("seconds"):
        return f"{words.removesuffix('seconds').strip()} {duration(value)}".strip()
    if isinstance(value, int):
        return f"{words} {count(value)}"
    return f"{words} {value:.4f}" if 0.01 <= abs(value) < 1e4 else f"{words} {value:.3g}"


def _cells(values: Sequence[Any]) -> list[str]:
    """One column as text, its floats with equal decimals, unless that took the small ones their digits."""
    floats = [abs(value) for value in values if isinstance(value, float) and math.isfinite(value)]
    least, most = min(filter(None, floats), default=0.0), max(floats, default=0.0)
    if _decimals(most) == 0 and _decimals(least) == 4:  # a perplexity among bits
        return [_cell(value, _decimals(abs(value)) if isinstance(value, float) else 0) for value in values]
    return [_cell(value, _decimals(most)) for value in values]


def _decimals(size: float) -> int:
    return 4 if size < 10 else 2 if size < 1000 else 0


def _cell(value: Any, decimals: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return f"{value:,.{decimals}f}" if isinstance(value, float) else one_line(str(value))


def _readable(value: Any, indent: str = "") -> str:
    """Plain data laid out for reading: a line a key, inner data indented."""
    if isinstance(value, Mapping):
        wide = max((len(str(key)) for key in value), default=0)
        return "\n".join(_entry(str(key), inner, wide, indent) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(_readable(inner, indent) if isinstance(inner, Mapping) else f"{indent}{inner}" for inner in value)
    return f"{indent}{value}"


def _entry(key: str, inner: Any, wide: int, indent: str) -> str:
    if isinstance(inner, Mapping | list | tuple) and inner:
        return f"{indent}{key}\n{_readable(inner, indent + '  ')}"
    return f"{indent}{key:<{wide}}  {_cell(inner, 4) if not isinstance(inner, str) else inner}"


DEFAULT = Console()
