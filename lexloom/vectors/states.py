"""The state of a training of vectors, of whatever method, and how it lies on disk: a folder that is there whole or not at all, and whose
parts fit each other.

FOLDER/   vectors.safetensors, vocabulary.json, state.json (the settings, the seed, where training stands), manifest.json
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lexloom import files
from lexloom.errors import CheckpointError, ConfigError
from lexloom.vectors.keyed import WordVectors
from lexloom.vectors.vocabulary import Vocabulary

_TABLES, _WORDS, _STATE = "vectors.safetensors", "vocabulary.json", "state.json"
Tables = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Progress:
    """How far training is.

    Attributes:
        words: learned from so far, over all epochs, and `total`, all there will be.
        losses: the mean over the predictions of each epoch; that of the last one is of what was done of it.
    """

    words: int
    total: int
    epoch: int
    learning_rate: float
    losses: tuple[float, ...]


class State(Protocol):
    """Vectors on their way: what every method has.

    Attributes:
        config: of the method, with a `kind`. steps: how far training is, in units of the method's own.
    """

    config: Any
    vocabulary: Vocabulary
    steps: int

    def __init__(self, config: Any, vocabulary: Vocabulary, seed: int = 1) -> None: ...

    @property
    def vectors(self) -> WordVectors:
        """What is used of them."""

    def grown(self, vocabulary: Vocabulary, config: Any = None, seed: int | None = None) -> Self:
        """The same vectors at the start of another training, with further words.

        Raises:
            ConfigError: they cannot go on so.
        """

    def train(self, data: Any, /, workers: int = 1) -> Iterator[Progress]:
        """Learns from where it stands to the end of the last epoch; between two steps it may be saved and left."""

    def progress(self, data: Any, /) -> Progress:
        """Where training stands."""

    def save(self, folder: Path | str, **about: Any) -> Path:
        """Writes the whole state into a folder; `about` goes into its manifest."""

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads a saved state.

        Raises:
            CheckpointError: it is missing, damaged, or its parts do not fit each other.
        """


def save(folder: Path | str, tables: Tables, vocabulary: Vocabulary, state: Mapping[str, Any], **about: Any) -> Path:
    """Writes a state.

    Args:
        about: goes into the manifest.
    """
    files.check_room(Path(folder).parent, sum(table.nbytes for table in tables.values()) + (1 << 20), "the state of word vectors")
    with files.new_folder(folder, kind="word vectors", **about) as new:
        save_file({name: np.ascontiguousarray(table) for name, table in tables.items()}, new / _TABLES)
        vocabulary.save(new / _WORDS)
        files.write_json(new / _STATE, {"format": files.FORMAT, **state})
    return Path(folder)


def load(folder: Path | str) -> tuple[dict[str, Any], Vocabulary]:
    """What a state holds beside its tables, all of which are checked.

    Raises:
        CheckpointError: it is missing or damaged.
        FormatError: it is of a newer format.
    """
    folder = Path(folder)
    state = files.read_about(folder, _STATE, kind="state of word vectors", check_digests=True)
    return state, Vocabulary.load(folder / _WORDS)


def fill(tables: Tables, folder: Path | str) -> None:
    """Reads the tables of a state into those given.

    Raises:
        CheckpointError: they cannot be read, or have other shapes.
    """
    path = Path(folder) / _TABLES
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise CheckpointError("these vectors cannot be read", got=str(error), where=str(path)) from None
    for name, table in tables.items():
        if name not in found or found[name].shape != table.shape:
            got = str(found[name].shape) if name in found else "nothing"
            raise CheckpointError(f"the {name} vectors do not fit the vocabulary", expected=str(table.shape), got=got, where=str(folder))
        table[:] = found[name]


def check_grown(before: Vocabulary, dim: int, vocabulary: Vocabulary, wanted: int) -> None:
    """Looks whether vectors of some words and width `dim` can go on with another vocabulary and a `wanted` width.

    Raises:
        ConfigError: the words do not begin with those of before, or the width is another.
    """
    if vocabulary.words[: len(before)] != before.words:
        raise ConfigError("these words are not those of the saved state, with others behind")
    if wanted != dim:
        hint = f"set dim to {dim}, or begin anew"
        raise ConfigError("the saved vectors have another width", expected=str(dim), got=str(wanted), hint=hint)
