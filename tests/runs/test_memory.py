"""Memory that runs short on the way: steps and evaluations are done in smaller batches, and what was done can be done again to the bit.

The shortage is real to the code under test: a hook of torch raises its own error where a batch is too large. R14 with a limit that the
kernel sets is in `test_failure.py`.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import lexloom
from lexloom import files
from lexloom.console import Console
from lexloom.models.bert import Bert
from lexloom.runs.room import BATCH_TOKENS
from lexloom.train.log import read
from tests import tiny
from tests.unfinished import back_to

QUIET = Console(quiet=True)
SETTINGS = [
    "pretrain.train={steps: 12, batch_tokens: 512, micro_batch_tokens: 256, length: 32, evaluate_every: 4, save_every: 4, checkpoints: 9}"
]
SETTINGS += ["finetune.topics.train={epochs: 1, batch_rows: 16, learning_rate: 1e-3, save_every: 3, checkpoints: 9}"]
STAGES = ("pretrain", "finetune/topics/seeds/seed-3")


@contextmanager
def short(fits: Callable[[nn.Module, int], bool]) -> Iterator[None]:
    """Memory is short for whatever forward does not fit: network (training or not), tokens of the batch."""

    def look(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, Bert) and not fits(module, given[0]["input_ids"].numel()):
            raise torch.OutOfMemoryError("out of memory")

    handle = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for which there was memory enough."""
    folder = tmp_path_factory.mktemp("memory")
    return Path(str(lexloom.run(tiny.write(folder), out=folder / "whole", settings=SETTINGS, console=QUIET)))


def prepared(whole: Path, name: str) -> Path:
    """The folder of another run, in which all before the training is done."""
    return Path(shutil.copytree(whole, whole.with_name(name), ignore=shutil.ignore_patterns("pretrain", "finetune")))


def run(out: Path, *settings: str) -> None:
    lexloom.run(out.parent / "recipe.yaml", out=out, settings=[*SETTINGS, *settings], console=QUIET)


def validations(folder: Path) -> list[str]:
    return [str(line.get("validation")) for line in read(folder)]


def losses(folder: Path) -> list[str]:
    return [line["loss"].hex() for line in read(folder)]


@pytest.fixture(scope="module")
def tight(whole: Path) -> tuple[Path, str]:
    """A run whose evaluations had room for 300 tokens at once, and what it said."""
    out, said = prepared(whole, "tight"), io.StringIO()
    with short(lambda network, tokens: network.training or tokens <= 300), redirect_stderr(said):
        run(out)
    return out, said.getvalue()


def test_an_evaluation_that_does_not_fit_is_made_in_smaller_batches(whole: Path, tight: tuple[Path, str]) -> None:
    out, said = tight
    assert said.count("out of memory in an evaluation; its batches are halved to 256 tokens") == len(STAGES)
    for stage in STAGES:
        assert losses(out / stage) == losses(whole / stage)
        mine, other = ([line for line in read(folder / stage) if "validation" in line] for folder in (out, whole))
        assert [line["step"] for line in mine] == [line["step"] for line in other]
        assert {line["evaluation_cut"] for line in mine} == {BATCH_TOKENS // 256} and not any("evaluation_cut" in line for line in other)
        for a, b in zip(mine, other, strict=True):
            assert flat(a["validation"]) == pytest.approx(flat(b["validation"]), rel=1e-5)
        assert weights(out / stage) == weights(whole / stage)


def flat(record: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in {**record, **record.get("parts", {})}.items() if name != "parts"}


def weights(stage: Path) -> str:
    return files.digest(stage / "bundle/model.safetensors")


def test_a_resumed_run_keeps_the_size_and_so_the_bits(whole: Path, tight: tuple[Path, str], tmp_path: Path) -> None:
    out = Path(shutil.copytree(tight[0], tmp_path / "run"))
    (tmp_path / "recipe.yaml").write_text((tight[0].parent / "recipe.yaml").read_text())
    for name in ("texts", "rows"):
        shutil.copy(tight[0].parent / f"{name}.jsonl", tmp_path)
    expected = validations(out / "pretrain")
    assert expected[-1] != validations(whole / "pretrain")[-1], "the size of the batches is seen in the last bits"
    back_to(out / "pretrain", 8)
    run(out, "finetune={}")  # there is memory now
    assert validations(out / "pretrain") == expected


@pytest.mark.parametrize("stage", STAGES)
def test_what_was_evaluated_in_smaller_batches_is_verified_to_the_bit(tight: tuple[Path, str], stage: str) -> None:
    found = lexloom.verify(tight[0], stage=stage, console=QUIET)
    assert found["agrees"], found["differences"]
    assert found["steps_again"] == found["steps"]


def test_a_training_does_without_an_evaluation_of_which_not_one_row_fits(whole: Path) -> None:
    out, said = prepared(whole, "none"), io.StringIO()
    with short(lambda network, tokens: network.training), redirect_stderr(said), pytest.raises(torch.OutOfMemoryError):
        run(out, "finetune={}")
    assert "no memory to evaluate step 4; goes on without it" in said.getvalue()
    lines = read(out / "pretrain")
    assert [line["step"] for line in lines if line.get("validation", 0) is None] == [4, 8, 12]
    assert losses(out / "pretrain") == losses(whole / "pretrain")
    run(out, "finetune={}")
    assert weights(out / "pretrain") == weights(whole / "pretrain"), "the training was not lost"
    assert lexloom.verify(out, stage="pretrain", console=QUIET)["agrees"]


@pytest.fixture(scope="module")
def cut(whole: Path) -> Path:
    """A run for which memory got short in its sixth step: from then on there was room for 200 tokens."""
    out, calls = prepared(whole, "cut"), list[int]()

    def fits(network: nn.Module, tokens: int) -> bool:
        calls.append(tokens)
        return not network.training or len(calls) <= 14 or tokens <= 200

    with short(fits):
        run(out)
    return out


def test_steps_before_and_after_a_cut_are_replayed_and_verified_to_the_bit(cut: Path, whole: Path) -> None:
    lines = read(cut / "pretrain")
    cuts = [line.get("cut", 1) for line in lines]
    first = cuts.index(2) + 1
    assert 4 < first < 8 and cuts == [1] * (first - 1) + [2] * (13 - first), "in the middle of an interval"
    assert losses(cut / "pretrain")[: first - 1] == losses(whole / "pretrain")[: first - 1]
    assert losses(cut / "pretrain") != losses(whole / "pretrain"), "the size of micro-batches is seen in the last bits"
    for step in (first - 1, first, first + 1, 12):
        found = lexloom.replay(cut, step=step, rows=1, console=QUIET)
        assert found["agrees"] and found["loss"].hex() == lines[step - 1]["loss"].hex(), step
    found = lexloom.verify(cut, stage="pretrain", console=QUIET)
    assert found["agrees"] and found["steps_again"] == 12, found["differences"]
