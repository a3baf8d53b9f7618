"""SIGKILL in the middle of every kind of training that a recipe can name: it goes on to the losses and weights of one never killed.

`test_kill` has BERT with both its objectives, and fine-tuning; here are the other architectures, objectives and optimizers. The default
run kills each once, some while they save; the slow one six times at random, in fine-tuning too, compiled and in bfloat16.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lexloom import files
from tests import tiny
from tests.kill.runner import Runner
from tests.kill.test_kill import COMPILED, Forked, Process, finish, killed, logged, outcome, saving, start
from tests.runs import test_causal, test_denoising_runs, test_families, test_new_networks, test_words

CORPUS = tiny.RECIPE.partition("tokenizer:")[0]
WORDS = "{masked-lm: {mask: words}}"
RECIPES = {
    "gpt2": test_causal.RECIPE.replace("MODEL", test_causal.MODELS["gpt2"]),
    "llama": test_causal.RECIPE.replace("MODEL", test_causal.MODELS["llama"]),
    "elmo": test_words.RECIPE,
    "roberta": test_families.recipe("roberta"),
    "modernbert": test_families.recipe("modernbert"),
    "bart": test_denoising_runs.recipe(*test_denoising_runs.CASES["infilling"]),
    "marian": test_denoising_runs.recipe(*test_denoising_runs.CASES["sentinels"]),
    "muon": tiny.RECIPE.replace("{steps: 60,", "{steps: 60, optimizer: muon,").replace("[masked-lm, next-sentence]", WORDS),
    **{kind: test_new_networks.RECIPE.replace("MODEL", model) for kind, model in test_new_networks.MODELS.items()},
    "seq-to-seq": test_new_networks.RECIPE.replace("MODEL", "{kind: marian, preset: marian-tiny, d_model: 32}")
    .replace("text-classification", "text2text-generation")
    .replace(", characters: 12", ""),
}
STEPS = 21
SMALL = {"steps": STEPS, "save_every": 3, "evaluate_every": 10, "batch_tokens": 256, "micro_batch_tokens": 256}
PRETRAIN = [*(f"pretrain.train.{name}={value}" for name, value in SMALL.items()), "finetune={}"]
FINETUNE = [f"finetune.topics.train.{setting}" for setting in ("epochs=3", "seeds=1", "save_every=3")]


def settings(trainer: str) -> list[str]:
    """What makes a recipe short, so that it is killed in its only training."""
    return PRETRAIN if "pretrain:" in RECIPES[trainer] else FINETUNE


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A folder with the recipes of all trainers, and a run that has nothing but the corpus, which is the same for all."""
    folder = tmp_path_factory.mktemp("trainers")
    tiny.write(folder, CORPUS)
    for trainer, recipe in RECIPES.items():
        files.write_text(folder / f"{trainer}.yaml", recipe)
    found = Runner(folder)
    found.start("corpus")
    assert found.end() == 0, found.said
    yield found
    found.close()


def kill(runner: Runner, trainer: str, run: Path, at: int, *, in_save: bool) -> bool:
    """Kills a run once so many steps are logged and some are saved, or at the save that follows; False where it was at its end before.

    Saving has a thread of its own, which on a loaded machine may still be busy with the first when many steps more are logged.
    """
    process = Forked(runner, run.name, settings(trainer), f"{trainer}.yaml")
    while process.is_there() and (logged(run) < at or not any(run.rglob("checkpoints/step-*"))):
        time.sleep(0.001)
    while in_save and process.is_there() and not saving(run):
        pass
    process.kill()
    status, said = process.end()
    assert status in (0, -signal.SIGKILL), said
    return status != 0


def finished(runner: Runner, trainer: str, run: Path) -> str:
    """Lets a run come to its end; what it said."""
    status, said = Forked(runner, run.name, settings(trainer), f"{trainer}.yaml").end()
    assert status == 0, said
    return said


@pytest.mark.kill
@pytest.mark.parametrize("trainer", RECIPES)
def test_a_training_that_is_killed_ends_with_the_same_bits(trainer: str, runner: Runner) -> None:
    whole, run = runner.folder / f"{trainer}-whole", runner.folder / f"{trainer}-killed"
    shutil.copytree(runner.folder / "corpus", whole)
    finished(runner, trainer, whole)
    expected, dice = outcome(whole), random.SystemRandom()
    [n] = [len(found) for found in expected.values() if isinstance(found, list)]
    assert n == STEPS and len(expected) > 1
    while True:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run, ignore=shutil.ignore_patterns("pretrain", "finetune"))
        at, in_save = dice.randrange(5, n - 9), dice.random() < 1 / 3
        if kill(runner, trainer, run, at, in_save=in_save):
            break
    assert "going on from step" in finished(runner, trainer, run)
    assert outcome(run) == expected, f"killed after step {at}{', in the save that followed' * in_save}"


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("trainer", RECIPES)
def test_six_kills_of_compiled_training_in_bfloat16(trainer: str, tmp_path: Path) -> None:
    tiny.write(tmp_path, RECIPES[trainer])
    asked = [*COMPILED, "finetune.topics.train.save_every=5"]
    given = [setting for setting in asked if f"{setting.partition('.')[0]}:" in RECIPES[trainer]]
    finish(start(tmp_path, "first", given))  # compiles; the other runs take its kernels
    expected = killed(tmp_path, 6, lambda out: Process(tmp_path, out, given))
    assert outcome(tmp_path / "first") == expected
    assert all(files.read_json(chosen)["compile"] for chosen in (tmp_path / "whole").rglob("compute.json"))
