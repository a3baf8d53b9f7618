"""Weights of a network to and from a model folder, by the architecture's one table, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from lexloom import files
from lexloom.errors import FormatError, WeightsError
from lexloom.models.base import Network, Weight, initialize

SINGLE, OWN = "model.safetensors", "lexloom.safetensors"
"""The file of the weights; the second is that of networks that `transformers` has not."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
SHARD_BYTES = 5_000_000_000


@dataclass
class Loaded:
    """What a folder gave to a network: names on disk that were used, ones the network lacks, and own names left without."""

    used: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for the log."""
        new = f"; new: {', '.join(self.missing)}" if self.missing else ""
        idle = f"; not used: {', '.join(self.unused[:4])}{' …' if len(self.unused) > 4 else ''}" if self.unused else ""
        return f"{len(self.used)} tensors loaded{new}{idle}"


def read_tensors(folder: Path | str) -> dict[str, Tensor]:
    """All tensors of a folder, from one safetensors file or several with an index, of either name.

    Raises:
        WeightsError: there are none, an index names a file outside the folder, or only pickled weights are there.
        FormatError: a file is damaged.
    """
    folder = Path(folder)
    found: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        found |= read_file(path)
    return found


def read_file(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file.

    Raises:
        FormatError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FormatError("these weights cannot be read", got=str(error)[:200], where=str(path)) from None


def has_weights(folder: Path) -> bool:
    """Whether there are weights that can be opened."""
    return any((folder / name).is_file() for single in (SINGLE, OWN) for name in (single, _index(single)))


def _weight_files(folder: Path) -> list[Path]:
    single = OWN if any((folder / name).is_file() for name in (OWN, _index(OWN))) else SINGLE
    if (path := folder / _index(single)).is_file():
        index = files.read_json(path, kind="weight index")
        names = sorted(set(index.get("weight_map", {}).values())) if isinstance(index, dict) else []
        if not names or any(not isinstance(n, str) or Path(n).name != n or not n.endswith(".safetensors") for n in names):
            raise WeightsError("the weight index names something that is no safetensors file of its folder", where=str(path))
        return [folder / name for name in names]
    if (folder / single).is_file():
        return [folder / single]
    pickled = next((name for name in sorted(p.name for p in folder.iterdir()) if name.endswith(PICKLED)), None) if folder.is_dir() else None
    command = f"lexloom import {folder} --out BUNDLE"
    hint = f"{pickled} is a pickle, which can run code: `{command}` reads it in a closed process" if pickled else "is this a model folder?"
    raise WeightsError(f"there is no {SINGLE}", where=str(folder), hint=hint)


def _index(single: str) -> str:
    return f"{single}.index.json"


def load_into(network: Network, tensors: Mapping[str, Tensor], *, where: str = "", seed: int | None = None) -> Loaded:
    """Fills a network with tensors under their names on disk.

    Args:
        seed: where given, what is missing is drawn from it; where None, a missing tensor is an error.

    Raises:
        WeightsError: a tensor has another shape than the network's, one is missing, or one is not what the config makes of it.
    """
    available = _own_spelling(network, tensors)
    state, report, filled = network.state_dict(), Loaded(), set()
    for row in network.table():
        if all(name in available for name in row.theirs):
            found = [available[name] for name in row.theirs]
            for name, tensor in zip(row.own, row.to_own(found) if row.to_own else found, strict=True):
                _copy(state[name], tensor, name, row, where)
                filled.add(name)
            report.used += row.theirs
        elif not _is_tied(network, row):
            report.missing += row.own
    report.used += _fixed(network, available, where)
    report.unused = sorted(set(available) - set(report.used))
    if report.missing and seed is None:
        raise WeightsError("weights are missing", expected=", ".join(report.missing[:5]), got=f"{len(available)} tensors", where=where)
    if report.missing and seed is not None:
        initialize(network, seed, only=report.missing)
    return report


def lacking(network: Network, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names on disk that a network, which may be without storage, needs and that are not among the tensors, however they spell them."""
    available = _own_spelling(network, tensors)
    return [name for row in network.table() if not _is_tied(network, row) for name in row.theirs if name not in available]


