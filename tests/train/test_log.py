"""The log of a run: exact numbers, kills and resumes without gaps or doubles, TensorBoard's own reader, the drawing."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexloom import svg
from lexloom.train import log
from lexloom.train.log import MetricsLog, curve, draw, read, smoothed


def steps(folder: Path) -> list[int]:
    return [line["step"] for line in read(folder)]


def write(folder: Path, first: int, last: int, *, tensorboard: bool = False, loss: float = 1.0) -> None:
    with MetricsLog(folder, tensorboard=tensorboard) as writer:
        for step in range(first, last + 1):
            writer.write({"step": step, "loss": loss + step / 1000, "parts": {"masked-lm": loss}})


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_every_float_reads_back_exactly(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    folder = tmp_path_factory.mktemp("log")
    with MetricsLog(folder, tensorboard=False) as writer:
        for step, value in enumerate(values):
            writer.write({"step": step, "loss": value, "parts": {"a": np.float64(value)}})
    for line, value in zip(read(folder), values, strict=True):
        for found in (line["loss"], line["parts"]["a"]):
            assert found == value or (math.isnan(found) and math.isnan(value))
    for raw in (folder / log.METRICS).read_text().splitlines():
        json.loads(raw, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_line_is_on_its_way_to_disk_when_write_returns(tmp_path: Path) -> None:
    writer = MetricsLog(tmp_path)
    writer.write({"step": 1, "loss": 2.5, "learning_rate": 1e-3})
    (line,) = (tmp_path / log.METRICS).read_text().splitlines()
    found = json.loads(line)
    assert found.pop("time") == pytest.approx(time.time(), abs=60)
    assert found == {"step": 1, "loss": 2.5, "learning_rate": 0.001}
    assert points(tmp_path, "train/loss") == [(1, 2.5)]
    writer.sync()
    writer.close()


@pytest.mark.parametrize("bad", [{}, {"step": 3}, {"step": 2}, {"step": "4"}, {"step": 4.0}])
def test_a_step_must_follow_the_last(tmp_path: Path, bad: dict[str, object]) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as writer:
        writer.write({"step": 3, "loss": 1.0})
        with pytest.raises(ValueError, match="above 3"):
            writer.write(bad)
    assert steps(tmp_path) == [3]


def test_opening_drops_a_cut_line(tmp_path: Path) -> None:
    write(tmp_path, 1, 3)
    with (tmp_path / log.METRICS).open("ab") as file:
        file.write(b'{"step": 4, "lo')
    assert steps(tmp_path) == [1, 2, 3]
    write(tmp_path, 4, 5)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    assert (tmp_path / log.METRICS).read_bytes().count(b"\n") == 5


@pytest.mark.parametrize(
    "junk", [b"\0" * 700 + b"\n", b"[1]\n", b'{"loss": 1}\n', b'{"step": true}\n', b"\xff\xfe\n", b"[" * 5000 + b"\n", b'{"step": 1}\n']
)
def test_damage_inside_is_passed_over_and_dropped(tmp_path: Path, junk: bytes) -> None:
    write(tmp_path, 1, 2)
    path = tmp_path / log.METRICS
    good = path.read_bytes()
    path.write_bytes(good + junk)
    assert steps(tmp_path) == [1, 2]
    MetricsLog(tmp_path, tensorboard=False).truncate(2)
    assert path.read_bytes() == good


def test_truncate_drops_what_came_after_and_keeps_the_rest_to_the_byte(tmp_path: Path) -> None:
    write(tmp_path, 1, 10)
    before = (tmp_path / log.METRICS).read_bytes().splitlines(keepends=True)
    writer = MetricsLog(tmp_path, tensorboard=False)
    writer.truncate(7)
    assert (tmp_path / log.METRICS).read_bytes() == b"".join(before[:7]) and writer.last_step == 7
    writer.truncate(7)
    assert (tmp_path / log.METRICS).read_bytes() == b"".join(before[:7])
    writer.truncate(0)
    assert (tmp_path / log.METRICS).read_bytes() == b"" and writer.last_step == -1
    writer.write({"step": 1})
    writer.close()
    assert steps(tmp_path) == [1]


GOOD = st.builds(lambda step: b'{"step": %d, "loss": 1.5}\n' % step, st.integers(0, 30))
JUNK = st.sampled_from([b"\0" * 70 + b"\n", b"\r\n", b"\n", b'{"step": 7', b'{"step": 3}\r', b'{"loss": 1}\n', b"x" * 300 + b"\n"])


def step_of(raw: bytes) -> int | None:
    match = re.fullmatch(rb'\{"step": (\d+)(, "loss": 1.5)?\}\s*\n', raw)
    return int(match[1]) if match else None


@given(st.lists(GOOD | JUNK, max_size=12), st.integers(0, 20) | st.none(), st.sampled_from([1, 7, 64, 1 << 16]))
def test_any_log_is_cut_behind_a_line_that_stays(
    tmp_path_factory: pytest.TempPathFactory, found: list[bytes], after: int | None, block: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    path = folder / log.METRICS
    path.write_bytes(b"".join(found))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "BLOCK_BYTES", block)
        writer = MetricsLog(folder, tensorboard=False)
        writer.truncate(after)
    left = path.read_bytes()
    assert b"".join(found).startswith(left)
    last = json.loads(left.splitlines()[-1])["step"] if left else -1
    assert writer.last_step == last <= (30 if after is None else after)
    writer.write({"step": last + 1})
    writer.close()
    assert path.read_bytes().startswith(left) and path.read_bytes().count(b"\n") == left.count(b"\n") + 1
    whole = [step for raw in io.BytesIO(b"".join(found)) if (step := step_of(raw)) is not None]
    if whole == sorted(set(whole)):  # a log as it is written, with damage in it
        assert last == max((step for step in whole if after is None or step <= after), default=-1)


def test_a_line_that_is_too_long_is_not_held_in_memory_and_not_taken(tmp_path: Path) -> None:
    write(tmp_path, 1, 3)
    path = tmp_path / log.METRICS
    good = path.read_bytes()
    path.write_bytes(good + b'{"step": 4, "x": "' + b"x" * 3 * log.MAX_LINE_BYTES + b'"}\n')
    assert MetricsLog(tmp_path, tensorboard=False).last_step == 3
    assert path.read_bytes() == good


def bytes_read() -> int:
    """By this process, through any call, from any file."""
    (line,) = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar")]
    return int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts bytes by /proc")
@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_log_of_a_million_lines_is_not_read_to_go_on(tmp_path: Path, tensorboard: bool) -> None:
    write(tmp_path / "first", 1, 1, tensorboard=True)  # the libraries are there now
    with (tmp_path / log.METRICS).open("w") as file:
        file.writelines(f'{{"step": {step}, "loss": 1.0, "parts": {{"masked-lm": 1.0}}}}\n' for step in range(1, 1_000_001))
    (tmp_path / "events.out.tfevents.1700000000.lexloom").write_bytes(b"\0" * 40_000_000)
    whole, before = (tmp_path / log.METRICS).stat().st_size, bytes_read()
    with MetricsLog(tmp_path, tensorboard=tensorboard) as writer:
        writer.truncate(999_990)
        assert writer.last_step == 999_990
        writer.write({"step": 999_991, "loss": 2.0})
    assert bytes_read() - before < 1_000_000 < whole / 40
    assert (tmp_path / log.METRICS).stat().st_size < whole


def test_an_empty_folder_and_an_empty_file(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == []
    (tmp_path / log.METRICS).touch()
    with MetricsLog(tmp_path, tensorboard=False) as writer:
        writer.truncate(5)
        assert writer.last_step == -1 and read(tmp_path) == []


def test_tensorboard_shows_a_resumed_run_without_doubles_or_gaps(tmp_path: Path) -> None:
    write(tmp_path, 1, 10, tensorboard=True)
    assert [step for step, _ in points(tmp_path, "train/loss")] == list(range(1, 11))
    (old,) = tmp_path.glob("*tfevents*")
    before = old.read_bytes()
    with MetricsLog(tmp_path) as writer:
        writer.truncate(6)
        for step in range(7, 13):
            writer.write({"step": step, "loss": 2.0, "parts": {"masked-lm": 1.0}, "validation": {"loss": 3.0, "parts": {"masked-lm": 2.5}}})
    found = points(tmp_path, "train/loss")
    assert [step for step, _ in found] == list(range(1, 13)) and found[6:] == [(step, 2.0) for step in range(7, 13)]
    assert points(tmp_path, "validation/parts/masked-lm") == [(step, 2.5) for step in range(7, 13)]
    assert points(tmp_path, "train/parts/masked-lm")[0] == (1, 1.0)
    assert old.read_bytes() == before and len(list(tmp_path.glob("*tfevents*"))) == 2


def test_tensorboard_reads_on_past_a_record_that_a_kill_has_cut(tmp_path: Path) -> None:
    write(tmp_path, 1, 10, tensorboard=True)
    (old,) = tmp_path.glob("*tfevents*")
    old.write_bytes(old.read_bytes()[:-9])
    with MetricsLog(tmp_path) as writer:
        writer.truncate(9)
        writer.write({"step": 10, "loss": 5.0})
    assert [step for step, _ in points(tmp_path, "train/loss")] == list(range(1, 11))


def test_event_files_that_were_removed_are_made_from_all_of_the_log(tmp_path: Path) -> None:
    write(tmp_path, 1, 10)
    write(tmp_path, 11, 12, tensorboard=True)
    assert [step for step, _ in points(tmp_path, "train/loss")] == list(range(1, 13))


def test_sessions_follow_each_other_under_a_clock_that_was_set_back(tmp_path: Path) -> None:
    write(tmp_path, 1, 10, tensorboard=True)
    (old,) = tmp_path.glob("*tfevents*")
    old.rename(old.with_name(f"events.out.tfevents.{9 * 10**18}.lexloom"))
    with MetricsLog(tmp_path) as writer:
        writer.truncate(6)
        writer.write({"step": 7, "loss": 5.0})
    assert [step for step, _ in points(tmp_path, "train/loss")] == list(range(1, 8))


def test_a_tensorboard_that_is_looking_forgets_the_old_file(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 1, 10, tensorboard=True)
    reader = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    reader.Reload()
    with MetricsLog(tmp_path) as writer:
        writer.truncate(4)
        writer.write({"step": 5, "loss": 9.0})
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [1, 2, 3, 4, 5]


def test_event_files_of_others_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "events.out.tfevents.1700000000.host.1.0"
    other.write_bytes(b"")
    write(tmp_path, 1, 2, tensorboard=True)
    for step in range(3, 9):
        write(tmp_path, step, step, tensorboard=True)
    assert other.read_bytes() == b"" and len(list(tmp_path.glob("*.lexloom"))) == 7
    assert [step for step, _ in points(tmp_path, "train/loss")] == list(range(1, 9))


WRITER = """
import sys, itertools
from lexloom.train.log import MetricsLog
with MetricsLog(sys.argv[1]) as log:
    log.truncate(int(sys.argv[2]))
    print(log.last_step, flush=True)
    for step in itertools.count(int(sys.argv[2]) + 1):
        log.write({"step": step, "loss": 1 / step, "parts": {"a": 0.5}})
        if step == int(sys.argv[2]) + 20:
            print("going", flush=True)
