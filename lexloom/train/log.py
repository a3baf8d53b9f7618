"""The log of a training run: `metrics.jsonl` is the truth, TensorBoard's event files and `loss.svg` are made from it.

One JSON object a line and one line a step, in growing order of `step`:

    {"step": 200, "time": 1790000000.123, "loss": 5.21, "parts": {"masked-lm": 4.6, "next-sentence": 0.61}, "learning_rate": 0.001,
     "gradient_norm": 0.8, "tokens": 3276800, "seconds": 471.2, "tokens_per_second": 6951.0, "validation": {"loss": 5.0, "parts": {…}}}

Only `step` is needed. `tokens` and `seconds` count from the start of the run, `time` is the clock (added here). Where memory ran short,
`cut` says into how many each micro-batch of the step was cut, `evaluation_cut` the same of the batches of its evaluation, and `validation`
is null where not even one row fitted. Floats read back exactly; those that are not finite are the strings "nan", "inf", "-inf", for the
log of a step that went wrong is the one that is wanted.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from lexloom import files, svg
from lexloom.console import count, json_line

METRICS, PLOT = "metrics.jsonl", "loss.svg"
MAX_LINE_BYTES, MAX_POINTS = 1 << 20, 2000
BLOCK_BYTES = 1 << 16  # read at once from the end
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def lines(folder: Path | str) -> Iterator[dict[str, Any]]:
    """The lines of a folder's log in order of their steps; damaged ones and steps that were logged before are passed over."""
    path, last = Path(folder) / METRICS, -1
    if not path.is_file():
        return
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES):
            found = _parsed(raw)
            if found is not None and found["step"] > last:
                last = found["step"]
                yield found


def read(folder: Path | str) -> list[dict[str, Any]]:
    """All of `lines` at once."""
    return list(lines(folder))


