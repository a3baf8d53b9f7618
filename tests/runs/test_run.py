"""A whole recipe: every stage leaves what it should, is reused, goes on after Ctrl-C, and is kept aside when its settings change."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import lexloom
from lexloom import files
from lexloom.console import Console
from lexloom.errors import BusyError, ConfigError
from lexloom.lock import locked
from lexloom.runs import recipe
from lexloom.runs.run import Run
from lexloom.train.log import read
from tests import tiny
from tests.unfinished import unfinished


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe's run."""
    folder = tmp_path_factory.mktemp("tiny")
    return Path(str(lexloom.run(tiny.write(folder), out=folder / "run")))


def test_every_stage_leaves_its_files(done: Path) -> None:
    for name in (
        "recipe.yaml environment.json report.html corpus/corpus.json tokenizer/tokenizer.json tokenizer/report.json shards/shards.json "
        "pretrain/metrics.jsonl pretrain/loss.svg pretrain/summary.json pretrain/bundle/config.json pretrain/compute.json "
        "finetune/topics/summary.json finetune/topics/bundle/model.safetensors"
    ).split():
        assert (done / name).is_file(), name
    assert [line["step"] for line in read(done / "pretrain")] == list(range(1, 61))
    summary = files.read_json(done / "pretrain" / "summary.json")
    assert summary["steps"] == 60 and set(summary["validation"]["parts"]) == {"masked-lm", "next-sentence"}
    assert [len(fill["answers"]) for fill in summary["fills"]] == [5]
    scores = files.read_json(done / "finetune/topics/summary.json")["scores"]
    assert {score["model"] for score in scores} == {"fine-tuned", "majority"}
    assert all(score["low"] <= score["value"] <= score["high"] for score in scores)


def test_the_bundles_answer(done: Path) -> None:
    topics = lexloom.load(done / "finetune/topics/bundle")
    answers = topics.predict(["The river sees a bird.", "One."])
    assert [set(answer) for answer in answers] == [{"label", "score"}] * 2
    assert {answer["label"] for answer in answers} <= {"high", "low"}
    assert lexloom.predict(done / "pretrain/bundle", ["The [MASK]."])[0][0]["token_str"]


def test_learning_took_place(done: Path) -> None:
    losses = [line["loss"] for line in read(done / "pretrain")]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_the_recipe_that_a_run_keeps_finds_it_finished(done: Path) -> None:
    plan = recipe.read(done / "recipe.yaml")
    assert {stage["what"] for stage in Run(plan, done, Console(quiet=True)).dry()} == {"is reused"}


def test_the_code_of_an_extension_counts(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, f"extensions: [mine.py]\n{tiny.RECIPE}")
    (tmp_path / "mine.py").write_text("ONE = 1\n")
    before = Run(recipe.read(path), tmp_path / "run", Console(quiet=True)).code()
    (tmp_path / "mine.py").write_text("ONE = 2\n")
    assert before and Run(recipe.read(path), tmp_path / "run", Console(quiet=True)).code() != before


