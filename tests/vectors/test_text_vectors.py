"""Vectors of texts: the mean, and SIF beside the formulas of its paper."""

from __future__ import annotations

import numpy as np
import pytest

from lexloom import keys
from lexloom.errors import ConfigError
from lexloom.vectors.keyed import WordVectors
from lexloom.vectors.texts import Sif

WORDS = list("abcdef")
TEXTS = [["a", "b", "a"], ["c", "new"], ["a", "d", "e"], ["f", "a"], ["b", "c", "d"]]
COUNTS = {"a": 900, "b": 50, "c": 40, "d": 9, "new": 1}


def made() -> WordVectors:
    return WordVectors(WORDS, keys.normal(keys.key(5, np.arange(6)), 4).astype(np.float32))


def test_the_mean_passes_over_words_without_a_vector() -> None:
    wv = made()
    found = wv.texts([["a", "new", "b"], ["new"], []])
    assert np.allclose(found[0], (wv["a"] + wv["b"]) / 2) and not found[1:].any() and found.shape == (3, 4)
    with pytest.raises(ConfigError, match="as its words"):
        wv.texts(["a b"])


def test_sif_is_the_papers_algorithm() -> None:
    wv, a = made(), 1e-3
    rows = []
    for text in TEXTS:
        known = [word for word in text if word in wv]
        rows.append(sum(a / (a + COUNTS.get(word, 0) / 1000) * wv[word].astype(np.float64) for word in known) / len(known))
    common = np.linalg.svd(np.stack(rows), full_matrices=False)[2][0]
    expected = np.stack(rows) - np.outer(np.stack(rows) @ common, common)
    assert np.allclose(wv.texts(TEXTS, method="sif", counts=COUNTS), expected, atol=1e-6)
    assert np.abs(expected).max() > 0.01


def test_what_was_fitted_serves_other_texts_and_counts_come_from_the_texts() -> None:
    wv = made()
    fitted = Sif.fit(wv, TEXTS)
    told = {"a": 4, "b": 2, "c": 2, "d": 2, "e": 1, "f": 1, "new": 1}
    assert np.allclose(fitted(TEXTS), wv.texts(TEXTS, method="sif", counts=told), atol=1e-6)
    assert np.allclose(fitted([["f", "a"]])[0], fitted(TEXTS)[3]) and abs(fitted(TEXTS) @ fitted.common).max() < 1e-6
    assert not fitted([[]]).any()
    with pytest.raises(ConfigError, match="above 0"):
        Sif.fit(wv, TEXTS, a=0)
