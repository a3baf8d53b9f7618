"""What an architecture is: config, network, heads by role, and the table of its weights' names on disk.

Letters: B rows, T tokens, D width, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lexloom import keys
from lexloom.config import Config
from lexloom.errors import ConfigError, WeightsError
from lexloom.nn.cache import Cache
from lexloom.nn.step import DecoderStep
from lexloom.nn.unset import Unset
from lexloom.registry import Registry

_ENDS = ("weight", "bias")


@dataclass
class Output:
    """What an encoder or decoder returns; extras are None unless asked for. Of an encoder–decoder it is the decoder's."""

    hidden: Tensor  # (B, T, D)
    pooled: Tensor | None = None  # (B, D)
    layers: tuple[Tensor, ...] | None = None  # L + 1 of (B, T, D), the embeddings first
    forward: Tensor | None = None  # (B, T, P), of a two-way network: states that have seen what stands before, and the token itself
    backward: Tensor | None = None  # (B, T, P), that have seen the token and what stands behind
    encoder: Tensor | None = None  # (B, S, D), of an encoder–decoder that has read its source in this pass
    encoder_layers: tuple[Tensor, ...] | None = None  # L + 1 of (B, S, D)


@dataclass(frozen=True)
class Weight:
    """One row of a weight table: tensors under their names on disk and under ours, with `{i}` for the number of a block.

    `to_own` turns the tensors on disk into ours, `to_theirs` is its inverse; None where they are the same.
    """

    theirs: tuple[str, ...]
    own: tuple[str, ...]
    to_own: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None
    to_theirs: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None
    when: str = "always"  # one of the architecture's `conditions`


def same(theirs: str, own: str) -> Weight:
    """A tensor that differs in name only."""
    return Weight((theirs,), (own,))


def fused(theirs: Sequence[str], own: str) -> Weight:
    """Tensors of equal shape on disk that are one tensor here, joined along the first dimension."""
    n = len(theirs)
    return Weight(tuple(theirs), (own,), lambda ts: [torch.cat(list(ts))], lambda ts: list(ts[0].chunk(n)))


def stored_twice(theirs: tuple[str, str], own: str, *, when: str) -> Weight:
    """A tensor that stands on disk under two names, of which the class there reads the first."""
    return Weight(theirs, (own,), lambda ts: ts[:1], lambda ts: [ts[0], ts[0]], when)


def layer(theirs: str, own: str) -> list[Weight]:
    """The weight and the bias of a layer or norm that differ in name only; a network without that bias has no such row."""
    return [same(f"{theirs}.{end}", f"{own}.{end}") for end in _ENDS]


def fused_layer(theirs: Sequence[str], own: str) -> list[Weight]:
    """The weight and the bias of one layer, which on disk are those of several."""
    return [fused([f"{name}.{end}" for name in theirs], f"{own}.{end}") for end in _ENDS]


