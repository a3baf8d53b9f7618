"""Encoding documents sentence by sentence, in batches of bounded size.

So the borders of sentences are exact borders of tokens, no offsets have to be computed, the load spreads evenly over threads, and a
text of any length is fine. The space between two sentences goes with the second, so that byte-level tokenizers see it as inside a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lexloom.text.encoded import Ragged
from lexloom.text.tokenizer import Tokenizer
from lexloom.text.words import WordBorders

BATCH = 1 << 20
"""Characters of a batch."""
LONGEST = 20_000
"""Characters that are encoded at a time; longer sentences go in parts."""


class Document(Protocol):
    """What shards need of a document: `borders` are ends of sentences, offsets into `text`."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def borders(self) -> Sequence[int]: ...


class Documents(Protocol):
    """What shards need of a corpus."""

    @property
    def splits(self) -> Sequence[str]: ...
    def documents(self, split: str, /) -> Iterable[Document]: ...


@dataclass(frozen=True)
class DocumentBatch:
    """Some documents, their sentences in parts of bounded length, the sentences of each document and the parts of each sentence."""

    documents: list[Document]
    parts: list[str]
    sentences: list[int]
    parts_of: list[int] | None


Bools = npt.NDArray[np.bool_]


def encoded(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[DocumentBatch, Ragged]]:
    """Batches with their token ids. While the library's threads encode one, the next is read and cut, and the last written."""
    for batch, ragged, _ in _streamed(documents, lambda parts: (tokenizer.plain(parts), None)):
        yield batch, ragged


def encoded_words(documents: Iterable[Document], tokenizer: Tokenizer) -> Iterator[tuple[DocumentBatch, Ragged, Bools]]:
    """The same, and which tokens go on with the word of the token before them: (N,)."""
    borders = WordBorders()

    def encode(parts: list[str]) -> tuple[Ragged, Bools]:
        ragged, offsets = tokenizer.plain_offsets(parts)
        return ragged, borders.continuing(parts, ragged.lengths, offsets)

    yield from _streamed(documents, encode)


def _streamed(
    documents: Iterable[Document], encode: Callable[[list[str]], tuple[Ragged, Any]]
) -> Iterator[tuple[DocumentBatch, Ragged, Any]]:
    with ThreadPoolExecutor(1) as pool:
        waiting: tuple[DocumentBatch, Future[tuple[Ragged, Any]]] | None = None
        for batch in _batches(documents):
            following = (batch, pool.submit(encode, batch.parts))
            if waiting is not None:
                yield waiting[0], *waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], *waiting[1].result()


def _batches(documents: Iterable[Document]) -> Iterator[DocumentBatch]:
    waiting: list[Document] = []
    held = 0
    for document in documents:
        waiting.append(document)
        held += len(document.text) + 64
        if held >= BATCH:
            yield _cut(waiting)
            waiting, held = [], 0
    if waiting:
        yield _cut(waiting)


def _cut(documents: list[Document]) -> DocumentBatch:
    sentences = [sentences_of(document) for document in documents]
    parts, parts_of = _in_parts([sentence for listed in sentences for sentence in listed])
    return DocumentBatch(documents, parts, [len(listed) for listed in sentences], parts_of)


def sentences_of(document: Document) -> list[str]:
    """The text in sentences; the space before a sentence is part of it, that at the end of the document of none."""
    text = document.text.rstrip()
    found, start, last = [], len(text) - len(text.lstrip()), len(text)
    for end in (*document.borders, last):
        if end > last:
            end = last
        while end > start and text[end - 1].isspace():
            end -= 1
        if end > start:
            found.append(text[start:end])
            start = end
    return found


def _in_parts(sentences: list[str]) -> tuple[list[str], list[int] | None]:
    """Sentences of bounded length, and how many parts each was cut into; None where each is whole."""
    if max(map(len, sentences), default=0) <= LONGEST:
        return sentences, None
    parts: list[str] = []
    counts: list[int] = []
    for sentence in sentences:
        before, start = len(parts), 0
        while len(sentence) - start > LONGEST:
            space = sentence.rfind(" ", start + 1, start + LONGEST)
            end = space if space > start else start + LONGEST
            parts.append(sentence[start:end])
            start = end
        parts.append(sentence[start:])
        counts.append(len(parts) - before)
    return parts, counts
