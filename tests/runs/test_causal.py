"""Decoders pre-trained from text by a recipe: rows without special tokens, a bundle that carries its end token, and resuming to the bit."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import lexloom
from lexloom import files
from lexloom.errors import ConfigError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.runs.check import check
from lexloom.runs.report.gather import gather
from lexloom.runs.report.render import next_steps
from lexloom.text.pack import open_packing
from lexloom.text.shards import Shards
from lexloom.train.log import read
from tests import tiny
from tests.unfinished import ends_in_the_same_bits

RECIPE = """\
name: tiny
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}, split: {validation: 0.1}}
tokenizer: {kind: byte-bpe, vocab_size: 320, template: none}
pretrain:
  model: {MODEL}
  objective: causal-lm
  train:
    {steps: 40, batch_tokens: 512, micro_batch_tokens: 256, length: 32, evaluate_every: 20, save_every: 8, checkpoints: 9,
     learning_rate: 3e-3}
  fills: [The river]
"""
MODELS = {
    "gpt2": "kind: gpt2, n_embd: 32, n_layer: 2, n_head: 2",
    "llama": "kind: llama, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2",
}


@pytest.fixture(scope="module", params=MODELS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a decoder."""
    folder = tmp_path_factory.mktemp(request.param)
    return Path(str(lexloom.run(tiny.write(folder, RECIPE.replace("MODEL", MODELS[request.param])), out=folder / "run")))


def test_rows_are_stretches_of_text_with_an_end_after_each_document(done: Path) -> None:
    split = Shards.open(done / "shards").split("train")
    [folder] = [path for path in (done / "shards" / "packings").iterdir() if path.name.startswith("train")]
    packing = open_packing(folder, split)
    assert packing.config.specials is False
    end = Bundle.load(done / "pretrain/bundle").tokenizer.eos_id
    rows = packing.rows(range(20))
    assert sum((row["input_ids"] == end).sum() for row in rows) > 3
    assert all(((row["input_ids"] == end) == row["special"]).all() and len(row["input_ids"]) == 32 for row in rows)


def test_it_learns_and_says_how_well(done: Path) -> None:
    losses = [line["loss"] for line in read(done / "pretrain")]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10]) and losses[0] == pytest.approx(math.log(320), rel=0.1)
    assert set(files.read_json(done / "pretrain/summary.json")["validation"]["parts"]) == {"causal-lm"}
    assert set(files.read_json(done / "pretrain/alarms.json")["blind"]) == {"causal-lm"}


def test_the_bundle_knows_its_tokens_and_its_length(done: Path) -> None:
    bundle = Bundle.load(done / "pretrain/bundle")
    config, tokenizer = bundle.network.backbone.config, bundle.tokenizer
    ids = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
    assert ids == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) and None not in ids
    assert bundle.network.roles == {"causal-lm"} and bundle.max_length == bundle.network.backbone.max_length == 32
    assert bundle.embed(["The river.", ""]).shape == (2, 32)
    assert bundle.generation == {"_from_model_config": True, "bos_token_id": ids[0], "eos_token_id": ids[1], "pad_token_id": ids[2]}
    card = (done / "pretrain/bundle/README.md").read_text()
    assert "# tiny\n" in card and "language: en\n" in card
    assert re.search(r"by causal-lm on 20,\d{3} tokens in 40 steps, to a validation loss of \d", card)
    assert "No task has measured it." in card
    ((answer,),) = bundle.predict(["The river"], max_new_tokens=5)
    assert answer["generated_text"].startswith("The river") and len(answer["generated_text"]) > len("The river")


def test_the_report_shows_what_it_writes_and_what_to_do_with_it(done: Path) -> None:
    summary = files.read_json(done / "pretrain/summary.json")
    [shown] = summary["fills"]
    assert shown["text"] == "The river" and len(shown["answers"][0]["token"]) > 3
    assert (summary["answers"], summary["tasks"]) == ("text-generation", [])
    commands = [command for _, command in next_steps(gather(done))]
    assert [command.split()[1] for command in commands[:2]] == ["predict", "evaluate"] and not any(" finetune " in one for one in commands)
    assert "How it goes on" in (done / "report.html").read_text() and "no task has tried it" not in (done / "report.html").read_text()


def test_an_interrupted_run_goes_on_to_the_same_bits(done: Path, tmp_path: Path) -> None:
    ends_in_the_same_bits(done, tmp_path / "run", 16)


def test_it_goes_on_from_a_bundle(done: Path, tmp_path: Path) -> None:
    model = f"from: {done / 'pretrain/bundle'}"
    recipe = RECIPE.replace("MODEL", model).replace("tokenizer: {kind: byte-bpe, vocab_size: 320, template: none}\n", "")
    lexloom.run(tiny.write(tmp_path, recipe), out=tmp_path / "run", settings=["pretrain.train.steps=4"])
    first = read(tmp_path / "run/pretrain")[0]["loss"]
    assert first < 0.9 * read(done / "pretrain")[0]["loss"]


@pytest.mark.parametrize(("text", "words"), [('""', "gives no token"), ("long " * 40, "no room in the model's context")])
def test_a_text_that_cannot_be_gone_on_with_is_told_before_the_first_step(text: str, words: str, tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path, RECIPE.replace("MODEL", MODELS["gpt2"]).replace("[The river]", f"[{text}]"))
    with pytest.raises(ConfigError, match=f"fills: .*{words}"):
        lexloom.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run/pretrain/metrics.jsonl").exists()


def test_an_encoder_and_a_tokenizer_without_an_end_are_refused(tmp_path: Path) -> None:
    recipe = tiny.write(tmp_path, RECIPE.replace("MODEL", "kind: bert, preset: bert-tiny"))
    with pytest.raises(LexloomError, match="cannot learn this objective"):
        lexloom.run(recipe, out=tmp_path / "one")
    assert [one.cause for one in check(tiny.write(tmp_path, RECIPE.replace("MODEL", MODELS["gpt2"]))).found if one.level == "error"] == []
    recipe = tiny.write(tmp_path, RECIPE.replace("MODEL", MODELS["gpt2"]).replace("byte-bpe", "wordpiece"))
    assert any("end token" in one.what for one in check(recipe).found if one.level == "error")
    with pytest.raises(LexloomError, match="needs an end token"):
        lexloom.run(recipe, out=tmp_path / "two")
