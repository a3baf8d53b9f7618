"""Vectors made of n-grams: the kernels are the plain NumPy, which is autograd's gradient; and they are learned as words' vectors are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lexloom import keys
from lexloom.errors import CheckpointError, ConfigError
from lexloom.vectors import fasttext, idtext, plain, training, windows
from lexloom.vectors.idtext import END, IdText
from lexloom.vectors.subwords import FastText, FastTextConfig
from lexloom.vectors.vocabulary import Vocabulary, VocabularyConfig
from tests.vectors.texts import topics, zipf

V = 60
SEED = (7, "fasttext", 2)
KINDS = [("skipgram", 5), ("skipgram", 2), ("skipgram", 12), ("skipgram", 0), ("cbow", 5), ("cbow", 2), ("cbow", 0)]
SMALL: dict[str, Any] = {"dim": 20, "epochs": 3, "window": 3, "sample": 0, "buckets": 500, "max_n": 4}


def text(sentences: int = 60) -> tuple[np.ndarray, Vocabulary]:
    """Ids with ends of sentences; one has nothing in it, one a single word."""
    found = [[int(word[1:]) for word in sentence] for sentence in zipf(words=V, sentences=sentences)]
    ids = [number for sentence in [*found, [], [3]] for number in [*sentence, END]]
    counts = np.bincount([number for number in ids if number >= 0], minlength=V)
    return np.array(ids, dtype=np.int32), Vocabulary([f"word{i}" for i in range(V)], counts)


def state(vocabulary: Vocabulary, kind: str, negatives: int, width: int) -> FastText:
    """With outer vectors that are not 0."""
    loss = {"negatives": negatives} if negatives else {"loss": "hierarchical-softmax"}
    found = FastText(FastTextConfig.read({**SMALL, **loss, "model": kind, "dim": width}), vocabulary)
    found.inner[:, :width] = keys.normal(keys.key(1, np.arange(len(found.inner))), width) * 0.4
    found.outer[:, :width] = keys.normal(keys.key(2, np.arange(len(found.outer))), width) * 0.4
    return found


def parts(of: FastText, negatives: int, *, sample: float = 0.0) -> tuple[Any, ...]:
    """how, draws, tree."""
    tree = of.vocabulary.huffman()
    draws = (np.uint64(keys.key(*SEED)), of.vocabulary.keep(sample), of.vocabulary.noise(0.5))
    return of.sizes(negatives, tree.longest), draws, (tree.starts, tree.nodes, tree.turns)


def rows_of(of: FastText) -> list[list[int]]:
    return [of.places[a:b].tolist() for a, b in zip(of.starts, of.starts[1:], strict=False)]


@pytest.mark.parametrize("sample", [0.0, 0.01])
@pytest.mark.parametrize(("kind", "negatives"), KINDS)
def test_a_kernel_learns_what_plain_numpy_learns(kind: str, negatives: int, sample: float) -> None:
    ids, vocabulary = text()
    of = state(vocabulary, kind, negatives, 20)
    how, draws, tree = parts(of, negatives, sample=sample)
    before = of.inner.astype(np.float64), of.outer.astype(np.float64)
    found = fasttext.learn(
        ids, 0, len(ids), 0.02, 1e-6, how, draws, tree, of.arrays(), windows.kept_room(len(ids), how), fasttext.room(how)
    )
    how_plain = (how[0], how[1], kind == "cbow")
    loss, predictions = plain.fasttext_learn(ids, SEED, 0.02, 1e-6, how_plain, (*draws[1:], *tree), rows_of(of), *before)
    assert found[1] == predictions > 100
    assert found[0] == pytest.approx(loss, rel=1e-5)
    for mine, right in zip((of.inner, of.outer), before, strict=True):
        assert np.abs(mine - right).max() < 5e-5
        assert (mine[:, 20:] == 0).all()


@pytest.mark.parametrize(("kind", "negatives"), KINDS)
def test_one_window_moves_along_autograds_gradient(kind: str, negatives: int) -> None:
    _, vocabulary = text()
    of = state(vocabulary, kind, negatives, 33)
    how, draws, tree = parts(of, negatives)
    ids, rows = np.array([4, 9, 11, 2, 30, END], dtype=np.int32), rows_of(of)
    x, y = (torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in (of.inner, of.outer))
    loss, rate = torch.zeros((), dtype=torch.float64), 1e-4
    for place, word, contexts in plain.windows(ids, SEED, draws[1], how[0]):
        made_of = [row for one in (contexts if kind == "cbow" else [word]) for row in rows[one]]
        whole = x[made_of].sum(0)  # the whole of the mean's gradient for each row, as the released code has it
        h = whole + (x[made_of].mean(0) - whole).detach()
        drawn = [plain._drawn(keys.key(*SEED, np.array(place)), windows.NEGATIVE + j, draws[2]) for j in range(negatives)]
        for positive in [word] if kind == "cbow" else contexts:
            if negatives:
                others = [other for other in drawn if other != positive]
                one = -F.logsigmoid(h @ y[positive]) - F.logsigmoid(-(y[others] @ h)).sum()
            else:
                nodes, turns = plain.path(positive, vocabulary.huffman())
                one = -F.logsigmoid(-torch.tensor(turns) * (y[nodes] @ h)).sum()
            h = h - rate * torch.autograd.grad(one, h, retain_graph=True)[0]  # what predicts moves on from one positive to the next
            loss = loss + one
    loss.backward()
    starts = [of.inner.copy(), of.outer.copy()]
    found = np.zeros((len(ids), 3), dtype=np.float32)  # all windows at the weights as they were: one gradient
    room = fasttext.room(how, windows=len(ids))
    done = fasttext.learn_together(ids, 0, 6, rate, 0.0, how, draws, tree, of.arrays(), windows.kept_room(6, how), room, found, 1)
    assert done[0] == pytest.approx(loss.item(), rel=1e-6)
    for part, start, weight in zip((of.inner, of.outer), starts, (x, y), strict=True):
        gradient = weight.grad.numpy()
        assert np.abs((start - part) / rate - gradient).max() < 2e-2 * max(1, np.abs(gradient).max())
        assert np.corrcoef((start - part).ravel(), gradient.ravel())[0, 1] > 0.9999


@pytest.mark.parametrize(("kind", "negatives"), [("skipgram", 5), ("cbow", 5), ("skipgram", 0)])
def test_threads_change_no_bit(kind: str, negatives: int) -> None:
    ids, vocabulary = text(200)
    most, results = numba.config.NUMBA_NUM_THREADS, []
    for threads in (1, 2, 3, 8):
        of = state(vocabulary, kind, negatives, 50)
        how, draws, tree = parts(of, negatives, sample=0.02)
        numba.set_num_threads(min(threads, most))
        room, found = fasttext.room(how, windows=32), np.zeros((32, 3), dtype=np.float32)
        kept = windows.kept_room(len(ids), how)
        loss = fasttext.learn_together(ids, 0, len(ids), 0.05, 0.0, how, draws, tree, of.arrays(), kept, room, found, threads)
        results.append((loss, of.inner.tobytes(), of.outer.tobytes()))
    numba.set_num_threads(most)
    assert all(result == results[0] for result in results[1:])
    assert results[0][0][1] > 500


def test_a_word_has_its_own_row_and_those_of_its_ngrams() -> None:
    vocabulary = Vocabulary(["词语", "cat", "cats", "</s>"], [4, 3, 2, 1])
    of = FastText(FastTextConfig.read({**SMALL, "min_n": 1, "buckets": 40}), vocabulary)
    for number, (word, rows) in enumerate(zip(vocabulary.words, rows_of(of), strict=True)):
        buckets = plain.ngram_buckets(word, 1, 4, 40) if word != "</s>" else []
        assert rows[0] == number and of.held[np.array(rows[1:], dtype=int) - 4].tolist() == buckets
        assert of.vectors[word] == pytest.approx(of.inner[rows, :20].mean(axis=0), abs=1e-7)
    assert len(of.inner) == 4 + len(set(of.held)) and (np.abs(of.inner[:, :20]) <= 1 / 20).all()


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small text has many chunks and intervals, too."""
    monkeypatch.setattr(training, "CHUNK", 300)
    monkeypatch.setattr(training, "INTERVAL", 2)


