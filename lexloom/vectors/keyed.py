"""Word vectors in use: neighbours, analogies, odd ones out, maps, vectors of texts; `formats` has their files.

Letters: V words, D width, N texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from lexloom import svg
from lexloom.errors import ConfigError, DataError
from lexloom.vectors import formats
from lexloom.vectors.formats import ENDINGS, ending_of
from lexloom.vectors.ngrams import NGrams
from lexloom.vectors.texts import Sif, mean

__all__ = ["ENDINGS", "MULTIPLICATIVE_EPSILON", "UnknownWordError", "WordVectors", "ending_of"]

Floats = npt.NDArray[np.float32]
Query = str | npt.NDArray[Any]
MULTIPLICATIVE_EPSILON = 0.001
"""Keeps 3CosMul from dividing by nothing, as Levy and Goldberg 2014 have it."""
_ROWS = 1 << 16


class UnknownWordError(DataError, KeyError):
    """A word has no vector; a KeyError, too, as gensim raises it."""

    __str__ = DataError.render


class WordVectors:
    """A vector a word.

    Attributes:
        index_to_key: the words, the most frequent first. key_to_index: word -> place. vectors: (V, D) float32.
        ngrams: what these are made of, where it is more than a row a word; other words have vectors by it, too.
    """

    def __init__(self, words: Sequence[str], vectors: Floats, ngrams: NGrams | None = None) -> None:
        if len(words) != len(vectors):
            raise DataError("there is not one vector a word", expected=f"{len(words):,} vectors", got=f"{len(vectors):,}")
        self.index_to_key, self.vectors, self.ngrams = list(words), vectors, ngrams
        self.key_to_index = {word: place for place, word in enumerate(self.index_to_key)}

    def __len__(self) -> int:
        return len(self.index_to_key)

    def __contains__(self, word: object) -> bool:
        """Whether it has a vector, if only by its n-grams; whether it is one of the words, `key_to_index` says."""
        return word in self.key_to_index or (isinstance(word, str) and self._by_ngrams(word) is not None)

    def __getitem__(self, word: str | Sequence[str]) -> Floats:
        """The vector of a word, (D,), or those of several, (n, D).

        Raises:
            UnknownWordError: it has none.
        """
        if not isinstance(word, str):
            return np.stack([self[one] for one in word]) if len(word) else self.vectors[:0]
        by_ngrams = None if word in self.key_to_index else self._by_ngrams(word)
        return self.vectors[self.place(word)] if by_ngrams is None else by_ngrams

    def _by_ngrams(self, word: str) -> Floats | None:
        return None if self.ngrams is None else self.ngrams.of(word)

    def place(self, word: str) -> int:
        """The row of a word.

        Raises:
            UnknownWordError: it has none.
        """
        if (found := self.key_to_index.get(word)) is None:
            near = next((other for other in (word.lower(), word.strip(), word.title()) if other in self), None)
            raise UnknownWordError("this word has no vector", got=repr(word), hint=near and f"there is {near!r}")
        return found

    def spelt(self, word: str) -> str | None:
        """How a word is written that has a vector: as it is, or else in small letters; None where it has none."""
        among = next((one for one in (word, word.lower()) if one in self.key_to_index), None)
        return word if among is None and word in self else among

    def save(self, path: Path | str) -> None:
        """Writes a file of the kind that its ending says; see `formats`. N-grams are kept by `.safetensors` and `.bin`.

        Raises:
            ConfigError: the ending says none.
            DataError: a word cannot stand in such a file.
        """
        formats.write(path, self.index_to_key, self.vectors, self.ngrams)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Opens a file of the kind that its ending says; `.safetensors` is mapped and not read.

        Raises:
            ConfigError: the ending says none.
            FormatError: the file is not what its ending says, or damaged; the line is named.
        """
        return cls(*formats.read(path))

    @cached_property
    def norms(self) -> Floats:
        """Lengths of the vectors, (V,); 1 where all numbers are 0, which is then like no other."""
        found = np.empty(len(self), dtype=np.float32)
        for start in range(0, len(self), _ROWS):  # of a mapped file only so much is in memory at once
            found[start : start + _ROWS] = np.linalg.norm(self.vectors[start : start + _ROWS], axis=1)
        return np.where(found > 0, found, np.float32(1))

    def unit(self, word: str) -> Floats:
        """The vector of a word at length 1, (D,)."""
        if (place := self.key_to_index.get(word)) is not None:
            return self.vectors[place] / self.norms[place]
        found = self[word]
        return found / (np.linalg.norm(found) or np.float32(1))

    def similarity(self, a: str, b: str) -> float:
        """The cosine between two words."""
        return float(self.unit(a) @ self.unit(b))

    def most_similar(
        self,
        positive: Query | Sequence[Query] = (),
        negative: Query | Sequence[Query] = (),
        topn: int = 10,
        *,
        restrict_vocab: int | None = None,
    ) -> list[tuple[str, float]]:
        """The words nearest to a sum of directions, by cosine; the asked words themselves are left out.

        Args:
            positive: words, which count at length 1, or vectors, which count as they are.
            negative: words or vectors that count against it.
            restrict_vocab: look among so many of the most frequent words only.

        Raises:
            UnknownWordError: a word has no vector.
            ConfigError: nothing was asked.

        Example:
            >>> wv.most_similar(positive=["king", "woman"], negative=["man"], topn=3)
        """
        ups, downs = _several(positive), _several(negative)
        if not ups and not downs:
            raise ConfigError("there is nothing to be similar to", hint="give a word: most_similar('king')")
        query = sum((self._direction(one) for one in ups), np.zeros(self.vectors.shape[1], dtype=np.float32))
        query = query - sum(self._direction(one) for one in downs)
        return self._best(self._cosines(query, restrict_vocab), [*ups, *downs], topn)

    def analogy(
        self,
        a: str,
        b: str,
        c: str,
        *,
        method: Literal["additive", "multiplicative"] = "additive",
        topn: int = 10,
        restrict_vocab: int | None = None,
    ) -> list[tuple[str, float]]:
        """What is to `c` as `b` is to `a`; the three words themselves are left out.

        Args:
            method: `additive`, 3CosAdd: the largest cos(d, b - a + c), of unit vectors (Mikolov et al. 2013c); `multiplicative`,
                3CosMul: the largest cos(d, b) cos(d, c) / (cos(d, a) + 0.001), cosines moved to [0, 1] (Levy and Goldberg 2014,
                equation 5): no one of the three outweighs the others.

        Raises:
            UnknownWordError: a word has no vector.
            ConfigError: there is no such method.

        Example:
            >>> wv.analogy("man", "king", "woman", topn=1)
        """
        if method == "additive":
            return self.most_similar([b, c], a, topn, restrict_vocab=restrict_vocab)
        if method != "multiplicative":
            raise ConfigError("there is no such method", expected="additive, multiplicative", got=repr(method))
        to_a, to_b, to_c = ((1 + self._cosines(self.unit(word), restrict_vocab)) / 2 for word in (a, b, c))
        return self._best(to_b * to_c / (to_a + MULTIPLICATIVE_EPSILON), [a, b, c], topn)

    def doesnt_match(self, words: Sequence[str]) -> str:
        """The word that is least like the mean of all of them, each at length 1.

        Raises:
            UnknownWordError: a word has no vector.
            ConfigError: there are no words.
        """
        if isinstance(words, str) or not len(words):
            raise ConfigError("this takes a list of words", got=repr(words), hint="split a text first")
        found = np.stack([self.unit(word) for word in words])
        return words[int(np.argmin(found @ found.mean(axis=0)))]

    def texts(
        self,
        texts: Sequence[Sequence[str]],
        *,
        method: Literal["mean", "sif"] = "mean",
        counts: Mapping[str, int] | None = None,
    ) -> Floats:
        """A vector a text, (N, D), each given as its words; words without a vector are passed over, a text without any is 0.

        Args:
            method: `mean` of the vectors, or `sif`: weighted by frequency, less what all texts share; see `texts.Sif`, which also
                holds what was found in some texts for further ones.
            counts: how often words stand in a large text, for `sif`; in these texts where None.
        """
        if method == "sif":
            return Sif.fit(self, texts, counts=counts)(texts)
        if method != "mean":
            raise ConfigError("there is no such method", expected="mean, sif", got=repr(method))
        return mean(self, texts)

    def map(self, words: Sequence[str], *, title: str = "Words") -> str:
        """A map of some words as SVG: their vectors, at length 1, in the two directions in which they differ most (PCA).

        Raises:
            UnknownWordError: a word has no vector.
            ConfigError: fewer than three words.
        """
        points, share = self.plane(words)
        told = f"{len(words)} words in the two directions in which they differ most, which hold {share:.0%} of their differences"
        return svg.named_points(points, words, title=title, description=told)

    def plane(self, words: Sequence[str]) -> tuple[list[tuple[float, float]], float]:
        """Where words stand on their map, and the share of their differences that it shows; see `map`."""
        if isinstance(words, str) or len(words) < 3:
            raise ConfigError("a map takes a list of three words or more", got=repr(words))
        found = np.stack([self.unit(word) for word in words]).astype(np.float64)
        places, sizes, directions = np.linalg.svd(found - found.mean(axis=0), full_matrices=False)
        # A direction and its opposite are equally good: the one whose largest number is above 0 is drawn on every machine.
        signs = np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1))[:, 0]
        points = np.zeros((len(words), 2))
        points[:, : len(sizes[:2])] = (places * sizes * signs)[:, :2]
        share = float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-30))
        return [(x, y) for x, y in points.tolist()], share

    def _direction(self, one: Query) -> Floats:
        if isinstance(one, str):
            return self.unit(one)
        vector = np.asarray(one, dtype=np.float32)
        if vector.shape != self.vectors.shape[1:]:
            raise ConfigError("this vector has another width", expected=str(self.vectors.shape[1:]), got=str(vector.shape))
        return vector

    def _cosines(self, query: Floats, first: int | None) -> Floats:
        """Of the words, or the first so many of them, with a vector: (V,)."""
        return self.vectors[:first] @ (query / (np.linalg.norm(query) or 1)) / self.norms[:first]

    def _best(self, scores: npt.NDArray[np.floating[Any]], without: Sequence[Query], n: int) -> list[tuple[str, float]]:
        """The n words of the highest scores, equal ones by frequency."""
        places = [self.key_to_index[one] for one in without if isinstance(one, str) and one in self.key_to_index]
        scores[[place for place in places if place < len(scores)]] = -np.inf
        n = min(n, len(scores))
        if n <= 0:
            return []
        bound = np.partition(scores, -n)[-n]
        among = np.flatnonzero(scores >= bound)
        found = among[np.argsort(-scores[among], kind="stable")][:n]
        return [(self.index_to_key[place], float(scores[place])) for place in found.tolist() if scores[place] > -np.inf]


def _several(query: Query | Sequence[Query]) -> list[Query]:
    """One word or vector, or a list of them, as a list."""
    return [query] if isinstance(query, str) or (isinstance(query, np.ndarray) and query.ndim == 1) else list(query)