class Architecture(nn.Module):
    """A network in one file. A subclass sets the class attributes, builds itself in `__init__`, and runs in `forward`."""

    Config: ClassVar[type[Config]]
    MODEL_TYPE: ClassVar[str]  # `model_type` of config.json
    ABILITIES: ClassVar[frozenset[str]]  # of: encoder, decoder, two-way, cross-attention, images
    ROLES: ClassVar[Mapping[frozenset[str], str]]  # set of head roles -> class in transformers
    PREFIX: ClassVar[str] = ""  # what stands before the backbone's names when there are heads
    WEIGHTS: ClassVar[Sequence[Weight]] = ()  # of the backbone; names on disk without PREFIX. None: of own type, under own names
    HEAD_WEIGHTS: ClassVar[Mapping[str, Sequence[Weight]]] = {}  # by role; names on disk in full
    # Roles whose heads go on from a bundle's.
    KEPT: ClassVar[frozenset[str]] = frozenset({"masked-lm", "next-sentence", "causal-lm", "seq-to-seq"})
    ALIASES: ClassVar[Sequence[tuple[str, str]]] = ()  # old endings on disk -> new ones
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    TINY: ClassVar[Mapping[str, Any]] = {}  # settings of a network for tests

    config: Any
    blocks: nn.ModuleList
    embedding: nn.Embedding | None

    def __init__(self, config: Any, *, pooler: bool = True) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def fitted(cls, model: Mapping[str, Any], *, length: int, vocabulary: int, ids: Mapping[str, int | None]) -> dict[str, Any]:
        """A recipe's settings, with what text and tokenizer decide under the names that this Config has for it.

        Args:
            model: what the recipe says; it may ask for more positions than training needs.
            length: T, the longest row of training.
            vocabulary: V.
            ids: role of a special token (`pad`, `cls`, …) -> its id, or None where there is no such token; empty where there is no
                tokenizer yet. Each is `<role>_token_id` of the Config, if that has it.
        """
        special = {f"{role}_token_id": number for role, number in ids.items() if f"{role}_token_id" in cls.Config.model_fields}
        return {"max_position_embeddings": length, **model, "vocab_size": vocabulary, **special}

    def forward(self, batch: Mapping[str, Tensor], *, layers: bool = False) -> Output:
        """Runs the network on a batch; `layers` asks for every layer's states."""
        raise NotImplementedError

    def head(self, role: str, labels: int) -> nn.Module:
        """A new head for a role; `labels` is the number of classes where that means something."""
        raise NotImplementedError

    @classmethod
    def reads(cls, config: Any) -> frozenset[str]:
        """What a batch must have: `input_ids`, or also the `characters` of words."""
        return frozenset({"input_ids"})

    @classmethod
    def check_rows(cls, config: Any, fills: Iterable[str], *, where: str | None = None) -> None:
        """Whether rows of a tokenizer have what the network reads.

        Raises:
            ConfigError: they have not.
        """
        if missing := cls.reads(config) - set(fills):
            hint = "tokenizer: {kind: word, characters: 50}" if "characters" in missing else None
            what = f"{cls.MODEL_TYPE} reads {', '.join(sorted(missing))} of words, which this tokenizer does not give"
            raise ConfigError(what, where=where, hint=hint)

    def constant(self, name: str) -> float | Tensor | None:
        """What a weight of the network starts as where it is not drawn: biases at 0, norms at 1; None where it is."""
        return 0.0 if name.endswith("bias") else 1.0 if "norm" in name.rsplit(".", 2)[-2] else None

    def spread(self, name: str) -> float:
        """The standard deviation that a weight of the network starts with: the same for all, unless the architecture knows better."""
        return float(getattr(self.config, "initializer_range", 0.02))

    def imitate(self, seed: int) -> None:
        """Gives freshly drawn weights what trained networks of this kind have in common, where the architecture knows how."""
        raise ConfigError(f"{self.MODEL_TYPE} has no mimetic initialization", hint="set initialization: normal")

    @property
    def conditions(self) -> frozenset[str]:
        """Which rows of the weight tables hold for this config, by their `when`."""
        return frozenset({"always", "tied" if getattr(self.config, "tie_word_embeddings", False) else "untied"})

    @property
    def output_embedding(self) -> nn.Embedding | None:
        """Whose matrix a tied head shares."""
        return self.embedding

    def fixed(self) -> dict[str, Tensor]:
        """What the bare class stores though it follows from the config: name on disk without PREFIX -> tensor."""
        return {}

    def step(self) -> DecoderStep | None:
        """What one step of this decoder is made of, where those are the usual parts: then it is computed in one go if that is faster."""
        return None

    def cache(self, rows: int, length: int) -> Cache:
        """An empty cache for `rows` texts of at most `length` tokens, for `forward(batch, cache=…)` of a decoder.

        Raises:
            ConfigError: this is none.
        """
        raise ConfigError(f"{self.MODEL_TYPE} does not read token by token", expected="a decoder")

    @property
    def width(self) -> int:
        """D."""
        return int(self.config.hidden_size)

    @property
    def max_length(self) -> int:
        """The longest input, in tokens, special ones included; of a network without a table of positions what it was made for."""
        return int(self.config.max_position_embeddings)

    @property
    def depth(self) -> int:
        """Of how many layers `forward(layers=True)` gives the states, those of the embeddings not counted."""
        return len(self.blocks)

    @classmethod
    def pooled(cls, roles: frozenset[str]) -> bool:
        """Whether the class in `transformers` for these roles holds the pooler; there is none unless the architecture says so."""
        return False


ARCHITECTURES: Registry[type[Architecture]] = Registry("architecture", "ARCHITECTURES", "lexloom.models")


