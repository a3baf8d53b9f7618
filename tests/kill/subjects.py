"""What is killed, or finds its disk full: called in forked children of a Python that has the shim under it (see `rig.py`)."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lexloom import cli, files
from lexloom.train import checkpoint
from lexloom.train.log import MetricsLog
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.saving import Saver


def optimizer(seed: int) -> AdamW:
    """An optimizer some steps on its way, as a function of a seed."""
    dice = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 3))
    for parameter in network.parameters():
        parameter.data.normal_(generator=dice)
    found = AdamW(network.named_parameters(), OptimizerConfig())
    for _ in range(1 + seed % 3):
        for gradient in found.gradients.values():
            gradient.normal_(generator=dice)
        found.step(0.1)
    return found


def save(folder: str, step: int, keep: int = 2, best: bool = True) -> None:
    """The checkpoint of a step, with the best weights of that step, saved as training saves: in a thread."""
    found = optimizer(step)
    state = {"best": {"value": 1 / step, "step": step, "record": {}}, "waited": 0, "tokens": 100 * step, "seconds": 0.5}
    weights = {name: master.clone() for name, master in found.masters.items()}
    with Saver(Path(folder), keep=keep) as saver:
        saver.save(step, found, state, best=checkpoint.Best(step, weights) if best else None)


def train(folder: str, steps: int = 13, every: int = 3) -> None:
    """Steps with a line each in a log, and saves beside them, from the last checkpoint on."""
    place, trained = Path(folder), optimizer(0)
    found, _ = checkpoint.latest(place / "checkpoints")
    if found is not None:
        checkpoint.restore(trained, found)
    begin = found.step if found is not None else 0
    with MetricsLog(place, tensorboard=False) as log, Saver(place / "checkpoints") as saver:
        log.truncate(begin)
        for step in range(begin + 1, steps + 1):
            advance(trained, step)
            log.write({"step": step, "loss": float(next(iter(trained.masters.values())).sum())})
            saver.check()
            if step % every == 0 or step == steps:
                saver.wait()
                log.sync()
                saver.save(step, trained, {"tokens": 100 * step}, beside=step < steps)


def advance(trained: AdamW, step: int) -> None:
    """One step, as a function of its number."""
    dice = torch.Generator().manual_seed(step)
    for gradient in trained.gradients.values():
        gradient.normal_(generator=dice)
    trained.step(0.1)


def run(arguments: list[str], cwd: str) -> int:
    """A `lexloom` command; its exit code."""
    os.chdir(cwd)
    sys.argv = ["lexloom", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def foreign(folder: str) -> None:
    """Files that other libraries write by themselves."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.new_folder(Path(folder) / "x") as new:
        pq.write_table(pa.table({"a": list(range(5000))}), new / "a.parquet")
        np.save(new / "a.npy", np.arange(5000))
        np.arange(5000).tofile(new / "a.bin")
        with (new / "a.txt").open("w", encoding="utf-8") as file:
            file.writelines(f"{i}\n" for i in range(5000))


def many(path: str) -> None:
    """A file of several writes."""
    with files.replacing(Path(path)) as file:
        for i in range(4):
            file.write(bytes([i]) * 10_000)
            file.flush()


def remove(path: str) -> None:
    """Removes a folder."""
    files.remove(Path(path))


SUBJECTS = {function.__name__: function for function in (save, train, run, foreign, many, remove)}


def child(job: dict[str, Any]) -> None:
    """One job in a forked child: the shim is armed, the subject called, what came of it written down."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    shim = ctypes.CDLL(None)
    if job["root"]:
        numbers = [ctypes.c_long(job[name]) for name in ("kill", "full", "times", "free")]
        shim.shim_arm(job["root"].encode(), (job["trace"] or "").encode(), *numbers)
    try:
        found = {"value": SUBJECTS[job["subject"]](**job["arguments"])}
    except Exception as error:
        found = {"error": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
    files.write_json(job["result"], {**found, "calls": shim.shim_calls()})


ONCE = ("lexloom.runs.pretrain", "lexloom.runs.report", "tensorboard.summary.writer.record_writer", "torch._dynamo")  # not in every child


def main() -> None:
    """Reads jobs from stdin, one a line, and forks for each."""
    torch.set_num_threads(1)
    for name in ONCE:
        importlib.import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            try:
                child(json.loads(line))
            finally:
                os._exit(0)
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    main()
