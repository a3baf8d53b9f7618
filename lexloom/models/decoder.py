"""A network as decoding wants it: new ids and a cache in, scores of the next token out.

Letters: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lexloom.batch import padded
from lexloom.errors import ConfigError, DataError
from lexloom.models.base import Network
from lexloom.nn.cache import Cache, SourceCache
from lexloom.nn.decoding.drawing import Choice
from lexloom.nn.linears import with_linears

if TYPE_CHECKING:
    from lexloom.nn.fused import FusedStep

ROLE, SOURCE_ROLE = "causal-lm", "seq-to-seq"
WRITING = frozenset({ROLE, SOURCE_ROLE})
"""Roles of networks that write text."""
FEW_ROWS = 32  # rows up to which a step is computed in one go
BURST, BURST_BYTES = 16, 1 << 31
"""The most tokens of a row that are found at once, and the most bytes of weights that are read for them: a wait of a twentieth of a second
or two, so that neither a stream of tokens nor who comes next is seen to wait."""
LEAN_FROM = 1_000_000  # weights from which products of their own kind are worth their compiling
_MADE: WeakKeyDictionary[Network, tuple[tuple[str, list[int]], Network | None, FusedStep | None]] = WeakKeyDictionary()


class _Stepping:
    """What decoders have in common that compute the next token of each row in one go, where the network has the parts for it."""

    def __init__(self, network: Network, role: str, max_length: int | None) -> None:
        self.network, self._step = _made(network.eval(), role)
        self.vocabulary: int = len(network.heads[role].weight)  # type: ignore[arg-type]
        self.max_length = min(network.backbone.max_length, max_length or network.backbone.max_length)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def burst(self, rows: int) -> int:
        """See `nn.decoding.InBursts`."""
        return 1 if self._step is None or rows > FEW_ROWS else min(BURST, max(1, BURST_BYTES // self._step.bytes))

    def ahead(self, ids: Tensor, cache: Cache, choice: Choice) -> tuple[Tensor, Tensor]:
        """See `nn.decoding.InBursts`."""
        assert self._step is not None
        return self._step.ahead(ids, cache, choice)

    def _next(self, ids: Tensor, mask: Tensor | None, cache: Cache) -> Tensor | None:
        """The scores of one token of each row in one go, or None where that is not to be had."""
        if self._step is None or ids.shape[1] != 1 or len(ids) > FEW_ROWS:
            return None
        scores = self._step(ids, cache)
        if mask is not None:  # padding leaves no trace: what it wrote, the next token of the row writes over
            cache.lengths -= (~mask[:, 0]).long()
        return scores


class CausalDecoder(_Stepping):
    """A `nn.decoding.Decoder` made of a backbone that reads token by token and its head for the next token.

    Args:
        max_length: the most tokens of a row, where that is less than what the network takes.

    Raises:
        ConfigError: the network has no such head, or is no decoder.
    """

    def __init__(self, network: Network, max_length: int | None = None) -> None:
        if "decoder" not in type(network.backbone).ABILITIES or ROLE not in network.heads:
            roles = ", ".join(sorted(network.roles)) or "none"
            raise ConfigError("this network does not go on with texts", expected=f"a decoder with a {ROLE} head", got=f"heads: {roles}")
        super().__init__(network, ROLE, max_length)

    def check_source(self, source: Any) -> None:
        """See `nn.decoding.Decoder.check_source`; it reads none."""
        if source is not None:
            raise DataError("a decoder without an encoder reads no source", expected="a prompt alone", got="a prompt and a source")

    def cache(self, rows: int, length: int, sources: Sequence[Any] | None = None) -> Cache:
        """See `nn.decoding.Decoder.cache`."""
        return self.network.backbone.cache(rows, length)

    def __call__(self, ids: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """See `nn.decoding.Decoder`."""
        if (scores := self._next(ids, mask, cache)) is not None:
            return scores
        batch = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
        return self.network.scores(ROLE, last(self.network.backbone(batch, cache=cache).hidden, mask))


class SourceDecoder(_Stepping):
    """A `nn.decoding.Decoder` made of an encoder–decoder and its head for the next token of a target.

    A request has the ids of a source, which the encoder reads once, and a prompt that begins with the token that begins a target.

    Args:
        max_length: the most tokens of a source and of a target each, where that is less than what the network takes.

    Raises:
        ConfigError: the network has no such head, or reads no source.
    """

    def __init__(self, network: Network, max_length: int | None = None) -> None:
        if "cross-attention" not in type(network.backbone).ABILITIES or SOURCE_ROLE not in network.heads:
            expected, roles = f"an encoder–decoder with a {SOURCE_ROLE} head", ", ".join(sorted(network.roles)) or "none"
            raise ConfigError("this network does not write a text for a text", expected=expected, got=f"heads: {roles}")
        super().__init__(network, SOURCE_ROLE, max_length)

    def check_source(self, source: Any) -> None:
        """See `nn.decoding.Decoder.check_source`."""
        embedding = self.network.backbone.embedding
        assert embedding is not None
        if source is None or not 0 < len(source) <= self.max_length:
            got = "none" if source is None or not len(source) else f"{len(source)} tokens"
            hint = "shorten it, or cut it into parts" if source is not None and len(source) else None
            raise DataError("the encoder cannot read this source", expected=f"1 to {self.max_length} tokens", got=got, hint=hint)
        if odd := [int(token) for token in source if not 0 <= token < embedding.num_embeddings]:
            raise DataError("a source has an id outside the vocabulary", expected=f"0 to {embedding.num_embeddings - 1}", got=str(odd[0]))

    def cache(self, rows: int, length: int, sources: Sequence[Any] | None = None) -> SourceCache:
        """See `nn.decoding.Decoder.cache`; sources are read in the first pass."""
        found = self.network.backbone.cache(rows, length)
        assert isinstance(found, SourceCache)
        if sources is not None:
            batch = padded([{"input_ids": source} for source in sources], {"input_ids": 0})
            kept = batch if not batch["attention_mask"].all() else {"input_ids": batch["input_ids"]}
            found.unread = {name: tensor.to(self.device) for name, tensor in kept.items()}
        return found

    def __call__(self, ids: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """See `nn.decoding.Decoder`."""
        assert isinstance(cache, SourceCache)
        if not cache.unread and cache.sources and (scores := self._next(ids, mask, cache)) is not None:
            return scores
        batch = {"decoder_input_ids": ids, **cache.unread} | ({} if mask is None else {"decoder_attention_mask": mask})
        cache.unread = {}
        return self.network.scores(SOURCE_ROLE, last(self.network.backbone(batch, cache=cache).hidden, mask))


def last(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, D) states -> (B, D), those of the last token of each row; `mask` (B, T) is False at padding, None where there is none."""
    if mask is None:
        return hidden[:, -1]
    places = torch.arange(mask.shape[1], device=mask.device)
    return hidden[torch.arange(len(hidden), device=hidden.device), torch.where(mask, places, 0).amax(1)]


