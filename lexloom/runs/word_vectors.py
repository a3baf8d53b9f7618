"""`lexloom.WordVectors`: word vectors in use, which can be trained, too."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from lexloom.console import Console
from lexloom.runs.vectors import vectors
from lexloom.vectors import keyed


class WordVectors(keyed.WordVectors):
    """A vector a word: neighbours, analogies, odd ones out, vectors of texts.

    Example:
        >>> wv = lexloom.WordVectors.train([["a", "cat", "sat"], …], dim=50, min_count=1)
        >>> wv.save("vectors.bin")
        >>> lexloom.WordVectors.load("vectors.bin").most_similar("cat")
    """

    @classmethod
    def train(cls, sentences: Path | str | Iterable[Sequence[str]], *, console: Console | None = None, **settings: Any) -> Self:
        """Trains word vectors and keeps them in memory; what should outlive a kill goes through `lexloom.train_vectors`.

        Args:
            sentences: words of each sentence, or a corpus folder, shards, a file or folder of texts.
            settings: those of `lexloom.train_vectors`: `kind`, `dim`, `window`, `epochs`, `min_count`, `seed`, `workers`, …

        Raises:
            ConfigError: a setting that does not fit.
            DataError: the text leaves no two words.
        """
        with tempfile.TemporaryDirectory() as folder:
            options: dict[str, Any] = {"console": console or Console(quiet=True), **settings}
            found = vectors(sentences, Path(folder) / "vectors.safetensors", **options).vectors
        return cls(found.index_to_key, np.array(found.vectors), found.ngrams and found.ngrams.copied())
