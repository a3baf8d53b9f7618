"""Whether the shards hold what the tokenizer makes of the corpus, for some documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lexloom.runs.origin import lookup, where
from lexloom.text.corpus import Document
from lexloom.text.encoding import encoded
from lexloom.text.shards import Split
from lexloom.text.tokenizer import Tokenizer


def changed_documents(corpus: Path, split: Split, tokenizer: Path, documents: Iterable[int]) -> list[str]:
    """What is wrong with documents of a split, one sentence each; the documents are read and encoded anew, as a stream.

    Args:
        documents: their places in the split.
    """
    ids = {place: split.document_id(place) for place in documents}
    waiting: dict[str, list[int]] = {}
    for place, name in ids.items():
        waiting.setdefault(name, []).append(place)
    problems: dict[int, str] = dict.fromkeys(ids, "it is not in the corpus")
    for document, tokens in _tokens(corpus, split.name, waiting, Tokenizer.load(tokenizer)):
        for place in waiting[document.id]:
            if place in problems:
                start, end = split.span(place)
                if same := np.array_equal(split.tokens[start:end], tokens):
                    del problems[place]
                problems |= {} if same else {place: _unequal(split.tokens[start:end], tokens, document)}
    return [f"the shards do not hold the text of document {ids[place]}: {problem}" for place, problem in sorted(problems.items())]


def _tokens(corpus: Path, split: str, ids: Iterable[str], tokenizer: Tokenizer) -> Iterator[tuple[Document, Any]]:
    rows = lookup(corpus, split, ids, ["text", "borders", "source"])
    documents = (Document(row["id"], row["text"], row["borders"], row["source"]) for row in rows)
    for batch, ragged in encoded(documents, tokenizer):
        sentences = ragged.lengths
        if batch.parts_of is not None:
            sentences = np.add.reduceat(sentences, np.cumsum([0, *batch.parts_of[:-1]]))
        owner = np.repeat(np.arange(len(batch.documents)), batch.sentences)
        sizes = np.bincount(owner, weights=sentences, minlength=len(batch.documents)).astype(np.int64)
        ends = np.cumsum(sizes)
        for document, start, end in zip(batch.documents, (ends - sizes).tolist(), ends.tolist(), strict=True):
            assert isinstance(document, Document)
            yield document, ragged.values[start:end]


def _unequal(held: Any, right: Any, document: Document) -> str:
    """Where the first wrong token stands."""
    place = where(document.id, document.source)
    if len(held) != len(right):
        return f"{len(held)} tokens where {place} gives {len(right)}"
    first = int(np.flatnonzero(np.asarray(held) != np.asarray(right))[0])
    return f"token {first} is {int(held[first])} where {place} gives {int(right[first])}"
