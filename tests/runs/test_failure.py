"""R12: a step that is not finite: the weights stay, the rows that did it are named, the batch is kept, and the run can go on from before.

What each kind of NaN does to the optimizer is in `tests/train/test_brakes.py`. R14: a step that does not fit into memory.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lexloom
from lexloom import files
from lexloom.errors import ConfigError, LexloomError
from lexloom.text.shards import Shards
from lexloom.text.tokenizer import Tokenizer
from lexloom.train import checkpoint
from lexloom.train.log import read
from tests import tiny

STEPS = ["pretrain.train.steps=20", "pretrain.train.save_every=5"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LexloomError]:
    """A run whose weights got a NaN in the embedding of one word after step 10, as by a fault of memory."""
    tmp_path = tmp_path_factory.mktemp("stopped")
    out = tmp_path / "run"
    recipe = tiny.write(tmp_path)
    texts = [json.loads(line)["text"] for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    files.write_text(tmp_path / "texts.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))
    lexloom.pretrain(recipe, out=out, settings=[*STEPS, "pretrain.train.checkpoints=9"])
    for path in (out / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > 10:
            files.remove(path)
    damage(out / "checkpoints" / "step-000000010", word(out))
    about = files.read_json(out / "stage.json")
    files.write_json(out / "stage.json", {**about, "finished": False})
    with pytest.raises(LexloomError) as caught:
        lexloom.pretrain(recipe, out=out, settings=[*STEPS, "pretrain.train.checkpoints=9"])
    return out, caught.value


def word(out: Path) -> int:
    """A token that stands in some rows of a step and not in all."""
    shards = Shards.open(next(out.parent.rglob("shards.json")).parent)
    counts = torch.bincount(torch.from_numpy(shards.split("train").tokens.astype("int64")))
    return int((counts[5:] > 0).nonzero()[0]) + 5


def damage(folder: Path, token: int) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.embedding.weight"][token] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    files.write_manifest(folder, step=10)


def test_the_step_is_kept_and_its_rows_are_named(stopped: tuple[Path, LexloomError]) -> None:
    out, error = stopped
    assert "not finite at step 11" in error.problem and "embedding.weight" in str(error.got)
    (kept,) = out.glob("failed-step-*")
    assert kept.name == "failed-step-000000011" and str(kept) == error.where
    files.verify(kept)
    told: dict[str, Any] = json.loads((kept / "failure.json").read_text())
    batches = [load_file(path) for path in sorted(kept.glob("batch-*.safetensors"))]
    assert len(told["rows"]) == sum(len(batch["input_ids"]) for batch in batches) == 16
    assert told["not_finite_rows"] and "backbone.embedding.weight" in told["parameters"]
    assert set(told["not_finite_rows"]) <= set(told["rows"]) and told["not_finite_rows"][0] in str(error.got)
    lines = (out.parent / "texts.jsonl").read_text().splitlines()
    tokenizer = Tokenizer.load(next(out.rglob("tokenizer.json")).parent)
    rows = [(batch, i) for batch in batches for i in range(len(batch["input_ids"]))]
    for (batch, i), name in zip(rows, told["rows"], strict=True):
        places = re.findall(r"texts\.jsonl:(\d+)", name)
        text = " ".join(json.loads(lines[int(place) - 1])["text"].lower() for place in places)
        masked = set(batch["masked_positions"][i].tolist())
        ids = [int(t) for at, t in enumerate(batch["input_ids"][i]) if batch["attention_mask"][i][at] and at not in masked]
        assert len(ids) > 5 and all(tokenizer.token(t).removeprefix("##") in text for t in ids if t not in tokenizer.special_ids), name


def test_the_command_that_is_told_shows_the_step_again(stopped: tuple[Path, LexloomError]) -> None:
    out, error = stopped
    command = str(error.hint).partition("to see the step again: ")[2]
    assert shlex.split(command) == ["lexloom", "replay", str(out), "--step", "11"]
    with pytest.raises(LexloomError, match="not finite at step 11"):
        lexloom.replay(out, step=11, rows=1)
    with pytest.raises(ConfigError, match="no step 12"):
        lexloom.replay(out, step=12)


def test_the_same_command_stops_at_the_same_step_and_changes_nothing(stopped: tuple[Path, LexloomError]) -> None:
    """It does not try three times by itself: everything random is a function of integers, so the next try is the same."""
    out, error = stopped
    before = {path: files.digest(path) for path in sorted((out / "checkpoints").rglob("*")) if path.is_file()}
    for _ in range(2):
        with pytest.raises(LexloomError) as caught:
            lexloom.pretrain(out.parent / "recipe.yaml", out=out, settings=[*STEPS, "pretrain.train.checkpoints=9"])
        assert str(caught.value) == str(error)
    assert {path: files.digest(path) for path in sorted((out / "checkpoints").rglob("*")) if path.is_file()} == before
    assert [line["step"] for line in read(out)] == list(range(1, 11))


def test_rows_of_a_task_are_named_by_file_and_line(kept: Path, tmp_path: Path) -> None:
    start = Path(shutil.copytree(kept / "pretrain" / "bundle", tmp_path / "bundle"))
    tokenizer, rows = Tokenizer.load(start), (kept.parent / "rows.jsonl").read_text().splitlines()
    tensors = load_file(start / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][tokenizer.encode_plain(["bird"])[0][0]] = torch.nan
    save_file(tensors, start / "model.safetensors", metadata={"format": "pt"})
    files.write_manifest(start)
    with pytest.raises(LexloomError, match="not finite at step 1") as caught:
        lexloom.finetune(
            start, task="text-classification", train=kept.parent / "rows.jsonl", out=tmp_path / "run", settings=["train.epochs=1"]
        )
    (failed,) = (tmp_path / "run").rglob("failed-step-*")
    told = json.loads((failed / "failure.json").read_text())
    assert 0 < len(told["not_finite_rows"]) < len(told["rows"]) and told["not_finite_rows"][0] in str(caught.value)
    for row in told["rows"]:
        file, _, line = row.rpartition(":")
        assert Path(file).name == "rows.jsonl"
        assert ("bird" in json.loads(rows[int(line) - 1])["text"].lower()) is (row in told["not_finite_rows"])
    assert "lexloom replay" in str(caught.value.hint)


def test_nothing_of_it_was_saved(stopped: tuple[Path, LexloomError]) -> None:
    """The last of these: it takes the damaged checkpoint away, and the run goes on."""
    out, _ = stopped
    assert [step for step, _ in checkpoint.whole(out / "checkpoints")] == [5, 10]
    files.remove(out / "checkpoints" / "step-000000010")
    run = lexloom.pretrain(out.parent / "recipe.yaml", out=out, settings=[*STEPS, "pretrain.train.checkpoints=9"])
    weights = load_file(Path(str(run)) / "bundle" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


MEMORY = """
import resource, sys
from pathlib import Path
import torch
import lexloom
from lexloom.nn.dropout import ONE_PASS_FROM, keep_mask

