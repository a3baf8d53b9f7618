"""The sides of the benchmark of encoder–decoders: the same number of tokens for the same sources of ids, greedily or by beams."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import torch
from _generating import prompts
from _paired import seconds

from lexloom import compute
from lexloom.hub.bundle import Bundle
from lexloom.models.decoder import SourceDecoder
from lexloom.nn.decoding import GenerationConfig, Request, generate

START = 2  # what a target of BART begins with


class Ours:
    """Decoding of lexloom.

    Args:
        model: a bundle. batch, source, new: how many sources of how many tokens, and how many are written for each.
        beams: 1 for greedy decoding. dtype: `float32` or `int8`.
    """

    def __init__(self, model: str, batch: int, source: int, new: int, beams: int, dtype: str) -> None:
        compute.for_inference().apply()
        self.decoder = SourceDecoder(Bundle.load(Path(model)).to("cpu", dtype=dtype)._answering())
        config = GenerationConfig.read({"max_new_tokens": new, "min_new_tokens": new, "num_beams": beams})
        self.requests = [Request([START], config, source=ids) for ids in prompts(self.decoder.vocabulary, batch, source)]
        self.about = f"{dtype}, {compute.cores()} threads"

    def work(self) -> list[list[int]]:
        """The ids that are written."""
        return [text.ids for (text,) in generate(self.decoder, self.requests)]

    def steps(self, n: int) -> float:
        """Seconds of all sources, n times."""
        return sum(seconds(self.work) for _ in range(n))


class Peer:
    """`generate` of transformers, which chooses what an end token would end, too."""

    def __init__(self, model: str, batch: int, source: int, new: int, beams: int) -> None:
        from transformers import AutoModelForSeq2SeqLM

        torch.set_num_threads(compute.cores())
        self.model = AutoModelForSeq2SeqLM.from_pretrained(model).eval()
        self.ids = torch.tensor(prompts(self.model.config.vocab_size, batch, source))
        ends = {"eos_token_id": None, "forced_eos_token_id": None, "decoder_start_token_id": START}
        self.options = {"max_new_tokens": new, "min_new_tokens": new, "num_beams": beams, "do_sample": False, **ends}
        self.about = f"float32, {compute.cores()} threads"

    def work(self) -> list[list[int]]:
        """The ids that are written."""
        with torch.inference_mode():
            found = self.model.generate(self.ids, attention_mask=torch.ones_like(self.ids), **self.options)
        return found[:, 1:].tolist()

    def steps(self, n: int) -> float:
        """Seconds of all sources, n times."""
        return sum(seconds(self.work) for _ in range(n))