@pytest.fixture
def small(tmp_path: Path) -> IdText:
    return idtext.write(topics(sentences=400), tmp_path / "text", VocabularyConfig(min_count=1))


def finished(of: FastText, text: IdText, workers: int = 1) -> tuple[tuple[float, ...], bytes, bytes]:
    last = list(of.train(text, workers))[-1]
    assert last.words == last.total == text.words * of.config.epochs
    return last.losses, of.inner.tobytes(), of.outer.tobytes()


@pytest.mark.parametrize(("model", "loss"), [("skipgram", "negative-sampling"), ("cbow", "hierarchical-softmax")])
def test_deterministic_training_is_the_same_for_any_workers_and_kills(
    tmp_path: Path, chunks: None, small: IdText, model: str, loss: str
) -> None:
    config = FastTextConfig.read({**SMALL, "model": model, "loss": loss, "deterministic": True})
    right = finished(FastText(config, small.vocabulary, 5), small)
    for workers in (2, 8):
        assert finished(FastText(config, small.vocabulary, 5), small, workers) == right
    of, kills = FastText(config, small.vocabulary, 5), 0
    while of.epoch < config.epochs:
        for number, _ in enumerate(of.train(small, 1 + kills % 2)):
            if number == kills % 3:
                break
        of.save(tmp_path / f"state-{kills}")
        of, kills = FastText.load(tmp_path / f"state-{kills}"), kills + 1
    assert kills > 5
    assert (tuple(a / b for a, b in of.sums), of.inner.tobytes(), of.outer.tobytes()) == right
    assert finished(FastText(config, small.vocabulary, 6), small) != right


