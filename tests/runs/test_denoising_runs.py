"""Encoder–decoders pre-trained from text by a recipe: they learn, go on to the same bits, are replayed, and what they lack is named."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

import lexloom
from lexloom import files
from lexloom.console import Console
from lexloom.errors import LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.runs.check import check
from lexloom.text.pack import open_packing
from lexloom.text.shards import Shards
from lexloom.train.log import read
from tests import tiny
from tests.hub.beside import in_their_hands
from tests.unfinished import ends_in_the_same_bits

QUIET = Console(quiet=True)
RECIPE = """\
name: tiny
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}, split: {validation: 0.1}}
tokenizer: {TOKENIZER}
pretrain:
  model: {MODEL}
  objective: {OBJECTIVE}
  train:
    {steps: 40, batch_tokens: 512, micro_batch_tokens: 256, length: 32, evaluate_every: 20, save_every: 8, checkpoints: 9,
     recompute: true, learning_rate: 3e-3}
  fills: ["The river [MASK] the house."]
"""
SIZES = "d_model: 32, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2, decoder_attention_heads: 2, encoder_ffn_dim: 48, "
SIZES += "decoder_ffn_dim: 48, init_std: 0.1"
BPE = "kind: byte-bpe, vocab_size: 330"
CASES = {
    "infilling": (f"kind: bart, {SIZES}", BPE, "denoising: {smoothing: 0.1}"),
    "sentinels": (f"kind: marian, scale_embedding: true, {SIZES}", f"{BPE}, sentinels: 9", "denoising: {noise: sentinels}"),
    "wordpiece": (f"kind: bart, {SIZES}", "kind: wordpiece, vocab_size: 300", "denoising: {}"),
}


def recipe(model: str, tokenizer: str, objective: str) -> str:
    return RECIPE.replace("MODEL", model).replace("TOKENIZER", tokenizer).replace("OBJECTIVE", objective)


@pytest.fixture(scope="module", params=["infilling", "sentinels"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return Path(str(lexloom.run(tiny.write(folder, recipe(*CASES[request.param])), out=folder / "run")))


def test_it_learns_and_says_how_well(done: Path) -> None:
    lines = read(done / "pretrain")
    assert sum(line["loss"] for line in lines[-10:]) < 0.9 * sum(line["loss"] for line in lines[:10])
    summary = files.read_json(done / "pretrain/summary.json")
    parts = ["denoising", "denoising unsmoothed"] if "bart" in str(summary["model"]["class"]).lower() else ["denoising"]
    assert lines[0]["loss"] == pytest.approx(math.log(330), rel=0.15) and set(lines[0]["parts"]) == set(parts)
    assert summary["objective"] == parts and set(summary["validation"]["parts"]) == set(parts)
    assert summary["validation"]["loss"] == summary["validation"]["parts"]["denoising"]


def test_rows_know_their_sentences_and_end_with_a_special_token(done: Path) -> None:
    split = Shards.open(done / "shards").split("train")
    [folder] = [path for path in (done / "shards" / "packings").iterdir() if path.name.startswith("train")]
    rows = open_packing(folder, split).rows(range(20))
    assert all(row["special"][-1] and len(row["sentences"]) == len(row["input_ids"]) for row in rows)
    assert max(len(set(row["sentences"])) for row in rows) > 2


def test_the_bundle_knows_its_tokens(done: Path) -> None:
    bundle = Bundle.load(done / "pretrain/bundle")
    config, words = bundle.network.backbone.config, bundle.tokenizer
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (words.bos_id, words.eos_id, words.pad_id)
    assert config.decoder_start_token_id == (words.eos_id if config.__class__.__name__ == "BartConfig" else words.pad_id)
    assert bundle.network.roles == {"seq-to-seq"} and bundle.max_length == bundle.network.backbone.max_length == 32
    generation = files.read_json(done / "pretrain/bundle/generation_config.json")
    assert generation["forced_eos_token_id"] == words.eos_id and generation["decoder_start_token_id"] == config.decoder_start_token_id
    [shown] = files.read_json(done / "pretrain/summary.json")["fills"]
    written = bundle.predict([shown["text"]], max_new_tokens=32)
    assert shown == {"text": "The river [MASK] the house.", "answers": [{"token": written[0]["generated_text"], "score": None}]}


@pytest.mark.parametrize("done", ["infilling"], indirect=True)
def test_transformers_opens_it_and_writes(done: Path) -> None:
    bundle = Bundle.load(done / "pretrain/bundle")
    found = in_their_hands({"a target": done / "pretrain/bundle"}, ["The river.", "One house."])["a target"]
    assert (found["problems"], found["class"]) == ({}, bundle.network.class_name)
    assert all(row[0] == bundle.tokenizer.eos_id == row[-1] for row in found["generated"])


def test_from_a_checkpoint_on_it_ends_in_the_same_bits(done: Path, tmp_path: Path) -> None:
    ends_in_the_same_bits(done, tmp_path / "run", 16)


def test_a_step_is_computed_again_to_the_bit(done: Path) -> None:
    found = lexloom.replay(done, step=19, rows=2, console=QUIET)
    assert found["agrees"] and len(found["rows"]) == 2 and found["sum_of_rows"] == pytest.approx(found["loss"], rel=1e-5)
    spoilt = {"<mask>", "<extra_id_0>"}
    assert all(spoilt & set(row["tokens"]) and row["from"] and row["parts"]["denoising"] > 0 for row in found["rows"])


def test_it_goes_on_from_a_bundle_and_what_the_bundle_says_of_writing_stays(done: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(done / "pretrain/bundle", tmp_path / "bundle"))
    files.write_json(source / "generation_config.json", {"num_beams": 4})
    text = recipe(f"from: {source}", "X", CASES[done.parent.name.rstrip("0123456789")][2]).replace("tokenizer: {X}\n", "")
    lexloom.run(tiny.write(tmp_path, text), out=tmp_path / "run", settings=["pretrain.train.steps=4"])
    assert read(tmp_path / "run/pretrain")[0]["loss"] < 0.95 * read(done / "pretrain")[0]["loss"]
    assert files.read_json(tmp_path / "run/pretrain/bundle/generation_config.json") == {"num_beams": 4}


def test_what_is_missing_is_known_before_there_is_a_tokenizer(tmp_path: Path) -> None:
    for case in CASES.values():
        found = check(tiny.write(tmp_path, recipe(*case)))
        assert [one.what for one in found.found if one.level == "error"] == []
        assert any(table.title.startswith("memory of") for table in found.tables)


@pytest.mark.parametrize(
    ("model", "tokenizer", "objective", "words"),
    [
        (CASES["infilling"][0], f"{BPE}, template: none", "denoising: {}", "special token at the end of a text"),
        (CASES["infilling"][0], BPE, "denoising: {noise: sentinels}", "<extra_id_0>"),
        (CASES["infilling"][0], f"{BPE}, sentinels: 1", "denoising: {noise: sentinels}", "too many spans"),
        (CASES["infilling"][0], BPE, "seq-to-seq: {}", "learns from pairs"),
        ("kind: bert, preset: bert-tiny", BPE, "denoising: {}", "cannot learn this objective"),
    ],
)
def test_what_does_not_go_together_is_named(model: str, tokenizer: str, objective: str, words: str, tmp_path: Path) -> None:
    made = tiny.write(tmp_path, recipe(model, tokenizer, objective))
    with pytest.raises(LexloomError, match=words):
        lexloom.run(made, out=tmp_path / "run")
    assert any(words in f"{one.what} {one.do}" for one in check(made).found if one.level == "error")


def test_sentence_order_is_learned_beside_masks(tmp_path: Path) -> None:
    """Sentences of these texts have no order: the loss of an honest guess is that of a coin."""
    text = recipe("kind: bert, preset: bert-tiny", "kind: wordpiece, vocab_size: 300", "masked-lm: {}, sentence-order: {weight: 0.5}")
    run = Path(str(lexloom.run(tiny.write(tmp_path, text), out=tmp_path / "run", settings=["pretrain.train.steps=12"])))
    lines = read(run / "pretrain")
    assert set(lines[0]["parts"]) == {"masked-lm", "sentence-order"}
    assert 0.5 < lines[0]["parts"]["sentence-order"] < 1.0
    assert Bundle.load(run / "pretrain/bundle").network.class_name == "BertForPreTraining"
    found = lexloom.replay(run, step=9, rows=16, console=QUIET)
    assert found["agrees"] and {str(row["label"]) for row in found["rows"]} == {
        "the second text follows the first",
        "the second text does not follow the first",
    }
