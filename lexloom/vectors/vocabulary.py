"""Vocabulary: the words of a text by frequency, counted in bounded memory, and what training draws from their counts.

Letters: V words.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lexloom import files
from lexloom.config import Config, Count
from lexloom.errors import DataError, FormatError

HELD = 2_000_000
"""Different words that are counted in memory at once."""
REPORT_EVERY = 10_000
Sentences = Iterable[Sequence[str]]


class VocabularyConfig(Config):
    """Which words get a vector."""

    min_count: Annotated[Count, Field(ge=1)] = 5
    """Words that stand in the text less often are passed over, as if they were not there."""
    max_words: Annotated[Count, Field(ge=1)] | None = None
    """At most so many, the most frequent ones."""


class Vocabulary:
    """Words by frequency, the most frequent first, equal ones in the order of their letters.

    Args:
        counts: how often each word stands in the text, (V,).
        text_words: words of the text in all, with those that have no vector.
    """

    def __init__(self, words: Sequence[str], counts: npt.ArrayLike, text_words: int | None = None) -> None:
        self.words, self.counts = list(words), np.asarray(counts, dtype=np.int64)
        self.text_words = int(self.counts.sum()) if text_words is None else text_words

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def index(self) -> dict[str, int]:
        """Word -> its place."""
        return {word: place for place, word in enumerate(self.words)}

    def keep(self, sample: float) -> npt.NDArray[np.uint64]:
        """How many of 2³² draws keep each word under subsampling, (V,).

        As word2vec.c and gensim have it, kept with probability (√(f/t) + 1) · t/f, f being the word's share of the text; which is a
        little more than the 1 - √(t/f) of Mikolov et al. 2013b, equation 5, loses.

        Args:
            sample: t; 0 keeps all.
        """
        if sample <= 0:
            return np.full(len(self), 1 << 32, dtype=np.uint64)
        ratio = sample * self.counts.sum() / np.maximum(self.counts, 1)
        return (np.minimum(1.0, np.sqrt(ratio) + ratio) * 2.0**32).astype(np.uint64)

    def noise(self, exponent: float) -> npt.NDArray[np.uint32]:
        """Negative words drawn by count^exponent: for each word a bound and another word, (V, 2).

        Of a drawn word and a number of 32 bits, the word itself where the number is below its bound, else the other one: Walker's alias
        method as Vose 1991 fills it ("A linear algorithm for generating random numbers with a given distribution"). It is exact to
        2⁻³², where the table of word2vec.c is as exact as it is long.
        """
        weights = self.counts.astype(np.float64) ** exponent
        return _aliases(weights * (len(weights) / weights.sum()))

    def huffman(self) -> Huffman:
        """The tree of hierarchical softmax."""
        return Huffman.of(self.counts)

    def joined(self, other: Vocabulary) -> Vocabulary:
        """These words in their order, then those that only the other one has; counts are added."""
        fresh = [word for word in other.words if word not in self.index]
        counts = np.concatenate([self.counts, np.zeros(len(fresh), dtype=np.int64)])
        found = Vocabulary([*self.words, *fresh], counts, self.text_words + other.text_words)
        found.counts[[found.index[word] for word in other.words]] += other.counts
        return found

    def save(self, path: Path | str) -> None:
        """Writes it as JSON."""
        content = {"format": files.FORMAT, "text_words": self.text_words, "words": self.words, "counts": self.counts.tolist()}
        files.write_bytes(path, json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass"))

    @classmethod
    def load(cls, path: Path | str) -> Vocabulary:
        """Reads it back.

        Raises:
            FormatError: it is no vocabulary.
        """
        try:
            found = json.loads(Path(path).read_bytes().decode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise FormatError("this vocabulary is not valid JSON", got=str(error), where=str(path)) from None
        files.check_format(found, path)
        if len(found["words"]) != len(found["counts"]):
            got = f"{len(found['words'])} words and {len(found['counts'])} counts"
            raise FormatError("this vocabulary is damaged", expected="a count a word", got=got, where=str(path))
        return cls(found["words"], found["counts"], found["text_words"])


def _aliases(share: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """Vose's table of shares whose mean is 1."""
    left, bounds, other = share.tolist(), [1.0] * len(share), list(range(len(share)))
    small = [place for place, value in enumerate(left) if value < 1]
    large = [place for place, value in enumerate(left) if value >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        bounds[low], other[low] = left[low], high
        left[high] -= 1 - left[low]
        if left[high] < 1:
            small.append(large.pop())
    scaled = np.minimum(np.array(bounds) * 2.0**32, 2.0**32 - 1)
    return np.stack([scaled.astype(np.uint32), np.array(other, dtype=np.uint32)], axis=1)


class Huffman:
    """A binary tree in which frequent words stand near the root: V - 1 inner nodes, each with an outer vector of its own.

    Attributes:
        starts: where each word's path begins in the other two, (V + 1,).
        nodes: the inner nodes from the root down.
        turns: -1 where the path turns to the first of a node's two, 1 where to the second: the sign of its score.
    """

    def __init__(self, starts: npt.NDArray[np.int64], nodes: npt.NDArray[np.int32], turns: npt.NDArray[np.float32]) -> None:
        self.starts, self.nodes, self.turns = starts, nodes, turns

    @property
    def longest(self) -> int:
        """Nodes of the longest path."""
        return int(np.diff(self.starts).max(initial=0))

    @classmethod
    def of(cls, counts: npt.NDArray[np.int64]) -> Huffman:
        """Joins the two rarest until one is left (Huffman 1952); of equally rare ones a word before a node."""
        size = len(counts)
        weights = [*counts.tolist(), *[0] * (size - 1)]
        order = np.argsort(counts, kind="stable").tolist()
        parent, turn = np.zeros(2 * size - 1, dtype=np.int64), np.full(2 * size - 1, -1.0, dtype=np.float32)
        leaf, node = 0, size
        for made in range(size, 2 * size - 1):
            pair = []
            for _ in range(2):
                if leaf < size and (node == made or weights[order[leaf]] <= weights[node]):
                    pair.append(order[leaf])
                    leaf += 1
                else:
                    pair.append(node)
                    node += 1
            weights[made] = weights[pair[0]] + weights[pair[1]]
            parent[pair] = made
            turn[pair[1]] = 1
        return cls(*_paths(size, parent, turn))


def _paths(
    size: int, parent: npt.NDArray[np.int64], turn: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The paths of all words at once, a level at a time."""
    root, now = 2 * size - 2, np.arange(size)
    levels: list[tuple[Any, Any, Any]] = []
    while (below := np.flatnonzero(now != root)).size:
        above = parent[now[below]]
        levels.append((below, above - size, turn[now[below]]))
        now[below] = above
    depth = np.zeros(size, dtype=np.int64)
    for words, _, _ in levels:
        depth[words] += 1
    starts = np.concatenate([[0], np.cumsum(depth)])
    nodes, turns = np.zeros(starts[-1], dtype=np.int32), np.zeros(starts[-1], dtype=np.float32)
    for level, (words, above, turned) in enumerate(levels):
        place = starts[words + 1] - 1 - level
        nodes[place], turns[place] = above, turned
    return starts, nodes, turns


def count(
    sentences: Sentences,
    scratch: Path | str,
    config: VocabularyConfig | None = None,
    *,
    held: int = HELD,
    report: Callable[[int], None] | None = None,
) -> Vocabulary:
    """Counts the words of a text exactly, however many different ones it has.

    Args:
        scratch: a folder for what does not fit; the caller removes it.
        held: different words in memory; with more, the counts so far are written there in order, to be merged at the end.
        report: called now and then with the number of words so far.

    Raises:
        DataError: there is no word, or `min_count` leaves none.
    """
    config = config or VocabularyConfig()
    counts: Counter[str] = Counter()
    parts: list[Path] = []
    total = 0
    for number, sentence in enumerate(sentences):
        counts.update(sentence)
        total += len(sentence)
        if len(counts) > held:
            parts.append(_write_part(Path(scratch) / f"counts-{len(parts):05d}.jsonl", counts))
            counts.clear()
        if report is not None and number % REPORT_EVERY == 0:
            report(total)
    found, most, different = _kept(_merged(parts, counts), config)
    if not total:
        raise DataError("this text has no word", hint="look whether it is empty, or how its words are cut")
    if not found:
        problem = f"every word stands less often in the text than min_count {config.min_count}"
        raise DataError(
            problem, got=f"{total:,} words, {different:,} different ones, none more than {most:,} times", hint="lower min_count"
        )
    return Vocabulary([word for _, word in found], [-n for n, _ in found], total)


def _write_part(path: Path, counts: Counter[str]) -> Path:
    with files.replacing(path) as file:
        file.writelines(json.dumps(entry).encode() + b"\n" for entry in sorted(counts.items()))
    return path


def _merged(parts: Sequence[Path], counts: Counter[str]) -> Iterator[tuple[str, int]]:
    """Words with their counts in all parts."""
    if not parts:
        yield from counts.items()
        return
    streams: list[Iterator[Any]] = [map(json.loads, path.open("rb")) for path in parts]
    together = heapq.merge(*streams, map(list, sorted(counts.items())), key=itemgetter(0))
    for word, entries in groupby(together, key=itemgetter(0)):
        yield word, sum(n for _, n in entries)


def _kept(entries: Iterable[tuple[str, int]], config: VocabularyConfig) -> tuple[list[tuple[int, str]], int, int]:
    """(-count, word) of the words that get a vector, in order; the greatest count; how many different words there are."""
    found: list[tuple[int, str]] = []
    most = different = 0
    room = None if config.max_words is None else max(2 * config.max_words, 1000)
    for word, n in entries:
        most, different = max(most, n), different + 1
        if n >= config.min_count:
            found.append((-n, word))
            if room is not None and len(found) > room:
                found = heapq.nsmallest(config.max_words or 0, found)
    return sorted(found)[: config.max_words], most, different
