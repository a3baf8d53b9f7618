"""A network as decoding wants it: new ids and a cache in, scores of the next token out.

Letters: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lexloom.errors import ConfigError
from lexloom.models.base import Network
from lexloom.nn.cache import Cache

ROLE = "causal-lm"
WRITING = frozenset({ROLE, "seq-to-seq"})
"""Roles of networks that write text."""
FEW_ROWS = 16  # rows up to which a step is computed in one go
LEAN_FROM = 1_000_000  # weights from which products of their own kind are worth their compiling


class CausalDecoder:
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
        self.network = lean(network.eval())
        self._step = _fused(self.network)
        self.vocabulary: int = len(network.heads[ROLE].weight)  # type: ignore[arg-type]
        self.max_length = min(network.backbone.max_length, max_length or network.backbone.max_length)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def cache(self, rows: int, length: int, sources: Sequence[Any] | None = None) -> Cache:
        """See `nn.decoding.Decoder.cache`; it reads no sources."""
        return self.network.backbone.cache(rows, length)

    def __call__(self, ids: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """See `nn.decoding.Decoder`."""
        if self._step is not None and mask is None and ids.shape[1] == 1 and len(ids) <= FEW_ROWS:
            return self._step(ids, cache)
        batch = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
        hidden = self.network.backbone(batch, cache=cache).hidden
        if mask is None:
            return self.network.scores(ROLE, hidden[:, -1])
        places = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask, places, 0).amax(1)
        return self.network.scores(ROLE, hidden[torch.arange(len(hidden), device=hidden.device), last])


def lean(network: Network) -> Network:
    """The network for one token at a time: on a CPU and in float32 with products made for few rows, else as it is.

    Its weights are the network's own, in the same memory.
    """
    first = next(network.parameters())
    if first.device.type != "cpu" or first.dtype != torch.float32 or sum(p.numel() for p in network.parameters()) < LEAN_FROM:
        return network
    from lexloom.nn.few_rows import FewRowsLinear, with_linears  # brings a compiler, which small networks can do without

    return with_linears(network, FewRowsLinear)


def _fused(network: Network) -> Callable[[Tensor, Cache], Tensor] | None:
    """One step of the network in one go, where it is made of the layers that have kernels."""
    step, head = network.backbone.step(), network.heads[ROLE]
    if step is None or not hasattr(head, "arrays"):
        return None
    from lexloom.nn.fused import FusedStep, fits

    return FusedStep(step, head) if fits(step, head) else None


def special_ids(network: Network) -> dict[str, Any]:
    """What a network's config says of the tokens that begin, end and fill texts, under the names of `generation_config.json`."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id")
    return {name: value for name in names if (value := getattr(network.backbone.config, name, None)) is not None}
