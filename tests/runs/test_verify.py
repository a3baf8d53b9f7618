"""Parts of a run trained again: what is as it was agrees to the bit, and whatever was changed is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save

import lexloom
from lexloom import cli, files
from lexloom.console import Console
from lexloom.errors import CheckpointError, ConfigError
from lexloom.runs.rerun import Opened, bests
from lexloom.runs.verify import _drawn, survey, text
from lexloom.text.shards import Shards

QUIET = Console(quiet=True)
TASK = "finetune/topics"
SEED = f"{TASK}/seeds/seed-3"


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "run"))


def verify(run: Path, **options: Any) -> dict[str, Any]:
    found = lexloom.verify(run, console=QUIET, **options)
    assert found["agrees"] == (not found["differences"])
    assert ("All agrees" in text(found)) == found["agrees"]
    return found


def change(tensors: Path) -> str:
    """Changes the lowest bit of one weight, and every digest that tells of it."""
    found = load_file(tensors)
    name = max(sorted(found), key=lambda one: found[one].numel())
    flat = found[name].view(-1).numpy().view(np.int32)
    flat[5] ^= 1
    files.write_bytes(tensors, save(found))
    about = files.read_manifest(tensors.parent)
    assert about is not None
    files.write_manifest(tensors.parent, **{key: value for key, value in about.items() if key not in ("files", "format")})
    files.verify(tensors.parent)
    return name


def relog(folder: Path, step: int, edit: Callable[[dict[str, Any]], None]) -> None:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    edit(lines[step - 1])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines if line))


def test_ten_spots_of_an_untouched_run_agree_and_nothing_is_written(copy: Path) -> None:
    before = {str(p): (p.stat().st_mtime_ns, files.digest(p)) for p in sorted(copy.rglob("*")) if p.is_file()}
    found = verify(copy, spots=10)
    assert found["agrees"] and found["intervals"] == 10
    assert {str(p): (p.stat().st_mtime_ns, files.digest(p)) for p in sorted(copy.rglob("*")) if p.is_file()} == before
    stages = {told["stage"]: told for told in found["trainings"]}
    assert set(stages) == {"pretrain", SEED, f"{SEED}/head", f"{TASK}/from-scratch/seed-3", f"{TASK}/from-scratch/seed-3/head"}
    assert stages["pretrain"]["at_hand"] | {"seconds": 0} == {"intervals": 9, "steps": 60, "share": 1.0, "seconds": 0}
    assert stages["pretrain"]["bundle"] == "the weights of step 60" and stages[SEED]["bundle"].startswith("the best weights, of step ")
    intervals = [interval for told in found["trainings"] for interval in told["intervals"]]
    assert len(intervals) == 10 and all(one["agrees"] and one["weights"] for one in intervals)
    assert any(one["documents"] for one in intervals)


def test_draws_differ_and_repeat(kept: Path) -> None:
    intervals = survey(Opened(kept, QUIET).select("pretrain", None)[0], whole=False).intervals
    drawn = [tuple(one.begin for one in _drawn(intervals, 2, draw)) for draw in (0, 1, 2, 3, 1)]
    assert drawn[1] == drawn[4] and len(set(drawn)) > 1 and all(first < second for first, second in drawn)
    assert _drawn(intervals, 99, 0) == intervals


@pytest.mark.parametrize("hidden", [False, True], ids=["digests left", "digests rewritten"])
def test_a_changed_token_of_the_shards_is_found_and_its_document_named(copy: Path, hidden: bool) -> None:
    row = lexloom.replay(copy, step=10, rows=1, console=QUIET)["rows"][0]["from"][0]
    split = Shards.open(copy / "shards").split("train")
    place = next(i for i in range(len(split)) if split.document_id(i) == row["document"])
    at, path = split.span(place)[0] + row["tokens"][0], copy / "shards/tokens-train.bin"
    tokens = np.fromfile(path, dtype=split.tokens.dtype)
    tokens[at] = tokens[at - 1] if tokens[at] != tokens[at - 1] else tokens[at] + 1
    path.write_bytes(tokens.tobytes())
    if hidden:
        _forge(copy, path)
    found = verify(copy, stage="pretrain", spots=2, draw=draw_with(copy, 7))
    messages = [one["message"] for one in found["differences"]]
    assert any(f"the text of document {row['document']}: token {row['tokens'][0]} is" in message for message in messages)
    again = [one for one in found["differences"] if one["what"] in ("rows", "weights") and one["step"]]
    assert again[0]["step"] == 10 and "a row of that step" in again[0]["message"] and row["document"] in again[0]["message"]
    assert (found["differences"][0]["what"] == "file" and "tokens-train.bin" in messages[0]) != hidden


def draw_with(run: Path, begin: int) -> int:
    """A draw of two spots of pre-training, one of them beginning at that step."""
    intervals = survey(Opened(run, QUIET).select("pretrain", None)[0], whole=False).intervals
    return next(draw for draw in range(100) if begin in [one.begin for one in _drawn(intervals, 2, draw)])


def _forge(run: Path, path: Path) -> None:
    """Every digest of the shards, as one who wants to hide a change would rewrite them."""
    about = files.read_json(run / "shards/shards.json")
    about["splits"]["train"]["files"][path.name]["sha256"] = files.digest(path)
    files.write_json(run / "shards/shards.json", about)
    shutil.rmtree(run / "shards/packings")
    (run / "shards/stage.json").unlink()
    files.write_manifest(run / "shards", kind="shards")
    stage = files.read_json(run / "pretrain/stage.json")
    stage["depends"]["shards"] = files.fingerprint((files.read_manifest(run / "shards") or {})["files"])
    files.write_json(run / "pretrain/stage.json", stage)


@pytest.mark.parametrize("stage", [f"{SEED}/head", SEED])
def test_a_changed_weight_of_a_checkpoint_is_found_though_its_digests_agree(copy: Path, stage: str) -> None:
    folder = copy / stage / "checkpoints"
    step = sorted(folder.glob("step-*"))[0]
    name, number = change(step / "model.safetensors"), int(step.name[5:])
    found = verify(copy, stage=stage, spots=20)
    first = found["differences"][0]
    assert (first["what"], first["step"], first["where"]) == ("weights", number, stage)
    assert f"the checkpoint of step {number} is not what training gives: {name}, 1 of" in first["message"]
    assert "the first at 5:" in first["message"]


def test_where_only_later_checkpoints_are_left_the_one_an_interval_starts_from_is_named(copy: Path) -> None:
    folder = copy / "pretrain/checkpoints"
    for path in sorted(folder.glob("step-*"))[:-2]:
        files.remove(path)
    weights = folder / "step-000000056/model.safetensors"
    found = load_file(weights)
    name = next(n for n in found if "embedding" in n)
    files.write_bytes(weights, save({**found, name: found[name] * 1.01}))
    files.write_manifest(weights.parent, step=56)
    told = verify(copy, stage="pretrain")
    assert [(one["begin"], one["end"]) for one in told["trainings"][0]["intervals"]] == [(0, 7), (56, 60)]
    first = told["differences"][0]
    assert first["step"] == 57 and "the checkpoint of step 56, or a row of step 57" in first["message"] and "loss:" in first["message"]
    assert told["trainings"][0]["for_all"]["checkpoints"] == 9 and told["trainings"][0]["at_hand"]["steps"] == 11
    assert "checkpoints: 9" in text(told)


def test_a_changed_moment_of_the_optimizer_is_found(copy: Path) -> None:
    name = change(copy / f"{SEED}/head/checkpoints/step-000000007/optimizer.safetensors")
    [one] = verify(copy, stage=f"{SEED}/head")["differences"]
    assert one["step"] == 7 and name in one["message"]


@pytest.mark.parametrize(("step", "what"), [(1, "loss"), (5, "loss"), (12, "gradient_norm"), (7, "validation"), (14, "learning_rate")])
def test_a_changed_line_of_the_log_is_found(copy: Path, step: int, what: str) -> None:
    def edit(line: dict[str, Any]) -> None:
        inside, key = (line["validation"], "accuracy") if what == "validation" else (line, what)
        inside[key] = float(np.nextafter(inside[key], 0))

    relog(copy / SEED, step, edit)
    [one] = verify(copy, stage=SEED)["differences"]
    assert (one["what"], one["where"], one["step"]) == ("log", SEED, step)
    assert f"{what}: " in one["message"] and f"step {step} was changed" in one["message"].replace(", or its rows, were", " was")


def test_a_line_that_is_missing_is_found(copy: Path) -> None:
    relog(copy / SEED, 6, dict.clear)
    first = verify(copy, stage=SEED)["differences"][0]
    assert (first["what"], first["step"]) == ("log", 6)
    relog(copy / SEED, 13, dict.clear)  # the last one
    relog(copy / f"{SEED}/head", 7, dict.clear)
    assert verify(copy, stage=f"{SEED}/head")["differences"][0]["step"] == 7


def test_a_bundle_that_is_not_the_end_of_its_training_is_found(copy: Path) -> None:
    change(copy / "pretrain/bundle/model.safetensors")
    [one] = verify(copy, stage="pretrain", spots=1)["differences"]
    assert one["what"] == "bundle" and "does not hold the weights of step 60" in one["message"]
    [after] = verify(copy, stage=f"{SEED}/head", spots=1)["differences"]
    assert after["what"] == "inputs" and "start changed" in after["message"]


def test_the_bundle_of_a_task_and_the_best_weights_are_held_to_their_steps(copy: Path) -> None:
    change(copy / TASK / "bundle/model.safetensors")
    [one] = verify(copy, stage=SEED, spots=1)["differences"]
    assert "none of its seeds" in one["message"]
    step, best = max(bests(copy / SEED).items())
    change(best / "model.safetensors")
    found = verify(copy, stage=SEED, spots=20)["differences"]
    assert {("weights", step), ("bundle", None)} <= {(one["what"], one["step"]) for one in found}
    assert any(f"the best weights, of step {step}" in one["message"] for one in found)


def test_a_changed_labelled_row_is_found(copy: Path, tmp_path: Path) -> None:
    rows = (copy.parent / "rows.jsonl", Path(next(iter(Opened(copy, QUIET).run.recipe.finetune.values())).data.train))
    shutil.copy(rows[1], rows[0])
    recipe = copy / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(rows[1]), str(rows[0])))
    assert verify(copy, stage=SEED, spots=1)["agrees"], "a file of the same content elsewhere"
    rows[0].write_text(rows[0].read_text().replace("river", "stone", 1))
    [one, _] = verify(copy, stage=SEED, spots=1)["differences"]
    assert one["what"] == "inputs" and "data changed" in one["message"]
    stage = files.read_json(copy / TASK / "stage.json")
    stage["depends"]["data"] = dict.fromkeys(stage["depends"]["data"], files.digest(rows[0]))
    files.write_json(copy / TASK / "stage.json", stage)
    first = verify(copy, stage=SEED, spots=20)["differences"][0]
    assert first["what"] in ("rows", "weights") and "rows.jsonl:" in first["message"]


def test_a_run_without_checkpoints(copy: Path) -> None:
    shutil.rmtree(copy / SEED / "checkpoints")
    shutil.rmtree(copy / SEED / "head/checkpoints")
    with pytest.raises(CheckpointError, match="no checkpoint is left"):
        verify(copy, stage=SEED)
    found = verify(copy, stage=SEED, whole=True)
    assert found["agrees"] and found["steps_again"] == found["steps"] == 21
    with pytest.raises(ConfigError, match="spots"):
        verify(copy, spots=0)


def test_without_a_setting_the_length_of_an_interval_is_that_of_the_savings(kept: Path) -> None:
    place = Opened(kept, QUIET).select("pretrain", None)[0]
    unset = survey(type(place)(**{**vars(place), "train": place.train.model_copy(update={"save_every": None})}), whole=False)
    assert unset.gap == 7 and [one.end for one in unset.intervals][:2] == [7, 14]


def test_the_command_line(copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["lexloom", "verify", str(copy), "-q", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    code, shown = told("--stage", SEED, "--spots", "2")
    assert code == 0 and "All agrees: " in shown and "in 2 intervals" in shown
    relog(copy / SEED, 3, lambda line: line.update(loss=1.0))
    code, shown = told("--stage", SEED, "--spots", "9", "--json")
    assert code == 1 and json.loads(shown)["differences"][0]["step"] == 3
    code, shown = told("--stage", SEED, "--spots", "9")
    assert code == 1 and "IT DOES NOT AGREE. First: " in shown and "loss: 1.0 logged" in shown
