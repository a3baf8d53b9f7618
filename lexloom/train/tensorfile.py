"""Safetensors files, written tensor by tensor from where they lie: no copy of the whole is made, and other threads go on meanwhile.

`safetensors.torch.save` gives the same bytes, but holds them in memory twice, and holds the interpreter while it copies them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lexloom import files

DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""The format's names, in the order of its library, which puts the last of them first."""
_RANK = {dtype: rank for rank, dtype in enumerate(DTYPES)}
_NAMED = {name: dtype for dtype, name in DTYPES.items()}


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Writes tensors of any device, atomically.

    Args:
        about: further text for the header.

    Raises:
        DiskFullError: the disk is full; the older file is still there.
    """
    with files.replacing(path) as file:
        file.write(_header(tensors, about))
        for name in _ordered(tensors):
            file.write(_bytes(tensors[name]))


def size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that `write` writes; nothing is copied to count them."""
    return len(_header(tensors)) + sum(map(n_bytes, tensors.values()))


def dtype(name: str) -> torch.dtype:
    """The dtype that the format calls so."""
    return _NAMED[name]


def n_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's values."""
    return tensor.numel() * tensor.element_size()


def _ordered(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(tensors, key=lambda name: (-_RANK[tensors[name].dtype], name))


def _header(tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> bytes:
    """What is where, as JSON, behind its own length: 8 bytes, least first. Blanks bring the tensors to a multiple of 8."""
    entries, start = dict[str, object]({"__metadata__": dict(about)} if about else {}), 0
    for name in _ordered(tensors):
        tensor = tensors[name]
        end = start + n_bytes(tensor)
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