recipe, room = Path(sys.argv[1]), int(sys.argv[2])
sizes = {"steps": 2, "batch_tokens": 32768, "micro_batch_tokens": 32768, "dtype": "float32"}
settings = [f"pretrain.train.{name}={value}" for name, value in sizes.items()] + ["prepare.split.validation=0"]
lexloom.pretrain(recipe, out=recipe.parent / "small", settings=["pretrain.train.steps=1"])
keep_mask(torch.zeros(1, 2, dtype=torch.int32), 0, torch.Size((1, ONE_PASS_FROM)), 0.1)  # libraries, kernels and threads are there now
held = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize"))) << 10
_, most = resource.getrlimit(resource.RLIMIT_AS)
for name, limit in (("cut", held + (room << 20)), ("whole", most)):
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    lexloom.pretrain(recipe, out=recipe.parent / name, settings=settings)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the size of a process from /proc")
def test_a_step_that_does_not_fit_is_done_in_smaller_micro_batches(tmp_path: Path) -> None:
    """R14: the batch stays what it is, its gradient too, and no more than the one step is done again."""
    command = [sys.executable, "-c", MEMORY, str(tiny.write(tmp_path)), "120"]
    # One arena: others set aside addresses for each new thread, which are no memory, but count for the limit.
    environment = {**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, cwd=tiny.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "out of memory at step 1; micro-batches are halved" in done.stderr
    whole, cut = read(tmp_path / "whole"), read(tmp_path / "cut")
    assert [line["step"] for line in cut] == [1, 2] and cut[0]["cut"] > 1 and "cut" not in whole[0]
    assert [line["tokens"] for line in cut] == [line["tokens"] for line in whole]
    for name in ("loss", "gradient_norm"):
        assert cut[0][name] == pytest.approx(whole[0][name], rel=1e-6)
    assert [line["loss"] for line in cut] == pytest.approx([line["loss"] for line in whole], rel=1e-5)
