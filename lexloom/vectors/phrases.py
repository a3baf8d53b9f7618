"""Phrases: words that stand together more often than their counts say become one word (Mikolov et al. 2013b, section 4).

    score(a, b) = (count(a b) - discount) / (count(a) · count(b)) · N                    equation 6, times the words of the text

N is in word2phrase.c, too: with it a threshold means the same for texts of any length. Pairs of a score above the threshold are joined,
from the left; a further pass looks at what is joined by then, so that phrases grow.

Counts are exact, and the memory for them is bounded: as `vocabulary.count` has it, what does not fit is written down in order and merged.
word2phrase.c and gensim drop rare pairs as they go where there are too many, so that what they find depends on the order of the text.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lexloom import files
from lexloom.config import Config
from lexloom.errors import DataError, FormatError
from lexloom.vectors.idtext import Spooled
from lexloom.vectors.vocabulary import HELD, Sentences, Vocabulary, VocabularyConfig, count

_HAN = re.compile("[\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
MAX_BYTES = 1 << 30
Counts = npt.NDArray[np.int64]
Pass = Mapping[tuple[str, str], float]


class PhrasesConfig(Config):
    """Which words are joined."""

    phrases: Annotated[int, Field(ge=0, le=10)] = 0
    """Passes: 1 finds phrases of two words, each further one phrases up to twice as long; 0 leaves words as they are."""
    phrase_threshold: Annotated[float, Field(gt=0)] = 100.0
    """Pairs whose score is above it are joined: a larger one gives fewer phrases."""
    discount: Annotated[float, Field(ge=0)] = 5.0
    """Taken from each pair's count, so that words which are rare make no phrases."""


class Phrases:
    """Phrases of a text, found and put into other texts.

    Attributes:
        passes: of each pass the pairs that are joined, with their scores.

    Example:
        >>> phrases = Phrases.fit(sentences, phrases=2)
        >>> phrases(["in", "new", "york", "city"])
        ['in', 'new_york_city']
    """

    def __init__(self, passes: Sequence[Pass]) -> None:
        self.passes = list(passes)

    @classmethod
    def fit(
        cls, sentences: Sentences, *, phrases: int = 1, phrase_threshold: float = 100.0, discount: float = 5.0, held: int = HELD
    ) -> Phrases:
        """Reads the sentences twice a pass; a stream, which can be read only once, is kept on disk meanwhile.

        Args:
            phrases, phrase_threshold, discount: see `PhrasesConfig`.
            held: different words or pairs that are counted in memory at once.

        Raises:
            ConfigError: a setting is out of range.
        """
        config = PhrasesConfig.read({"phrases": phrases, "phrase_threshold": phrase_threshold, "discount": discount})
        found = cls([])
        with tempfile.TemporaryDirectory() as scratch:
            source = sentences if iter(sentences) is not sentences else Spooled(sentences, Path(scratch) / "sentences.jsonl")
            for _ in range(config.phrases):
                found.passes.append(_pass(Again(lambda: map(found, source)), Path(scratch), config, held))
        return found

    def __call__(self, sentence: Sequence[str]) -> list[str]:
        """The sentence with its phrases joined."""
        words = list(sentence)
        for pairs in self.passes:
            words = _joined_once(words, pairs)
        return words

    def save(self, path: Path | str) -> None:
        """Writes them as JSON, a pass a list of [first, second, score]."""
        passes = [[[*pair, score] for pair, score in pairs.items()] for pairs in self.passes]
        content = json.dumps({"format": files.FORMAT, "phrases": passes}, ensure_ascii=False)
        files.write_bytes(path, content.encode("utf-8", "surrogatepass"))

    @classmethod
    def load(cls, path: Path | str) -> Phrases:
        """Reads them back.

        Raises:
            FormatError: the file holds no phrases.
        """
        path = Path(path)
        if path.stat().st_size > MAX_BYTES:
            raise FormatError("this file of phrases is too large", expected=f"at most {MAX_BYTES:,} bytes", where=str(path))
        try:
            found = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
            files.check_format(found, path)
            return cls([{(str(a), str(b)): float(score) for a, b, score in pairs} for pairs in found["phrases"]])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError("this file holds no phrases", got=f"{type(error).__name__}: {error}", where=str(path)) from None


class Again:
    """What is read anew as often as it is asked for."""

    def __init__(self, read: Callable[[], Iterator[Sequence[str]]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Sequence[str]]:
        return self._read()


def together(a: str, b: str) -> str:
    """Two words as one: with `_` between them, or nothing between Chinese characters."""
    return a + b if _HAN.match(a[-1:]) and _HAN.match(b) else f"{a}_{b}"


def _joined_once(words: Sequence[str], pairs: Pass) -> list[str]:
    found, at = list[str](), 0
    while at < len(words):
        joins = at + 1 < len(words) and (words[at], words[at + 1]) in pairs
        found.append(together(words[at], words[at + 1]) if joins else words[at])
        at += 2 if joins else 1
    return found


class Phrased:
    """Sentences with their phrases joined, which are looked for when they are first read; can be read as often as the sentences can.

    Attributes:
        phrases: None until then.
    """

    def __init__(self, sentences: Sentences, config: PhrasesConfig) -> None:
        self.sentences, self.config, self.phrases = sentences, config, None if config.phrases else Phrases([])

    def __iter__(self) -> Iterator[Sequence[str]]:
        if self.phrases is None:
            settings = {name: getattr(self.config, name) for name in PhrasesConfig.model_fields}
            self.phrases = Phrases.fit(self.sentences, **settings)
        return map(self.phrases, self.sentences) if self.phrases.passes else iter(self.sentences)


def _pass(sentences: Iterable[Sequence[str]], scratch: Path, config: PhrasesConfig, held: int) -> Pass:
    """The pairs that are joined, in the order of their counts; none where no pair stands often enough."""
    least = math.floor(config.discount) + 1  # fewer have no score above 0, and no word is rarer than its pairs
    words = _counted(sentences, scratch, least, held)
    if words is None:
        return {}
    index = words.index

    def pairs() -> Iterator[list[str]]:
        for sentence in sentences:
            ids = [index.get(word, -1) for word in sentence]
            yield [f"{a} {b}" for a, b in pairwise(ids) if a >= 0 and b >= 0]

    counted = _counted(pairs(), scratch, least, held)
    if counted is None:
        return {}
    ids = np.array([pair.split() for pair in counted.words], dtype=np.int64)
    scores = score(counted.counts, words.counts[ids[:, 0]], words.counts[ids[:, 1]], words.text_words, config.discount)
    chosen = np.flatnonzero(scores > config.phrase_threshold).tolist()
    return {(words.words[ids[i, 0]], words.words[ids[i, 1]]): float(scores[i]) for i in chosen}


def _counted(sentences: Iterable[Sequence[str]], scratch: Path, least: int, held: int) -> Vocabulary | None:
    """What stands at least so often; None where nothing does."""
    try:
        return count(sentences, scratch, VocabularyConfig(min_count=least), held=held)
    except DataError:
        return None


def score(pair: Counts, a: Counts, b: Counts, words: int, discount: float) -> npt.NDArray[np.float64]:
    """Equation 6 times the words of the text; all counts (n,) -> (n,) float64."""
    return (pair - discount) / (a.astype(np.float64) * b) * words
