"""Tensors out of PyTorch files, which are pickles and may run code: each is read in a closed process that `unpickling.py` describes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor

from lexloom import files
from lexloom.errors import FormatError, LexloomError, WeightsError
from lexloom.hub.weights import PICKLED
from lexloom.vectors import fasttext_file

NAME, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_NO_WEIGHTS = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin", "scaler.pt")
_BYTES_A_SECOND, _SECONDS = 20_000_000, 60
_HEADER = 1 << 26  # bytes that names may take


@dataclass
class Unpickled:
    """`tensors` under the names they had, and the names of what else stood beside them (`left`)."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def weight_files(folder: Path) -> list[Path]:
    """The PyTorch files that hold a folder's weights.

    Raises:
        WeightsError: there are none, several and no index, one is no plain file, or the index names a file outside its folder.
        FormatError: it is a file of fastText's.
    """
    if (folder / INDEX).is_file():
        index = files.read_json(folder / INDEX, kind="weight index")
        places = index.get("weight_map") if isinstance(index, dict) else None
        names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
        if not names or any(Path(name).name != name or not name.endswith(PICKLED) for name in names):
            raise WeightsError("the weight index names something that is no PyTorch file of its folder", where=str(folder / INDEX))
    else:
        found = sorted(path.name for path in folder.iterdir() if path.name.endswith(PICKLED))
        found = [name for name in found if name not in _NO_WEIGHTS and not name.startswith("rng_state")]
        names = [NAME] if NAME in found else found
        if len(names) != 1:
            got, hint = ", ".join(names) or "none", "name the file itself in the place of the folder" if names else None
            raise WeightsError(
                "there is no one file of weights", expected=f"model.safetensors or {NAME}", got=got, where=str(folder), hint=hint
            )
    return [checked(folder / name) for name in names]


def checked(path: Path) -> Path:
    """The path of a plain file; links to one are followed.

    Raises:
        WeightsError: it is none.
        FormatError: it is a file of fastText's.
    """
    try:
        plain = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise WeightsError("these weights cannot be opened", got=error.strerror or str(error), where=str(path)) from None
    if not plain:
        raise WeightsError("these weights are no plain file", got="a device, a pipe or a folder", where=str(path))
    if fasttext_file.is_one(path):
        hint = f"lexloom import {path.name} --out vectors.safetensors, or lexloom.WordVectors.load"
        raise FormatError("these are word vectors of fastText, no weights of a network", where=str(path), hint=hint)
    return path


def unpickle(paths: Sequence[Path]) -> Unpickled:
    """Every tensor of PyTorch files, each file read by a process with limits on memory and time, without network, programs or writing.

    Raises:
        FormatError: a file is damaged, holds something else than tensors, or hit a limit. Nothing of it has run.
    """
    found = Unpickled()
    for path in paths:
        header, content = _answer(path)
        told = _told(header, path)
        try:
            found.tensors |= from_bytes(content)
        except (SafetensorError, ValueError, KeyError) as error:
            raise FormatError("these weights cannot be read", got=str(error)[:200], where=str(path)) from None
        found.left += [str(name) for name in told.get("left", [])]
    return found


def _answer(path: Path) -> tuple[bytes, bytes]:
    """The line and the bytes that the process writes; no more of them than the file can hold."""
    size = path.stat().st_size
    seconds = _SECONDS + size // _BYTES_A_SECOND
    command = [sys.executable, "-sP", "-m", "lexloom.hub.unpickling", str(path.resolve()), str(seconds)]
    child = subprocess.Popen(
        command, env=_environment(), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert child.stdout is not None
    timer = threading.Timer(4 * seconds, child.kill)  # `seconds` are of computing
    timer.start()
    try:
        header = child.stdout.readline(_HEADER)
        content = child.stdout.read(2 * size + _HEADER)
    finally:
        timer.cancel()
        child.kill()
        child.stdout.close()
        child.wait()
    return header, content


def _environment() -> dict[str, str]:
    """What Python needs to find PyTorch, and nothing else: an environment may hold keys."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG") if name in os.environ}
    paths = os.pathsep.join(entry for entry in map(os.path.abspath, filter(None, sys.path)) if os.path.exists(entry))
    return {**kept, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def _told(header: bytes, path: Path) -> dict[str, Any]:
    limits = "more memory or time than a file of its size takes, or a crash"
    try:
        told = json.loads(header) if header else {"error": limits}
    except ValueError:
        told = {"error": limits}
    if not isinstance(told, dict) or "error" in told:
        problem: LexloomError = FormatError(
            "this file holds something else than tensors, and none of it was run",
            got=str(told.get("error") if isinstance(told, dict) else told)[:600],
            where=str(path),
            hint="ask whoever made it for model.safetensors",
        )
        raise problem
    return told
