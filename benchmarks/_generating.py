"""The sides of the benchmark of generation: each goes on with the same prompts of ids, greedily, as often as it is asked."""

from __future__ import annotations

import math
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import torch
from _paired import seconds

from lexloom import compute, keys
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.models.decoder import ROLE, CausalDecoder
from lexloom.nn.decoding import GenerationConfig, Request, generate


def prompts(vocabulary: int, batch: int, length: int) -> list[list[int]]:
    """Ids drawn at random, always the same ones."""
    return [[int(i) for i in keys.integers(keys.key("prompt", row), length, vocabulary)] for row in range(batch)]


class Ours:
    """Decoding of lexloom.

    Args:
        model: a bundle. batch, prompt, new: how many prompts of how many tokens, and how many follow each. dtype: `float32` or `int8`.
    """

    def __init__(self, model: str, batch: int, prompt: int, new: int, dtype: str) -> None:
        compute.for_inference().apply()
        bundle = Bundle.load(Path(model)).to("cpu", dtype=dtype)
        self.decoder = CausalDecoder(bundle._answering())
        config = GenerationConfig.read({"max_new_tokens": new, "min_new_tokens": new})
        self.requests = [Request(ids, config) for ids in prompts(self.decoder.vocabulary, batch, prompt)]
        self.about = f"{dtype}, {compute.cores()} threads"

    def work(self) -> list[list[int]]:
        """The ids that follow."""
        return [text.ids for (text,) in generate(self.decoder, self.requests)]

    def steps(self, n: int) -> float:
        """Seconds of all prompts, n times."""
        return sum(seconds(self.work) for _ in range(n))


class Peer:
    """`generate` of transformers."""

    def __init__(self, model: str, batch: int, prompt: int, new: int, dtype: str = "float32") -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(compute.cores())
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.ids = torch.tensor(prompts(self.model.config.vocab_size, batch, prompt))
        self.options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        self.about = f"{dtype}, {compute.cores()} threads"

    def work(self) -> list[list[int]]:
        """The ids that follow."""
        with torch.inference_mode():
            found = self.model.generate(self.ids, attention_mask=torch.ones_like(self.ids), **self.options)
        return found[:, self.ids.shape[1] :].tolist()

    def steps(self, n: int) -> float:
        """Seconds of all prompts, n times."""
        return sum(seconds(self.work) for _ in range(n))


class Reading:
    """Reading every weight once for each step, which none can do without: the floor of memory.

    Args:
        weights: how many. new: steps. bytes: a weight.
    """

    def __init__(self, weights: int, new: int, bytes: int = 4) -> None:
        torch.set_num_threads(compute.cores())
        self.numbers = torch.ones(weights * bytes // 8, dtype=torch.float64)
        self.new, self.about = new, f"{weights:,} weights of {bytes} bytes"

    def steps(self, n: int) -> float:
        """Seconds of n times `new` readings."""
        return sum(seconds(self.numbers.sum) for _ in range(n * self.new))


@torch.inference_mode()
def perplexity(network: Network, rows: torch.Tensor) -> float:
    """exp of the mean loss of the next tokens of (B, T) ids."""
    losses = []
    for row in rows:
        scores = network.scores(ROLE, network.backbone({"input_ids": row[None]}).hidden[0, :-1])
        losses.append(torch.nn.functional.cross_entropy(scores.float(), row[1:], reduction="mean"))
    return math.exp(float(torch.stack(losses).double().mean()))
