"""Every encoder of the registry from raw text to a classifier by one word in a recipe, and on from a checkpoint to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lexloom
from lexloom import files
from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES
from lexloom.train.log import read
from tests import tiny
from tests.unfinished import ends_in_the_same_bits

MASKED = frozenset({"masked-lm"})
KINDS = [name for name in ARCHITECTURES.names() if MASKED in ARCHITECTURES.get(name).ROLES and name != "bert"]
TRAIN = "{steps: 40, batch_tokens: 512, micro_batch_tokens: 256, length: 32, sentences: whole, recompute: true, save_every: 7, "


def recipe(kind: str) -> str:
    """The tiny recipe for another architecture: byte-level text, whole sentences, no sentence pairs."""
    sizes = {name: value for name, value in ARCHITECTURES.get(kind).TINY.items() if name not in ("vocab_size", "max_position_embeddings")}
    head, _, rest = tiny.RECIPE.partition("tokenizer:")
    _, _, finetune = rest.partition("finetune:")
    return f"""{head}tokenizer: {{kind: byte-bpe, vocab_size: 400}}
pretrain:
  model: {json.dumps({"kind": kind, "initializer_range": 0.1, **sizes})}
  objective: masked-lm
  train: {TRAIN}learning_rate: 3e-3}}
  fills: ["The river [MASK] the house."]
finetune:{finetune.replace("epochs: 6", "epochs: 2")}"""


@pytest.fixture(scope="module", params=KINDS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return Path(str(lexloom.run(tiny.write(folder, recipe(request.param)), out=folder / "run")))


def test_it_learns_from_text_and_answers(done: Path) -> None:
    losses = [line["loss"] for line in read(done / "pretrain")]
    assert len(losses) == 40 and sum(losses[-8:]) < 0.9 * sum(losses[:8])
    summary = files.read_json(done / "pretrain/summary.json")
    kind = ARCHITECTURES.get(summary["model"]["kind"])
    assert summary["model"]["class"] == kind.ROLES[MASKED] and [len(fill["answers"]) for fill in summary["fills"]] == [5]
    bundle = lexloom.load(done / "pretrain/bundle")
    assert isinstance(bundle, Bundle) and bundle.max_length == 32
    named = {name: value for name, value in bundle.network.backbone.config.plain().items() if name.endswith("_token_id")}
    assert named and all(value == bundle.tokenizer.ids[name.removesuffix("_token_id")] for name, value in named.items())
    topics = lexloom.predict(done / "finetune/topics/bundle", ["The river sees a bird.", "One."])
    assert {answer["label"] for answer in topics} <= {"high", "low"}


def test_from_a_checkpoint_on_it_ends_in_the_same_bits(done: Path, tmp_path: Path) -> None:
    ends_in_the_same_bits(done, tmp_path / "run", 35)


def test_what_it_takes_is_known_before_there_is_a_tokenizer(done: Path) -> None:
    found = lexloom.check(done.parent / "recipe.yaml", settings=["name=another"])
    assert found.of("model") == []  # the data, made up and the same in train and test, have findings of their own
    assert any(table.title.startswith("memory of") for table in found.tables)
