"""Training goes on to the same bits, tells the true loss, learns, and grows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexloom.errors import CheckpointError, ConfigError, DataError
from lexloom.vectors import idtext, training
from lexloom.vectors.idtext import IdText
from lexloom.vectors.training import Word2Vec, Word2VecConfig
from lexloom.vectors.vocabulary import VocabularyConfig
from tests.vectors.texts import topics, zipf

SMALL: dict[str, Any] = {"dim": 20, "epochs": 3, "window": 3, "sample": 0}


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small text has many chunks and intervals, too."""
    monkeypatch.setattr(training, "CHUNK", 300)
    monkeypatch.setattr(training, "INTERVAL", 2)


@pytest.fixture
def text(tmp_path: Path) -> IdText:
    return idtext.write(topics(sentences=400), tmp_path / "text", VocabularyConfig(min_count=1))


def finished(state: Word2Vec, text: IdText, workers: int = 1) -> tuple[tuple[float, ...], bytes, bytes]:
    last = list(state.train(text, workers))[-1]
    assert last.words == last.total == text.words * state.config.epochs and last.epoch == state.config.epochs
    return last.losses, state.inner.tobytes(), state.outer.tobytes()


@pytest.mark.parametrize(("kind", "loss"), [("skipgram", "negative-sampling"), ("cbow", "hierarchical-softmax")])
def test_deterministic_training_is_the_same_for_any_workers_and_kills(
    tmp_path: Path, chunks: None, text: IdText, kind: str, loss: str
) -> None:
    config = Word2VecConfig.read({**SMALL, "kind": kind, "loss": loss, "deterministic": True})
    right = finished(Word2Vec(config, text.vocabulary, 5), text)
    for workers in (2, 8):
        assert finished(Word2Vec(config, text.vocabulary, 5), text, workers) == right
    state, kills = Word2Vec(config, text.vocabulary, 5), 0
    while state.epoch < config.epochs:
        for number, _ in enumerate(state.train(text, 1 + kills % 2)):
            if number == kills % 3:
                break
        state.save(tmp_path / f"state-{kills}")
        state, kills = Word2Vec.load(tmp_path / f"state-{kills}"), kills + 1
    assert kills > 5
    assert (tuple(a / b for a, b in state.sums), state.inner.tobytes(), state.outer.tobytes()) == right
    assert finished(Word2Vec(config, text.vocabulary, 6), text) != right


def test_one_fast_worker_goes_on_to_the_same_bits(tmp_path: Path, chunks: None, text: IdText) -> None:
    config = Word2VecConfig.read(SMALL)
    right = finished(Word2Vec(config, text.vocabulary, 5), text)
    state = Word2Vec(config, text.vocabulary, 5)
    next(iter(state.train(text)))
    state.save(tmp_path / "state")
    assert finished(Word2Vec.load(tmp_path / "state"), text) == right


def test_fast_workers_read_the_whole_text(chunks: None, text: IdText) -> None:
    config = Word2VecConfig.read(SMALL)
    one, two = Word2Vec(config, text.vocabulary, 5), Word2Vec(config, text.vocabulary, 5)
    first, second = finished(one, text)[0], finished(two, text, 2)[0]
    assert [n for _, n in one.sums] == [n for _, n in two.sums]  # what is drawn does not depend on workers
    assert second == pytest.approx(first, rel=0.1)


@pytest.mark.parametrize(("kind", "per"), [("skipgram", 2), ("cbow", 1)])
def test_the_loss_is_the_mean_over_predictions(chunks: None, text: IdText, kind: str, per: int) -> None:
    """With outer vectors at 0 and no rate every score is 0: log 2 a target, exactly."""
    config = Word2VecConfig.read({**SMALL, "kind": kind, "negatives": 4, "learning_rate": 1e-30, "min_learning_rate": 0, "window": 1})
    state = Word2Vec(config, text.vocabulary)
    losses = finished(state, text)[0]
    assert losses == pytest.approx([5 * math.log(2)] * 3, rel=1e-6)
    sentences = int((text.ids < 0).sum())
    expected = text.words if kind == "cbow" else 2 * text.words - 2 * sentences
    assert [n for _, n in state.sums] == [expected] * 3


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
@pytest.mark.parametrize("loss", ["negative-sampling", "hierarchical-softmax"])
def test_words_that_stand_together_become_alike(tmp_path: Path, kind: str, loss: str, deterministic: bool) -> None:
    text = idtext.write(topics(sentences=3000), tmp_path / "more", VocabularyConfig(min_count=1))
    config = Word2VecConfig.read({**SMALL, "kind": kind, "loss": loss, "deterministic": deterministic, "learning_rate": 0.1, "epochs": 6})
    state = Word2Vec(config, text.vocabulary)
    losses = finished(state, text)[0]
    assert losses[-1] < losses[0]
    wv = state.vectors
    words = [word for word in wv.index_to_key if word[0] == "t"]
    unit = np.stack([wv[word] / np.linalg.norm(wv[word]) for word in words])
    topic = np.array([word.split("_")[0] for word in words])
    alike = unit @ unit.T - 2 * np.eye(len(words))
    assert (topic[alike.argmax(1)] == topic).mean() > 0.95


