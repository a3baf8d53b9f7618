"""One of several processes that train a tiny network; writes what it found as JSON. Started by `test_parallel.py` through torchrun."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lexloom import keys
from lexloom.models.base import Network
from lexloom.models.bert import Bert
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.train.loop import fit
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.parallel import World, joined
from lexloom.train.source import PackedSource, Phase
from lexloom.train.step import Step

VOCABULARY = Vocabulary(97, 4, frozenset(range(5)), {"input_ids": 0, "token_type_ids": 0})


class Ragged:
    """Rows of 1 to 19 tokens; every third is of special tokens alone and has nothing to predict."""

    def __len__(self) -> int:
        return 40

    def rows(self, ids: Any) -> list[dict[str, Any]]:
        return [self.row(int(i)) for i in ids]

    def row(self, i: int) -> dict[str, Any]:
        length = 1 + (7 * i) % 19
        tokens = keys.integers(keys.key(5, i), length, 90) + 5
        return {"id": i, "input_ids": tokens, "token_type_ids": np.zeros_like(tokens), "special": np.full(length, i % 3 == 0)}


def trained(world: World, rows: int, micro: int, dtype: torch.dtype, steps: int) -> dict[str, Any]:
    """Losses, the gradient of the first step, and the last weights."""
    objective = MaskedLM(MaskedLMConfig(rate=0.3), VOCABULARY)
    network = Network.build(Bert, Bert.Config.read(dict(Bert.TINY)), {"masked-lm"}, seed=1).to(dtype)
    step = Step(network, objective)
    optimizer = AdamW(step.named().items(), OptimizerConfig())
    source = PackedSource([Phase(20, Ragged(), steps, rows, micro)], objective, seed=3)
    losses, gradient = [], None
    for info in fit(step, objective.parts, optimizer, source, lambda _: 1e-3, world=world):
        losses.append((info.loss, info.gradient_norm, info.tokens))
        gradient = optimizer.sums.tolist() if gradient is None else gradient
    return {"losses": losses, "gradient": gradient, "weights": torch.cat([m.flatten() for m in optimizer.masters.values()]).tolist()}


def main(out: Path, cases: list[list[Any]]) -> None:
    torch.set_num_threads(1)
    with joined() as world:
        found = [trained(world, rows, micro, getattr(torch, dtype), steps) for rows, micro, dtype, steps in cases]
        (out / f"rank-{world.rank}-of-{world.size}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
