"""Any past step again: the logged loss to the bit, the rows it had, what was masked, and the loss of each predicted token."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import lexloom
from lexloom import cli, files
from lexloom.console import Console
from lexloom.errors import CheckpointError, ConfigError, DataError, LexloomError
from lexloom.runs import origin
from lexloom.runs.rerun import Opened
from lexloom.text.pack import PackingConfig, ensure_packing
from lexloom.text.shards import Shards
from lexloom.train.log import read

QUIET = Console(quiet=True)
TASK = "finetune/topics"


def logged(folder: Path, step: int) -> dict:
    return read(folder)[step - 1]


def state(folder: Path) -> dict[str, tuple[int, str]]:
    return {str(p): (p.stat().st_mtime_ns, files.digest(p)) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "run"))


def test_twenty_random_steps_of_pre_training_give_the_logged_bits(kept: Path) -> None:
    threads = torch.get_num_threads()
    for step in random.SystemRandom().sample(range(1, 61), 20):
        found = lexloom.replay(kept, step=step, rows=1, console=QUIET)
        line = logged(kept / "pretrain", step)
        assert (found["loss"].hex(), found["gradient_norm"].hex()) == (line["loss"].hex(), line["gradient_norm"].hex()), step
        assert found["agrees"] and found["parts"] == line["parts"] and found["first_difference"] is None
        assert found["checkpoint"] == (step - 1) // 7 * 7
        assert found["sum_of_rows"] == pytest.approx(line["loss"], rel=1e-6)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("stage", [TASK, f"{TASK}/from-scratch", f"{TASK}/seeds/seed-3/head"])
@pytest.mark.parametrize("step", [1, 4, 7])
def test_steps_of_fine_tuning_give_the_logged_bits(kept: Path, stage: str, step: int) -> None:
    found = lexloom.replay(kept, step=step, stage=stage, rows=2, console=QUIET)
    line = logged(kept / found["stage"], step)
    assert found["agrees"] and found["loss"].hex() == line["loss"].hex()
    for row in found["rows"]:
        file, number = row["from"][0]["where"].rsplit(":", 1)
        source = json.loads(Path(file).read_text().splitlines()[int(number) - 1])
        assert row["label"] == source["label"]
        assert row["tokens"][1:-1] == source["text"].lower().replace(".", " .").split()


def test_the_weights_come_from_the_start_where_no_checkpoint_is_left(copy: Path) -> None:
    shutil.rmtree(copy / TASK / "seeds/seed-3/checkpoints")
    shutil.rmtree(copy / TASK / "seeds/seed-3/head/checkpoints")  # so that its end, too, is trained again
    before = state(copy)
    found = lexloom.replay(copy, step=9, stage=TASK, console=QUIET)
    assert found["agrees"] and found["checkpoint"] == 0
    assert state(copy) == before, "something was written into the run"


def test_a_damaged_checkpoint_is_passed_over(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = copy / "pretrain/checkpoints/step-000000014/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    found = lexloom.replay(copy, step=16, console=QUIET)
    assert found["agrees"] and found["checkpoint"] == 7
    assert "damaged" in capsys.readouterr().err


def test_rows_are_told_with_their_documents_masks_and_losses(kept: Path) -> None:
    found = lexloom.replay(kept, step=30, console=QUIET)
    texts = {row["id"]: row["text"] for row in map(json.loads, (kept.parent / "texts.jsonl").read_text().splitlines())}
    assert found["rows_in_step"] == len(found["rows"]) == 16
    assert sum(len(row["masked"]) for row in found["rows"]) == found["predicted"]["masked-lm"]
    assert sum(row["loss"] for row in found["rows"]) == pytest.approx(found["loss"], rel=1e-5)
    kinds = set()
    for row in found["rows"]:
        tokens = list(row["tokens"])
        for one in row["masked"]:
            assert tokens[one["position"]] == one["shown"]
            tokens[one["position"]] = one["token"]
            kinds.add("mask" if one["shown"] == "[MASK]" else "kept" if one["shown"] == one["token"] else "random")
        words = [token for token in tokens if token not in ("[CLS]", "[SEP]")]
        spans = [(texts[p["document"]].lower().replace(".", " .").split(), *p["tokens"]) for p in row["from"]]
        assert words == [word for text, start, end in spans for word in text[start:end]]
        assert all(piece["where"] == "texts.jsonl" for piece in row["from"])
        assert row["parts"]["masked-lm"] == pytest.approx(sum(one["loss"] for one in row["masked"]), rel=1e-5)
        assert (row["from"][0]["document"] == row["from"][1]["document"]) == (row["label"] == "the second text follows the first")
    assert {"mask", "random"} <= kinds
    first = sum(row["parts"]["next-sentence"] for row in found["rows"]) / 16
    assert first == pytest.approx(found["parts"]["next-sentence"], rel=1e-3)


def test_a_document_without_an_id_is_named_by_its_line() -> None:
    assert origin.where("texts.jsonl:12", "texts.jsonl") == "texts.jsonl:12"
    assert origin.where("texts.jsonl#2", "texts.jsonl") == origin.where("4", "texts.jsonl") == "texts.jsonl"


@pytest.mark.parametrize("kind", ["joined", "isolated", "pairs"])
def test_pieces_are_the_tokens_of_packed_rows(kept: Path, tmp_path: Path, kind: str) -> None:
    split = Shards.open(kept / "shards").split("train")
    about = {"kind": "sentence-pairs"} if kind == "pairs" else {"documents": kind}
    packing = ensure_packing(split, PackingConfig.read({"length": 48, **about}), seed=1, folder=tmp_path)
    assert len(packing) > 50
    for row in range(len(packing)):
        pieces = origin.pieces(packing, row)
        made = [split.tokens[split.span(p.document)[0] :][p.start : p.end] for p in pieces]
        [told] = packing.rows([row])
        assert np.concatenate(made).tolist() == told["input_ids"][~told["special"]].tolist()


def test_steps_stages_and_seeds_that_are_not_there(kept: Path, copy: Path) -> None:
    for step in (0, 61, -3):
        with pytest.raises(ConfigError, match=r"no step .*\n.*1 to 60"):
            lexloom.replay(kept, step=step, console=QUIET)
    with pytest.raises(ConfigError, match="did you mean 'pretrain'"):
        lexloom.replay(kept, step=1, stage="pretrian", console=QUIET)
    with pytest.raises(ConfigError, match="seed"):
        lexloom.replay(kept, step=1, stage=TASK, seed=4, console=QUIET)
    with pytest.raises(ConfigError, match=f"give the run: {kept}"):
        lexloom.replay(kept / "pretrain", step=1, console=QUIET)
    lines = (copy / "pretrain/metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "pretrain/metrics.jsonl").write_text("".join([*lines[:4], "{half a li\n", *lines[5:]]))
    with pytest.raises(LexloomError, match="no sound line of step 5"):
        lexloom.replay(copy, step=5, console=QUIET)
    shutil.rmtree(copy / "pretrain")
    shutil.rmtree(copy / "finetune")
    with pytest.raises(ConfigError, match="nothing was trained"):
        lexloom.replay(copy, step=1, console=QUIET)


def test_what_was_changed_or_taken_away_is_said(copy: Path) -> None:
    other = copy / "pretrain/stage.json"
    told = files.read_json(other)
    files.write_json(other, {**told, "depends": {**told["depends"], "shards": "others"}})
    with pytest.raises(DataError, match="shards changed"):
        lexloom.replay(copy, step=1, console=QUIET)
    files.write_json(other, told)
    chosen = files.read_json(copy / "pretrain/compute.json")
    files.write_json(copy / "pretrain/compute.json", {**chosen, "device": "cuda:63"})
    with pytest.raises(ConfigError, match="cannot compute as this training did: there is no such GPU"):
        lexloom.replay(copy, step=1, console=QUIET)
    (copy / "pretrain/compute.json").unlink()
    with pytest.raises(CheckpointError, match=r"no compute\.json"):
        lexloom.replay(copy, step=1, console=QUIET)
    shutil.rmtree(copy / "shards")
    with pytest.raises(DataError, match="not there any more"):
        lexloom.replay(copy, step=1, console=QUIET)


def test_the_raw_sources_are_not_needed(copy: Path) -> None:
    recipe = copy / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("texts.jsonl", "gone.jsonl"))
    assert lexloom.replay(copy, step=8, rows=0, console=QUIET)["agrees"]


def test_the_flat_folder_of_one_verb_is_a_run_too(kept: Path, tmp_path: Path) -> None:
    lexloom.finetune(
        kept / "pretrain/bundle",
        train=kept.parent / "rows.jsonl",
        out=tmp_path / "flat",
        settings=["train.epochs=1", "baselines=[majority]"],
        console=QUIET,
    )
    assert [place.name for place in Opened(tmp_path / "flat", QUIET).places] == ["finetune/task/seeds/seed-1"]
    assert lexloom.replay(tmp_path / "flat", step=3, console=QUIET)["agrees"]


def test_the_command_line(kept: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["lexloom", "replay", *map(str, arguments), "-q"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    code, shown = told(kept, "--step", "20", "--rows", "2")
    assert code == 0 and "equal to the bit" in shown and "> [MASK], " in shown and "and 14 rows more" in shown
    code, shown = told(kept, "--step", "3", "--stage", TASK, "--seed", "3", "--rows", "1", "--json")
    assert code == 0 and json.loads(shown)["agrees"] and len(json.loads(shown)["rows"]) == 1
    log = copy / "pretrain/metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[19]["loss"] = float(np.nextafter(lines[19]["loss"], 0))
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, shown = told(copy, "--step", "20")
    assert code == 1 and "NOT THE SAME" in shown and repr(lines[19]["loss"]) in shown
