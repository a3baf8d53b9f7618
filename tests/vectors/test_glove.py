"""GloVe's kernel is the plain NumPy, which is autograd's gradient; training is the same for any workers and kills, and learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexloom import keys
from lexloom.errors import CheckpointError, ConfigError
from lexloom.vectors import cooccurrence, glove, idtext, plain
from lexloom.vectors.cooccurrence import LEAST_MEMORY, PAIR, PARTS, Cooccurrences
from lexloom.vectors.glove import Glove, GloveConfig
from lexloom.vectors.vocabulary import Vocabulary, VocabularyConfig
from tests.vectors.texts import topics, zipf

V = 50
SMALL: dict[str, Any] = {"dim": 20, "epochs": 2, "window": 4}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Cooccurrences:
    folder = tmp_path_factory.mktemp("pairs")
    text = idtext.write(topics(sentences=1500), folder / "text", VocabularyConfig(min_count=1))
    return cooccurrence.write(text, folder / "pairs", window=4, memory=LEAST_MEMORY)


def state(dim: int, **settings: Any) -> Glove:
    """Vectors far from their start."""
    found = Glove(GloveConfig.read({"dim": dim, **settings}), Vocabulary([f"w{n}" for n in range(V)], np.arange(V)[::-1]), 3)
    for number, rows in enumerate((found.w, found.c)):
        rows[:, :dim] = keys.normal(keys.key(number, np.arange(V)), dim) * 0.3
    return found


def drawn(n: int) -> np.ndarray:
    """Pairs, some of a word with itself."""
    found = np.zeros(n, dtype=PAIR)
    words = np.sort(keys.integers(keys.key(9, np.arange(n)), 2, V), axis=1)
    found["a"], found["b"] = words[:, 0], words[:, 1]
    found["x"] = np.exp(keys.normal(keys.key(8, np.arange(n)), 1)[:, 0] * 3)
    return found


def learned(of: Glove, found: np.ndarray, rate: float = 0.05) -> tuple[float, int]:
    words, x = found.view(np.int32).reshape(-1, 4), found.view(np.float64).reshape(-1, 2)
    tables = tuple(rows.reshape(-1) for rows in (of.w, of.c, of.w_sum, of.c_sum))
    return glove.learn(words, x, np.uint64(keys.key(5, "order")), tables, of.w.shape[1], rate, of.config.x_max, of.config.alpha)


@pytest.mark.parametrize(("dim", "x_max", "alpha"), [(20, 100.0, 0.75), (14, 3.0, 0.5), (45, 1.0, 0.0)])
def test_a_kernel_learns_what_plain_numpy_learns(dim: int, x_max: float, alpha: float) -> None:
    found, entries = state(dim, x_max=x_max, alpha=alpha), drawn(400)
    right = [rows.astype(np.float64) for rows in (found.w, found.c, found.w_sum, found.c_sum)]
    loss, n = learned(found, entries)
    expected = plain.glove_learn(entries.tolist(), (5, "order"), right, 0.05, x_max, alpha)
    assert n == expected[1] == 800 - (entries["a"] == entries["b"]).sum() < 800
    assert loss == pytest.approx(expected[0], rel=1e-5)
    for mine, theirs in zip((found.w, found.c, found.w_sum, found.c_sum), right, strict=True):
        finite = np.isfinite(theirs)
        assert (finite == np.isfinite(mine)).all() and np.abs(mine[finite] - theirs[finite]).max() < 2e-5
    assert (found.w[:, dim + 1] == 1).all() and (found.c[:, dim] == 1).all()
    assert not found.w[:, dim + 2 :].any() and not found.c[:, dim + 2 :].any()


@pytest.mark.parametrize(("a", "b", "x"), [(3, 7, 2.5), (4, 4, 40.0), (1, 2, 5000.0)])
def test_the_first_step_is_along_autograds_gradient(a: int, b: int, x: float) -> None:
    found, dim, rate = state(20), 20, 1e-3
    w, c = (torch.tensor(rows[:, :dim], dtype=torch.float64, requires_grad=True) for rows in (found.w, found.c))
    b_w = torch.tensor(found.w[:, dim], dtype=torch.float64, requires_grad=True)
    b_c = torch.tensor(found.c[:, dim + 1], dtype=torch.float64, requires_grad=True)
    both = [(a, b), (b, a)] if a != b else [(a, b)]
    terms = [min(1, x / 100) ** 0.75 * (w[i] @ c[j] + b_w[i] + b_c[j] - np.log(x)) ** 2 for i, j in both]
    (sum(terms) / 2).backward()
    before = found.w.copy(), found.c.copy()
    loss, n = learned(found, np.array([(a, b, x)], dtype=PAIR), rate)
    assert n == len(both) and loss == pytest.approx(float(sum(terms).detach()), rel=1e-5)
    for old, new, vectors, biases, own in ((before[0], found.w, w, b_w, dim), (before[1], found.c, c, b_c, dim + 1)):
        moved = (old.astype(np.float64) - new) / rate
        assert np.abs(moved[:, :dim] - vectors.grad.numpy()).max() < 2e-3 * np.abs(vectors.grad.numpy()).max()
        assert np.abs(moved[:, own] - biases.grad.numpy()).max() < 2e-3 * np.abs(biases.grad.numpy()).max()


def test_the_second_step_of_a_number_is_divided_by_the_first() -> None:
    """AdaGrad with the rate within the sum."""
    found = state(20)
    learned(found, np.array([(3, 7, 50.0)], dtype=PAIR))
    g = (found.w_sum[3, :20] - 1) ** 0.5
    assert (g > 0).all() and (found.w_sum[5, :21] == 1).all()
    old, c = found.w[3, :20].copy(), found.c[7, :20].copy()
    missing = float(found.w[3] @ found.c[7] - np.log(50.0))
    learned(found, np.array([(3, 7, 50.0)], dtype=PAIR))
    assert old - found.w[3, :20] == pytest.approx(0.05 * 0.5**0.75 * missing * c / np.sqrt(1 + g**2), abs=1e-6)


def test_rounds_meet_all_blocks_once_and_share_no_part() -> None:
    rounds = [glove.meetings(number) for number in range(PARTS)]
    everything = [pair for meeting in rounds for pair in meeting]
    assert sorted(everything) == [(i, j) for i in range(PARTS) for j in range(i, PARTS)]
    for meeting in rounds:
        parts = [part for pair in meeting for part in set(pair)]
        assert len(parts) == len(set(parts)) == PARTS


def finished(of: Glove, pairs: Cooccurrences, workers: int = 1) -> tuple[tuple[float, ...], bytes, bytes]:
    last = list(of.train(pairs, workers))[-1]
    assert last.words == last.total == pairs.words * of.config.epochs and last.epoch == of.config.epochs
    return last.losses, of.w.tobytes(), of.c_sum.tobytes()


def test_training_is_the_same_for_any_workers_and_kills(tmp_path: Path, pairs: Cooccurrences) -> None:
    config = GloveConfig.read(SMALL)
    right = finished(Glove(config, pairs.vocabulary, 5), pairs)
    for workers in (2, 8):
        assert finished(Glove(config, pairs.vocabulary, 5), pairs, workers) == right
    found, kills = Glove(config, pairs.vocabulary, 5), 0
    while found.epoch < config.epochs:
        for number, _ in enumerate(found.train(pairs, 1 + kills % 2)):
            if number == 5 + kills:
                break
        found.save(tmp_path / f"state-{kills}")
        found, kills = Glove.load(tmp_path / f"state-{kills}"), kills + 1
    assert kills > 5
    assert (tuple(a / b for a, b in found.sums), found.w.tobytes(), found.c_sum.tobytes()) == right
    assert finished(Glove(config, pairs.vocabulary, 6), pairs) != right


def test_the_loss_is_the_mean_over_the_entries_of_x(pairs: Cooccurrences) -> None:
    """With hardly a rate nothing moves: the loss is that of the start, over the whole symmetric X."""
    found = Glove(GloveConfig.read({**SMALL, "learning_rate": 1e-30}), pairs.vocabulary)
    x = np.zeros((len(pairs.vocabulary),) * 2)
    x[pairs.pairs["a"], pairs.pairs["b"]] = x[pairs.pairs["b"], pairs.pairs["a"]] = pairs.pairs["x"]
    scores, there = found.w.astype(np.float64) @ found.c.T.astype(np.float64), x > 0
    terms = np.minimum(1, x[there] / 100) ** 0.75 * (scores[there] - np.log(x[there])) ** 2
    assert finished(found, pairs)[0] == pytest.approx([terms.mean()] * 2, rel=1e-5)
    assert [n for _, n in found.sums] == [pairs.size] * 2 == [there.sum()] * 2


def test_words_that_stand_together_become_alike(pairs: Cooccurrences) -> None:
    found = Glove(GloveConfig.read({**SMALL, "epochs": 30}), pairs.vocabulary)
    losses = finished(found, pairs)[0]
    assert losses[-1] < losses[0] / 3
    wv = found.vectors
    words = [word for word in wv.index_to_key if word[0] == "t"]
    assert (wv["t0_1"] == found.w[wv.key_to_index["t0_1"], :20] + found.c[wv.key_to_index["t0_1"], :20]).all()
    unit = np.stack([wv[word] / np.linalg.norm(wv[word]) for word in words])
    topic = np.array([word.split("_")[0] for word in words])
    alike = unit @ unit.T - 2 * np.eye(len(words))
    assert (topic[alike.argmax(1)] == topic).mean() > 0.95


def test_further_words_come_in_and_the_old_go_on(tmp_path: Path, pairs: Cooccurrences) -> None:
    config = GloveConfig.read(SMALL)
    found = Glove(config, pairs.vocabulary)
    finished(found, pairs)
    size = len(pairs.vocabulary)
    text = idtext.write(zipf(words=50, sentences=200), tmp_path / "text", VocabularyConfig(min_count=1), known=pairs.vocabulary)
    other = cooccurrence.write(text, tmp_path / "pairs", window=4, memory=LEAST_MEMORY)
    grown = found.grown(other.vocabulary)
    assert len(other.vocabulary) > size
    assert (grown.w[:size] == found.w).all() and (grown.c_sum[:size] == found.c_sum).all()
    before = grown.w.copy()
    assert finished(grown, other)[0][-1] > 0
    assert (grown.w[:size] == before[:size]).all() and (grown.w[size:] != before[size:]).any()


def test_what_does_not_fit_is_refused(tmp_path: Path, pairs: Cooccurrences) -> None:
    found = Glove(GloveConfig.read(SMALL), pairs.vocabulary)
    with pytest.raises(ConfigError, match="another width"):
        found.grown(pairs.vocabulary, GloveConfig.read({**SMALL, "dim": 21}))
    with pytest.raises(ConfigError, match="those of the saved state"):
        found.grown(Vocabulary(["x"], [1]))
    with pytest.raises(ConfigError, match="another vocabulary or window"):
        next(Glove(GloveConfig.read({**SMALL, "window": 5}), pairs.vocabulary).train(pairs))
    folder = found.save(tmp_path / "state")
    content = bytearray((folder / "vectors.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "vectors.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="changed or damaged"):
        Glove.load(folder)
