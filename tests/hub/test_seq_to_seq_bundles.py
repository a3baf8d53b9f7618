"""Bundles of encoder–decoders: `transformers` opens them by its Auto classes, and writes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexloom import files
from lexloom.batch import Batch
from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.hub.beside import LINES, in_their_hands, same_bytes
from tests.parity.test_seq_to_seq import greedy

TEXTS = ["the cat sat on the mat", "a dog!", "深度学习 and the cat", "and “quotes”\tand 🙂"]
TARGET = frozenset({"seq-to-seq"})
ROLES = {"target": TARGET, "bare": frozenset[str]()}
KINDS = [name for name in ARCHITECTURES.names() if TARGET in ARCHITECTURES.get(name).ROLES]
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(LINES, TokenizerConfig(kind="byte-bpe", vocab_size=300)).with_max_length(64)


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random bundles with weights large enough that tokens differ."""
    root, found = tmp_path_factory.mktemp("bundles"), {}
    for kind, name in ((kind, name) for kind in KINDS for name in ROLES):
        cls = ARCHITECTURES.get(kind)
        model = {**cls.TINY, "init_std": 0.3, "max_position_embeddings": 64, "tie_word_embeddings": False}
        config = cls.Config.read(cls.fitted(model, length=64, vocabulary=len(tokenizer), ids=tokenizer.ids))
        found[f"{kind} {name}"] = Bundle(Network.build(cls, config, ROLES[name], seed=5), tokenizer).save(root / kind / name)
    return found


@pytest.fixture(scope="module")
def oracle(folders: dict[str, Path]) -> dict[str, Any]:
    return in_their_hands(folders, TEXTS)


@pytest.mark.parametrize("name", ROLES)
@kinds
def test_transformers_opens_it_without_a_word(kind: str, name: str, oracle: dict[str, Any], tokenizer: Tokenizer) -> None:
    found = oracle[f"{kind} {name}"]
    assert (oracle["lexloom"], found["problems"]) == (False, {})
    assert found["class"] == ARCHITECTURES.get(kind).ROLES[ROLES[name]]
    assert (found["max_length"], found["ids"]) == (64, [row["input_ids"].tolist() for row in tokenizer.encode(TEXTS)])


@kinds
def test_it_writes_the_same(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    """The start token, then the likeliest up to the end token; `transformers` forces that one where it has to stop."""
    bundle = Bundle.load(folders[f"{kind} target"])
    source = {name: tensor for name, tensor in Batch.from_texts(TEXTS, bundle.tokenizer).items() if name != "token_type_ids"}
    config, theirs = bundle.network.backbone.config, oracle[f"{kind} target"]["generated"]
    assert config.eos_token_id == bundle.tokenizer.eos_id == config.forced_eos_token_id
    for mine, (start, *written) in zip(greedy(bundle.network, source, 8).tolist(), theirs, strict=True):
        stop = written.index(config.eos_token_id)
        assert start == config.decoder_start_token_id and mine[:stop] == written[:stop]
    assert sum(len(set(written)) for written in theirs) > 16
    answers = [bundle.tokenizer.decode(written) for written in theirs]
    assert bundle.predict(TEXTS, max_new_tokens=9) == [{"generated_text": text} for text in answers]


@kinds
def test_how_a_text_begins_and_ends_stands_beside_the_config(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    written, theirs = files.read_json(folders[f"{kind} target"] / "generation_config.json"), oracle[f"{kind} target"]["generation"]
    assert {name for name in theirs if name.endswith("_token_id")} < set(written) <= set(theirs)
    assert written == {name: theirs[name] for name in written}
    assert not (folders[f"{kind} bare"] / "generation_config.json").exists()


@kinds
def test_embed_is_the_mean_over_the_text_read_once_more(kind: str, folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    found = Bundle.load(folders[f"{kind} bare"]).embed(TEXTS)
    np.testing.assert_allclose(found, np.asarray(oracle[f"{kind} bare"]["vectors"]), atol=1e-5)


@pytest.mark.parametrize("name", ROLES)
@kinds
def test_saving_what_was_loaded_changes_no_byte(kind: str, name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders[f"{kind} {name}"]
    if name == "target":  # what others put there stays
        settings = files.read_json(folder / "generation_config.json") | {"num_beams": 4}
        folder = Bundle.load(folder).save(tmp_path / "copy")
        files.write_json(folder / "generation_config.json", settings)
    same_bytes(Bundle.load(folder).save(tmp_path / name), folder, but=("README.md", "manifest.json"))
