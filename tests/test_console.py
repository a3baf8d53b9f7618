"""The console: what is shown where, under quiet, verbose and JSON; on pipes and on a real pseudo-terminal; hostile data."""

from __future__ import annotations

import json
import math
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexloom import console as module
from lexloom.console import Console, Rate, count, duration, json_line, neutral, one_line, plain, size
from lexloom.errors import DataError

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J a\u202eb\u2066c \r over \ud800 \u2028 \x7f"
STEERING = (
    set(range(32)) - {9, 10} | set(range(0x7F, 0xA0)) | set(range(0x202A, 0x202F)) | set(range(0x2066, 0x206A)) | {0x200E, 0x200F, 0x61C}
)


class Clock:
    """Seconds that a test moves by itself."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def steers(text: str) -> bool:
    return any(ord(letter) in STEERING or 0xD800 <= ord(letter) < 0xE000 for letter in text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (303, "5 min 03 s"),
        (3599.7, "1 h 00 min"),
        (3780, "1 h 03 min"),
        (86399, "1 d 00 h"),
        (190000, "2 d 05 h"),
        (-1, "?"),
        (math.nan, "?"),
        (math.inf, "?"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_count_and_size() -> None:
    assert [count(n) for n in (0, 999, 12_345_678, -1234, 2.6, math.nan)] == ["0", "999", "12,345,678", "-1,234", "3", "?"]
    assert [count(n, short=True) for n in (9_999, 12_345, 999_499, 999_600, 12_345_678, 4e9, 5e15)] == [
        "9,999",
        "12.3k",
        "999k",
        "1M",
        "12.3M",
        "4G",
        "5e+15",
    ]
    assert [size(n) for n in (0, 999, 1500, 512e6, 999_600_000, 1.24e9, 5.5e12, -1)] == [
        "0 B",
        "999 B",
        "2 kB",
        "512 MB",
        "1.00 GB",
        "1.24 GB",
        "5.50 TB",
        "?",
    ]


@given(st.text(alphabet=st.characters(), max_size=80))
def test_nothing_steers_after_neutral(text: str) -> None:
    assert not steers(neutral(text))
    assert "\n" not in one_line(text)
    neutral(text).encode("utf-8")


def test_neutral_keeps_what_people_write() -> None:
    text = "naïve 中文，日本語 👩\u200d🔬 a\u0301 שלום\n\tnext"
    assert neutral(text) == text
    assert neutral("a\r\nb") == "a\nb"
    assert neutral("\x1b[2J") == "␛[2J"
    assert neutral("user\u202egnp.exe") == "user<U+202E>gnp.exe"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_json_lines_read_back(value: object) -> None:
    line = json_line(value)
    assert not steers(line) and "\n" not in line
    expected = json.loads(json.dumps(value), parse_constant=lambda name: {"Infinity": "inf", "-Infinity": "-inf"}[name])
    assert json.loads(line) == expected


def test_plain_takes_the_numbers_of_numpy_and_torch() -> None:
    import torch

    value = {
        "a": np.float32(0.1),
        "b": np.arange(2),
        "c": torch.tensor(2.5),
        "d": {2, 1},
        "e": Path("x"),
        "f": np.float64("nan"),
        "g": (1, 2),
    }
    assert plain(value) == {"a": float(np.float32(0.1)), "b": [0, 1], "c": 2.5, "d": [1, 2], "e": "x", "f": "nan", "g": [1, 2]}
    assert plain([math.inf, -math.inf, np.float32("inf")]) == ["inf", "-inf", "inf"]


def test_logs_go_to_stderr_and_results_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet, verbose, expected in (
        (False, False, "said\nwarning: odd\n"),
        (False, True, "said\ndebug: more\nwarning: odd\n"),
        (True, True, "warning: odd\n"),
    ):
        console = Console(quiet=quiet, verbose=verbose)
        console.say("said")
        console.debug("more")
        console.warn("odd")
        console.result("answer")
        assert capsys.readouterr() == ("answer\n", expected)


def test_an_error_keeps_its_place_and_hint(capsys: pytest.CaptureFixture[str]) -> None:
    Console(quiet=True).error(DataError("no rows", where="a.csv:3", hint="look at it"))
    assert capsys.readouterr().err == "error: a.csv:3: no rows\n  do:       look at it\n"


def test_results_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"label": "好", "score": 0.123456789, "more": {"n": 12345}, "list": ["a", "b"]}
    Console().result(value)
    assert capsys.readouterr().out == "label  好\nscore  0.1235\nmore\n  n  12,345\nlist\n  a\n  b\n"
    Console().result(value, text="好: 0.12")
    assert capsys.readouterr().out == "好: 0.12\n"
    Console(json=True).result(value, text="好: 0.12")
    assert json.loads(capsys.readouterr().out) == value


@pytest.mark.parametrize("json_wanted", [False, True])
def test_hostile_data_is_shown_not_obeyed(capsys: pytest.CaptureFixture[str], json_wanted: bool) -> None:
    console = Console(verbose=True, json=json_wanted)
    console.result({HOSTILE: HOSTILE})
    console.result(HOSTILE)
    console.table([HOSTILE, "n"], [[HOSTILE, 1]], title=HOSTILE)
    console.say(HOSTILE)
    console.warn(HOSTILE)
    console.error(HOSTILE)
    with console.progress(HOSTILE, 2, unit="rows") as progress:
        progress.update(2, **{HOSTILE: HOSTILE})
    out, err = capsys.readouterr()
    assert out and err and not steers(out) and not steers(err)


def test_markup_of_the_table_library_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table(["[red]a[/red]"], [["[bold]b[/bold] :smile: http://x"]], title="[link=x]t[/link]")
    out = capsys.readouterr().out
    assert all(part in out for part in ("[red]a[/red]", "[bold]b[/bold] :smile:", "[link=x]t[/link]")) and "\x1b" not in out


def test_a_table_is_aligned_by_width_on_screen(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.cells import cell_len

    rows = [["fine-tuned", 0.9, 1200], ["词袋 + 逻辑回归", 0.91234, None], ["majority", 0.25, 7]]
    Console().table(["model", "accuracy", "n"], rows, title="Scores")
    title, head, _, *lines = capsys.readouterr().out.splitlines()
    assert title == "Scores" and head.split() == ["model", "accuracy", "n"]
    ends = [cell_len(line[: line.index(".") + 5]) for line in lines]
    assert len(set(ends)) == 1 and [line.split()[-1] for line in lines] == ["1,200", "–", "7"]
    assert "0.9000" in lines[0] and "0.9123" in lines[1]


def test_small_figures_keep_their_digits_beside_large_ones(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"v": 3.0541}, {"v": 1332.4}, {"v": 24.5}, {"v": math.nan}]
    Console().table(["v"], [list(row.values()) for row in rows])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[-4:]] == ["3.0541", "1,332", "24.50", "nan"]


def test_a_piped_table_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table({"text": "Text"}, [{"text": "word " * 200}])
    assert ("word " * 200).strip() in capsys.readouterr().out


def test_columns_limits_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    Console().table({"text": "Text"}, [{"text": "word " * 30}])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


def test_a_table_as_json_has_a_row_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Console(json=True).table({"a": "A", "b": "B"}, [[1, 0.1], {"b": "x", "c": 3}], title="t")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": 1, "b": 0.1}, {"a": None, "b": "x"}]


def test_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    Console().table(["a", "b"], [])
    assert capsys.readouterr().out.split()[:2] == ["a", "b"]


def test_plain_progress_speaks_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    console = Console(clock=clock, interval_seconds=10)
    with console.progress("pretrain", 100, unit="steps") as progress:
        for step in range(1, 101):
            clock.now += 0.5
            progress.update(step, loss=5 - step / 100, tokens_per_second=12345.6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["4", "24", "44", "64", "84", "100"]
    assert lines[0].startswith("pretrain: 4 of 100 steps (4 %), loss 4.9600, 12,346 tokens/s, 48 s left, ")
    assert lines[-1].startswith("pretrain: 100 of 100 steps (100 %), loss 4.0000") and lines[-1].endswith("of memory, 50 s")


def test_quiet_progress_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Console(quiet=True, clock=clock).progress("x", 10) as progress:
        clock.now += 100
        progress.update(10, loss=1.0)
    assert capsys.readouterr() == ("", "")


def test_progress_that_is_stopped_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with pytest.raises(KeyboardInterrupt), Console(clock=clock).progress("read", 1000, unit="bytes") as progress:
        clock.now += 1
        progress.advance(500)
        raise KeyboardInterrupt
    assert "500 B of 1 kB (50 %)" in (line := capsys.readouterr().err) and line.rstrip().endswith("stopped after 1.0 s")


def test_progress_without_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Console(clock=clock).progress("read", unit="rows") as progress:
        clock.now += 4
        progress.update(1000)
        assert progress.seconds_left() is None
    assert "read: 1,000 rows, 250 rows/s" in capsys.readouterr().err


def test_time_left_follows_the_speed() -> None:
    clock = Clock()
    with Console(quiet=False, clock=clock, interval_seconds=1e9).progress("x", 10_000) as progress:
        assert progress.seconds_left() is None
        for step in range(1, 1001):
            clock.now += 0.1
            progress.update(step)
        assert progress.seconds_left() == pytest.approx(900, rel=0.01)
        for step in range(1001, 1201):
            clock.now += 1.0
            progress.update(step)
        assert progress.seconds_left() == pytest.approx(8800, rel=0.01)


def test_a_resumed_run_does_not_count_what_was_done_before() -> None:
    clock = Clock()
    with Console(clock=clock, interval_seconds=1e9).progress("x", 1000, start=900) as progress:
        clock.now += 10
        progress.update(910)
        assert progress.seconds_left() == pytest.approx(90)


def test_the_rate_keeps_few_samples_and_outlives_long_steps() -> None:
    rate = Rate(60)
    for i in range(100_000):
        rate.add(i * 0.001, i)
    assert rate.per_second() == pytest.approx(1000) and len(rate._samples) <= 122
    slow = Rate(60)
    for i in range(5):
        slow.add(i * 300.0, i)
    assert slow.per_second() == pytest.approx(1 / 300)
    assert Rate().per_second() is None


CHILD = """
from lexloom.console import Console
clock = iter(range(0, 100000, 5)).__next__
console = Console(clock=clock)
with console.progress("训练", 40, unit="steps") as progress:
    for step in range(1, 41):
        progress.update(step, loss=1.5, tokens_per_second=1000.0)
        if step == 20:
            console.say("half of it")
            console.result("a result")
