"""Settings: frozen, unknown keys refused, every mistake at once with file:line, the nearest name and the peer's name.

Files are YAML 1.2 (core schema: `no` is text, `1e-3` a number, dates are text), JSON being part of it.
Each component has its own small Config.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from lexloom.errors import ConfigError, LexloomError, nearest

Place = tuple[str | int, ...]
MAX_BYTES, MAX_NODES = 1 << 20, 50_000
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "timestamp", "value", "merge")}
_CONSTANTS = {"true": True, "false": False, "null": None, "~": None, "": None}

PEER_NAMES = {
    "num_train_epochs": "epochs",
    "max_epochs": "epochs",
    "n_epochs": "epochs",
    "max_seq_length": "length",
    "max_length": "length",
    "max_seq_len": "length",
    "block_size": "length",
    "lr": "learning_rate",
    "alpha": "learning_rate",
    "per_device_train_batch_size": "batch_tokens",
    "train_batch_size": "batch_tokens",
    "batch_size": "batch_tokens",
    "gradient_accumulation_steps": "micro_batch_tokens",
    "gradient_checkpointing": "recompute",
    "activation_checkpointing": "recompute",
    "fsdp": "shard",
    "max_steps": "steps",
    "num_warmup_steps": "warmup",
    "warmup_steps": "warmup",
    "warmup_ratio": "warmup",
    "lr_scheduler_type": "schedule",
    "max_grad_norm": "clip",
    "gradient_clip_val": "clip",
    "mlm_probability": "rate",
    "early_stopping_patience": "patience",
    "load_best_model_at_end": "keep",
    "model_name_or_path": "from",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "test_file": "data.test",
    "text_column": "columns.text",
    "label_column": "columns.label",
    "vector_size": "dim",
    "num_labels": "data (labels are read from it)",
    "n_layer": "layers",
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "fp16": "dtype",
    "bf16": "dtype",
    "output_dir": "--out",
}


class Config(BaseModel):
    """Base of every Config: frozen, strict about types, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=(), populate_by_name=True, allow_inf_nan=False)

    @classmethod
    def read(cls, value: Any, document: Document | None = None, place: Place = ()) -> Self:
        """Builds the Config from plain data.

        Raises:
            ConfigError: one or many problems, each with its place in `document`.
        """
        found, problems = attempt(cls, value, document, place)
        if problems:
            raise ConfigError.together(problems)
        return found

    def plain(self) -> dict[str, Any]:
        """JSON-like values under the names that a recipe uses; reading them back gives an equal Config."""
        return self.model_dump(mode="json", by_alias=True)


C = TypeVar("C", bound=Config)


@dataclass
class Document:
    """A settings file as plain data, with the line and the raw text of every value."""

    path: str
    data: Any
    lines: dict[Place, tuple[int, int]] = field(default_factory=dict)
    raw: dict[Place, str] = field(default_factory=dict)

    def where(self, place: Place) -> str:
        """`file:line:column` of a value, or of the nearest thing around it."""
        for end in range(len(place), 0, -1):
            if origin := self.raw.get((*place[:end], "--set")):
                return f"--set {origin}"
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                line, column = self.lines[place[:end]]
                return f"{self.path}:{line}:{column}"
        return self.path

    def forget(self, place: Place) -> None:
        """Drops the lines and raw texts of a value that is replaced, and of all inside it."""
        for known in (self.lines, self.raw):
            for old in [old for old in known if old[: len(place)] == place]:
                del known[old]


