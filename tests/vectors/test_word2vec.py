"""The kernels are the plain NumPy, which is autograd's gradient; and they draw what `keys` draws."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lexloom import keys
from lexloom.vectors import plain, windows, word2vec
from lexloom.vectors.idtext import END
from lexloom.vectors.lanes import table
from lexloom.vectors.vocabulary import Vocabulary
from tests.vectors.texts import zipf

V = 60
SEED = (7, "word2vec", 2)
KINDS = [
    ("skipgram", 5),
    ("skipgram", 2),
    ("skipgram", 7),
    ("skipgram", 12),
    ("skipgram", 0),
    ("cbow", 5),
    ("cbow", 2),
    ("cbow", 8),
    ("cbow", 0),
]


def text(sentences: int = 60) -> tuple[np.ndarray, Vocabulary]:
    """Ids with ends of sentences, in which no word stands twice; one has nothing in it, one a single word."""
    found = [[int(word[1:]) for word in dict.fromkeys(sentence)] for sentence in zipf(words=V, sentences=sentences)]
    ids = [number for sentence in [*found, [], [3]] for number in [*sentence, END]]
    counts = np.bincount([number for number in ids if number >= 0], minlength=V)
    return np.array(ids, dtype=np.int32), Vocabulary([f"w{i}" for i in range(V)], counts)


def parts(vocabulary: Vocabulary, kind: str, negatives: int, width: int, *, sample: float = 0.0, window: int = 3) -> tuple[Any, ...]:
    """how, draws, tree, tables."""
    tree = vocabulary.huffman()
    x, y = table(V, width), table(V if negatives else V - 1, width)
    x[:, :width] = keys.normal(keys.key(1, np.arange(V)), width) * 0.4
    y[:, :width] = keys.normal(keys.key(2, np.arange(len(y))), width) * 0.4
    how = windows.sizes(window, negatives, tree.longest, x.shape[1], mean=kind == "cbow")
    draws = (np.uint64(keys.key(*SEED)), vocabulary.keep(sample), vocabulary.noise(0.75))
    return how, draws, (tree.starts, tree.nodes, tree.turns), (x, y)


def flat(tables: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return tables[0].reshape(-1), tables[1].reshape(-1)


@pytest.mark.parametrize("sample", [0.0, 0.01])
@pytest.mark.parametrize(("kind", "negatives"), KINDS)
def test_a_kernel_learns_what_plain_numpy_learns(kind: str, negatives: int, sample: float) -> None:
    ids, vocabulary = text()
    how, draws, tree, tables = parts(vocabulary, kind, negatives, 20, sample=sample)
    before = [part.astype(np.float64) for part in tables]
    found = word2vec.learn(
        ids, 0, len(ids), 0.05, 1e-5, how, draws, tree, flat(tables), windows.kept_room(len(ids), how), windows.room(how)
    )
    loss, predictions = plain.learn(ids, SEED, 0.05, 1e-5, (how[0], how[1], how[2]), (*draws[1:], *tree), *before)
    assert found[1] == predictions > 100
    assert found[0] == pytest.approx(loss, rel=1e-5)
    for mine, right in zip(tables, before, strict=True):
        assert np.abs(mine - right).max() < 2e-5
        assert (mine[:, 20:] == 0).all()


@pytest.mark.parametrize(("kind", "negatives"), KINDS)
def test_one_window_moves_along_autograds_gradient(kind: str, negatives: int) -> None:
    _, vocabulary = text()
    how, draws, tree, tables = parts(vocabulary, kind, negatives, 33)
    ids = np.array([4, 9, 11, 2, 30, END], dtype=np.int32)
    seen = [(word, contexts, place) for place, word, contexts in plain.windows(ids, SEED, draws[1], how[0])]
    x, y = (torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in tables)
    rate = 1e-3
    loss = torch.zeros((), dtype=torch.float64)
    for word, contexts, place in seen:
        if negatives:
            targets, signs = (
                [word, *plain.negatives(word, place, SEED, negatives, draws[2], mean=how[2])],
                torch.tensor([1.0] + [-1.0] * negatives),
            )
        else:
            targets, turns = plain.path(word, vocabulary.huffman())
            signs = -torch.tensor(turns)
        rows = x[contexts].mean(0, keepdim=True) if kind == "cbow" else x[contexts]
        if kind == "cbow":  # the whole of the mean's gradient for each word, as word2vec.c has it
            rows = x[contexts].sum(0, keepdim=True) + (rows - x[contexts].sum(0, keepdim=True)).detach()
        loss = loss - F.logsigmoid(signs * (rows @ y[targets].T)).sum()
    loss.backward()
    starts = [part.copy() for part in tables]
    found = np.zeros((len(ids), 3), dtype=np.float32)  # all windows at the weights as they were: one gradient
    room = windows.room(how, windows=len(ids))
    done = word2vec.learn_together(ids, 0, 6, rate, 0.0, how, draws, tree, flat(tables), windows.kept_room(6, how), room, found, 1)
    assert done[0] == pytest.approx(loss.item(), rel=1e-6)
    for part, start, weight in zip(tables, starts, (x, y), strict=True):
        gradient = weight.grad.numpy()
        assert np.abs((start - part) / rate - gradient).max() < 2e-2 * max(1, np.abs(gradient).max())
        assert np.corrcoef((start - part).ravel(), gradient.ravel())[0, 1] > 0.9999


@pytest.mark.parametrize(("kind", "negatives"), [("skipgram", 5), ("cbow", 5), ("skipgram", 0), ("cbow", 0)])
def test_threads_change_no_bit(kind: str, negatives: int) -> None:
    ids, vocabulary = text(200)
    most, results = numba.config.NUMBA_NUM_THREADS, []
    for threads in (1, 2, 3, 8):
        how, draws, tree, tables = parts(vocabulary, kind, negatives, 50, sample=0.02)
        numba.set_num_threads(min(threads, most))
        room, found = windows.room(how, windows=32, threads=threads), np.zeros((32, 3), dtype=np.float32)
        kept = windows.kept_room(len(ids), how)
        loss = word2vec.learn_together(ids, 0, len(ids), 0.05, 0.0, how, draws, tree, flat(tables), kept, room, found, threads)
        results.append((loss, *(part.tobytes() for part in tables)))
    numba.set_num_threads(most)
    assert all(result == results[0] for result in results[1:])
    assert results[0][0][1] > 500


def test_what_is_drawn_is_what_was_asked_for() -> None:
    """Windows of every size equally often, subsampling and negatives by their shares: chi-square over many places."""
    counts = np.array([8000, 4000, 2000, 1000, 500, 500])
    vocabulary = Vocabulary(list("abcdef"), counts)
    ids = np.concatenate([np.tile(np.arange(6, dtype=np.int32), 5000), [END]]).astype(np.int32)
    keep = vocabulary.keep(0.05)
    words, _ = plain.kept_words(ids, SEED, keep)
    kept = np.bincount(words[:-1], minlength=6) / 5000
    assert np.abs(kept - keep / 2.0**32).max() < 0.03
    sizes = [len(contexts) for _, _, contexts in plain.windows(ids[:6000], SEED, vocabulary.keep(0), 4)][10:-10]
    assert set(sizes) == {2, 4, 6, 8}
    shares = np.bincount(sizes, minlength=9)[2::2] / len(sizes)
    assert np.abs(shares - 0.25).max() < 0.03
    drawn = np.bincount(
        [word for place in range(0, 8000, 4) for word in plain.negatives(5, place, SEED, 5, vocabulary.noise(0.75))], minlength=6
    )
    right = counts[:5] ** 0.75 / (counts[:5] ** 0.75).sum()
    assert drawn[5] == 0 and np.abs(drawn[:5] / drawn.sum() - right).max() < 0.015


def test_a_word_that_is_nearly_all_of_a_text_gets_other_negatives() -> None:
    vocabulary = Vocabulary(list("abc"), [10**9, 1, 1])
    how, draws, tree, tables = parts(Vocabulary(list("abc"), [4, 4, 4]), "skipgram", 3, 16)
    draws = (draws[0], vocabulary.keep(0), vocabulary.noise(2.0))
    ids = np.array([0, 0, 1, 0, END], dtype=np.int32)
    assert [plain.negatives(0, place, SEED, 3, draws[2]) for place in range(4)] == [[1, 1, 1]] * 4
    loss, pairs = word2vec.learn(ids, 0, 5, 0.0, 0.0, how, draws, tree, flat(tables), windows.kept_room(5, how), windows.room(how))
    assert pairs >= 6 and np.isfinite(loss)