def test_fast_workers_read_the_whole_text(chunks: None, small: IdText) -> None:
    one, two = (FastText(FastTextConfig.read(SMALL), small.vocabulary, 5) for _ in range(2))
    first, second = finished(one, small)[0], finished(two, small, 2)[0]
    assert [n for _, n in one.sums] == [n for _, n in two.sums]
    assert second == pytest.approx(first, rel=0.1)


def test_the_loss_is_the_mean_over_predictions(chunks: None, small: IdText) -> None:
    """With outer vectors at 0 and no rate every score is 0: log 2 for each node of the ways to the words around."""
    settings = {**SMALL, "loss": "hierarchical-softmax", "learning_rate": 1e-30, "min_learning_rate": 0, "window": 1}
    of = FastText(FastTextConfig.read(settings), small.vocabulary)
    lengths = np.diff(small.vocabulary.huffman().starts)
    ends = np.diff(np.flatnonzero(small.ids < 0), prepend=-1) - 1
    around = np.where(small.ids < 0, 0, 2)
    first, last = np.flatnonzero(small.ids < 0)[:-1] + 1, np.flatnonzero(small.ids < 0) - 1
    around[[0, *first]] -= 1
    around[last] -= 1
    nodes = lengths[np.maximum(small.ids, 0)]
    assert (ends > 0).all()
    expected = float((around * nodes).sum() / around.sum() * np.log(2))
    assert finished(of, small)[0] == pytest.approx([expected] * 3, rel=1e-5)
    assert [n for _, n in of.sums] == [around.sum()] * 3


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("model", ["skipgram", "cbow"])
def test_words_that_stand_together_become_alike(tmp_path: Path, model: str, deterministic: bool) -> None:
    """Words here are spelt by topic and number, of which only where they stand tells what goes together."""
    spelt = {f"t{t}_{w}": f"{(t * 12 + w) * 7919 % 9973:05d}" for t in range(6) for w in range(12)}
    sentences = [[spelt.get(word, word) for word in sentence] for sentence in topics(sentences=3000)]
    text = idtext.write(sentences, tmp_path / "more", VocabularyConfig(min_count=1))
    config = FastTextConfig.read({**SMALL, "model": model, "deterministic": deterministic, "learning_rate": 0.1, "epochs": 6})
    of = FastText(config, text.vocabulary)
    losses = finished(of, text)[0]
    assert losses[-1] < losses[0]
    unit = np.stack([of.vectors.unit(word) for word in spelt.values()])
    topic = np.array([word.split("_")[0] for word in spelt])
    alike = unit @ unit.T - 2 * np.eye(len(unit))
    assert (topic[alike.argmax(1)] == topic).mean() > 0.95


