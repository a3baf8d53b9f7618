"""What a checkpoint costs training, and what a long run costs its own start: nothing here has a peer, each is beside its own alternative.

    python benchmarks/saving.py [--layers 12 --width 768 --length 128 --rows 32 --rounds 5 --steps 3 --on runs]

A network of about 100 M parameters takes steps; then the same steps with a save begun before them. *stall* is the time for which the
call that saves keeps training waiting; *in all* holds what the steps beside it took longer, too, for the thread that writes wants a share
of the cores. Then a small training is started at step 10 and at step 1,000,000, each with a log as long as that: from building it to its
first logged step.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from _bert import SPECIAL, Ours, RandomRows, Size
from _paired import paired, ratios, seconds

from lexloom.console import Console
from lexloom.models.base import Network
from lexloom.models.bert import Bert, BertConfig
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.runs.training import Training
from lexloom.train import checkpoint
from lexloom.train.loop import StepInfo
from lexloom.train.saving import Saver
from lexloom.train.settings import TrainConfig
from lexloom.train.source import PackedSource, Phase

STATE = {"best": {}, "waited": 0, "tokens": 0, "seconds": 0.0, "cut": 1, "evaluation_cut": 1}
LINE = (
    '{"step": %d, "time": 1790000000.123, "loss": 5.2104637622833251, "parts": {"masked-lm": 4.6022257804870605}, '
    '"learning_rate": 0.0009871, "gradient_norm": 0.81270939111709595, "tokens": %d, "seconds": 471.20312, "tokens_per_second": 6951.0}\n'
)


def saving(size: Size, folder: Path, rounds: int, steps: int) -> None:
    """Steps alone, beside a save, and after a save that they waited for."""
    side = Ours(dataclasses.asdict(size), compile=False)
    stalls: dict[bool, list[float]] = {True: [], False: []}
    n_bytes = checkpoint.size(side.optimizer, STATE)
    print(f"{size}; a checkpoint of {n_bytes / 1e6:,.0f} MB; {side.chosen.line()}")
    with Saver(folder) as saver:

        def saved(beside: bool) -> float:
            stalls[beside].append(seconds(lambda: saver.save(side.done + 1, side.optimizer, STATE, beside=beside)))
            return stalls[beside][-1] + side.steps(steps) + seconds(saver.wait)

        sides = {"alone": lambda: side.steps(steps), "beside": lambda: saved(True), "waiting": lambda: saved(False)}
        times = paired(sides, rounds=rounds)
    step = statistics.median(times["alone"]) / steps
    print(f"one step {step:.2f} s, median of {rounds} × {steps}")
    for beside, name in ((True, "beside"), (False, "waiting")):
        stall = stalls[beside][-rounds:]
        more = statistics.median(b - a for a, b in zip(times["alone"], times[name], strict=True))
        words = "save beside training" if beside else "save that training waits for"
        print(
            f"{words:<30} stall {statistics.median(stall):.2f} s ({min(stall):.2f} to {max(stall):.2f}): "
            f"{statistics.median(stall) / step:.2f} steps; in all {more:.2f} s: {more / step:.2f} steps"
        )


class Reached(Exception):
    """The first step is logged."""


class First(Training):
    """A training that ends once the first line of its log is written."""

    def _watched(self) -> Iterator[StepInfo]:
        for info in super()._watched():
            yield info
            raise Reached


class Start:
    """A run of a small network at some step, as it was when it was killed."""

    def __init__(self, folder: Path, step: int, last: int) -> None:
        self.folder, self.step, self.last = folder, step, last
        self.size = Size(layers=2, width=128, rows=4)
        self.packing = RandomRows(self.size, 64)
        training = self.built()
        checkpoint.save(folder / "checkpoints", step, training.optimizer, STATE)
        with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(LINE % (i, 16384 * i) for i in range(1, step + 100))
        # Some event file of before: what it holds is not read.
        (folder / "events.out.tfevents.1.lexloom").write_bytes(b"\0" * 1024)

    def built(self) -> Training:
        """The training, gone on from its checkpoint."""
        objective = MaskedLM(
            MaskedLMConfig(), Vocabulary(self.size.vocabulary, SPECIAL[4], frozenset(SPECIAL), {"input_ids": 0, "token_type_ids": 0})
        )
        network = Network.build(Bert, BertConfig.read(self.size.config()), ("masked-lm",), seed=1)
        source = PackedSource([Phase(self.size.length, self.packing, self.last, self.size.rows, self.size.rows)], objective, seed=1)
        config = TrainConfig.read({"compile": False})
        return First(self.folder, network, objective, source, config, Console(quiet=True))

    def go(self) -> float:
        """Seconds from nothing to the first logged step."""
        began = time.perf_counter()
        training = self.built()
        assert training.begin == self.step
        with contextlib.suppress(Reached):
            training.run()
            raise AssertionError("it ended without a step")
        return time.perf_counter() - began


def starting(folder: Path, rounds: int, early: int = 10, late: int = 1_000_000) -> None:
    """Starts early and late in the same training."""
    sides = {f"step {step:,}": Start(folder / str(step), step, late + 1000).go for step in (early, late)}
    times = paired(sides, rounds=rounds)
    for name, took in times.items():
        print(f"start at {name:<21} {statistics.median(took):.2f} s ({min(took):.2f} to {max(took):.2f})")
    first, second = times
    found = ratios(times, first, second)
    print(f"{second} / {first}: {statistics.median(found):.2f} × ({min(found):.2f} to {max(found):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("layers", 12),
        ("width", 768),
        ("vocabulary", 30522),
        ("length", 128),
        ("rows", 32),
        ("rounds", 5),
        ("steps", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--on", type=Path, default=Path("runs"), help="a folder of the disk to save on")
    options = parser.parse_args()
    options.on.mkdir(parents=True, exist_ok=True)
    size = Size(options.layers, options.width, options.vocabulary, options.length, options.rows)
    with tempfile.TemporaryDirectory(dir=options.on, prefix="bench-saving-") as folder:
        saving(size, Path(folder) / "checkpoints", options.rounds, options.steps)
        starting(Path(folder), options.rounds)


if __name__ == "__main__":
    main()