def _made(network: Network, role: str) -> tuple[Network, FusedStep | None]:
    """The lean form of a network, and its step in one go; made once, as long as its weights stay where they are in memory."""
    where = role, [tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())]
    kept = _MADE.get(network)
    if kept is None or kept[0] != where:
        slim = lean(network)
        kept = where, None if slim is network else slim, _fused(slim, role)  # a network that its own entry held would never be let go
        _MADE[network] = kept
    _, found, step = kept
    return network if found is None else found, step


def lean(network: Network) -> Network:
    """The network for one token at a time: on a CPU and in float32 with products made for few rows, else as it is.

    Its weights are the network's own, in the same memory.
    """
    first = next(network.parameters())
    if first.device.type != "cpu" or first.dtype != torch.float32 or sum(p.numel() for p in network.parameters()) < LEAN_FROM:
        return network
    from lexloom.nn.few_rows import FewRowsLinear  # brings a compiler, which small networks can do without

    return with_linears(network, FewRowsLinear)


def _fused(network: Network, role: str) -> FusedStep | None:
    """One step of the network in one go, where it is made of the layers that have kernels."""
    step, head = network.backbone.step(), network.heads[role]
    if step is None or not hasattr(head, "arrays"):
        return None
    from lexloom.nn.fused import FusedStep, fits

    return FusedStep(step, head) if fits(step, head) else None


def special_ids(network: Network) -> dict[str, Any]:
    """What a network's config says of the tokens that begin, end and fill texts, under the names of `generation_config.json`."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id")
    return {name: value for name in names if (value := getattr(network.backbone.config, name, None)) is not None}
