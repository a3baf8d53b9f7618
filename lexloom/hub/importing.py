"""Import: a folder of other tools becomes a bundle, and what became of each tensor is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lexloom import files
from lexloom.console import one_line
from lexloom.errors import WeightsError
from lexloom.hub import foreign, pickled, weights
from lexloom.hub.bundle import Bundle
from lexloom.hub.folder import planned
from lexloom.vectors import fasttext_file
from lexloom.vectors.keyed import WordVectors, ending_of

SHOWN = 8


@dataclass
class Imported:
    """What `lexloom import` says.

    Attributes:
        opens_as: the class of `transformers` that the bundle opens as.
        used: how many tensors of the source went into it.
        renamed: name in the bundle -> name in the source, where it was another one.
        left: names in the source that went nowhere. missing: names that a head which was left out would have needed.
        made: what no file held and was made up, in words.
    """

    bundle: str
    source: str
    opens_as: str
    used: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return dict(vars(self))

    def __str__(self) -> str:
        """A few lines; long lists of names are cut."""
        lines = [f"{self.bundle}: opens as {self.opens_as}; {self.used:,} tensors of {self.source}"]
        lines += [f"renamed: {_some([f'{old} -> {new}' for new, old in self.renamed.items()])}"] if self.renamed else []
        lines += [f"left out: {_some(self.left)}"] if self.left else []
        lines += [f"a head was left out, since these are missing: {_some(self.missing)}"] if self.missing else []
        return "\n".join([*lines, *(f"made up: {made}" for made in self.made)])


def import_folder(source: Path, out: Path) -> Imported:
    """Writes a bundle out of a folder with `config.json`, tokenizer and weights: safetensors, else PyTorch's own files; of fastText's
    word vectors a file of the kind that the ending of `out` says.

    The bundle has the heads that the config names; where tensors of these are missing, those of the largest set that is whole.

    Args:
        source: the folder, or the file of weights in it.

    Raises:
        WeightsError: no such architecture, or its backbone is not whole.
        FormatError: a file is damaged, or holds something else than tensors.
        LexloomError: there is a folder with other files at `out`.
    """
    if source.is_file() and fasttext_file.is_one(source):
        return _vectors(source, out)
    folder = source if source.is_dir() else source.parent
    paths = [pickled.checked(source)] if source.is_file() else None
    networks = planned(folder)
    named = next(iter(networks))
    raw = _tensors(folder, paths)
    kind = type(networks[named].backbone)
    known = {name for network in networks.values() for row in network.table() for name in row.theirs}
    known |= {name.removeprefix(kind.PREFIX) for name in known}
    tensors, was, made = foreign.renamed(raw.tensors, kind.MODEL_TYPE, known)
    lacking = {roles: weights.lacking(network, tensors) for roles, network in networks.items()}
    roles = next((roles for roles, names in lacking.items() if not names), None)
    if roles is None:
        least = min(lacking.values(), key=len)
        got = f"{len(tensors)} tensors: {_some(sorted(tensors))}"
        hint = "is this another architecture than config.json says, or a part of a larger model?"
        raise WeightsError("weights are missing", expected=_some(least), got=got, where=str(source), hint=hint)
    opened = Bundle.load(folder, roles=roles, tensors=tensors)
    opened.about = {"imported": {"from": source.name, "files": {path.name: files.digest(path) for path in paths or _paths(folder)}}}
    opened.save(out)
    left = [was.get(name, name) for name in opened.loaded.unused] + [name for name in raw.tensors if _lost(name, was, tensors)] + raw.left
    renamed = {new: old for new, old in was.items() if new not in opened.loaded.unused}
    told = Imported(str(out), str(source), networks[roles].class_name, len(opened.loaded.used) - len(made), renamed, left)
    told.missing, told.made = lacking[named], made
    return told


def _vectors(source: Path, out: Path) -> Imported:
    """Word vectors, with their n-grams where the kind of file has room for these."""
    ending, wv = ending_of(out), WordVectors.load(source)
    wv.save(out)
    parts = ["vectors of words"] if wv.ngrams is None or ending not in (".safetensors", ".bin") else ["words", "n-grams"]
    left = [] if ending == ".bin" else ["output matrix"] + (["n-grams"] if wv.ngrams is not None and len(parts) < 2 else [])
    return Imported(str(out), str(source), "lexloom.WordVectors", len(parts), left=left)


def _tensors(folder: Path, paths: list[Path] | None) -> pickled.Unpickled:
    if paths is None and weights.has_weights(folder):
        return pickled.Unpickled(weights.read_tensors(folder))
    if paths is not None and paths[0].suffix == ".safetensors":
        return pickled.Unpickled(weights.read_file(paths[0]))
    return pickled.unpickle(paths or pickled.weight_files(folder))


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) if weights.has_weights(folder) else pickled.weight_files(folder)


def _lost(name: str, was: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tensor of the source gave way to another one that came under the same name."""
    return name not in tensors and name not in set(was.values())


def _some(names: list[str]) -> str:
    more = f" … and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return one_line(", ".join(names[:SHOWN])) + more