def load(path: Path | str) -> Document:
    """Reads a YAML or JSON file.

    Raises:
        ConfigError: it is missing, too large, no UTF-8, no YAML, or a key stands twice.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError("this settings file is too large", expected=f"at most {MAX_BYTES} bytes", where=str(path))
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("this file does not exist", where=str(path), hint=_sibling(path)) from None
    except IsADirectoryError:
        raise ConfigError("this is a folder, not a settings file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError("this settings file is not UTF-8", got=str(error), where=str(path)) from None
    except (OSError, ValueError) as error:
        raise ConfigError("this settings file cannot be read", got=str(error), where=str(path)) from None
    return parse(text, str(path))


def parse(text: str, path: str = "<text>") -> Document:
    """Reads YAML 1.2 or JSON text; see `load`."""
    try:
        yaml = YAML(typ="safe", pure=True)
        node = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ConfigError("this is not valid YAML", got=str(error.problem or error.context), where=where) from None
    except ReaderError as error:
        line, start = text.count("\n", 0, error.position) + 1, text.rfind("\n", 0, error.position)
        got, where = f"the character {text[error.position : error.position + 1]!r}", f"{path}:{line}:{error.position - start}"
        raise ConfigError("this is not valid YAML", got=got, where=where) from None
    except (YAMLError, RecursionError) as error:
        raise ConfigError("this is not valid YAML", got=str(error)[:200], where=path) from None
    document = Document(path, None)
    document.data = {} if node is None else _Reader(document).read(node, ())
    return document


class _Reader:
    """Turns YAML nodes into plain values by the core schema of YAML 1.2, keeping lines and raw text."""

    def __init__(self, document: Document) -> None:
        self.document, self.nodes = document, 0

    def read(self, node: Node, place: Place) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES or len(place) > 60:
            raise ConfigError("this settings file is too deep or refers to itself too often", where=self.document.path)
        self.document.lines.setdefault(place, _mark(node))
        if node.tag not in _TAGS:
            raise self.error("tags are not used here", node, got=node.tag)
        if isinstance(node, MappingNode):
            return self.mapping(node, place)
        if isinstance(node, SequenceNode):
            return [self.read(child, (*place, i)) for i, child in enumerate(node.value)]
        return self.scalar(node, place)

    def mapping(self, node: MappingNode, place: Place) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = self.scalar(key_node, (*place, "?")) if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str | int | float) or isinstance(key, bool):
                raise self.error("keys are words or numbers", key_node)
            if str(key) in seen:
                raise self.error(f"the key {key!r} stands twice", key_node)
            seen.add(str(key))
            self.document.lines[(*place, str(key))] = _mark(key_node)
            found[key] = self.read(value_node, (*place, str(key)))
        return found

    def scalar(self, node: Node, place: Place) -> Any:
        text = node.value
        self.document.raw[place] = text
        if not isinstance(node, ScalarNode) or node.style in ("'", '"', "|", ">"):
            try:
                # JSON writes a character beyond the first 65,536 as two escapes, which YAML leaves apart.
                return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                raise self.error("this text holds half a character (a lone surrogate)", node) from None
        try:
            return plain_scalar(text)
        except ValueError:
            raise self.error("this number is too long", node) from None

    def error(self, problem: str, node: Node, got: str | None = None) -> ConfigError:
        line, column = _mark(node)
        return ConfigError(problem, got=got, where=f"{self.document.path}:{line}:{column}")


def _mark(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def plain_scalar(text: str) -> Any:
    """An unquoted scalar by the core schema of YAML 1.2."""
    if text.lower() in _CONSTANTS and (text.islower() or text.istitle() or text.isupper() or not text.strip("~")):
        return _CONSTANTS[text.lower()]
    if _INTEGER.match(text):
        return int(text.replace("_", ""), 0) if text[:2] in ("0o", "0x") else int(text.replace("_", ""))
    if _FLOAT.match(text):
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def override(document: Document, settings: Sequence[str]) -> None:
    """Applies `a.b=c` settings to a document in place; values are read as YAML.

    Raises:
        ConfigError: a setting has no `=`, or goes through something that is no mapping and no list that long.
    """
    for setting in settings:
        name, equals, text = setting.partition("=")
        parts = name.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError("settings are written a.b=value", got=setting, where="--set")
        value = parse(text, f"--set {setting}").data if text.strip() else None
        value = None if value == {} and not text.strip().startswith("{") else value
        _assign(document, parts, value, setting)


def _assign(document: Document, parts: list[str], value: Any, setting: str) -> None:
    here: Any = document.data
    place: Place = ()
    for i, part in enumerate(parts):
        key = _key(here, part, ".".join(parts[:i]) or "this", setting)
        place = (*place, key if isinstance(here, list) else part)
        if i == len(parts) - 1:
            here[key] = value
        elif isinstance(here, dict) and here.get(key) is None:
            here[key] = {}
        here = here[key]
    document.forget(place)
    document.raw[place] = setting.partition("=")[2]
    document.raw[(*place, "--set")] = setting


def _key(here: Any, part: str, name: str, setting: str) -> Any:
    """The key or index that `part` stands for in a mapping (whose keys may be numbers) or list."""
    if isinstance(here, dict):
        return next((key for key in here if str(key) == part), part)
    if not isinstance(here, list):
        raise ConfigError(f"{name} has no keys", got=setting, where="--set")
    if not part.isdecimal() or int(part[:9]) >= len(here):
        expected = f"0 to {len(here) - 1} in place of {part}" if here else None
        raise ConfigError(f"{name} is a list of {len(here)}", expected=expected, got=setting, where="--set")
    return int(part)


def attempt(kind: type[C], value: Any, document: Document | None = None, place: Place = ()) -> tuple[C, list[LexloomError]]:
    """The Config or the list of everything wrong with it, so that a caller can collect over many Configs."""
    try:
        text = json.dumps(value, default=str)
        return kind.model_validate_json(text), []
    except ValidationError as error:
        entries = _merged(json.loads(text), error.errors())
        return None, [_translate(kind, entry, document, place) for entry in entries]  # type: ignore[return-value]


def _merged(value: Any, entries: Sequence[Any]) -> list[Any]:
    """The errors by place in `value`: what pydantic says once for each member of a union is said once.

    Where a value has one member's type, errors inside it tell more than that it has not the other members' type.
    """
    by_place: dict[tuple[Place, str], Any] = {}
    for entry in entries:
        place = _place_in(value, entry)
        special = entry["type"] if entry["type"] in ("extra_forbidden", "missing") else ""
        first = by_place.setdefault((place, special), {**entry, "place": place, "expected": []})
        if (expected := _expected(entry)) not in first["expected"]:
            first["expected"].append(expected)
    around = {place[:end] for place, _ in by_place for end in range(len(place))}
    return [entry for (place, _), entry in by_place.items() if place not in around]


def _place_in(value: Any, entry: Any) -> Place:
    """Where in `value` an error is, without the names of a union's members that pydantic puts between."""
    place: Place = ()
    location = entry["loc"]
    for i, part in enumerate(location):
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value, place = value[part], (*place, part)
        elif entry["type"] == "missing" and i == len(location) - 1:
            place = (*place, part)
    return place


