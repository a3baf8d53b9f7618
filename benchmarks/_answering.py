"""The sides of the benchmarks of finished models: each answers the same texts, from text to result, as often as it is asked."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path
from typing import Any

from _paired import seconds
from _sentences import sentences

from lexloom import compute
from lexloom.hub.bundle import Bundle


class Side:
    """Texts, and work over all of them.

    Args:
        path, n: which texts, see `sentences`.
    """

    about = ""

    def __init__(self, path: str | None, n: int) -> None:
        self.texts = sentences(Path(path) if path else None, n)

    def work(self) -> object:
        """Answers all texts once."""
        raise NotImplementedError

    def steps(self, n: int) -> float:
        """Seconds of all texts, n times."""
        return sum(seconds(self.work) for _ in range(n))


class Ours(Side):
    """`Bundle.embed` or `Bundle.predict`."""

    def __init__(self, path: str | None, n: int, model: str, verb: str, dtype: str) -> None:
        super().__init__(path, n)
        compute.for_inference().apply()
        self.bundle = Bundle.load(Path(model)).to(dtype=dtype)
        self.verb, self.about = verb, f"{self.bundle.dtype}, {compute.cores()} threads"

    def work(self) -> object:
        return getattr(self.bundle, self.verb)(self.texts)


class SentenceTransformers(Side):
    """`encode` of sentence-transformers.

    Args:
        options: of its model. batch: texts at a time, its default where None.
    """

    def __init__(self, path: str | None, n: int, model: str, options: dict[str, Any], batch: int | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        super().__init__(path, n)
        self.model = SentenceTransformer(model, device="cpu", model_kwargs=options)
        self.batch = {"batch_size": batch} if batch else {}

    def work(self) -> object:
        return self.model.encode(self.texts, **self.batch)


class Pipeline(Side):
    """The pipeline of `transformers` for classification.

    Args:
        batch: texts at a time, its default (one by one) where None. by_length: whether it is handed the texts sorted.
    """

    def __init__(
        self, path: str | None, n: int, model: str, batch: int | None = None, dtype: str = "float32", by_length: bool = False
    ) -> None:
        from transformers import pipeline

        super().__init__(path, n)
        if by_length:
            self.texts.sort(key=len)
        self.pipeline = pipeline("text-classification", model, device="cpu", truncation=True, dtype=dtype)
        self.batch = {"batch_size": batch} if batch else {}

    def work(self) -> object:
        return self.pipeline(self.texts, **self.batch)
