"""What a model folder says of its model: which architecture, of what sizes, with which heads, labels, task and ways to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lexloom import files
from lexloom.errors import FormatError, WeightsError
from lexloom.models.base import ARCHITECTURES, Architecture, Network

OWN, GENERATION = "lexloom.json", "generation_config.json"
# Settings on disk that change what a network computes, and the only values this version computes.
_SUPPORTED = {"position_embedding_type": ("absolute", None), "is_decoder": (False, None), "add_cross_attention": (False, None)}


@dataclass(frozen=True)
class Folder:
    """The texts of a model folder, read and checked; its weights and its tokenizer are read by others.

    Attributes:
        kind, config: the architecture and its sizes.
        extra: settings of `config.json` that lexloom does not use.
        roles: of the heads that `architectures` names.
        labels: names of the classes in the order of their ids, made up where the folder has none.
        own: `lexloom.json`, empty where there is none.
        generation: `generation_config.json`, None where there is none.
    """

    path: Path
    kind: type[Architecture]
    config: Any
    extra: dict[str, Any]
    roles: frozenset[str]
    labels: list[str]
    own: dict[str, Any]
    generation: dict[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> Folder:
        """Opens what `lexloom`, `transformers` or `sentence-transformers` saved.

        Raises:
            WeightsError: no such folder, or an architecture lexloom does not have.
            FormatError: a file is damaged, or a newer lexloom wrote it.
        """
        settings = settings_of(path)
        kind = _architecture(settings, path)
        config, extra = _split(kind, settings)
        return cls(path, kind, config, extra, _roles(kind, settings), _labels(settings), _own(path), _generation(path))

    @property
    def classes(self) -> int:
        """How many labels a head for classes has."""
        return len(self.labels) or 2


def settings_of(path: Path) -> dict[str, Any]:
    """`config.json` of a folder; raises as `Folder.read` does."""
    if not (path / "config.json").is_file():
        hint = "a run's bundle lies in RUN/…/bundle" if path.is_dir() else None
        raise WeightsError("this is not a model folder: it has no config.json", where=str(path), hint=hint)
    found = files.read_json(path / "config.json", kind="model config", max_bytes=1 << 24)
    if not isinstance(found, dict):
        raise FormatError("config.json is not a mapping", where=str(path))
    return found


def planned(path: Path) -> dict[frozenset[str], Network]:
    """Every network that `config.json` could mean, without storage, by the roles of its heads; the one that it names is the first.

    Raises:
        WeightsError: no such folder, or an architecture lexloom does not have.
    """
    found = Folder.read(path)
    order = [found.roles, *sorted(set(found.kind.ROLES) - {found.roles}, key=lambda roles: (-len(roles), sorted(roles)))]
    return {roles: Network.planned(found.kind, found.config, roles, labels=found.classes) for roles in order}


def _architecture(settings: Mapping[str, Any], path: Path) -> type[Architecture]:
    where = str(path / "config.json")
    for name, allowed in _SUPPORTED.items():
        if settings.get(name) not in allowed and name in settings:
            raise WeightsError(f"{name} is not supported", expected=str(allowed[0]), got=str(settings[name]), where=where)
    for name in ARCHITECTURES.names():
        if settings.get("model_type") == ARCHITECTURES.get(name).MODEL_TYPE:
            return ARCHITECTURES.get(name)
    known = ", ".join(ARCHITECTURES.names())
    raise WeightsError("lexloom does not have this architecture", expected=known, got=str(settings.get("model_type")), where=where)


def _split(kind: type[Architecture], settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    known = set(kind.Config.model_fields)
    config = kind.Config.read({name: value for name, value in settings.items() if name in known})
    ours = {"model_type", "architectures", "id2label", "label2id", "problem_type", "dtype", "torch_dtype", "_name_or_path"}
    return config, {name: value for name, value in settings.items() if name not in known | ours}


def _roles(kind: type[Architecture], settings: Mapping[str, Any]) -> frozenset[str]:
    classes = {name: roles for roles, name in kind.ROLES.items()}
    named = (settings.get("architectures") or [None])[0]
    return classes.get(named, frozenset()) if isinstance(named, str) else frozenset()


def _labels(settings: Mapping[str, Any]) -> list[str]:
    names = settings.get("id2label")
    if isinstance(names, Mapping) and names:
        return [str(names.get(str(i), names.get(i, f"LABEL_{i}"))) for i in range(len(names))]
    return [f"LABEL_{i}" for i in range(min(int(settings.get("num_labels", 2)), 100_000))]


def _own(path: Path) -> dict[str, Any]:
    if not (path / OWN).is_file():
        return {}
    found = files.read_json(path / OWN, kind="bundle description")
    files.check_format(found, path / OWN)
    return dict(found)


def _generation(path: Path) -> dict[str, Any] | None:
    if not (path / GENERATION).is_file():
        return None
    found = files.read_json(path / GENERATION, kind="generation config", max_bytes=1 << 20)
    if not isinstance(found, dict):
        raise FormatError(f"{GENERATION} is not a mapping", where=str(path))
    return found
