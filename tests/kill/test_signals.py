"""R06: Ctrl-C and SIGTERM at random times, real signals from a parent process: a checkpoint at the next step, and the run goes on."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lexloom import files
from lexloom.train import checkpoint
from lexloom.train.log import read
from tests import tiny
from tests.kill.runner import Runner
from tests.kill.test_kill import outcome

pytestmark = [pytest.mark.kill, pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="there is no SIGSTOP here")]

STEPS = 150
RECIPE = f"""\
name: small
seed: 3
extensions: [slow.py]
prepare: {{sources: [texts.jsonl], language: en, dedup: {{near: false}}, split: {{validation: 0.1}}}}
tokenizer: {{kind: wordpiece, vocab_size: 300}}
pretrain:
  model: {{kind: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}}
  objective: [masked-lm]
  train:
    {{steps: {STEPS}, batch_tokens: 256, micro_batch_tokens: 128, length: 32, validation_tokens: 500, evaluate_every: 40, save_every: 50}}
"""
# An objective of the recipe's own, whose sixth step takes a minute.
SLOW = '''\
"""Takes its time."""

import time

from lexloom.objectives.base import OBJECTIVES
from lexloom.objectives.masked_lm import MaskedLM

calls = []


@OBJECTIVES.register("slow")
class Slow(MaskedLM):
    """Masked LM whose sixth step takes a minute."""

    def __init__(self, config, vocabulary):
        super().__init__(config, vocabulary)
        self.parts = {"slow": 1.0}

    def collate(self, rows, row_keys, *, length, size):
        found = super().collate(rows, row_keys, length=length, size=size)
        found.counts["slow"] = found.counts.pop("masked-lm")
        return found

    def loss(self, output, batch, heads):
        calls.append(0)
        if len(calls) == 12:
            print("in the long step", flush=True)
            time.sleep(60)
        return {"slow": super().loss(output, batch, heads)["masked-lm"]}
'''
SETTLE_SECONDS = 10.0
"""The most that a step boundary, a checkpoint and the end of the process may take; steps take milliseconds here."""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A recipe whose data are prepared, and one run of it, `whole`, that nothing disturbed."""
    folder = tmp_path_factory.mktemp("signals")
    tiny.write(folder, RECIPE)
    files.write_text(folder / "slow.py", SLOW)
    found = Runner(folder)
    found.start("whole")
    assert found.end() == 0, found.said
    yield found
    found.close()


def fresh(runner: Runner, name: str) -> Path:
    """A run folder in which all before the training is done."""
    run = runner.folder / name
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(runner.folder / "whole", run, ignore=shutil.ignore_patterns("pretrain"))
    return run


def steps(run: Path) -> int:
    log = run / "pretrain" / "metrics.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def wait_for(happened: object, *, process: int) -> None:
    assert callable(happened)
    while not happened():
        os.kill(process, 0)  # it is still there
        time.sleep(0.001)


def interrupt(runner: Runner, run: Path, number: int, at: int) -> bool:
    """Sends a signal once `at` steps are logged, and looks at what is left; False where the run was at its end before."""
    process = runner.start(run.name)
    wait_for(lambda: steps(run) >= at, process=process)
    os.kill(process, signal.SIGSTOP)  # so that one knows which step it is in
    done = steps(run)
    os.kill(process, number)
    os.kill(process, signal.SIGCONT)
    began = time.monotonic()
    status = runner.end()
    assert time.monotonic() - began <= SETTLE_SECONDS
    if done >= STEPS - 1:
        return False
    assert status == 128 + number, runner.said
    found, complaints = checkpoint.latest(run / "pretrain" / "checkpoints")
    assert found is not None and complaints == [] and "Traceback" not in runner.said
    assert found.step == read(run / "pretrain")[-1]["step"] and done <= found.step <= done + 1, "not at the next step boundary"
    assert f"stopped at step {found.step} of {STEPS}; the checkpoint is saved" in runner.said
    assert "saving a checkpoint after this step; once more stops at once" in runner.said
    return True


@pytest.mark.parametrize("times", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_signal_at_any_step_saves_and_the_run_goes_on_to_the_same_bits(times: int, runner: Runner) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    dice, expected, hits, at = random.Random(seed), outcome(runner.folder / "whole"), 0, 0
    run = fresh(runner, "interrupted")
    for i in range(times):
        at += dice.randint(1, STEPS // 4)
        if at >= STEPS - 3:
            runner.start(run.name)
            assert runner.end() == 0, runner.said
            assert outcome(run) == expected, f"seed of the signals: {seed}"
            run, at = fresh(runner, "interrupted"), dice.randint(1, STEPS // 4)
        hits += interrupt(runner, run, (signal.SIGINT, signal.SIGTERM)[i % 2], at)
        at = max(at, steps(run))
    runner.start(run.name)
    assert runner.end() == 0, runner.said
    assert outcome(run) == expected, f"seed of the signals: {seed}"
    assert hits >= times // 2


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once_and_the_checkpoint_before_is_whole(first: signal.Signals, runner: Runner) -> None:
    run = fresh(runner, f"second-{first.name}")
    settings = ("pretrain.objective=[slow]", "pretrain.train.steps=9", "pretrain.train.save_every=4")
    process = runner.start(run.name, *settings)
    wait_for(lambda: "in the long step" in runner.said, process=process)
    os.kill(process, first)
    wait_for(lambda: "once more stops at once" in runner.said, process=process)
    assert steps(run) == 5, "it waits for the end of the step"
    wait_for(lambda: checkpoint.latest(run / "pretrain" / "checkpoints")[0] is not None, process=process)  # saved beside training
    second = {signal.SIGINT: signal.SIGTERM, signal.SIGTERM: signal.SIGINT}[first]
    began = time.monotonic()
    os.kill(process, second)
    status = runner.end()
    assert time.monotonic() - began <= 1
    assert status == -second, "130 or 143, as a shell tells it"
    found, complaints = checkpoint.latest(run / "pretrain" / "checkpoints")
    assert found is not None and found.step == 4 and complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("times", [6])
def test_a_signal_at_any_time_of_a_process_never_costs_what_was_saved(times: int, runner: Runner) -> None:
    """Whole processes, from before their first import to their last line."""
    environment = {**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    command = [*tiny.COMMAND, "run", "recipe.yaml", "--out", "process"]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=runner.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    run = fresh(runner, "process")
    began = time.monotonic()
    assert start().wait(600) == 0
    whole = time.monotonic() - began
    expected = outcome(run)
    dice = random.Random(random.SystemRandom().randrange(1 << 30))
    for i in range(times):
        run = fresh(runner, "process") if i % 3 == 0 else run
        before, number = steps(run), (signal.SIGINT, signal.SIGTERM)[i % 2]
        process = start()
        time.sleep(dice.uniform(0, whole))
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number, -number), said
        if told := re.search(r"stopped at step (\d+)", said):
            assert process.returncode == 128 + number
            found, _ = checkpoint.latest(run / "pretrain" / "checkpoints")
            assert found is not None and found.step == int(told[1])
        assert steps(run) >= before
    process = start()
    process.communicate(timeout=600)
    assert process.returncode == 0 and outcome(run) == expected
