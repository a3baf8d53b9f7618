"""One model on both sides: in a folder of `transformers`, which works in a process of its own, and in one of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lexloom import files
from lexloom.hub import weights
from lexloom.models.base import ARCHITECTURES, Architecture, Network


def oracle(script: str, verb: str, jobs: Sequence[Sequence[Any]]) -> None:
    """Runs a script that stands beside this file; see `oracle.py`."""
    command = [sys.executable, str(Path(__file__).with_name(script)), verb, json.dumps(jobs, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@dataclass
class Case:
    """One model: their folder, ours, and what ours gave in their hands."""

    network: Network
    loaded: weights.Loaded
    theirs: Path
    ours: Path
    read: Path

    def given(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Their inputs and outputs."""
        return load_file(self.theirs / "inputs.safetensors"), load_file(self.theirs / "outputs.safetensors")


def opened(folder: Path, kind: type[Architecture], class_name: str, labels: int = 2) -> tuple[Network, weights.Loaded]:
    """Their folder as our network, in float64."""
    settings = files.read_json(folder / "config.json")
    config = kind.Config.read({name: value for name, value in settings.items() if name in kind.Config.model_fields})
    roles = next(roles for roles, named in kind.ROLES.items() if named == class_name)
    network = Network.build(kind, config, roles, labels=labels).double().eval()
    return network, weights.load_into(network, weights.read_tensors(folder))


def both_sides(script: str, root: Path, models: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Case]:
    """All models at once: two processes of the oracle in all, for importing it is slow.

    Args:
        models: name, which begins with the architecture's -> class and settings.
    """
    oracle(script, "make", [[class_name, root / "theirs" / name, settings] for name, (class_name, settings) in models.items()])
    found = {}
    for name, (class_name, _) in models.items():
        paths = [root / kind / name for kind in ("theirs", "ours", "read")]
        kind = ARCHITECTURES.get(name.partition("-")[0])
        case = Case(*opened(paths[0], kind, class_name), *paths)
        weights.save(case.network, case.ours)
        settings = {"model_type": kind.MODEL_TYPE, "architectures": [class_name], **case.network.backbone.config.plain()}
        files.write_json(case.ours / "config.json", settings)
        found[name] = case
    (root / "read").mkdir()
    oracle(script, "read", [[models[name][0], case.ours, case.theirs / "inputs.safetensors", case.read] for name, case in found.items()])
    return found


def near(mine: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype, name: str) -> None:
    """Equal to 1e-9 in float64 and to 1e-5 in float32, of numbers over 1 relative to them."""
    limit = 1e-9 if dtype is torch.float64 else 1e-5
    assert ((mine - theirs).abs() / theirs.abs().clamp(min=1.0)).max() <= limit, name


def near_at_tokens(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], mask: torch.Tensor, dtype: torch.dtype) -> None:
    """Everything an encoder gives; what stands at padding is nobody's business."""
    assert ours
    for name, found in ours.items():
        expected = theirs[f"{name}.{dtype}"]
        if name.startswith(("layer", "last_hidden")) or expected.shape[:2] == mask.shape:
            keep = mask.bool().reshape(-1, mask.shape[-1])
            found, expected = found.reshape(*keep.shape, -1)[keep], expected.reshape(*keep.shape, -1)[keep]
        near(found, expected, dtype, name)


def same_names(ours: Path, theirs: Path) -> None:
    """Both folders have tensors of the same names, and say the same about them."""
    with safe_open(ours / "model.safetensors", "pt") as mine, safe_open(theirs / "model.safetensors", "pt") as other:
        assert set(mine.keys()) == set(other.keys())
        assert mine.metadata() == other.metadata()


def same_in_their_hands(read: Path, theirs: Path, class_name: str) -> None:
    """What `transformers` gave with our folder is what it gave with its own, to the bit."""
    with safe_open(read, "pt") as file:
        told = file.metadata()
        assert (json.loads(told["problems"]), told["class"], told["lexloom"]) == ({}, class_name, "False")
        for key, tensor in load_file(theirs / "outputs.safetensors").items():
            assert torch.equal(file.get_tensor(key), tensor), key