def test_a_finished_run_is_reused(done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.safetensors")}
    lexloom.run(done.parent / "recipe.yaml", out=done)
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*.safetensors")} == before
    plan = lexloom.run(done.parent / "recipe.yaml", out=done, dry_run=True)
    assert [stage["what"] for stage in plan] == ["is reused"] * 5


def test_the_kept_recipe_is_the_recipe(done: Path) -> None:
    again = Run(recipe.read(done / "recipe.yaml"), done, Console(quiet=True)).dry()
    assert [stage["stage"] for stage in again] == ["corpus", "tokenizer", "shards", "pretrain", "finetune/topics"]
    assert recipe.read(done / "recipe.yaml").recipe.name == "tiny"


def test_what_a_save_was_to_remove_when_it_was_killed_goes_all_the_same(done: Path, tmp_path: Path) -> None:
    """The last save had written its checkpoint: the run that goes on makes none."""
    run = Path(shutil.copytree(done, tmp_path / "run"))
    checkpoints = run / "pretrain" / "checkpoints"
    before = sorted(path.name for path in checkpoints.iterdir())
    for name in ("step-000000003", "best-000000003"):
        shutil.copytree(checkpoints / before[-1], checkpoints / name)
    unfinished(run / "pretrain")
    weights = files.digest(done / "pretrain" / "bundle" / "model.safetensors")
    lexloom.run(done.parent / "recipe.yaml", out=run)
    assert sorted(path.name for path in checkpoints.iterdir()) == before
    assert files.digest(run / "pretrain" / "bundle" / "model.safetensors") == weights


def test_a_dry_run_tells_what_is_not_right(done: Path) -> None:
    for setting in ("pretrain.train.lenght=8", "pretrain.model.hiden_size=8", "finetune.topics.train.epoch=1"):
        with pytest.raises(ConfigError, match="did you mean"):
            lexloom.run(done.parent / "recipe.yaml", out=done, settings=[setting], dry_run=True)


def test_a_dry_run_says_what_would_run(done: Path) -> None:
    settings = ["pretrain.train.steps=61"]
    plan = lexloom.run(done.parent / "recipe.yaml", out=done, dry_run=True, settings=settings)
    assert [stage["what"] for stage in plan][:3] == ["is reused"] * 3
    assert plan[3]["what"] == "runs again: settings changed"
    assert plan[4]["what"] == "runs, for a stage before it does"


def test_a_changed_stage_is_kept_aside(tmp_path: Path) -> None:
    path, out = tiny.write(tmp_path), tmp_path / "run"
    lexloom.run(path, out=out, settings=["pretrain.train.steps=8", "finetune={}"])
    before = files.digest(out / "pretrain/bundle/model.safetensors")
    lexloom.run(path, out=out, settings=["pretrain.train.steps=9", "finetune={}"])
    assert files.digest(out / "pretrain.old-1/bundle/model.safetensors") == before
    assert len(read(out / "pretrain")) == 9


def test_what_alarms_compare_with_is_found_once(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(shutil.copytree(done, tmp_path / "run"))
    found = files.read_json(out / "pretrain/alarms.json")
    assert found["repeated"] == 0 and found["rows"] > 100 and set(found["blind"]) == {"masked-lm", "next-sentence"}
    files.write_json(out / "pretrain/alarms.json", {**found, "repeated": 0.5})
    unfinished(out / "pretrain")
    lexloom.run(done.parent / "recipe.yaml", out=out)
    assert "50% of" in capsys.readouterr().err, "the rows were read again"


def test_two_writers_are_one_too_many(done: Path) -> None:
    with locked(done), pytest.raises(BusyError, match=str(os.getpid())):
        lexloom.run(done.parent / "recipe.yaml", out=done)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(number: signal.Signals, code: int, done: Path, tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.RECIPE.replace("save_every: 7", "save_every: 1000"))
    command = [*tiny.COMMAND, "run", "recipe.yaml", "--out", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=tiny.ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    log = tmp_path / "run/pretrain/metrics.jsonl"
    while process.poll() is None and (not log.is_file() or log.read_bytes().count(b"\n") < 3):
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said.decode()
    assert b"the checkpoint is saved" in said and b"the same command goes on" in said
    reached = read(tmp_path / "run/pretrain")[-1]["step"]
    assert 3 <= reached < 60
    done_again = subprocess.run(command, cwd=tmp_path, env=tiny.ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done_again.returncode == 0, done_again.stderr
    assert f"going on from step {reached}" in done_again.stderr
    for part in ("pretrain", "finetune/topics/seeds/seed-1"):
        assert [line["loss"] for line in read(tmp_path / "run" / part)] == [line["loss"] for line in read(done / part)]
    assert files.digest(tmp_path / "run/pretrain/bundle/model.safetensors") == files.digest(done / "pretrain/bundle/model.safetensors")


def test_the_pieces_of_bytes_are_told_as_the_characters_they_are(tmp_path: Path) -> None:
    files.write_text(tmp_path / "texts.txt", "\n".join(f"北京是中国的首都{i}。 A house in 北京." for i in range(60)))
    prepare = "prepare: {sources: [texts.txt], documents: line, language: zh, dedup: {near: false}}\n"
    files.write_text(tmp_path / "recipe.yaml", f"name: pieces\n{prepare}tokenizer: {{kind: byte-bpe, vocab_size: 330}}\n")
    run = Path(str(lexloom.run(tmp_path / "recipe.yaml", out=tmp_path / "run")))
    told = {token for sample in files.read_json(run / "tokenizer/report.json")["samples"] for token in sample["tokens"]}
    assert any("北京" in token for token in told) and "Ġhouse" in told and not any("å" in token for token in told)