class Network(nn.Module):
    """A backbone and its heads by role: what is trained, saved and served."""

    def __init__(self, backbone: Architecture, heads: Mapping[str, nn.Module], labels: int = 2) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.labels = labels

    @classmethod
    def build(cls, kind: type[Architecture], config: Config, roles: Iterable[str], *, labels: int = 2, seed: int | None = None) -> Network:
        """Builds backbone and heads without touching any global random state.

        Args:
            roles: head roles; together they must be a key of the architecture's ROLES.
            labels: classes of the classification heads.
            seed: where given, every weight is drawn from (seed, its name); where None, the weights are empty and must be loaded.

        Raises:
            ConfigError: the architecture has no such set of roles.
        """
        network = cls.planned(kind, config, roles, labels=labels)
        network.to_empty(device="cpu")
        network.tie()
        if seed is not None:
            initialize(network, seed)
        return network

    @classmethod
    def planned(cls, kind: type[Architecture], config: Config, roles: Iterable[str], *, labels: int = 2) -> Network:
        """The same on the meta device: shapes without storage.

        Raises:
            ConfigError: the architecture has no such set of roles.
        """
        wanted = frozenset(roles)
        if wanted not in kind.ROLES:
            known = "; ".join(" + ".join(sorted(r)) or "none" for r in kind.ROLES)
            raise ConfigError(f"{kind.MODEL_TYPE} has no heads {' + '.join(sorted(wanted))}", expected=known)
        with torch.device("meta"), Unset():
            backbone = kind(config, pooler=kind.pooled(wanted))
            network = cls(backbone, {role: backbone.head(role, labels) for role in sorted(wanted)}, labels)
        network.tie()
        return network

    def tie(self) -> None:
        """Makes tied heads share the embedding's tensor."""
        for head in self.heads.values():
            if (tie := getattr(head, "tie", None)) is not None:
                tie(self.backbone.output_embedding)

    @property
    def roles(self) -> frozenset[str]:
        """The roles of its heads."""
        return frozenset(self.heads)

    def scores(self, role: str, states: Tensor) -> Tensor:
        """What a head makes of (…, D) states, in the head's own dtype: it may be finer than the backbone's."""
        head = self.heads[role]
        return head(states.to(next(head.parameters()).dtype))

    @property
    def class_name(self) -> str:
        """The class in `transformers` that opens this network's folder."""
        return type(self.backbone).ROLES[self.roles]

    def table(self) -> list[Weight]:
        """The weight table of this very network: blocks numbered, prefixes in place, absent parts left out."""
        kind, own = type(self.backbone), set(self.state_dict())
        if not kind.WEIGHTS:
            return [same(name, name) for name in sorted(own)]
        prefix = kind.PREFIX if self.heads else ""
        rows = [_placed(row, i, prefix) for row in kind.WEIGHTS for i in _numbers(row, len(self.backbone.blocks))]
        rows += [row for role in self.heads for row in kind.HEAD_WEIGHTS[role]]
        return [row for row in rows if row.when in self.backbone.conditions and all(name in own for name in row.own)]

    def with_heads(self, roles: Iterable[str], *, labels: int, seed: int) -> tuple[Network, list[str]]:
        """The same backbone under other heads; what both have keeps its weights.

        Returns:
            the new network, and the names of the parameters that are new.
        """
        other = Network.build(type(self.backbone), self.backbone.config, roles, labels=labels, seed=seed)
        mine, theirs = self.state_dict(), other.state_dict()
        fresh = tuple(f"heads.{role}." for role in other.roles - type(self.backbone).KEPT)
        shared = {n: t for n, t in mine.items() if n in theirs and theirs[n].shape == t.shape and not n.startswith(fresh)}
        other.load_state_dict(shared, strict=False)
        other.to(next(self.parameters()).dtype)
        return other, sorted(n for n, _ in other.named_parameters() if n not in shared)  # where it is tied, a matrix has one name


def _numbers(row: Weight, blocks: int) -> Iterable[int]:
    return range(blocks) if "{i}" in row.own[0] else range(1)


def _placed(row: Weight, i: int, prefix: str) -> Weight:
    theirs = tuple(prefix + name.replace("{i}", str(i)) for name in row.theirs)
    return replace(row, theirs=theirs, own=tuple("backbone." + name.replace("{i}", str(i)) for name in row.own))


def initialize(network: nn.Module, seed: int, *, only: Iterable[str] | None = None) -> None:
    """Draws every weight from (seed, its name): normal, as wide as the architecture's `spread` says, where it has no `constant` for it.

    A whole network whose config says `initialization: mimetic` is then given the starting values of its architecture's `imitate`.

    Raises:
        WeightsError: a parameter is still without storage.
    """
    backbone: Any = getattr(network, "backbone", network)
    chosen = None if only is None else set(only)
    for name, parameter in network.named_parameters():
        if chosen is not None and name not in chosen:
            continue
        if parameter.is_meta:
            raise WeightsError(f"{name} has no storage")
        with torch.no_grad():
            if (value := backbone.constant(name)) is not None:
                parameter.copy_(torch.as_tensor(value))
            else:
                parameter.copy_(normal(parameter.shape, seed, name, backbone.spread(name)))
    if only is None and getattr(backbone.config, "initialization", "normal") == "mimetic":
        backbone.imitate(seed)


def normal(shape: Sequence[int], seed: int, name: str, std: float) -> Tensor:
    """Normally distributed numbers as a function of (seed, name). Any shape, float32."""
    values = keys.normal(keys.key(seed, "init", name), int(np.prod(shape)))
    return torch.from_numpy((values * std).astype(np.float32)).reshape(tuple(shape))
