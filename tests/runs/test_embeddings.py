"""New networks whose words start from word vectors: the same rows, the others at random, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lexloom
from lexloom import files, keys
from lexloom.console import Console
from lexloom.errors import ConfigError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.runs.embeddings import Embeddings
from lexloom.text.tokenizer import Tokenizer
from lexloom.vectors.keyed import WordVectors
from tests import tiny
from tests.runs.page import report

DIM = 16
KNOWN = ["the", "river", "stone", "never", "nowhere"]
STANDING = "{epochs: 1, batch_rows: 50, learning_rate: 1e-12, seeds: 2}"
RECIPE = """\
name: tiny
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}}
tokenizer: {kind: word, vocab_size: 60, lowercase: false}
finetune:
  topics:
    task: text-classification
    model: MODEL
    data: {train: rows.jsonl, validation: rows.jsonl, test: rows.jsonl}
    train: TRAIN
    baselines: [majority]
""".replace("TRAIN", STANDING)
MODELS = {
    "textcnn": "{kind: textcnn, embedding_size: 16, filters: 8, vectors: words.vec}",
    "bilstm": "{kind: bilstm, embedding_size: 16, cell_size: 8, filters: [], vectors: words.vec}",
    "bert": "{kind: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32, vectors: words.vec}",
}


def write(folder: Path, recipe: str) -> Path:
    vectors(folder / "words.vec")
    return tiny.write(folder, recipe)


def vectors(path: Path, seed: int = 1, dim: int = DIM) -> WordVectors:
    wv = WordVectors(KNOWN, keys.normal(keys.key(seed, "vectors"), len(KNOWN) * dim).reshape(-1, dim).astype(np.float32))
    wv.save(path)
    return wv


def run(recipe: Path, **options: Any) -> Any:
    return lexloom.run(recipe, out=recipe.parent / "run", console=Console(quiet=True), **options)


@pytest.fixture(scope="module", params=MODELS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(str(run(write(tmp_path_factory.mktemp(request.param), RECIPE.replace("MODEL", MODELS[request.param])))))


def test_every_seed_starts_from_the_rows_of_the_file(done: Path) -> None:
    wv = WordVectors.load(done.parent / "words.vec")
    for seed in (3, 4):
        bundle = Bundle.load(done / f"finetune/topics/seeds/seed-{seed}/bundle")
        backbone, tokenizer = bundle.network.backbone, bundle.tokenizer
        plain = Network.build(type(backbone), backbone.config, (), seed=seed).backbone
        assert backbone.embedding is not None and plain.embedding is not None
        for number, row in enumerate(backbone.embedding.weight.detach()):
            token = tokenizer.token(number)
            spelt = next((one for one in (token, token.lower()) if one in wv), None)
            right = plain.embedding.weight[number] if spelt is None else torch.from_numpy(np.array(wv[spelt]))
            assert torch.allclose(row, right, rtol=0, atol=1e-8), token
    assert tokenizer.token(0) not in wv and {"River", "river", "never"} <= {tokenizer.token(i) for i in range(len(tokenizer))}


def test_what_they_cover_is_told(done: Path) -> None:
    tokenizer = Tokenizer.load(done / "tokenizer")
    n = sum(tokenizer.token(i).lower() in KNOWN for i in range(len(tokenizer)))
    line = f"words.vec has vectors for {n} of {len(tokenizer)} tokens ({n / len(tokenizer):.1%}); the others start at random"
    assert line in files.read_json(done / "finetune/topics/summary.json")["encoding"] and line in report(done).words


def test_the_file_is_part_of_what_the_stage_depends_on(done: Path) -> None:
    recipe = done.parent / "recipe.yaml"
    assert [row["what"] for row in run(recipe, dry_run=True)] == ["is reused"] * 3
    assert [row["what"] for row in lexloom.run(done / "recipe.yaml", out=done, dry_run=True)] == ["is reused"] * 3
    assert lexloom.verify(done)["differences"] == []
    other = recipe.parent / "other"
    other.mkdir(exist_ok=True)
    vectors(other / "moved.vec")  # the same rows somewhere else are the same
    where = "finetune.topics.model.vectors=other/moved.vec"
    assert run(recipe, dry_run=True, settings=[where])[-1]["what"] == "is reused"
    vectors(other / "moved.vec", seed=2)
    assert run(recipe, dry_run=True, settings=[where])[-1]["what"] == "runs again: vectors changed"


def test_pretraining_starts_from_vectors_that_the_recipe_trains(tmp_path: Path) -> None:
    text = """\
