"""Word vectors as the embedding of a new network: the row of each token that has a vector; the others keep their random start.

In a recipe, `model: {kind: textcnn, vectors: FILE}`, or the name of word vectors that the recipe trains itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lexloom.config import Place
from lexloom.errors import ConfigError
from lexloom.models.base import Architecture, Network
from lexloom.objectives.base import Vocabulary
from lexloom.runs import vector_stages
from lexloom.runs.recipe import Plan
from lexloom.runs.run import Run
from lexloom.runs.stage import content
from lexloom.text.tokenizer import Tokenizer
from lexloom.vectors.keyed import WordVectors


@dataclass(frozen=True)
class Embeddings:
    """Rows of an embedding.

    Attributes:
        file: the name of the file that they come from. tokens: of the vocabulary, V.
        ids: of the tokens that have a vector, (n,). rows: these vectors, (n, D) float32.
    """

    file: str
    tokens: int
    ids: npt.NDArray[np.int64]
    rows: npt.NDArray[np.float32]

    @classmethod
    def of(cls, path: Path | str, tokenizer: Tokenizer) -> Embeddings:
        """Looks up each token as it is written, or else in small letters; special tokens are none of the text.

        Raises:
            ConfigError: the file is none of word vectors, or no token has a vector.
            FormatError: the file is damaged.
        """
        wv, special = WordVectors.load(path), Vocabulary.of(tokenizer).special
        tokens = {number: wv.spelt(tokenizer.token(number)) for number in range(len(tokenizer)) if number not in special}
        ids = np.array([number for number, token in tokens.items() if token is not None], dtype=np.int64)
        if not len(ids):
            hint = "a word tokenizer has words; for pieces of words, train vectors on shards of this tokenizer"
            raise ConfigError("no token of this vocabulary has a vector", where=str(path), hint=hint)
        return cls(Path(path).name, len(tokenizer), ids, np.stack([wv[token] for token in tokens.values() if token is not None]))

    @classmethod
    def named(cls, run: Run, name: str | None, tokenizer: Tokenizer) -> Embeddings | None:
        """Those that a recipe names, by their file or as its own; None where it names none."""
        return None if name is None else cls.of(_file(run, name), tokenizer)

    def install(self, network: Network) -> None:
        """Puts the rows into a network that has just been built.

        Raises:
            ConfigError: its words are of another width, or it has no matrix of words.
        """
        weight = matrix(network.backbone).weight
        check_width(int(weight.shape[1]), self.rows.shape[1], self.file)
        with torch.no_grad():
            weight[torch.from_numpy(self.ids)] = torch.from_numpy(self.rows).to(weight.dtype)

    @property
    def said(self) -> str:
        """What share of the vocabulary they cover, in words."""
        n = len(self.ids)
        return f"{self.file} has vectors for {n:,} of {self.tokens:,} tokens ({n / self.tokens:.1%}); the others start at random"

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {"file": self.file, "covered": len(self.ids), "tokens": self.tokens}


def vectors_in(run: Run, name: str | None) -> dict[str, Any]:
    """What a stage depends on for its `vectors:`."""
    return {} if name is None else {"vectors": content(_file(run, name))}


def _file(run: Run, name: str) -> Path:
    return run.plan.path(name) if run.plan.is_path("vectors", name) else vector_stages.file_of(run, name)


def problems(plan: Plan, kind: type[Architecture], settings: Mapping[str, Any], vectors: Any, place: Place) -> Iterator[ConfigError]:
    """What can be told of a recipe's `vectors:` before the file is there, or read."""
    where = plan.document.where(place)
    if not isinstance(vectors, str):
        yield ConfigError("vectors is not right", expected="a file of word vectors", got=repr(vectors), where=where)
        return
    try:
        words, dim = width_of(kind, settings), vector_stages.dim_of(plan, vectors)
        if dim is not None:
            check_width(words, dim, where)
    except ConfigError as error:
        yield ConfigError(error.problem, expected=error.expected, got=error.got, where=where, hint=error.hint)


def matrix(backbone: Architecture) -> torch.nn.Embedding:
    """The matrix of a network's words.

    Raises:
        ConfigError: it has none.
    """
    if backbone.embedding is None:
        hint = "leave vectors: away; it spells every word"
        raise ConfigError(f"{backbone.MODEL_TYPE} has no matrix of words to start from vectors", hint=hint)
    return backbone.embedding


def check_width(words: int, vectors: int, where: str) -> None:
    """Whether a network's words are as wide as word vectors.

    Raises:
        ConfigError: they are not.
    """
    if words != vectors:
        hint = f"set the width of the network's words to {vectors} (embedding_size or hidden_size), or train vectors with dim {words}"
        raise ConfigError(
            "the word vectors are not as wide as the network's words", expected=str(words), got=str(vectors), where=where, hint=hint
        )


def width_of(kind: type[Architecture], settings: Mapping[str, Any]) -> int:
    """How wide the words of a network are, by its settings alone.

    Raises:
        ConfigError: it has no matrix of words.
    """
    network = Network.planned(kind, kind.Config.read(dict(settings)), frozenset())
    return matrix(network.backbone).embedding_dim