def test_the_rate_falls_in_a_line(chunks: None, text: IdText) -> None:
    config = Word2VecConfig.read({**SMALL, "learning_rate": 0.5, "min_learning_rate": 0.1})
    seen = [(done.words / done.total, done.learning_rate) for done in Word2Vec(config, text.vocabulary).train(text)]
    assert len(seen) > 6
    assert all(rate == pytest.approx(0.5 - 0.4 * done, abs=0.01) for done, rate in seen)
    assert seen[-1][1] == pytest.approx(0.1)


def test_further_words_come_in_and_the_old_go_on(tmp_path: Path, text: IdText) -> None:
    config = Word2VecConfig.read(SMALL)
    state = Word2Vec(config, text.vocabulary)
    finished(state, text)
    size = len(text.vocabulary)
    other = idtext.write(zipf(words=50, sentences=200), tmp_path / "other", VocabularyConfig(min_count=1), known=text.vocabulary)
    grown = state.grown(other.vocabulary)
    assert len(other.vocabulary) > size and other.vocabulary.words[:size] == text.vocabulary.words
    assert (grown.inner[:size] == state.inner).all() and (grown.outer[:size] == state.outer).all()
    assert grown.inner[size:, :20].any(axis=1).all() and not grown.outer[size:].any()
    before = grown.inner.copy()
    assert finished(grown, other)[0][-1] > 0
    assert (grown.inner[size:] != before[size:]).any()


def test_what_does_not_fit_is_refused(tmp_path: Path, text: IdText) -> None:
    state = Word2Vec(Word2VecConfig.read(SMALL), text.vocabulary)
    with pytest.raises(ConfigError, match="another width"):
        state.grown(text.vocabulary, Word2VecConfig.read({**SMALL, "dim": 21}))
    tree = Word2VecConfig.read({**SMALL, "loss": "hierarchical-softmax"})
    for old, new in ((state, tree), (Word2Vec(tree, text.vocabulary), tree)):
        with pytest.raises(ConfigError, match="negative sampling"):
            old.grown(text.vocabulary, new)
    other = idtext.write(zipf(words=9, sentences=30), tmp_path / "other", VocabularyConfig(min_count=1))
    with pytest.raises(ConfigError, match="another vocabulary"):
        next(state.train(other))
    with pytest.raises(ConfigError, match="words"):
        state.grown(other.vocabulary)
    with pytest.raises(DataError, match="one word"):
        idtext.write([["a", "a"]], tmp_path / "alone", VocabularyConfig(min_count=1))
    assert not (tmp_path / "alone").exists()


@pytest.mark.parametrize("name", ["vectors.safetensors", "state.json", "vocabulary.json"])
def test_a_damaged_state_is_refused(tmp_path: Path, text: IdText, name: str) -> None:
    folder = Word2Vec(Word2VecConfig.read(SMALL), text.vocabulary).save(tmp_path / "state")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="changed or damaged"):
        Word2Vec.load(folder)


def spoken(sentences: list[list[str]]) -> Callable[[], Any]:
    return lambda: iter(sentences)


def test_a_stream_is_read_once(tmp_path: Path) -> None:
    sentences = topics(sentences=50)
    stream, held = (
        idtext.write(source, tmp_path / name, VocabularyConfig(min_count=1))
        for name, source in (("stream", spoken(sentences)()), ("held", sentences))
    )
    assert (stream.ids == held.ids).all() and stream.vocabulary.words == held.vocabulary.words
    assert sorted(path.name for path in stream.folder.iterdir()) == ["ids.bin", "manifest.json", "text.json", "vocabulary.json"]


def test_long_sentences_are_cut_and_chunks_end_with_sentences(tmp_path: Path) -> None:
    long = [["a", "b", "c"] * 9000, ["b"], ["zz"], ["c", "a"]]
    text = idtext.write(long, tmp_path / "text", VocabularyConfig(min_count=2))
    ends = np.flatnonzero(text.ids < 0)
    assert np.diff(ends, prepend=-1).tolist() == [10001, 10001, 7001, 2, 3] and text.about["cut_sentences"] == 1
    for size in (1, 100, 12000, 10**6):
        borders = text.borders(size)
        assert borders[0] == 0 and borders[-1] == len(text.ids) and (text.ids[borders[1:] - 1] == idtext.END).all()
        assert (np.diff(borders) <= size + idtext.LONGEST).all()