def _copy(target: Tensor, tensor: Tensor, name: str, row: Weight, where: str) -> None:
    if target.shape != tensor.shape:
        raise WeightsError(
            f"{' + '.join(row.theirs)} does not fit {name}", expected=str(tuple(target.shape)), got=str(tuple(tensor.shape)), where=where
        )
    with torch.no_grad():
        target.copy_(tensor)


def _fixed(network: Network, available: Mapping[str, Tensor], where: str) -> list[str]:
    """The names of tensors that follow from the config, after comparing them: to the digits of half precision."""
    prefix, fixed = type(network.backbone).PREFIX, network.backbone.fixed()
    found = {name: fixed[name.removeprefix(prefix)] for name in available if name.removeprefix(prefix) in fixed}
    for name, tensor in found.items():
        if available[name].shape != tensor.shape or not torch.allclose(available[name].float(), tensor, rtol=0, atol=1e-2):
            raise WeightsError(
                f"{name} is not what the config makes of it", where=where, hint="lexloom computes it and cannot take another"
            )
    return list(found)


def _is_tied(network: Network, row: Weight) -> bool:
    """True for a head's matrix that is an embedding's own: it is not stored twice."""
    embedding = network.backbone.output_embedding
    own = dict(network.named_parameters(remove_duplicate=False))
    return embedding is not None and any(own.get(n) is embedding.weight for n in row.own if n.startswith("heads."))


def _own_spelling(network: Network, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names that the table expects: old endings renamed, the backbone's prefix added or taken away."""
    kind = type(network.backbone)
    found = {}
    for name, tensor in tensors.items():
        for old, new in kind.ALIASES:
            if name.endswith(old):
                name = name[: -len(old)] + new
        found[name] = tensor
    wanted = {name for row in network.table() for name in row.theirs}
    return {_prefixed(name, kind.PREFIX, wanted): tensor for name, tensor in found.items()}


def _prefixed(name: str, prefix: str, wanted: set[str]) -> str:
    if name in wanted:
        return name
    if prefix + name in wanted:
        return prefix + name
    return name.removeprefix(prefix) if name.removeprefix(prefix) in wanted else name


def to_disk(network: Network, masters: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The network's tensors under their names on disk, contiguous, tied ones once.

    Args:
        masters: own name -> tensor to store in the place of the network's own copy (the optimizer's fp32 masters).
    """
    state = {**network.state_dict(), **(masters or {})}
    found: dict[str, Tensor] = {}
    for row in network.table():
        if not _is_tied(network, row):
            own = [state[name] for name in row.own]
            tensors = row.to_theirs(own) if row.to_theirs else own
            found.update({name: t.detach().contiguous().clone() for name, t in zip(row.theirs, tensors, strict=True)})
    return found


def save(network: Network, folder: Path, masters: Mapping[str, Tensor] | None = None) -> None:
    """Writes `model.safetensors` as `save_pretrained` of the class in `transformers` does: same key set, same metadata.

    Of a network that `transformers` has not, `lexloom.safetensors`.
    """
    tensors, single = to_disk(network, masters), SINGLE if type(network.backbone).WEIGHTS else OWN
    tensors |= {} if network.heads else network.backbone.fixed()
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    if total <= SHARD_BYTES:
        files.write_bytes(folder / single, to_bytes(tensors, metadata={"format": "pt"}))
        return
    groups = _groups(tensors)
    stem = single.removesuffix(".safetensors")
    names = [f"{stem}-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
    for name, group in zip(names, groups, strict=True):
        files.write_bytes(folder / name, to_bytes({n: tensors[n] for n in group}, metadata={"format": "pt"}))
    places = {n: name for name, group in zip(names, groups, strict=True) for n in group}
    files.write_json(folder / _index(single), {"metadata": {"total_size": total}, "weight_map": places})


def _groups(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        n = tensor.numel() * tensor.element_size()
        if groups[-1] and size + n > SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += n
    return groups
