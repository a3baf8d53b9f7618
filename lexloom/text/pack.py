"""Packings: which tokens of a split stand together in a row of training. Small integer arrays on disk, the same rows in every epoch.

`blocks` are stretches of text; `sentence-pairs` are two neighbouring stretches, or for next sentence prediction two of different documents;
`ordered-pairs` are two neighbouring ones, in their order or swapped.
Letters: R rows, T tokens of a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from lexloom import files
from lexloom.config import Config, Count
from lexloom.errors import ConfigError, FormatError
from lexloom.text import blocks, ordered, pairs
from lexloom.text.shards import Split, unsigned

FORMAT = 1
_PLANS: dict[str, Callable[..., Iterator[dict[str, npt.NDArray[Any]]]]] = {"blocks": blocks.plan, "sentence-pairs": pairs.plan}
_PLANS["ordered-pairs"] = ordered.plan
_ROWS: dict[str, Callable[..., list[dict[str, Any]]]] = dict.fromkeys(_PLANS, pairs.rows) | {"blocks": blocks.rows}
_LENGTHS: dict[str, Callable[..., npt.NDArray[np.int64]]] = dict.fromkeys(_PLANS, pairs.lengths) | {"blocks": blocks.lengths}


class PackingConfig(Config):
    """How a split is packed.

    Attributes:
        kind: `blocks`, `sentence-pairs` for next sentence prediction, or `ordered-pairs` for sentence order.
        length: T, special tokens included.
        documents: whether a block may go on into the next document (`joined`, with a separator between) or not (`isolated`).
        sentences: whether a block may end within a sentence (`cut`), which leaves no padding, or only where one ends (`whole`; Liu et al.
            2019), but for sentences that are longer than a block.
        specials: the special tokens the tokenizer puts around a text; none for decoders, whose documents end with the end token.
        borders: whether rows of blocks have `sentences` (T,), a number for each sentence.
        minimum: shorter rests of a document, or of the whole where joined, are dropped.
        short_share: share of sentence pairs that are shorter than need be, so that a model sees short ones too (Devlin et al. 2018,
            at 0.1). Each costs half a row of padding; documents that fit into a row give short pairs anyway.
    """

    kind: Literal["blocks", "sentence-pairs", "ordered-pairs"] = "blocks"
    length: Count = 128
    documents: Literal["joined", "isolated"] = "joined"
    sentences: Literal["cut", "whole"] = Field("cut", exclude_if=lambda value: value == "cut")
    specials: bool = True
    borders: bool = Field(False, exclude_if=lambda value: not value)
    minimum: Count = 8
    short_share: float = Field(0.05, ge=0, le=1)


class Packing:
    """The rows of a split. A row's id is its place, from 0 to `len(packing) - 1`.

    Attributes:
        lengths: (R,) tokens of each row, special ones included.
        counts: rows, tokens, and what was left out, by reason; of sentence pairs also negatives and `repeated_tokens`, those that stand
            in two rows of their document.
    """

    def __init__(
        self, folder: Path, split: Split, config: PackingConfig, arrays: Mapping[str, npt.NDArray[Any]], counts: dict[str, int]
    ) -> None:
        self.folder, self.split, self.config, self.arrays, self.counts = folder, split, config, arrays, counts
        self.lengths = _LENGTHS[config.kind](split, config, arrays)

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        """The rows of some ids, in that order.

        Returns:
            dicts of `input_ids`, `token_type_ids` (where there are special tokens), `special` and `id`; joined blocks also have
            `documents` (T,), the number of the document within the row; pairs have `next_sentence_label`, 0 for a pair that
            belongs together and 1 for one that does not; `characters` (T, C) where the shards have spellings; where words are marked,
            `continues` (T,) is true at tokens that go on with the word of the one before them.

        Raises:
            IndexError: there is no such row.
        """
        places = np.asarray(ids, dtype=np.int64)
        if places.size and (places.min() < 0 or places.max() >= len(self)):
            raise IndexError(f"this packing has rows 0 to {len(self) - 1}")
        found = _ROWS[self.config.kind](self.split, self.config, self.arrays, places)
        if self.split.characters is not None:
            for row in found:
                row["characters"] = self.split.characters[row["input_ids"]]
        return found

    @property
    def padding(self) -> float:
        """The share of positions that are padding when every row is padded to T."""
        return 1 - float(self.lengths.sum()) / max(1, len(self) * self.config.length)


def ensure_packing(split: Split, config: PackingConfig, *, seed: int = 0, folder: Path | str | None = None) -> Packing:
    """Opens the packing of a split under these settings, after making it if it is not there.

    Args:
        folder: where packings lie, each in its own folder; by default `packings/` in the folder of the shards.

    Raises:
        ConfigError: the length has no room for text.
        DataError: the split cannot be packed in this way.
    """
    _check(split, config)
    drawn = {"blocks": 0, "sentence-pairs": [seed, pairs.METHOD], "ordered-pairs": seed}[config.kind]
    key = files.fingerprint([FORMAT, config.plain(), drawn, split.digest])
    home = Path(folder) if folder is not None else split.folder / "packings"
    path = home / f"{split.name}-{config.kind}-{config.length}-{key[:12]}"
    files.once(path, lambda new: _make(new, split, config, seed), kind="packing")
    return open_packing(path, split)


def _check(split: Split, config: PackingConfig) -> None:
    paired = config.kind != "blocks"
    added = split.templates["pair" if paired else "single"].added if config.specials else 0
    needed = added + (2 if paired else 1)
    if not needed <= config.length < 1 << 24:
        raise ConfigError("this length has no room for text", expected=f"at least {needed}", got=str(config.length), where="length")
    if paired and not config.specials:
        raise ConfigError("sentence pairs need the special tokens between them", where="specials")


def _make(folder: Path, split: Split, config: PackingConfig, seed: int) -> None:
    counts: Counter[str] = Counter()
    listed: dict[str, str] = {}
    with ExitStack() as stack:
        sinks: dict[str, Any] = {}
        for part in _PLANS[config.kind](split, config, seed, counts):
            for name, values in part.items():
                if name not in sinks:
                    sinks[name], listed[name] = stack.enter_context(files.replacing(folder / f"{name}.bin")), values.dtype.name
                sinks[name].write(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    about = {"format": FORMAT, "kind": "packing", "config": config.plain(), "seed": seed, "split": split.name, "split_sha256": split.digest}
    files.write_json(folder / "packing.json", {**about, "arrays": listed, "counts": dict(counts)})


def open_packing(folder: Path | str, split: Split) -> Packing:
    """Opens a packing that was made of `split`.

    Raises:
        FormatError: it is of another split, of a newer format, or damaged.
    """
    folder = Path(folder)
    path = folder / "packing.json"
    if not path.is_file():
        raise FormatError("this is no packing", expected="a folder with packing.json", where=str(folder))
    about = files.read_json(path, kind="packing")
    files.check_format(about, path, newest=FORMAT)
    try:
        if about["split_sha256"] != split.digest:
            raise FormatError("this packing was made of other shards", where=str(folder), hint="remove it, it is made again")
        config = PackingConfig.read(about["config"])
        arrays = {
            str(name): _array(folder / f"{name}.bin", unsigned(kind), about["counts"]["rows"]) for name, kind in about["arrays"].items()
        }
        return Packing(folder, split, config, arrays, {str(name): int(n) for name, n in about["counts"].items()})
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise FormatError("packing.json is damaged", got=repr(error)[:200], where=str(path)) from None


def _array(path: Path, dtype: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
    if not path.is_file() or path.stat().st_size != rows * dtype.itemsize:
        raise FormatError("a file of the packing is missing or has another size", expected=f"{rows} rows", where=str(path))
    return np.memmap(path, dtype=dtype, mode="r") if rows else np.zeros(0, dtype)