def _translate(kind: type[BaseModel], entry: Any, document: Document | None, place: Place) -> ConfigError:
    path: Place = (*place, *entry["place"])
    where = document.where(path) if document else ".".join(map(str, path)) or kind.__name__
    name = ".".join(map(str, path)) or "this"
    got = document.raw.get(path, repr(entry["input"])) if document else repr(entry["input"])
    if entry["type"] == "extra_forbidden":
        return _unknown_key(kind, entry["loc"], name, where)
    if entry["type"] == "missing":
        return ConfigError(f"{name} is missing", where=where)
    expected = " or ".join(entry["expected"])
    return ConfigError(f"{name} is not right", expected=expected, got=f"{got}"[:200], where=where, hint=_value_hint(entry))


def _unknown_key(kind: type[BaseModel], location: Place, name: str, where: str) -> ConfigError:
    key, known = str(location[-1]), sorted(set(_fields_at(kind, location[:-1])))
    peer = PEER_NAMES.get(key)
    guess = peer if peer and (peer.split(".")[0] in known or not known or " " in peer) else nearest(key, known)
    hint = f"did you mean {guess!r}?" if guess else (f"lexloom calls this {peer!r}" if peer else None)
    return ConfigError(f"there is no setting {name!r}", expected=", ".join(known), where=where, hint=hint)


def _fields_at(kind: Any, location: Place) -> list[str]:
    """The settings that may stand at a place below a Config; none where that place is no Config."""
    found = [kind]
    for part in location:
        found = [inner for one in found for inner in _inner(one, part)]
    models = [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]
    return [info.alias or name for model in models for name, info in model.model_fields.items()]


def _inner(kind: Any, part: str | int) -> list[Any]:
    """The types of what stands under `part`: a field of a Config, an entry of a mapping or a list; unions give several.

    Where pydantic names the chosen member of a union in a place, that part is passed over.
    """
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            if part in (name, info.alias):
                return _members(info.annotation)
        return [kind] if part == kind.__name__ else []
    arguments = getattr(kind, "__args__", ())
    if getattr(kind, "__origin__", None) in (dict, list) and arguments:
        return [kind] if isinstance(part, str) and part.startswith("list[") else _members(arguments[-1])
    return []


def _members(annotation: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    if isinstance(annotation, UnionType) or getattr(annotation, "__origin__", None) is Union:
        return list(annotation.__args__)
    return [annotation]


_WORDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "dict_type": "a mapping (key: value lines)",
    "list_type": "a list",
    "model_type": "a mapping (key: value lines)",
    "model_attributes_type": "a mapping (key: value lines)",
    "path_type": "a path",
}


def _expected(entry: Any) -> str:
    if entry["type"] in _WORDS:
        return _WORDS[entry["type"]]
    message = str(entry["msg"])
    return re.sub(r"^(Input should be |Value error, )", "", message)


def _value_hint(entry: Any) -> str | None:
    value = entry["input"]
    if entry["type"] == "bool_type" and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off", "y", "n"):
        right = "true" if value.lower() in ("yes", "on", "y") else "false"
        return f"YAML 1.2 reads {value} as text: write {right}"
    if entry["type"] == "string_type" and isinstance(value, bool | int | float):
        return "put it in quotes to make it text"
    if entry["type"] in ("float_type", "int_type") and isinstance(value, str):
        return "take the quotes away" if _FLOAT.match(value) else None
    if entry["type"] == "literal_error" and isinstance(value, str):
        allowed = re.findall(r"'([^']*)'", entry["ctx"]["expected"])
        guess = nearest(value, allowed)
        return f"did you mean {guess!r}?" if guess else None
    return None


def _sibling(path: Path) -> str | None:
    try:
        guess = nearest(path.name, [p.name for p in path.parent.iterdir()])
    except OSError:
        return None
    return f"did you mean {path.with_name(guess)}?" if guess else None


_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def _count(value: Any) -> Any:
    """`100M` -> 100000000; whole floats such as 1e6 too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGbB])", value)):
        return round(float(match[1]) * _SUFFIXES[match[2].lower()])
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a count such as 20000, 20k or 100M")
    return value


def _duration(value: Any) -> Any:
    """`2h` -> 7200.0 seconds; `90m`, `30s`, `1d` and plain seconds too."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d)", value) if isinstance(value, str) else None
    if not match:
        raise ValueError("a duration such as 90s, 30m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


Count = Annotated[int, BeforeValidator(_count)]
"""A non-negative whole number; `20k` and `100M` are understood."""
Duration = Annotated[float, BeforeValidator(_duration)]
"""Seconds; `90s`, `30m`, `2h` and `1d` are understood."""