class MetricsLog:
    """Writes a folder's log, a line a step. A kill can only cut the last line, and that one is dropped at the next opening.

    TensorBoard's event files of a folder are made from all of its log where there is none, and go on from then on.

    Args:
        folder: where `metrics.jsonl` is; made if need be.
        tensorboard: event files too.
    """

    def __init__(self, folder: Path | str, *, tensorboard: bool = True) -> None:
        self.folder = Path(folder)
        self._file: IO[bytes] | None = None
        self._events: _Events | None = None
        self._tensorboard = tensorboard
        self.last_step = -1
        self.truncate(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def truncate(self, after_step: int | None) -> dict[str, Any]:
        """Drops what was logged after step `after_step`, and what is damaged or double behind the last line that stays; at once.

        To be called with the step of the checkpoint that a run goes on from. None drops nothing but the damaged. The log is read from
        its end, so that a long one takes no more time than a short one; damage further up stays, and is passed over by who reads.

        Returns:
            the last line that stays, empty without any.
        """
        self.close()
        path = self.folder / METRICS
        last, end = dict[str, Any](), 0
        if path.is_file():
            with path.open("rb") as file:
                last, end = _end(file, math.inf if after_step is None else after_step)
            if path.stat().st_size > end:
                with files.appending(path) as file:
                    file.truncate(end)
                    os.fsync(file.fileno())
        self.last_step = last.get("step", -1)
        return last

    def write(self, values: Mapping[str, Any]) -> None:
        """Adds the line of one step; when this returns, a kill of the process does not lose it.

        Raises:
            ValueError: `step` is missing, or not greater than the last one.
        """
        step = values.get("step")
        if not isinstance(step, int) or step <= self.last_step:
            raise ValueError(f"the step of a line must be an integer above {self.last_step}, got {step!r}")
        line = {"step": step, "time": round(time.time(), 3), **values}
        if self._file is None:
            self._file = files.appending(self.folder / METRICS)
        if self._tensorboard and self._events is None:
            self._events = _Events.opened(self.folder, self.last_step)
            self._tensorboard = self._events is not None
        self._file.write(json_line(line).encode() + b"\n")
        self._file.flush()
        self.last_step = step
        if self._events:
            self._events.add(line)

    def sync(self) -> None:
        """Brings the log onto the disk, before a checkpoint that counts on it: then not even a power cut leaves a gap."""
        if self._file:
            os.fsync(self._file.fileno())
        if self._events:
            self._events.sync()

    def draw(self) -> Path:
        """Writes `loss.svg` from what is logged so far."""
        return draw(self.folder)

    def close(self) -> None:
        """Closes the files; the next `write` opens them again."""
        if self._file:
            self._file.close()
        if self._events:
            self._events.close()
        self._file = self._events = None


@dataclass(frozen=True)
class Curve:
    """The loss over the steps, thinned to at most `MAX_POINTS` points."""

    training: list[svg.Point]
    smooth: list[svg.Point]
    validation: list[svg.Point]

    def series(self) -> list[svg.Series]:
        """As a chart draws them."""
        raw = svg.Series("training, each step", self.training, "faint", 1)
        smooth = svg.Series("training, smoothed", self.smooth, "line", 1)
        return [raw, smooth, svg.Series("validation", self.validation, "dots", 2)]

    def words(self) -> str:
        """What the chart shows, for those who do not see it."""
        told = []
        for name, points in (("Training loss, smoothed,", self.smooth), ("Validation loss", self.validation)):
            if points:
                (_, first), (step, last) = points[0], points[-1]
                told.append(f"{name} goes from {first:.3f} to {last:.3f} at step {count(step)}.")
        return " ".join(told)


def curve(folder: Path | str) -> Curve:
    """The loss of a folder's log, read as a stream: memory does not grow with the run."""
    training, validation = _Thinned(), _Thinned()
    for line in lines(folder):
        inner = line.get("validation")
        training.add(line["step"], line.get("loss"))
        validation.add(line["step"], inner.get("loss") if isinstance(inner, Mapping) else None)
    points = training.points()
    return Curve(points, smoothed(points), validation.points())


def draw(folder: Path | str) -> Path:
    """Writes `loss.svg` beside a folder's log and returns its path."""
    found = curve(folder)
    path = Path(folder) / PLOT
    files.write_text(path, svg.line_chart(found.series(), title="Loss", x_label="step", y_label="loss", description=found.words()))
    return path


def smoothed(points: list[svg.Point], share: float = 0.05) -> list[svg.Point]:
    """A straight line fitted around each point, over `share` of all points (Cleveland 1979, unweighted).

    Unlike a running mean it neither lags behind a falling loss nor bends at the ends.
    """
    n = len(points)
    width = min(n, 2 * max(int(n * share / 2), min(10, n // 8)) + 1)
    spread = width * (width * width - 1) / 12
    sums = list(itertools.accumulate((y for _, y in points), initial=0.0))
    moments = list(itertools.accumulate((i * y for i, (_, y) in enumerate(points)), initial=0.0))
    found = []
    for i, (x, _) in enumerate(points):
        low = min(max(0, i - width // 2), n - width)
        middle, total = low + (width - 1) / 2, sums[low + width] - sums[low]
        slope = (moments[low + width] - moments[low] - middle * total) / spread if spread else 0.0
        found.append((x, total / width + slope * (i - middle)))
    return found


class _Thinned:
    """Points in bounded memory: when there are too many, neighbours become their mean."""

    def __init__(self) -> None:
        self._sums: list[tuple[float, float, int]] = []
        self._each = 1

    def add(self, x: float, y: Any) -> None:
        if isinstance(y, bool) or not isinstance(y, int | float) or not math.isfinite(y):
            return
        if self._sums and self._sums[-1][2] < self._each:
            last = self._sums[-1]
            self._sums[-1] = (last[0] + x, last[1] + y, last[2] + 1)
        else:
            self._sums.append((x, float(y), 1))
        if len(self._sums) > MAX_POINTS:
            pairs = zip(self._sums[::2], [*self._sums[1::2], (0.0, 0.0, 0)], strict=False)
            self._sums, self._each = [(a[0] + b[0], a[1] + b[1], a[2] + b[2]) for a, b in pairs], 2 * self._each

    def points(self) -> list[svg.Point]:
        return [(x / n, y / n) for x, y, n in self._sums]


class _Events:
    """TensorBoard's event files of a folder: one each time that the log is opened, so that nothing old is read or written again.

    A folder without any gets one that is made from all of its log.
    """

    PATTERN = "events.out.tfevents.*.lexloom"

    def __init__(self, file: IO[bytes]) -> None:
        # TensorBoard's record writer, not its EventFileWriter: that one has a thread, loses its queue in a kill, and imports
        # TensorFlow where it finds it.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._file, self._proto, self._summary, self._records = file, event_pb2, summary_pb2, RecordWriter(file)

    @classmethod
    def opened(cls, folder: Path, last_step: int) -> _Events | None:
        """A new event file that goes on after step `last_step`."""
        old = [file for file in folder.glob(cls.PATTERN) if file.stat().st_size]
        # TensorBoard reads them in the order of their names, which a clock that was set back must not change.
        number = max([time.time_ns(), *(int(part) + 1 for file in old if (part := file.name.split(".")[3]).isdecimal())])
        path = folder / cls.PATTERN.replace("*", str(number))
        try:
            if old:
                events = cls(files.appending(path))
                events._begin(last_step + 1)
                return events
            with files.replacing(path) as file:
                cls(file)._put_all(folder)
            return cls(files.appending(path))
        except ImportError as error:
            warnings.warn(f"no TensorBoard event files: tensorboard cannot be imported ({error})", stacklevel=3)
            files.remove(path)
            return None

    def add(self, line: Mapping[str, Any]) -> None:
        """The scalars of one step, flushed."""
        self._put(line)
        self._records.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._records.close()

    def _begin(self, step: int) -> None:
        """The start of a session: TensorBoard forgets what it read of that step and those after it, which were dropped from the log."""
        now, start = time.time(), self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._records.write(self._proto.Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        self._records.write(self._proto.Event(wall_time=now, step=step, session_log=start).SerializeToString())
        self._records.flush()

    def _put_all(self, folder: Path) -> None:
        self._begin(0)
        for line in lines(folder):
            self._put(line)

    def _put(self, line: Mapping[str, Any]) -> None:
        values = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(line)]
        if values:
            clock = line.get("time")
            event = self._proto.Event(wall_time=clock if isinstance(clock, int | float) else 0.0, step=line["step"])
            event.summary.CopyFrom(self._summary.Summary(value=values))
            self._records.write(event.SerializeToString())


def _scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of a line: `train/loss`, `train/parts/masked-lm`, `validation/loss`, …"""
    for key, value in line.items():
        if key not in ("step", "time"):
            yield from _flat(key if isinstance(value, Mapping) and key == "validation" else f"train/{key}", value)


def _flat(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{tag}/{key}", inner)
    elif hasattr(value, "item"):
        yield from _flat(tag, value.item())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield tag, float(value)


def _end(file: IO[bytes], highest: float) -> tuple[dict[str, Any], int]:
    """The last line up to step `highest`, and the place where it ends; ({}, 0) without any. Reads no more than it must.

    A line counts if the step of the sound line before it is less.
    """
    last, end = dict[str, Any](), 0
    for start, raw in _backwards(file):
        found = _parsed(raw)
        if found is not None and found["step"] < last.get("step", -1):
            break
        if found is not None:
            last, end = (found, start + len(raw)) if found["step"] <= highest else ({}, 0)
    return last, end


def _backwards(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(place, line) of each line of a file, the last one first; one that is too long for a log comes damaged."""
    place, rest = file.seek(0, os.SEEK_END), b""  # `rest` begins at `place`, inside a line, and ends with that line
    while place:
        size = min(BLOCK_BYTES, place)
        place -= size
        file.seek(place)
        read = file.read(size) + rest
        cut = (read.find(b"\n") + 1 or len(read)) if place else 0
        at, found = place + cut, list[tuple[int, bytes]]()
        for raw in io.BytesIO(read[cut:]):
            found.append((at, raw))
            at += len(raw)
        yield from reversed(found)
        rest = read[:cut] if cut <= MAX_LINE_BYTES else b"\0\n"


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """A line of the log, or None where it is cut or damaged."""
    if not raw.endswith(b"\n"):
        return None
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    good = isinstance(found, dict) and isinstance(found.get("step"), int) and not isinstance(found["step"], bool) and found["step"] >= 0
    return {key: _restored(value) for key, value in found.items()} if good else None


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(inner) for key, inner in value.items()}
    return _SPECIAL.get(value, value) if isinstance(value, str) else value
