"""Splits: which documents train, which validate, which test: by document or group, keyed, so that order plays no part; by date or place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lexloom import keys
from lexloom.config import Config

TRAIN, VALIDATION, TEST = 0, 1, 2
Marks = npt.NDArray[np.uint8]


class SplitConfig(Config):
    """What is held out. A document's place depends on the seed and its id (or group) alone, so a corpus can grow and keep its splits."""

    validation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01
    """Share of the documents (or groups) held out to watch training."""
    test: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    by: Literal["document", "group", "date", "place"] | None = None
    """Default: `group` or `date` where such a column is named, else `document`. By date, the newest test and the next newest validate; by
    place, the last of the sources and the last but those."""
    group: str | None = None
    """Column whose equal values stay together; the same as `columns.group`."""
    date: str | None = None
    """Column that says when; the same as `columns.date`."""


def hashed(names: Iterable[str]) -> npt.NDArray[np.uint64]:
    """64-bit hashes of names, the same on every machine."""
    return np.array(
        [int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") for name in names],
        dtype=np.uint64,
    )


def by_key(names: npt.NDArray[np.uint64], config: SplitConfig, seed: int) -> Marks:
    """Splits by hashes of ids or groups, (N,) -> (N,): equal ones stay together.

    Training gets at least one document or group, then each share that is asked for, as long as there are enough.
    """
    unique, inverse = np.unique(names, return_inverse=True)
    drawn = keys.uniform(keys.key(seed, "split", unique), 1)[:, 0]
    marks = np.where(drawn < config.test, TEST, np.where(drawn < config.test + config.validation, VALIDATION, TRAIN)).astype(np.uint8)
    asked = [mark for mark, share in ((TRAIN, 1.0), (VALIDATION, config.validation), (TEST, config.test)) if share > 0]
    for mark in asked:
        most = np.bincount(marks, minlength=3)
        least = 0 if mark == TRAIN else 1  # of a single document, training takes it: a model with nothing to validate on can still learn
        if not most[mark] and most.max() > least:
            giving = np.flatnonzero(marks == most.argmax())
            marks[giving[np.argmin(drawn[giving])]] = mark
    return marks[inverse]


def by_date(dates: npt.NDArray[np.int64], config: SplitConfig) -> Marks:
    """Splits by dates that grow with time, or by places, (N,) -> (N,): the newest test, the next validate; one date is never divided.

    Shares are met as nearly as whole dates allow; training keeps at least the oldest date.
    """
    unique, inverse, counts = np.unique(dates, return_inverse=True, return_counts=True)
    marks = np.zeros(len(unique), dtype=np.uint8)
    end = len(unique)
    for mark, share in ((TEST, config.test), (VALIDATION, config.validation)):
        if share > 0 and end > 1:
            held = np.cumsum(counts[1:end][::-1])
            take = int(np.argmin(np.abs(held - share * len(dates)))) + 1
            marks[end - take : end] = mark
            end -= take
    return marks[inverse]
