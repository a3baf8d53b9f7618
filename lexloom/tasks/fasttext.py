"""fastText's classifier (Joulin et al. 2016): a baseline that learns vectors of words and of pairs of words, and a bundle of its own.

Words are as everywhere: runs of letters and digits in small letters, Chinese as the segmenter cuts it. Of a pair of texts each has words of
its own. Letters: N texts, V words, R buckets of pairs of words that stood in a training text, K labels, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lexloom import keys
from lexloom.errors import DataError, FormatError
from lexloom.tasks.classification import softmax
from lexloom.tasks.columns import ColumnsConfig, clean
from lexloom.tasks.simple import TENSORS, SimpleClassifier, SimpleConfig, Tensors, check_tensors
from lexloom.vectors import supervised
from lexloom.vectors.sentences import WordCutter

MODEL_TYPE: Literal["lexloom-fasttext"] = "lexloom-fasttext"
DIM = 16
NGRAMS, BUCKETS = 2, 2_000_000
MAX_WORDS = 1_000_000
MAX_CHARACTERS = 20_000  # of a text that are looked at
CHOICES = ((0.5, 5), (0.1, 5), (0.1, 25), (0.5, 25))  # learning rates and epochs
DEFAULT = (0.5, 25)
FEW = 2000  # rows; of fewer each is read as often as if there were so many
SEARCHED_ROWS, SEARCHED_SCORES = 20_000, 2_000_000  # N, and N · K, with which choices are tried
_HELD_OUT = 5
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class FastTextClassifierConfig(SimpleConfig):
    """`config.json` of the classifier."""

    model_type: Literal["lexloom-fasttext"] = MODEL_TYPE
    dim: int = Field(DIM, ge=16, le=1024, multiple_of=16)
    ngrams: int = Field(NGRAMS, ge=1, le=10)
    buckets: int = Field(BUCKETS, ge=1, lt=1 << 31)
    learning_rate: float = Field(gt=0)
    epochs: int = Field(ge=1)


@dataclass
class FastTextClassifier(SimpleClassifier):
    """The mean of a text's vectors and a softmax; predicts as a bundle does.

    Args:
        config: what it is.
        words: V words in the order of their rows.
        held: the buckets that have a row, (R,) int32, ascending.
        rows: of what every text has, of words, of buckets: (1 + V + R, D) float32.
        outer: of labels, (K, D) float32.
    """

    KIND, CLASS = "fastText", "FastTextClassifier"

    config: FastTextClassifierConfig
    words: list[str]
    held: npt.NDArray[np.int32]
    rows: Floats
    outer: Floats
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._index = {word: place for place, word in enumerate(self.words, start=1)}

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        labels: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        columns: ColumnsConfig | None = None,
        seed: int = 1,
    ) -> Self:
        """Learns from labelled texts. Learning rate and epochs are chosen on a fifth of the rows, unless these or the labels are very many.

        Args:
            pairs: the second text of each, or None.
            names: labels in the order of their ids; sorted where None.
            columns: where a row's texts stand, for `predict` with rows.
            seed: draws first vectors, the order of texts, and the rows to choose by.

        Raises:
            DataError: there are fewer than two labels.
        """
        if len(set(labels)) < 2:
            raise DataError("fastText needs two labels to tell apart", got=", ".join(map(repr, sorted(set(labels)))) or "no rows")
        order, counts = list(names) if names is not None else sorted(set(labels)), Counter(labels)
        ids = {name: i for i, name in enumerate(order)}
        cut = _cut(texts, pairs)
        words = [word for word, _ in Counter(word for text in cut for word in text).most_common(MAX_WORDS)]
        held = np.unique(np.concatenate(supervised.word_ngrams(cut, NGRAMS, BUCKETS))).astype(np.int32)
        told: dict[str, Any] = {"pairs": pairs is not None, "labels": order, "label_counts": {name: counts[name] for name in order}}
        config = FastTextClassifierConfig(**told, columns=columns or ColumnsConfig(), learning_rate=DEFAULT[0], epochs=DEFAULT[1])
        empty = np.zeros((1 + len(words) + len(held), DIM), dtype=np.float32), np.zeros((len(order), DIM), dtype=np.float32)
        model = cls(config, words, held, *empty)
        return model._fitted(*model._features(cut), np.asarray([ids[label] for label in labels]), seed)

    def _fitted(self, starts: Ints, rows: Ints, y: Ints, seed: int) -> Self:
        rate, epochs = self._chosen(starts, rows, y, seed)
        learned = self._learned(starts, rows, y, np.arange(len(y)), rate, epochs, seed)
        config = self.config.model_copy(update={"learning_rate": rate, "epochs": epochs})
        return type(self)(config, self.words, self.held, *learned)

    def _chosen(self, starts: Ints, rows: Ints, y: Ints, seed: int) -> tuple[float, int]:
        """The learning rate and epochs with the best accuracy on held-out rows; the first ones of equals."""
        chosen = keys.shuffled(keys.key(seed, "fasttext search"), len(y))[:SEARCHED_ROWS]
        held, others = np.split(chosen, [len(chosen) // _HELD_OUT])
        if len(held) < _HELD_OUT or len(others) * len(self.labels) > SEARCHED_SCORES:
            return DEFAULT
        right = {}
        for rate, epochs in CHOICES:
            x, outer = self._learned(starts, rows, y, others, rate, epochs, seed)
            right[rate, epochs] = int(((_means(x, starts, rows)[held] @ outer.T).argmax(axis=1) == y[held]).sum())
        return max(CHOICES, key=lambda choice: right[choice])

    def _learned(self, starts: Ints, rows: Ints, y: Ints, texts: Ints, rate: float, epochs: int, seed: int) -> tuple[Floats, Floats]:
        """Rows and outer vectors, learned from some of the texts."""
        state = keys.key(seed, "fasttext", np.arange(len(self.rows)))
        x = ((keys.uniform(state, self.config.dim) - 0.5) * (2 / self.config.dim)).astype(np.float32)
        outer, epochs = np.zeros_like(self.outer), epochs * max(1, FEW // len(texts))
        for epoch in range(epochs):
            order = texts[keys.shuffled(keys.key(seed, "fasttext order", epoch), len(texts))]
            begun, fall = rate * (1 - epoch / epochs), rate / (epochs * len(texts))
            supervised.learn(order, starts, rows, y, begun, fall, self.config.dim, x.reshape(-1), outer.reshape(-1))
        return x, outer

    def _features(self, cut: Sequence[Sequence[str]]) -> tuple[Ints, Ints]:
        """The rows of each text: where they begin, (N + 1,), and which they are. All have the first."""
        found = []
        for text, buckets in zip(cut, supervised.word_ngrams(cut, self.config.ngrams, self.config.buckets), strict=True):
            known = [place for word in text if (place := self._index.get(word)) is not None]
            at = np.searchsorted(self.held, buckets)
            there = (
                at[(at < len(self.held)) & (self.held[np.minimum(at, max(0, len(self.held) - 1))] == buckets)] if len(self.held) else at[:0]
            )
            found.append(np.concatenate([[0], np.array(known, dtype=np.int64), there + 1 + len(self.words)]))
        return np.concatenate([[0], np.cumsum([len(one) for one in found])]), np.concatenate(found)

    def parts(self) -> tuple[list[str], Tensors]:
        return self.words, {"rows": self.rows, "held": self.held, "outer": self.outer}

    def shares(self, texts: Sequence[str], pairs: Sequence[str] | None) -> npt.NDArray[np.floating[Any]]:
        starts, rows = self._features(_cut(texts, pairs))
        return softmax((_means(self.rows, starts, rows) @ self.outer.T).astype(np.float64))

    def save(self, folder: Path | str) -> Path:
        size = f"{len(self.words):,} words and {len(self.held):,} pairs of words"
        card = f"fastText's classifier over {size} with {len(self.labels)} labels"
        return self._write(folder, card)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        folder = Path(folder)
        config, words, tensors, about = cls._read(folder, FastTextClassifierConfig, MAX_WORDS)
        held = tensors.get("held", np.zeros(0))
        shape = (1 + len(words) + len(held), config.dim)
        wanted = {"rows": (shape, np.float32), "held": ((len(held),), np.int32), "outer": ((len(config.labels), config.dim), np.float32)}
        check_tensors(tensors, wanted, folder)
        if (np.diff(held) <= 0).any():
            raise FormatError("the buckets of this bundle do not ascend", where=str(folder / TENSORS))
        return cls(config, words, tensors["held"], tensors["rows"], tensors["outer"], about)


def _cut(texts: Sequence[str], pairs: Sequence[str] | None) -> list[list[str]]:
    """The words of each text; those of its pair behind them, and told apart by a tab before each."""
    cutter = WordCutter()
    first, second = ([clean(text[:MAX_CHARACTERS]).lower() for text in some] for some in (texts, pairs or []))
    cut = cutter(first)
    return cut if pairs is None else [[*one, *(f"\t{word}" for word in other)] for one, other in zip(cut, cutter(second), strict=True)]


def _means(x: Floats, starts: Ints, rows: Ints) -> Floats:
    """Of the rows of each text, (N, D)."""
    return np.asarray(np.add.reduceat(x[rows], starts[:-1], axis=0) / np.diff(starts)[:, None], dtype=np.float32)
