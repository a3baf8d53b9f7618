"""Texts for tests of word vectors: drawn by keys, the same at every run."""

from __future__ import annotations

import numpy as np

from lexloom import keys


def zipf(*, words: int, sentences: int, seed: int = 1, length: int = 12) -> list[list[str]]:
    """Sentences of up to `length` words, the n-th word drawn by 1/n."""
    shares = np.cumsum(1 / np.arange(1, words + 1))
    sizes = keys.integers(keys.key(seed, "sizes"), sentences, length) + 1
    drawn = keys.uniform(keys.key(seed, np.arange(sentences)), length) * shares[-1]
    places = np.searchsorted(shares, drawn)
    return [[f"w{place}" for place in row[:size]] for row, size in zip(places.tolist(), sizes.tolist(), strict=True)]


def topics(*, sentences: int, seed: int = 1, n: int = 6, each: int = 12, length: int = 10) -> list[list[str]]:
    """Sentences of one topic each, with words of that topic and some that stand everywhere; words of a topic are alike."""
    topic = keys.integers(keys.key(seed, "topic"), sentences, n)
    word = keys.integers(keys.key(seed, "word", np.arange(sentences)), length, each)
    common = keys.uniform(keys.key(seed, "common", np.arange(sentences)), length) < 0.2
    return [
        [f"c{w}" if c else f"t{t}_{w}" for w, c in zip(ws, cs, strict=True)]
        for t, ws, cs in zip(topic.tolist(), word.tolist(), common.tolist(), strict=True)
    ]
