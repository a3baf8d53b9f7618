"""SIGKILL at random times: the run goes on by itself and ends with the losses and weights of a run that was never killed, to the bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lexloom import files, keys
from lexloom.train.log import read

RECIPE = """\
name: kill
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}, split: {validation: 0.1}}
tokenizer: {kind: wordpiece, vocab_size: 300}
pretrain:
  model: {kind: bert, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}
  objective: [masked-lm, next-sentence]
  train:
    {steps: 60, batch_tokens: 512, micro_batch_tokens: 256, length: 32, evaluate_every: 20, save_every: 7, learning_rate: 1e-3}
finetune:
  topics:
    task: text-classification
    data: {train: rows.jsonl, validation: rows.jsonl, test: rows.jsonl}
    train: {epochs: 6, batch_rows: 16, save_every: 5, learning_rate: 1e-3, dtype: float32}
    baselines: [majority]
"""
WORDS = "the a one that which river stone green walks sees under over between slowly quickly house tree bird never".split()  # noqa: SIM905


def sentence(number: int) -> str:
    picks = keys.integers(keys.key(9, number), 9, len(WORDS))
    return " ".join(WORDS[i] for i in picks).capitalize() + "."


def sources(folder: Path) -> None:
    """Two hundred documents of ten sentences, and a hundred labelled rows."""
    texts = [{"id": str(d), "text": " ".join(sentence(10 * d + i) for i in range(10))} for d in range(200)]
    rows = [{"text": sentence(i), "label": "high" if "river" in sentence(i).lower() else "low"} for i in range(100)]
    for name, content in (("texts", texts), ("rows", rows)):
        files.write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in content))
    files.write_text(folder / "recipe.yaml", RECIPE)


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lexloom.cli", "run", "recipe.yaml", "--out", out, "-q"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()


def outcome(run: Path) -> dict[str, object]:
    """Every logged loss as hex, and the digest of every bundle's weights."""
    found: dict[str, object] = {}
    for log in sorted(run.rglob("metrics.jsonl")):
        name = log.parent.relative_to(run).as_posix()
        lines = read(log.parent)
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1)), f"{name}: a gap or a double step"
        found[name] = [(line["loss"].hex(), line["gradient_norm"].hex(), str(line.get("validation"))) for line in lines]
    for weights in sorted(run.rglob("bundle/model.safetensors")):
        found[weights.relative_to(run).as_posix()] = files.digest(weights)
    return found


def killed_run(folder: Path, out: str, kills: int, whole_seconds: float, dice: random.Random) -> int:
    """Runs to the end through `kills` SIGKILLs at random times; returns how many of them hit."""
    hits = 0
    for _ in range(kills):
        process = start(folder, out)
        time.sleep(dice.uniform(0.3, 1.0) * whole_seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        hits += process.returncode == -signal.SIGKILL
    finish(start(folder, out))
    return hits


@pytest.mark.kill
@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bits(kills: int, tmp_path: Path) -> None:
    sources(tmp_path)
    began = time.monotonic()
    finish(start(tmp_path, "whole"))
    whole = time.monotonic() - began
    expected = outcome(tmp_path / "whole")
    assert len(expected["pretrain"]) == 60  # type: ignore[arg-type]
    assert "finetune/topics/bundle/model.safetensors" in expected
    seed = random.SystemRandom().randrange(1 << 30)
    hits = killed_run(tmp_path, "killed", kills, whole, random.Random(seed))
    assert hits > 0, "no kill came before the end"
    assert outcome(tmp_path / "killed") == expected, f"seed of the kills: {seed}"
