"""Training of word2vec and its kin over a text on disk: the order of work, the learning rate, the loss, and a state that goes on from where
it stopped.

Fast: workers take chunks of the text and write into the same vectors without asking each other (Hogwild, Niu et al. 2011). Each run has
other roundings and other races; a kill costs what was done since the last saved state.
Deterministic: all workers share each chunk, and what is computed does not depend on how many they are, nor on when the work was stopped.

Letters: V words, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from lexloom import keys
from lexloom.config import Config, Count
from lexloom.errors import ConfigError
from lexloom.vectors import states, windows, word2vec
from lexloom.vectors.idtext import IdText
from lexloom.vectors.keyed import WordVectors
from lexloom.vectors.lanes import table
from lexloom.vectors.states import Progress
from lexloom.vectors.vocabulary import Huffman, Vocabulary
from lexloom.vectors.windows import How

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
CHUNK = 1 << 15
"""Ids that a worker takes at once."""
INTERVAL = 64
"""Chunks between two places where training may be looked at, saved and stopped."""
TOGETHER, STEPS = 512, 0.5
"""Deterministic training takes so many windows together at most, and no more than move one vector by so many learning rates: where slopes
of many updates are found at the same place, the vectors of frequent words overshoot, and training may end in infinity."""
BLOCK = 1 << 10
"""Vectors that are drawn at once."""


class TextConfig(Config):
    """How vectors are learned from a text, whatever they are made of."""

    loss: Literal["negative-sampling", "hierarchical-softmax"] = "negative-sampling"
    dim: Annotated[Count, Field(ge=1)] = 100
    window: Annotated[int, Field(ge=1, le=200)] = 5
    """Words on each side at most; how many is drawn evenly, anew at each place."""
    negatives: Annotated[int, Field(ge=1, le=1000)] = 5
    exponent: Annotated[float, Field(ge=-2, le=2)] = 0.75
    """Negative words are drawn by count to the power of this."""
    sample: Annotated[float, Field(ge=0, lt=1)] = 1e-3
    """Share of the text above which a word is passed over now and then; 0: never."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.025
    min_learning_rate: Annotated[float, Field(ge=0)] = 1e-4
    """What the rate falls to, in a straight line."""
    epochs: Annotated[int, Field(ge=1)] = 5
    deterministic: bool = False
    """The same vectors for any number of workers and kills, for some of the speed."""


class Word2VecConfig(TextConfig):
    """How word vectors are learned."""

    kind: Literal["skipgram", "cbow"] = "skipgram"
    """Predict the context from the word, or the word from the mean of its context."""

    @model_validator(mode="before")
    @classmethod
    def _rate(cls, values: Any) -> Any:
        """CBOW begins at 0.05, as in word2vec.c: it has one prediction where skip-gram has one for each word of the context."""
        if isinstance(values, dict) and values.get("kind") == "cbow":
            return {"learning_rate": 0.05, **values}
        return values


@dataclass(frozen=True)
class Kernels:
    """What learns from a chunk, one window after the other or many together, and the memory that both take; see `word2vec.py`."""

    learn: Callable[..., tuple[float, float]]
    learn_together: Callable[..., tuple[float, float]]
    room: Callable[..., Any]