name: tiny
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}}
tokenizer: {kind: word, vocab_size: 60}
vectors: {train: {mine: {dim: 16, epochs: 1, min_count: 1, workers: 1, deterministic: true}}}
pretrain:
  model: {kind: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32, vectors: mine}
  objective: masked-lm
  train: {steps: 2, batch_tokens: 256, length: 32, learning_rate: 1e-12}
"""
    recipe = tiny.write(tmp_path, text)
    stages = [row["stage"] for row in run(recipe, dry_run=True)]
    assert stages == ["corpus", "tokenizer", "vectors/mine", "shards", "pretrain"]
    out = Path(str(run(recipe)))
    wv, bundle = WordVectors.load(out / "vectors/mine/vectors.bin"), Bundle.load(out / "pretrain/bundle")
    assert bundle.network.backbone.embedding is not None
    weight = bundle.network.backbone.embedding.weight.detach().numpy()
    known = [i for i in range(len(bundle.tokenizer)) if bundle.tokenizer.token(i) in wv]
    assert np.allclose(weight[known], wv[[bundle.tokenizer.token(i) for i in known]], rtol=0, atol=1e-8)
    told = files.read_json(out / "pretrain/summary.json")["embeddings"]
    assert told == {"file": "vectors.bin", "covered": len(known), "tokens": len(bundle.tokenizer)} and len(known) == len(wv)
    assert f"{len(known)} of {len(bundle.tokenizer)}" in report(out).words
    assert {row["what"] for row in run(recipe, dry_run=True)} == {"is reused"}
    assert {row["what"] for row in lexloom.run(out / "recipe.yaml", out=out, dry_run=True)} == {"is reused"}


def test_widths_that_do_not_match_are_named_before_the_first_step(tmp_path: Path) -> None:
    recipe = write(tmp_path, RECIPE.replace("MODEL", MODELS["textcnn"].replace("16", "17")))
    with pytest.raises(
        ConfigError, match=r"words.vec: the word vectors are not as wide as the network's words\n  expected: 17\n  got:      16"
    ):
        run(recipe)
    assert not list((tmp_path / "run").rglob("metrics.jsonl"))
    own = RECIPE.replace("MODEL", MODELS["textcnn"].replace("words.vec", "mine")) + "vectors: {train: {mine: {dim: 12}}}\n"
    files.write_text(recipe, own)
    with pytest.raises(ConfigError, match=r"recipe.yaml:8:\d+: the word vectors are not as wide"):
        run(recipe, dry_run=True)  # of vectors that are not there yet, by their settings


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{kind: textcnn, vectors: word.vec}", "did you mean 'words.vec'"),
        ("{kind: textcnn, vectors: 3}", "vectors is not right"),
        ("{kind: elmo, vectors: words.vec}", "lexloom-elmo has no matrix of words"),
        ("{kind: textcnn, embedding_size: 16, vectors: rows.jsonl}", "the ending says what kind of file it is"),
    ],
)
def test_what_does_not_fit_is_told(model: str, message: str, tmp_path: Path) -> None:
    recipe = write(tmp_path, RECIPE.replace("MODEL", model))
    with pytest.raises(ConfigError, match=message):
        run(recipe)


def test_a_file_of_other_words_is_refused(tmp_path: Path) -> None:
    recipe = write(tmp_path, RECIPE.replace("MODEL", MODELS["textcnn"]))
    WordVectors(["rivière", "pierre"], np.ones((2, DIM), dtype=np.float32)).save(tmp_path / "words.vec")
    with pytest.raises(ConfigError, match="no token of this vocabulary has a vector"):
        run(recipe)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES.names() if name != "elmo"])
def test_every_network_of_words_takes_them(name: str) -> None:
    kind = ARCHITECTURES.get(name)
    network, plain = (Network.build(kind, kind.Config.read(dict(kind.TINY)), (), seed=5) for _ in range(2))
    weight = network.backbone.embedding.weight  # type: ignore[union-attr]
    ids, rows = np.array([7, 3]), np.arange(2 * weight.shape[1], dtype=np.float32).reshape(2, -1)
    Embeddings("made up", len(weight), ids, rows).install(network)
    assert torch.equal(weight[[7, 3]], torch.from_numpy(rows))
    others = [i for i in range(len(weight)) if i not in (3, 7)]
    assert torch.equal(weight[others], plain.backbone.embedding.weight[others])  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="not as wide"):
        Embeddings("made up", len(weight), ids, rows[:, :-1]).install(network)
