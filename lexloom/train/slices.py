"""Tensors of which several processes hold some rows each, in safetensors files: one a process, with an index of the whole.

    model-00001-of-00002.safetensors   model-00002-of-00002.safetensors   index.json

The files are those of `torch.distributed.checkpoint`'s safetensors storage, where the header says which rows a file holds, and it can
read them. It does not write or read them here: it hands its plans about as pickles, holds a whole file in memory twice, and takes for the
shape of a tensor what the files that are there come to (docs/log.md).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lexloom import files
from lexloom.errors import CheckpointError
from lexloom.train import tensorfile

INDEX = "index.json"
KINDS = ("model", "optimizer")
_ROWS = "DCP_SHARDING_INFO"  # the storage's own name for it


@dataclass(frozen=True)
class Slice:
    """Rows of a tensor.

    Attributes:
        start: the first of them. shape: of the whole tensor.
    """

    start: int
    shape: tuple[int, ...]


def cut(shape: Iterable[int], rank: int, size: int) -> tuple[Slice, int]:
    """What process `rank` of `size` holds of a tensor, and how many rows that is: as `torch.chunk` cuts, so the last may have none."""
    whole = tuple(shape)
    each = -(-whole[0] // size)
    start = min(rank * each, whole[0])
    return Slice(start, whole), min(each, whole[0] - start)


def names(kind: str, size: int) -> list[str]:
    """The files of `size` processes."""
    return [f"{kind}-{rank + 1:05d}-of-{size:05d}.safetensors" for rank in range(size)]


def header(tensors: Mapping[str, Tensor], slices: Mapping[str, Slice]) -> dict[str, str]:
    """What the storage wants to find in the header of a file."""
    rows = {name: {"saved_offsets": [slices[name].start, *(0 for _ in tensors[name].shape[1:])]} for name in tensors}
    return {"format": "pt", "DCP_VERSION": "1.0", _ROWS: json.dumps(rows, separators=(",", ":"))}


def write(path: Path, tensors: Mapping[str, Tensor], slices: Mapping[str, Slice]) -> None:
    """Writes the rows of one process.

    Raises:
        DiskFullError: the disk is full.
    """
    held = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
    tensorfile.write(path, held, header(held, slices))


def write_index(folder: Path, size: int, slices: Mapping[str, Slice]) -> None:
    """Writes `index.json`: how many processes there were, and the shape of each weight."""
    files.write_json(
        folder / INDEX, {"format": files.FORMAT, "processes": size, "shapes": {name: list(one.shape) for name, one in slices.items()}}
    )


def check(folder: Path, listed: Collection[str]) -> None:
    """Looks, before any tensor is read, whether the files are all there and hold every row of every weight once.

    Args:
        listed: the files that the manifest names, whose digests were checked.

    Raises:
        CheckpointError: they do not.
    """
    index = files.read_json(folder / INDEX, kind="index of a checkpoint")
    files.check_format(index, folder / INDEX)
    wanted = {name for kind in KINDS for name in names(kind, index["processes"])}
    there = {path.name for path in folder.glob("*.safetensors")}
    if odd := sorted(wanted.symmetric_difference(there) | (wanted - set(listed))):
        raise CheckpointError("the files are not those of all processes", expected=f"{len(wanted)} files", got=odd[0], where=str(folder))
    shapes = {name: tuple(shape) for name, shape in index["shapes"].items()}
    expected = {"model": shapes, "optimizer": {f"{moment}.{name}": shapes[name] for moment in ("first", "second") for name in shapes}}
    for kind in KINDS:
        found = shapes_in(folder / name for name in names(kind, index["processes"]))
        if found != expected[kind]:
            odd = sorted(name for name in {*found, *expected[kind]} if found.get(name) != expected[kind].get(name))
            got, shape = f"{odd[0]} {found.get(odd[0])}", str(expected[kind].get(odd[0]))
            raise CheckpointError("the files do not hold what the index says", expected=shape, got=got, where=str(folder))


def shapes_in(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that some safetensors files hold together.

    Raises:
        CheckpointError: a row is missing or there twice.
    """
    pieces = dict[str, list[tuple[int, tuple[int, ...], Path]]]()
    for path in paths:
        with safe_open(path, framework="pt") as opened:
            for name, start, shape in _entries(opened):
                pieces.setdefault(name, []).append((start, shape, path))
    found = dict[str, tuple[int, ...]]()
    for name, parts in pieces.items():
        rows = 0
        for start, shape, path in sorted(parts):
            if start != rows or shape[1:] != parts[0][1][1:]:
                raise CheckpointError(f"rows of {name} are missing or there twice", expected=f"row {rows}", got=str(start), where=str(path))
            rows += shape[0]
        found[name] = (rows, *parts[0][1][1:])
    return found


def _entries(opened: Any) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Name, first row and shape of every tensor of an open file; one that says nothing of rows holds all of them."""
    rows = json.loads((opened.metadata() or {}).get(_ROWS, "{}"))
    for name in opened.keys():  # noqa: SIM118 (it is no mapping)
        yield name, rows[name]["saved_offsets"][0] if rows else 0, tuple(opened.get_slice(name).get_shape())


def read(paths: Iterable[Path], into: Mapping[str, tuple[Tensor, int]]) -> None:
    """Fills tensors out of safetensors files, whoever cut them and how: name -> (rows to be filled, the first of them)."""
    for path in paths:
        with safe_open(path, framework="pt") as opened:
            for name, start, shape in _entries(opened):
                tensor, wanted = into[name]
                begin, end = max(start, wanted), min(start + shape[0], wanted + len(tensor))
                if begin < end:
                    tensor[begin - wanted : end - wanted] = opened.get_slice(name)[begin - start : end - start]


def whole(folder: Path, kind: str) -> dict[str, Tensor]:
    """All tensors of a kind, whole."""
    paths, dtypes = sorted(folder.glob(f"{kind}-*-of-*.safetensors")), dict[str, torch.dtype]()
    for path in paths:
        with safe_open(path, framework="pt") as opened:
            dtypes |= {name: tensorfile.dtype(opened.get_slice(name).get_dtype()) for name, _, _ in _entries(opened)}
    found = {name: torch.empty(shape, dtype=dtypes[name]) for name, shape in shapes_in(paths).items()}
    read(paths, {name: (tensor, 0) for name, tensor in found.items()})
    return found