class TextState:
    """Vectors on their way over a text: what methods of the family of word2vec share.

    Attributes:
        inner, outer: (…, D) and what is missing to a multiple of 16; `outer` has V rows, or V - 1 for hierarchical softmax.
        epoch, chunk: where the next chunk stands. steps: chunks so far. sums: loss and predictions of each epoch so far.
    """

    NAME: ClassVar[str]
    CONFIG: ClassVar[type[TextConfig]]
    KERNELS: ClassVar[Kernels]
    inner: Floats

    def __init__(self, config: Any, vocabulary: Vocabulary, seed: int = 1) -> None:
        self.config, self.vocabulary, self.seed = config, vocabulary, seed
        self.epoch = self.chunk = self.steps = 0
        self.sums: list[list[float]] = []
        self.outer = table(len(vocabulary) - (config.loss == "hierarchical-softmax"), config.dim)

    @property
    def vectors(self) -> WordVectors:
        """What is used of them."""
        raise NotImplementedError

    @property
    def mean(self) -> bool:
        """Whether the word is predicted from its whole context."""
        raise NotImplementedError

    def sizes(self, negatives: int, longest: int) -> How:
        """What a window takes; `negatives` is 0 where paths of at most `longest` nodes are learned."""
        raise NotImplementedError

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """What kernels are handed as their tables, flat."""
        return self.inner.reshape(-1), self.outer.reshape(-1)

    def crowded(self, shares: Doubles) -> float:
        """How often a window that contains one word changes one inner vector, at most, if words stand there by these shares, (V,)."""
        return float(shares.max())

    def most_together(self, how: How) -> int:
        """How many windows may be learned together, for the memory that they take."""
        return TOGETHER

    def begun(self, numbers: npt.NDArray[np.integer[Any]], name: str) -> Doubles:
        """Vectors drawn for some numbers, evenly from -1 / D to 1 / D, (n, D); as fastText and gensim begin, word2vec.c at half of it."""
        return (2 * keys.uniform(keys.key(self.seed, self.NAME, name, numbers), self.config.dim) - 1) / self.config.dim

    def check_grown(self, vocabulary: Vocabulary, config: Any) -> None:
        """Looks whether these vectors can go on with further words and other settings.

        Raises:
            ConfigError: the width is another, or a tree of hierarchical softmax would have to grow.
        """
        states.check_grown(self.vocabulary, self.config.dim, vocabulary, config.dim)
        if config.loss != self.config.loss or config.loss == "hierarchical-softmax":
            hint = "train with negative sampling what is to go on, or begin anew"
            raise ConfigError("only vectors of negative sampling can go on: a tree of other counts has other nodes", hint=hint)

    def save(self, folder: Path | str, **about: Any) -> Path:
        """Writes the whole state into a folder, whole or not at all.

        Args:
            about: goes into the manifest.
        """
        state = {"config": self.config.plain(), "seed": self.seed, "epoch": self.epoch, "chunk": self.chunk}
        state |= {"steps": self.steps, "sums": self.sums}
        return states.save(folder, self._tables, self.vocabulary, state, **about)

    @property
    def _tables(self) -> dict[str, Floats]:
        return {"inner": self.inner[:, : self.config.dim], "outer": self.outer[:, : self.config.dim]}

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads a saved state.

        Raises:
            CheckpointError: it is missing, damaged, or its parts do not fit each other.
        """
        state, vocabulary = states.load(folder)
        found = cls(cls.CONFIG.read(state["config"]), vocabulary, state["seed"])
        found.epoch, found.chunk, found.steps, found.sums = (state[name] for name in ("epoch", "chunk", "steps", "sums"))
        states.fill(found._tables, folder)
        return found

    def train(self, text: IdText, workers: int = 1) -> Iterator[Progress]:
        """Learns from a text from where it stands to the end of the last epoch; between two steps it may be saved and left.

        Args:
            text: of this vocabulary.

        Raises:
            ConfigError: the text is of another vocabulary.
        """
        if text.vocabulary.words != self.vocabulary.words:
            raise ConfigError("this text has another vocabulary than the vectors", where=str(text.folder))
        work = _Work(self, text, workers)
        with ThreadPoolExecutor(1 if self.config.deterministic else workers) as pool:
            while self.epoch < self.config.epochs:
                if len(self.sums) <= self.epoch:
                    self.sums.append([0.0, 0.0])
                chunks = range(self.chunk, min(self.chunk + INTERVAL, work.chunks))
                for loss, predictions in pool.map(work.learn, chunks):  # in order, so that the sum is always the same
                    self.sums[-1][0] += loss
                    self.sums[-1][1] += predictions
                self.steps += len(chunks)
                self.epoch, self.chunk = (self.epoch, chunks.stop) if chunks.stop < work.chunks else (self.epoch + 1, 0)
                yield self.progress(text)

    def rate(self, done: float) -> float:
        """The learning rate when so much of the training is done, from 0 to 1."""
        config = self.config
        return config.learning_rate + (config.min_learning_rate - config.learning_rate) * done

    def progress(self, text: IdText) -> Progress:
        """Where training stands."""
        epochs = self.config.epochs
        done = self.epoch + (int(text.borders(CHUNK)[self.chunk]) / len(text.ids) if self.chunk else 0)
        losses = tuple(loss / max(1.0, n) for loss, n in self.sums)
        return Progress(int(done * text.words), epochs * text.words, self.epoch, self.rate(done / epochs), losses)


class Word2Vec(TextState):
    """A vector a word: `inner` is (V, D)."""

    NAME, CONFIG = "word2vec", Word2VecConfig
    KERNELS = Kernels(word2vec.learn, word2vec.learn_together, windows.room)
    config: Word2VecConfig

    def __init__(self, config: Word2VecConfig, vocabulary: Vocabulary, seed: int = 1) -> None:
        super().__init__(config, vocabulary, seed)
        self.inner = table(len(vocabulary), config.dim)
        for start in range(0, len(vocabulary), BLOCK):
            rows = np.arange(start, min(len(vocabulary), start + BLOCK))
            self.inner[rows, : config.dim] = self.begun(rows, "start")

    @property
    def vectors(self) -> WordVectors:
        """The inner vectors, which are what is used: no copy."""
        return WordVectors(self.vocabulary.words, self.inner[:, : self.config.dim])

    @property
    def mean(self) -> bool:
        return self.config.kind == "cbow"

    def sizes(self, negatives: int, longest: int) -> How:
        return windows.sizes(self.config.window, negatives, longest, self.inner.shape[1], mean=self.mean)

    def grown(self, vocabulary: Vocabulary, config: Word2VecConfig | None = None, seed: int | None = None) -> Word2Vec:
        """The same vectors at the start of another training, with further words.

        Args:
            vocabulary: begins with the words of this one.
            config: of the other training; of the same width.

        Raises:
            ConfigError: the width is another, or a tree of hierarchical softmax would have to grow.
        """
        config, size = config or self.config, len(self.vocabulary)
        self.check_grown(vocabulary, config)
        found = Word2Vec(config, vocabulary, self.seed if seed is None else seed)
        found.inner[:size], found.outer[:size] = self.inner, self.outer
        return found


class _Work:
    """One training: what the kernels are handed."""

    def __init__(self, state: TextState, text: IdText, workers: int) -> None:
        config, vocabulary = state.config, state.vocabulary
        self.state, self.text, self.workers = state, text, max(1, workers)
        self.borders = text.borders(CHUNK)
        self.chunks = len(self.borders) - 1
        negatives = config.negatives if config.loss == "negative-sampling" else 0
        tree = vocabulary.huffman() if not negatives else _NO_TREE
        self.tree = (tree.starts, tree.nodes, tree.turns)
        self.how = state.sizes(negatives, tree.longest)
        self.keep, self.noise = vocabulary.keep(config.sample), vocabulary.noise(config.exponent)
        self.together = self._together() if config.deterministic else 0
        self.threads = _threads(self.workers) if config.deterministic else 1

    def _together(self) -> int:
        """How many windows are taken together: a function of the text and the settings alone, so that the result is."""
        window, negatives, *_ = self.how
        kept = self.state.vocabulary.counts * (self.keep / 2.0**32)
        noise = self.state.vocabulary.counts**self.state.config.exponent
        shares = kept / kept.sum()
        outer = shares.max() + negatives * noise.max() / noise.sum() if negatives else 1.0  # every path begins at the root
        inner = self.state.crowded(shares) * (window + 1) * (negatives + 1)
        updates = max(inner, outer * (1 if self.state.mean else window + 1))  # of one vector, by a window
        return min(int(max(STEPS / (self.state.config.learning_rate * updates), 8)), self.state.most_together(self.how))

    def learn(self, chunk: int) -> tuple[float, float]:
        """One chunk: the sum of its losses, and its predictions."""
        state, (begin, end) = self.state, self.borders[chunk : chunk + 2].tolist()
        whole = state.config.epochs * len(self.text.ids)
        rate = state.rate(state.epoch / state.config.epochs + begin / whole)
        fall = (state.config.learning_rate - state.config.min_learning_rate) / whole
        draws = (np.uint64(keys.key(state.seed, state.NAME, state.epoch)), self.keep, self.noise)
        kept = windows.kept_room(end - begin, self.how)
        common = (self.text.ids, begin, end, rate, fall, self.how, draws, self.tree, state.arrays(), kept)
        if not self.together:
            return state.KERNELS.learn(*common, state.KERNELS.room(self.how))
        return state.KERNELS.learn_together(*common, *self._shared())

    def _shared(self) -> tuple[Any, ...]:
        import numba

        numba.set_num_threads(self.threads)
        room = self.state.KERNELS.room(self.how, windows=self.together, threads=self.threads)
        return room, np.zeros((self.together, 3), dtype=np.float32), self.threads


_NO_TREE = Huffman(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32))


def _threads(workers: int) -> int:
    """As many threads as the kernels may have."""
    import numba

    return min(workers, int(numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
