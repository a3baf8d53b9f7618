"""Classifiers that are no networks, baselines and small models of their own: what TF-IDF and fastText share as bundles.

Letters: N texts, K labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

from lexloom import files
from lexloom.config import Config
from lexloom.errors import FormatError, LexloomError
from lexloom.tasks.classification import answer
from lexloom.tasks.columns import Columns, ColumnsConfig

TENSORS, VOCABULARY = "lexloom.safetensors", "vocabulary.json"
_MAX_BYTES = 1 << 30
Tensors = Mapping[str, npt.NDArray[Any]]


class SimpleConfig(Config):
    """`config.json` of such a classifier."""

    format: int = files.FORMAT
    pairs: bool
    labels: list[str] = Field(min_length=1, max_length=100_000)
    label_counts: dict[str, int]
    columns: ColumnsConfig = ColumnsConfig()
    task: str = "text-classification"


C = TypeVar("C", bound=SimpleConfig)


class SimpleClassifier(ABC):
    """Answers as a bundle does, and lies in a folder as one.

    Attributes:
        KIND: what it is called in words. about: what `lexloom.json` says.
    """

    KIND: ClassVar[str]
    CLASS: ClassVar[str]
    config: Any
    about: dict[str, Any]

    @property
    def labels(self) -> list[str]:
        """Label names in the order of their ids."""
        return list(self.config.labels)

    @property
    def label_counts(self) -> dict[str, int]:
        """How often each label stood in the training rows."""
        return dict(self.config.label_counts)

    @abstractmethod
    def parts(self) -> tuple[list[str], Tensors]:
        """The terms and the tensors that decide, beside the settings, what it answers."""

    @abstractmethod
    def shares(self, texts: Sequence[str], pairs: Sequence[str] | None) -> npt.NDArray[np.floating[Any]]:
        """How sure it is of each label, (N, K), which sum to 1."""

    def predict(
        self, texts: Sequence[str] | Sequence[Mapping[str, Any]], pairs: Sequence[str] | None = None, *, top_k: int | None = 1
    ) -> list[Any]:
        """`{"label", "score"}` for each text; a list of them, best first, for another `top_k`, all labels for None.

        Args:
            texts: texts, or rows with the columns of the training rows.

        Raises:
            LexloomError: one string was given, or pairs are missing, too many or too few.
            DataError: a row lacks a column.
        """
        if isinstance(texts, str):
            raise LexloomError("predict takes a list of texts", got=repr(texts)[:60], hint="put it in brackets: [text]")
        if not len(texts):
            return []
        return [answer(row, self.labels, top_k) for row in self.shares(*self._texts(texts, pairs))]

    def _texts(self, texts: Sequence[Any], pairs: Sequence[str] | None) -> tuple[Sequence[str], Sequence[str] | None]:
        if pairs is None and isinstance(texts[0], Mapping):
            columns = Columns.find(self.config.columns, texts, labelled=False)
            texts, pairs = columns.texts(texts), columns.pairs(texts)
        if (pairs is not None) != self.config.pairs:
            trained = "pairs of texts" if self.config.pairs else "single texts"
            raise LexloomError("this baseline was trained on " + trained, got="single texts" if pairs is None else "pairs")
        if pairs is not None and len(pairs) != len(texts):
            raise LexloomError("each text needs its pair", expected=f"{len(texts)} pairs", got=str(len(pairs)))
        for i, text in enumerate([*texts, *(pairs or [])]):
            if not isinstance(text, str):
                raise LexloomError("a text is a string", got=f"{type(text).__name__} at place {i % len(texts)}")
        return texts, pairs

    @abstractmethod
    def save(self, folder: Path | str) -> Path:
        """Writes a bundle folder: `config.json`, `vocabulary.json` and `lexloom.safetensors`."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path | str) -> Self:
        """Opens a folder that `save` wrote; it predicts the same to the bit.

        Raises:
            FormatError: a file is missing, damaged, or does not fit the others.
        """

    def _write(self, folder: Path | str, card: str) -> Path:
        folder, (terms, tensors) = Path(folder), self.parts()
        settings = {"architectures": [self.CLASS], **self.config.plain()}
        settings["id2label"] = {str(i): label for i, label in enumerate(self.labels)}
        with files.new_folder(folder, kind="bundle") as new:
            files.write_json(new / "config.json", settings)
            files.write_json(new / VOCABULARY, {"format": files.FORMAT, "terms": terms})
            files.write_bytes(new / TENSORS, to_bytes(dict(tensors)))
            files.write_json(new / "lexloom.json", {"format": files.FORMAT, "about": self.about})
            head = f"---\npipeline_tag: text-classification\ntags:\n- lexloom\n---\n\n# {folder.resolve().name}\n\n"
            tail = "a baseline, and a small model of its own.\nOpens with `lexloom.load`; `transformers` has no class for it.\n"
            files.write_text(new / "README.md", f"{head}{card}: {tail}")
        return folder

    @classmethod
    def _read(cls, folder: Path, kind: type[C], most: int) -> tuple[C, list[str], Tensors, dict[str, Any]]:
        """Settings, at most so many terms, tensors, and what `lexloom.json` says."""
        settings = _mapping(folder / "config.json")
        files.check_format(settings, folder / "config.json")
        known = {name: value for name, value in settings.items() if name in kind.model_fields}
        try:
            config = kind.model_validate(known)
        except ValidationError as error:
            problem = f"these settings are not those of a {cls.KIND} bundle"
            raise FormatError(problem, got=str(error)[:300], where=str(folder / "config.json")) from None
        vocabulary = _mapping(folder / VOCABULARY)
        files.check_format(vocabulary, folder / VOCABULARY)
        terms = vocabulary.get("terms")
        if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms) or len(set(terms)) != len(terms):
            raise FormatError("the vocabulary is not a list of different terms", where=str(folder / VOCABULARY))
        if len(terms) > most:
            expected = f"at most {most} terms"
            raise FormatError("the vocabulary is too large", expected=expected, got=str(len(terms)), where=str(folder / VOCABULARY))
        about = _mapping(folder / "lexloom.json").get("about", {}) if (folder / "lexloom.json").is_file() else {}
        return config, terms, _tensors(folder / TENSORS), about


def check_tensors(tensors: Tensors, wanted: Mapping[str, tuple[tuple[int, ...], Any]], folder: Path) -> None:
    """Looks whether tensors have the shapes and dtypes that are wanted, and finite numbers.

    Raises:
        FormatError: one does not.
    """
    for name, (shape, dtype) in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != shape or found.dtype != dtype or not np.isfinite(found).all():
            got = "nothing" if found is None else f"{found.shape} {found.dtype}"
            expected = f"finite numbers {shape} {np.dtype(dtype)}"
            raise FormatError(f"{name} does not fit this bundle", expected=expected, got=got, where=str(folder / TENSORS))


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FormatError("a file of this bundle is missing", where=str(path))
    found = files.read_json(path, kind="part of a bundle")
    if not isinstance(found, dict):
        raise FormatError("this is not a mapping", where=str(path))
    return found


def _tensors(path: Path) -> Tensors:
    if not path.is_file():
        raise FormatError("a file of this bundle is missing", where=str(path))
    if path.stat().st_size > _MAX_BYTES:
        raise FormatError("these weights are too large", expected=f"at most {_MAX_BYTES} bytes", where=str(path))
    try:
        return from_bytes(path.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise FormatError("these weights cannot be read", got=str(error)[:200], where=str(path)) from None
