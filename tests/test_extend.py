"""What docs/extend.md shows is so: its files are written out, found by their names, run, and hold the contracts. And docs/tour.md names
what is there."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lexloom import files
from lexloom.runs.recipe import registries
from tests import tiny

PAGE, TOUR = tiny.ROOT / "docs" / "extend.md", tiny.ROOT / "docs" / "tour.md"
COMPONENTS = {
    "distilbert.py": ("architecture", "distilbert"),
    "replaced_token.py": ("objective", "replaced-token"),
    "rating.py": ("task", "rating"),
}
SMALL = (
    "prepare.dedup.near=false",
    "tokenizer.vocab_size=300",
    "pretrain.model.dim=32",
    "pretrain.model.hidden_dim=64",
    "pretrain.train={steps: 12, batch_tokens: 512, micro_batch_tokens: 256, length: 32, evaluate_every: 6}",
    "finetune.stars.train={epochs: 2, batch_rows: 16, learning_rate: 1e-3}",
    "finetune.stars.baselines=[majority]",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def python_files() -> dict[str, str]:
    """The page's Python blocks by the file names in their first lines."""
    found = {text.partition("\n")[0].removeprefix("# "): text for text in blocks("python")}
    assert len(found) == len(blocks("python"))
    return found


def child(*command: str | Path, cwd: Path, path: Path) -> str:
    """What a process says that finds lexloom, and the files of `path`."""
    environment = {**tiny.ENVIRONMENT, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(path), str(tiny.ROOT)])}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, its recipe, and texts and ratings for it."""
    home = tmp_path_factory.mktemp("extend")
    (recipe,) = blocks("yaml")
    tiny.write(home, recipe)
    for name, text in python_files().items():
        files.write_text(home / name, text)
    rows = [{"text": tiny.sentence(i), "stars": 1 + i % 4} for i in range(60)]
    for name, part in (("train", rows[:40]), ("test", rows[40:])):
        files.write_text(home / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in part))
    return home


@pytest.fixture(scope="module")
def done(folder: Path) -> Path:
    """The run of the page's recipe, for a few steps."""
    settings = [part for setting in SMALL for part in ("--set", setting)]
    child(*tiny.COMMAND, "run", "recipe.yaml", *settings, cwd=folder, path=folder)
    return folder / "runs" / "extended"


def test_each_file_brings_its_component(folder: Path) -> None:
    for file, (kind, name) in COMPONENTS.items():
        registry = registries()[kind]
        assert name not in registry.names(), f"{name} came into the package: the page needs another example"
        registry.extend(folder / file)
        assert registry.found()[name].path == folder / file
        assert len(registry.found()[name].summary) > 20


def test_the_recipe_trains_with_all_three(done: Path) -> None:
    pretrained, tuned = (files.read_json(done / stage / "summary.json") for stage in ("pretrain", "finetune/stars"))
    assert (pretrained["model"]["kind"], pretrained["model"]["class"]) == ("distilbert", "DistilBertForTokenClassification")
    assert (pretrained["objective"], pretrained["steps"]) == (["replaced-token"], 12)
    assert math.isfinite(pretrained["loss"]) and math.isfinite(pretrained["validation"]["parts"]["replaced-token"])
    assert tuned["task"] == "rating"
    assert {score["metric"] for score in tuned["scores"]} == {"closeness", "accuracy"}
    assert all(0 <= score["low"] <= score["value"] <= score["high"] <= 1 for score in tuned["scores"])
    own = files.read_json(done / "finetune/stars/bundle/lexloom.json")
    assert (own["task"]["name"], own["task"]["labels"]) == ("rating", ["1", "2", "3", "4"])
    assert files.read_json(done / "finetune/stars/bundle/config.json")["model_type"] == "distilbert"


def test_python_opens_the_bundle(done: Path, folder: Path) -> None:
    answers = ast.literal_eval(child(sys.executable, "answer.py", cwd=folder, path=folder))
    assert [set(answer) for answer in answers] == [{"label", "score"}] * 2
    assert {answer["label"] for answer in answers} <= set("1234")


def test_the_command_line_opens_the_bundle(done: Path, folder: Path) -> None:
    extensions = ["--extension", "distilbert.py", "--extension", "rating.py"]
    bundle = "runs/extended/finetune/stars/bundle"
    answer = json.loads(child(*tiny.COMMAND, "predict", bundle, "the soup was cold", *extensions, "--json", cwd=folder, path=folder))
    assert answer["answer"]["label"] in set("1234")
    told = child(*tiny.COMMAND, "evaluate", bundle, "test.jsonl", *extensions, "--json", cwd=folder, path=folder)
    assert any("closeness" in line for line in told.splitlines())
    more = ["--task", "rating", "--train", "train.jsonl", "--test", "test.jsonl", "--set", "settings={columns: {label: stars}}"]
    more += ["--set", "train={epochs: 1}", "--set", "baselines=[majority]", "--out", "runs/more"]
    child(*tiny.COMMAND, "finetune", bundle, *more, *extensions, cwd=folder, path=folder)
    assert files.read_json(folder / "runs/more/summary.json")["task"] == "rating"


def test_the_contracts_hold(folder: Path) -> None:
    """As the page says it is done; its own parity test beside them."""
    chosen = [tiny.ROOT / "tests/test_contracts.py", folder / "test_distilbert.py", "-k", "distilbert or replaced or rating"]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "mine", "-p", "no:cacheprovider", "-c", tiny.ROOT / "pyproject.toml"]
    told = child(*command, f"--rootdir={tiny.ROOT}", *chosen, cwd=folder, path=folder)
    passed = re.findall(r"::(\w+)\[(.*)\] PASSED", told)
    assert not re.search(r"\] (SKIPPED|XFAIL|ERROR|FAILED)", told)
    assert {name.partition(":")[0] for _, name in passed} >= {"distilbert", "replaced-token", "task rating", "rating"}
    assert sum(test == "test_beside_transformers" for test, _ in passed) == 8


def test_the_tour_names_what_is_there() -> None:
    """Each name in a stop of the tour stands in a file that the stop links to."""
    stops = re.split(r"\n\d+\. ", TOUR.read_text(encoding="utf-8").split("## One step")[0])[1:]
    assert 10 <= len(stops) <= 15
    for stop in stops:
        code = "".join((TOUR.parent / target).read_text(encoding="utf-8") for target in re.findall(r"\]\(([^)#]+\.py)\)", stop))
        names = [name for name in re.findall(r"`([A-Za-z_]\w*)`", stop) if name != "transformers"]
        assert names
        for name in names:
            assert re.search(rf"\b{name}\b", code), f"{name} in: {stop[:60]}"
