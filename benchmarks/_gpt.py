"""The same pre-training step on both sides: GPT-2 of one size, causal LM, full rows of a text, or random ones with its frequencies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _bert
import numpy as np
import torch
from _ours import Loop, MadeRows
from _trainer import TrainerSteps

from lexloom import compute, keys
from lexloom.hub.weights import to_disk
from lexloom.models.base import Network
from lexloom.models.gpt2 import GPT2, GPT2Config
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.causal_lm import PART, CausalLM, CausalLMConfig
from lexloom.text.pack import PackingConfig, ensure_packing
from lexloom.text.shards import Shards

FILLS = {"input_ids": 0}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


@dataclass(frozen=True)
class Size(_bert.Size):
    """What is trained, see there; of a decoder every token but the first is predicted. The defaults are those of `gpt-mini-en`.

    Attributes:
        shards: of a run, for rows of its text.
    """

    layers: int = 6
    width: int = 384
    vocabulary: int = 8192
    length: int = 256
    rows: int = 16
    rate: float = 1.0
    shards: str | None = None

    def __str__(self) -> str:
        shape = f"GPT-2 {self.layers} × {self.width}, V = {self.vocabulary:,}, {self.rows} × {self.length} a step"
        return f"{shape}, all predicted, dropout {self.dropout}"

    def head(self) -> Iterator[tuple[str, int, int, int]]:
        """The one linear layer of the head."""
        yield "head vocabulary", self.rows * (self.length - 1), self.width, self.vocabulary

    def config(self) -> dict[str, Any]:
        """Under the names of `config.json`."""
        sizes = {"vocab_size": self.vocabulary, "n_positions": self.length, "n_embd": self.width, "n_layer": self.layers}
        return {**sizes, "n_head": self.heads, "bos_token_id": 0, "eos_token_id": 0, **dict.fromkeys(DROPOUTS, self.dropout)}

    def network(self) -> Network:
        """The start of both sides."""
        return Network.build(GPT2, GPT2Config.read(self.config()), (PART,), seed=1)


def packing(size: Size, n: int = 2048) -> MadeRows:
    """The first `n` rows of the shards; without them ids drawn as 1 / rank."""
    if size.shards is not None:
        config = PackingConfig.read({"kind": "blocks", "length": size.length, "specials": False})
        found = ensure_packing(Shards.open(Path(size.shards)).split("train"), config, seed=1)
        return MadeRows(found.rows(np.arange(min(n, len(found)))))
    drawn = keys.uniform(keys.key(1, "rows", np.arange(n)), size.length)
    ids = (size.vocabulary**drawn).astype(np.int64) - 1
    return MadeRows([{"id": i, "input_ids": row} for i, row in enumerate(ids)])


class Ours(Loop):
    """See `Loop`.

    Args:
        size: the fields of a `Size`.
        overrides: of what `compute.choose` picks: dtype, threads, compile.
    """

    def __init__(self, size: Mapping[str, Any], **overrides: Any) -> None:
        wanted = Size(**size)
        chosen = compute.choose(compute.ComputeConfig(**overrides), steps=10**6)
        chosen.apply()
        self.about = chosen.line()
        objective = CausalLM(CausalLMConfig(), Vocabulary(wanted.vocabulary, None, frozenset({0}), FILLS, end=0))
        super().__init__(wanted.network(), objective, chosen, packing(wanted), rows=wanted.rows, length=wanted.length)


class TrainerPeer(TrainerSteps):
    """`transformers.Trainer` from the same weights on the same rows.

    Args:
        bf16: autocast; compile: `torch_compile`; attention: `eager` or `sdpa`.
        order: the rows that it gets, by their places; all where None.
    """

    def __init__(
        self,
        size: Mapping[str, Any],
        *,
        bf16: bool,
        compile: bool = False,
        attention: str = "sdpa",
        order: np.ndarray | None = None,
    ) -> None:
        from transformers import GPT2Config as TheirConfig
        from transformers import GPT2LMHeadModel, default_data_collator

        wanted = Size(**size)
        torch.manual_seed(1)
        model = GPT2LMHeadModel(TheirConfig(**wanted.config(), attn_implementation=attention))
        left_out = model.load_state_dict(to_disk(wanted.network()), strict=False)
        assert left_out.missing_keys == ["lm_head.weight"] and not left_out.unexpected_keys  # which is the embedding's
        made = packing(wanted)
        ids = [torch.from_numpy(np.asarray(row["input_ids"], dtype=np.int64)) for row in (made.made if order is None else made.rows(order))]
        nothing = torch.full((1,), -100)  # the first token is not predicted, and would be counted
        rows = [{"input_ids": row, "labels": torch.cat([nothing, row[1:]])} for row in ids]
        super().__init__(model, rows, default_data_collator, batch=wanted.rows, bf16=bf16, compile=compile)
