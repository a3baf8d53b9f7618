"""What was written once is read for ever: a run of every released format opens, answers as it did, and saves to the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lexloom
from lexloom import config, files
from lexloom.errors import FormatError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.models.bert import Bert, BertConfig
from lexloom.objectives.base import Vocabulary
from lexloom.runs.recipe import Recipe
from lexloom.tasks.base import Task
from lexloom.tasks.classification import TextClassification
from lexloom.tasks.fill_mask import FillMask
from lexloom.text.corpus import Corpus
from lexloom.text.pack import open_packing
from lexloom.text.shards import Shards
from lexloom.text.tokenizer import Tokenizer
from lexloom.train import checkpoint
from lexloom.train.log import read
from lexloom.train.optim import AdamW, OptimizerConfig
from tests.fixtures.make import answers
from tests.train.test_slices import moments, same, tensors

FORMATS = sorted((Path(__file__).parent / "fixtures").glob("format-*"))
every_format = pytest.mark.parametrize("home", FORMATS, ids=[home.name for home in FORMATS])


def test_the_format_of_today_has_its_fixture() -> None:
    assert f"format-{files.FORMAT}" in [home.name for home in FORMATS]


@every_format
def test_a_released_run_says_what_it_said(home: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"  # opening makes packings anew where they lack, and nothing may change a fixture
    shutil.copytree(home / "run", run)
    found, expected = answers(run), json.loads((home / "answers.json").read_text())
    assert found.keys() == expected.keys()
    assert (found["tokens"], found["step"]) == (expected["tokens"], expected["step"])
    for name in found.keys() - {"tokens", "step"}:
        assert _close(found[name], expected[name]), name


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_close(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_close, a, b))
    return abs(a - b) <= 1e-5 if isinstance(a, float) else bool(a == b)


@every_format
def test_every_folder_of_a_released_run_opens(home: Path) -> None:
    run = home / "run"
    manifests = [path.parent for path in run.rglob("manifest.json")]
    assert len(manifests) >= 12
    for folder in manifests:
        files.verify(folder)
    corpus = Corpus.open(run / "corpus")
    assert sum(1 for _ in corpus.documents("train")) == corpus.count("train") > 100
    assert len(Tokenizer.load(run / "tokenizer")) == len(Tokenizer.load(run / "pretrain/bundle"))
    train = Shards.open(run / "shards").split("train")
    packings = [open_packing(path, train) for path in (run / "shards/packings").glob("train-*")]
    assert packings and all(packing.rows([0])[0]["input_ids"].size for packing in packings)
    assert [line["step"] for line in read(run / "pretrain")] == list(range(1, 61))
    _, problems = config.attempt(Recipe, config.load(run / "recipe.yaml").data, config.load(run / "recipe.yaml"))
    assert not problems


@every_format
def test_a_released_checkpoint_goes_on(home: Path) -> None:
    found, complaints = checkpoint.latest(home / "run/pretrain/checkpoints")
    assert found is not None and not complaints
    network = Bundle.load(home / "run/pretrain/bundle").network
    optimizer = AdamW(network.named_parameters(), OptimizerConfig())
    checkpoint.restore(optimizer, found)
    assert optimizer.steps == found.step == 60
    assert all(torch.equal(p.data, found.masters[name]) for name, p in network.named_parameters())


@every_format
def test_a_released_bundle_saves_to_the_same_weights(home: Path, tmp_path: Path) -> None:
    old = home / "run/finetune/topics/bundle"
    new = Bundle.load(old).save(tmp_path / "bundle")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt"):
        assert (new / name).read_bytes() == (old / name).read_bytes(), name


@every_format
@pytest.mark.parametrize("name", ["corpus/corpus.json", "shards/shards.json", "pretrain/bundle/lexloom.json"])
def test_a_newer_format_is_refused(home: Path, name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(home / "run", run)
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps({**content, "format": files.FORMAT + 1}))
    files.write_manifest((run / name).parent)  # as the newer version itself would have written it
    readers = {"corpus": Corpus.open, "shards": Shards.open, "bundle": lexloom.load}
    folder = (run / name).parent
    with pytest.raises(FormatError, match="newer"):
        readers[folder.name](folder)


@st.composite
def bert_settings(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a small BERT, odd ones among them."""
    heads = draw(st.integers(1, 4))
    probability = st.floats(0, 0.9)
    return {
        "hidden_size": heads * draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_hidden_layers": draw(st.integers(1, 2)),
        "intermediate_size": draw(st.integers(1, 9)),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_new", "relu", "silu"])),
        "hidden_dropout_prob": draw(probability),
        "attention_probs_dropout_prob": draw(probability),
        "classifier_dropout": draw(st.none() | probability),
        "max_position_embeddings": draw(st.integers(1, 40)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "initializer_range": draw(st.floats(1e-4, 1)),
        "layer_norm_eps": draw(st.floats(1e-12, 1e-3)),
        "tie_word_embeddings": draw(st.booleans()),
    }


TOKENIZER = Tokenizer.load(FORMATS[0] / "run" / "tokenizer")
ROLES = sorted(Bert.ROLES, key=sorted)


def random_bundle(wanted: dict[str, Any], roles: frozenset[str], labels: list[str], seed: int) -> Bundle:
    """A bundle out of random settings; with a task where the roles have one."""
    config = BertConfig.read({**wanted, "vocab_size": len(TOKENIZER), "pad_token_id": TOKENIZER.pad_id})
    task: Task | None = None
    if "sequence-classification" in roles:
        task = TextClassification(TextClassification.Config(), Vocabulary.of(TOKENIZER), labels)
    elif "masked-lm" in roles:
        task = FillMask(FillMask.Config(), Vocabulary.of(TOKENIZER))
    network = Network.build(Bert, config, roles, labels=len(labels) if task and task.labels else 2, seed=seed)
    return Bundle(network, TOKENIZER, task)


def save_load_save(bundle: Bundle, home: Path) -> None:
    """Saves, opens and saves again: the two folders hold the same bytes."""
    one = bundle.save(home / "one" / "bundle")
    two = Bundle.load(one).save(home / "two" / "bundle")
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {path.name: path.read_bytes() for path in two.iterdir()}
    shutil.rmtree(home)


LABELS = st.lists(st.text(min_size=1), min_size=2, max_size=4, unique=True)
any_bundle = given(wanted=bert_settings(), roles=st.sampled_from(ROLES), labels=LABELS, seed=st.integers(0, 9))


@settings(max_examples=100)
@any_bundle
def test_save_load_save_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any], roles: frozenset[str], labels: list[str], seed: int
) -> None:
    save_load_save(random_bundle(wanted, roles, labels, seed), tmp_path_factory.mktemp("bundle"))


@pytest.mark.slow
@settings(max_examples=1000)
@any_bundle
def test_a_thousand_times(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, Any], roles: frozenset[str], labels: list[str], seed: int
) -> None:
    save_load_save(random_bundle(wanted, roles, labels, seed), tmp_path_factory.mktemp("bundle"))


@settings(max_examples=1000)
@given(bert_settings(), LABELS)
def test_a_thousand_configs_come_back_to_the_same_bytes(wanted: dict[str, Any], labels: list[str]) -> None:
    config = BertConfig.read({**wanted, "vocab_size": 300})
    text = json.dumps({**config.plain(), "labels": labels})
    again = json.loads(text)
    assert again.pop("labels") == labels
    assert json.dumps({**BertConfig.read(again).plain(), "labels": labels}) == text


def test_a_sharded_checkpoint_of_the_first_format_opens() -> None:
    found = checkpoint.load(FORMATS[0] / "sharded" / "step-000000004")
    assert found.step == 4 and same(found.masters, tensors(4)) and same(found.moments, moments(4))