console.warn("odd")
console.table(["a"], [["b"]])
"""


def on_terminal(columns: int, **environment: str) -> str:
    """What the child writes to a pseudo-terminal of so many columns."""
    master, slave = pty.openpty()
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(module.__file__).parent.parent),
        "TERM": "xterm-256color",
        "COLUMNS": str(columns),
        **environment,
    }
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=slave, stderr=slave, stdin=slave, env=env)
    os.close(slave)
    pieces: list[bytes] = []

    def listen() -> None:
        try:
            while piece := os.read(master, 65536):
                pieces.append(piece)
        except OSError:  # Linux says so when the other end is closed
            pass

    listener = threading.Thread(target=listen)
    listener.start()
    assert child.wait(timeout=60) == 0
    listener.join(timeout=60)
    os.close(master)
    return b"".join(pieces).decode()


def test_a_terminal_has_one_live_line() -> None:
    from rich.cells import cell_len
    from rich.text import Text

    for columns in (100, 30):
        shown = on_terminal(columns)
        frames = shown.split("\r\x1b[2K")
        drawn = [Text.from_ansi(frame).plain for frame in frames if "训练" in frame and not frame.startswith("训练:")]
        assert len(drawn) >= 10 and all("\n" not in line and cell_len(line) < columns for line in drawn)
        kept = [line.strip("\r") for line in "".join(frame for frame in frames if "\n" in frame).split("\n")]
        assert "half of it" in kept and "a result" in kept
        assert any(line.startswith("训练: 40 of 40 steps") for line in kept)
    assert "━" in on_terminal(100) and "\x1b[33mwarning:\x1b[0m odd" in on_terminal(100)


def test_no_color_is_respected() -> None:
    shown = on_terminal(100, NO_COLOR="1").replace("\x1b[2K", "")
    assert "warning: odd" in shown and "\x1b" not in shown


def test_a_stream_that_is_not_unicode_gets_escapes(child_environment: dict[str, str]) -> None:
    code = "from lexloom.console import Console\nc = Console(); c.say('中'); c.result('文'); c.table(['a'], [['é']])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**child_environment, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True, timeout=60
    )
    assert done.stderr == b"\\u4e2d\n" and done.stdout.startswith(b"\\u6587\n") and b"\\xe9" in done.stdout


def test_importing_and_saying_is_light(in_child: object) -> None:
    code = "import sys\nfrom lexloom.console import DEFAULT\nDEFAULT.result({'a': 1})\n"
    code += "print({'torch', 'rich', 'numpy', 'psutil'} & set(sys.modules))"
    assert in_child(code) == "a  1\nset()\n"  # type: ignore[operator]