def test_a_word_that_was_never_read_is_like_those_it_is_spelt_like(tmp_path: Path) -> None:
    """Of words made of a stem and an ending only some stand in the text; stems tell what they stand beside."""
    stems = {f"t{t}": stem for t, stem in enumerate(["walk", "sing", "bread", "cloud", "river", "stone"])}
    sentences = [
        [stems.get(w.split("_")[0], "") + "abcdefghijkl"[int(w.split("_")[1])] for w in sentence if w[0] == "t"]
        for sentence in topics(sentences=1500)
    ]
    text = idtext.write(sentences, tmp_path / "text", VocabularyConfig(min_count=1))
    of = FastText(FastTextConfig.read({**SMALL, "buckets": 10_000, "epochs": 5, "learning_rate": 0.1}), text.vocabulary)
    finished(of, text)
    wv = of.vectors
    for stem in stems.values():
        fresh = f"{stem}xy"
        assert fresh not in wv.key_to_index and fresh in wv
        assert all(word.startswith(stem) for word, _ in wv.most_similar(fresh, topn=5))
        assert wv.similarity(fresh, f"{stem}a") > 0.5


def test_further_words_come_in_and_the_old_go_on(tmp_path: Path, small: IdText) -> None:
    of = FastText(FastTextConfig.read({**SMALL, "buckets": 100_000}), small.vocabulary)
    finished(of, small)
    size = len(small.vocabulary)
    other = idtext.write(zipf(words=50, sentences=200), tmp_path / "other", VocabularyConfig(min_count=1), known=small.vocabulary)
    grown = of.grown(other.vocabulary)
    held = len(of.held)
    assert len(grown.held) > held and (grown.held[:held] == of.held).all()
    assert (grown.inner[:size] == of.inner[:size]).all() and (grown.outer[:size] == of.outer).all()
    assert (grown.inner[len(other.vocabulary) :][:held] == of.inner[size:]).all()
    assert (grown.vectors["t0_1"] == of.vectors["t0_1"]).all()
    assert grown.inner[len(other.vocabulary) + held :, :20].any(axis=1).all()
    assert finished(grown, other)[0][-1] > 0
    for name, value in (("dim", 21), ("buckets", 99_999), ("min_n", 2)):
        with pytest.raises(ConfigError, match=r"another width|other n-grams"):
            of.grown(other.vocabulary, of.config.model_copy(update={name: value}))


def test_what_does_not_fit_is_refused(tmp_path: Path, small: IdText) -> None:
    with pytest.raises(ConfigError, match="min_n is 5 and max_n 4"):
        FastTextConfig.read({**SMALL, "min_n": 5})
    of = FastText(FastTextConfig.read(SMALL), small.vocabulary)
    folder = of.save(tmp_path / "state")
    content = bytearray((folder / "vectors.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "vectors.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="changed or damaged"):
        FastText.load(folder)


def test_long_words_and_wide_windows_take_bounded_memory() -> None:
    vocabulary = Vocabulary(["x" * 5000, "y"], [1, 1])
    of = FastText(FastTextConfig.read({**SMALL, "model": "cbow", "window": 200}), vocabulary)
    how = of.sizes(5, 0)
    assert how[5] > 400 * 5000 and of.most_together(how) * how[5] < 1 << 24