"""


@pytest.mark.kill
def test_kills_leave_neither_gaps_nor_doubles(tmp_path: Path, child_environment: dict[str, str]) -> None:
    resume_from = 0
    for round_ in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(resume_from)]
        child = subprocess.Popen(command, env=child_environment, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline().strip() == str(resume_from or -1)
        assert child.stdout.readline().strip() == "going"
        time.sleep(0.03 * round_)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        found = steps(tmp_path)
        assert found == list(range(1, found[-1] + 1)) and found[-1] >= resume_from + 20
        resume_from = found[-1] - 7  # as if the last checkpoint were a little older
    with MetricsLog(tmp_path) as writer:
        writer.truncate(resume_from)
        writer.write({"step": resume_from + 1, "loss": 1.0})
    assert steps(tmp_path) == list(range(1, resume_from + 2)) == [step for step, _ in points(tmp_path, "train/loss")]


def test_the_log_needs_neither_torch_nor_tensorflow(tmp_path: Path, in_child: object) -> None:
    code = (
        "import sys\nfrom lexloom.train.log import MetricsLog\nlog = MetricsLog(sys.argv[1])\n"
        "print('tensorboard' in sys.modules)\nlog.write({'step': 1, 'loss': 1.0})\nlog.close()\n"
        "print({'torch', 'tensorflow'} & set(sys.modules))"
    )
    assert in_child(code, tmp_path) == "False\nset()\n"  # type: ignore[operator]


def test_a_curve_is_thinned_without_moving_it(tmp_path: Path) -> None:
    with (tmp_path / log.METRICS).open("w") as file:
        for step in range(1, 10_001):
            file.write(
                json.dumps({"step": step, "loss": 5 - step / 5000, **({"validation": {"loss": 4.0}} if step % 1000 == 0 else {})}) + "\n"
            )
    found = curve(tmp_path)
    assert log.MAX_POINTS / 2 <= len(found.training) <= log.MAX_POINTS
    for points_ in (found.training, found.smooth):
        assert all(y == pytest.approx(5 - x / 5000, abs=1e-9) for x, y in points_)
    assert found.validation == [(1000.0 * i, 4.0) for i in range(1, 11)]


def test_smoothing_follows_a_line_to_its_ends_and_calms_noise() -> None:
    line = [(float(i), 3 - 0.01 * i) for i in range(200)]
    assert [y for _, y in smoothed(line)] == pytest.approx([y for _, y in line])
    noise = [(x, y + (0.5 if int(x) % 2 else -0.5)) for x, y in line]
    assert max(abs(a[1] - b[1]) for a, b in zip(smoothed(noise), line, strict=True)) < 0.2
    assert smoothed([]) == [] and smoothed([(1.0, 2.0)]) == [(1.0, 2.0)] and smoothed([(1.0, 2.0), (2.0, 4.0)])[0][0] == 1.0


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_loss_svg_is_well_formed_with_any_number_of_points(tmp_path: Path, n: int) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as writer:
        for step in range(1, n + 1):
            loss = math.nan if step == 7 else math.inf if step == 9 else 5.0
            writer.write({"step": step, "loss": loss, "validation": {"loss": 4.0} if step % 10 == 0 else None})
        path = writer.draw()
    page = path.read_text()
    root = ElementTree.fromstring(page)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "prefers-color-scheme: dark" in page
    drawn = page.split("</style>")[1].lower()
    assert "nan" not in drawn and "inf" not in drawn
    assert ("nothing was logged yet" in page) == (n == 0)
    assert ("<circle" in page) == (n in (1, 50)) and ("<path" in page) == (n > 1)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Loss", "step", "loss"} <= set(texts) and ("validation" in texts) == (n == 50)


def test_a_chart_escapes_what_it_is_told() -> None:
    hostile = "</text><script>alert(1)</script>\x1b\u202e\ud800\ufffe'\""
    page = svg.line_chart([svg.Series(hostile, [(1, 2), (2, 3)])], title=hostile, x_label=hostile, y_label=hostile, description=hostile)
    root = ElementTree.fromstring(page)
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert "\u202e" not in page


@pytest.mark.parametrize(
    ("low", "high", "n", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (2.1, 9.7, 4, [4, 6, 8]),
        (0, 1e6, 4, [0, 5e5, 1e6]),
        (-1, 1, 4, [-1, -0.5, 0, 0.5, 1]),
        (0.001, 0.002, 2, [0.001, 0.0015, 0.002]),
    ],
)
def test_ticks_are_round(low: float, high: float, n: int, expected: list[float]) -> None:
    assert svg.ticks(low, high, n) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12)), max_size=30), st.sampled_from(["line", "faint", "dots"]))
def test_any_points_stay_inside_the_picture(pairs: list[tuple[float, float]], kind: str) -> None:
    page = svg.line_chart([svg.Series("a", sorted(pairs), kind)], title="t", x_label="x", y_label="y")  # type: ignore[arg-type]
    root = ElementTree.fromstring(page)
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.attrib["cx"]) <= 760 and 0 <= float(circle.attrib["cy"]) <= 420


def test_draw_makes_the_file_from_the_log_alone(tmp_path: Path) -> None:
    write(tmp_path, 1, 30)
    first = draw(tmp_path).read_bytes()
    (tmp_path / log.PLOT).unlink()
    assert draw(tmp_path).read_bytes() == first
