"""R17: the thread that makes batches. Whatever happens to it, who waits for it hears of it by name and never hangs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
import torch

from lexloom.batch import Batch
from lexloom.errors import LexloomError
from lexloom.train.prefetch import Prefetch, StallError
from tests import tiny


def batch(step: int) -> list[Batch]:
    return [Batch({"step": torch.tensor([step])}, {"rows": 1.0})]


def taken(prefetch: Prefetch, n: int) -> list[int]:
    return [int(prefetch.take()[0]["step"]) for _ in range(n)]


@pytest.mark.parametrize("ahead", range(5))
def test_batches_come_in_their_order_however_far_ahead_they_are_made(ahead: int) -> None:
    with Prefetch(batch, 3, 40, ahead=ahead) as found:
        assert taken(found, 37) == list(range(3, 40))


@pytest.mark.parametrize("ahead", range(4))
def test_no_more_are_made_than_it_may_be_ahead(ahead: int) -> None:
    made, enough = list[int](), threading.Event()

    def make(step: int) -> list[Batch]:
        made.append(step)
        if len(made) == ahead:
            enough.set()
        return batch(step)

    with Prefetch(make, 0, 100, ahead=ahead) as found:
        assert ahead == 0 or enough.wait(60)
        time.sleep(0.02)  # room for one too many to show
        assert made == list(range(ahead))
        taken(found, 1)
    assert len(made) <= ahead + 1
    assert not found._thread.is_alive()


@pytest.mark.parametrize("error", [ValueError("row 7 is odd"), MemoryError(), LexloomError("a shard is gone"), OSError(5, "I/O error")])
@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_what_goes_wrong_is_raised_as_it_is_and_at_its_step(error: Exception, ahead: int) -> None:
    def make(step: int) -> list[Batch]:
        if step == 5:
            raise error
        return batch(step)

    with Prefetch(make, 0, 9, ahead=ahead) as found:
        assert taken(found, 5) == list(range(5))
        with pytest.raises(type(error)) as caught:
            found.take()
        assert caught.value is error


def test_a_thread_that_ends_is_named() -> None:
    def make(step: int) -> list[Batch]:
        if step == 5:
            raise SystemExit(3)  # what ends a thread, and would end the process without a word
        return batch(step)

    with Prefetch(make, 0, 9) as found:
        assert taken(found, 5) == list(range(5))
        with pytest.raises(LexloomError, match=r"the thread that makes batches ended at step 6(?s:.*)SystemExit\(3\)"):
            found.take()


def test_a_thread_that_is_not_there_is_named() -> None:
    with pytest.raises(LexloomError, match="was gone at step 1"):
        Prefetch(batch, 0, 9, told=0.05).take()


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_one_that_stalls_shows_all_threads_and_then_ends_by_name(times: int) -> None:
    for i in range(times):
        for_ever, at = threading.Event(), random.Random(i).randrange(4)

        def make(step: int, for_ever: threading.Event = for_ever, at: int = at) -> list[Batch]:
            if step == at:
                for_ever.wait()
            return batch(step)

        with (
            pytest.warns(UserWarning, match=rf"no batch for step {at + 1}(?s:.*)thread batches(?s:.*)for_ever\.wait\(\)") as told,
            pytest.raises(StallError, match=rf"no batch for step {at + 1} in(?s:.*)stands at .*threading\.py") as caught,
            Prefetch(make, 0, 9, ahead=1 + i % 3, told=0.04, stall=0.1) as found,
        ):
            assert taken(found, at) == list(range(at))
            found.take()
        assert "last checkpoint is whole" in str(caught.value)
        assert "thread MainThread" in str(told[0].message) and len(told) == 1
        for_ever.set()


def test_one_that_is_slow_is_told_of_and_waited_for() -> None:
    go = threading.Event()

    def make(step: int) -> list[Batch]:
        if step == 1:
            go.wait()
        return batch(step)

    with pytest.warns(UserWarning, match="no batch for step 2"), Prefetch(make, 0, 3, told=0.05, stall=600) as found:
        threading.Timer(0.3, go.set).start()
        assert taken(found, 3) == [0, 1, 2]


STALLED = """
import sys, threading
from lexloom.train.prefetch import Prefetch

def make(step):
    if step == 2:
        threading.Event().wait()
    return []

with Prefetch(make, 0, 9, told=0.1, stall=0.3) as found:
    while True:
        found.take()
"""


def test_a_thread_that_stalls_does_not_keep_the_process(child_environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", STALLED], env=child_environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "StallError: no batch for step 3" in done.stderr and "thread batches" in done.stderr


STOPPED = """
import time
from lexloom.train.prefetch import Prefetch

print("ready", flush=True)
with Prefetch(lambda step: time.sleep(0.05) or [], 0, 40, told=1, stall=3) as found:
    for _ in range(40):
        found.take()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP here")
def test_a_process_that_was_stopped_for_a_while_has_not_stalled(child_environment: dict[str, str]) -> None:
    process = subprocess.Popen([sys.executable, "-c", STOPPED], env=child_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(6)
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()


FIT = """
import sys
from pathlib import Path
from lexloom.errors import LexloomError
import lexloom
from lexloom.train.source import PackedSource

def broken(self, step, part=0, parts=1, whole=PackedSource.batches):
    if step == 9:
        raise {raised}
    return whole(self, step, part, parts)

PackedSource.batches = broken
recipe = Path(sys.argv[1])
try:
    lexloom.pretrain(recipe, out=recipe.parent / "run", settings=["pretrain.train.steps=20", "pretrain.train.save_every=4"])
except LexloomError as error:
    print(error.render())
"""


def test_a_run_whose_batches_end_keeps_its_checkpoint(tmp_path: pytest.TempPathFactory, in_child: Callable[..., str]) -> None:
    recipe = tiny.write(tmp_path)  # type: ignore[arg-type]
    told = in_child(FIT.format(raised="SystemExit(1)"), recipe)
    assert "the thread that makes batches ended at step 10" in told
    assert sorted(path.name for path in (recipe.parent / "run" / "checkpoints").iterdir()) == ["step-000000004", "step-000000008"]
