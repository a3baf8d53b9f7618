"""How soon a recipe reaches the loss that `transformers.Trainer` reaches in an hour: same text, tokenizer, size of network and machine.

    python benchmarks/time_to_loss.py [--recipe recipes/bert-mini-en.yaml --run runs/time-to-loss]
        [--minutes 12 --their-minutes 60 --rates 1e-3 5e-4 2e-3] [--tokens 9500000 --their-tokens 7900000]

The Trainer trains BERT as its library starts it (noise of 0.02, dropout 0.1, masked LM at 15 %, bf16, fused AdamW, linear schedule with 6 %
warm-up, 32 rows of 128 tokens a step) on the same rows, once with each rate, for as many steps as fit into its minutes; its best counts.
Ours is the pre-training of the recipe with `budget`, in a process of its own, from start to bundle: compiling counts. Both bundles are then
asked for the same masked tokens of validation rows. On a machine that is shared, say tokens instead of minutes: as many as the quiet
machine reads in those minutes (`pretrain_beside_trainer.py` tells); what is measured then is the loss and not the time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from _trainer import TRAINER

import lexloom
from lexloom import compute
from lexloom.hub.bundle import Bundle
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig
from lexloom.text.pack import Packing, PackingConfig, ensure_packing
from lexloom.text.shards import Shards
from lexloom.text.tokenizer import Tokenizer
from lexloom.train.evaluate import mean_losses
from lexloom.train.settings import AMOUNTS
from lexloom.train.source import fixed_batches

LENGTH, ROWS = 128, 32
MASKED = 100_000  # tokens of validation rows that are looked at
TRIED = 25  # steps that tell the speed of the Trainer


def packing(run: Path, split: str) -> Packing:
    """Rows of 128 tokens of running text."""
    return ensure_packing(Shards.open(run / "shards").split(split), PackingConfig.read({"kind": "blocks", "length": LENGTH}), seed=1)


def loss(bundle: Path, run: Path) -> float:
    """Nats a masked token, on the same masks for everybody: 15 % of the first validation rows."""
    objective = MaskedLM(MaskedLMConfig(rate=0.15), Vocabulary.of(Tokenizer.load(run / "tokenizer")))
    batches = fixed_batches(packing(run, "validation"), objective, length=LENGTH, tokens=MASKED, seed=1)
    return mean_losses(Bundle.load(bundle).network.float().eval(), objective, batches)["masked-lm"]


def ours(options: argparse.Namespace) -> tuple[float, float]:
    """Minutes from the start of the process to the bundle, and its loss."""
    began = time.perf_counter()
    lexloom_run(options, *(("tokens", options.tokens) if options.tokens else ("budget", f"{options.minutes}m")))
    return (time.perf_counter() - began) / 60, loss(options.run / "pretrain" / "bundle", options.run)


def lexloom_run(options: argparse.Namespace, name: str, amount: object) -> None:
    """The recipe up to its pre-training, by another amount than its own, on the command line."""
    settings = ["finetune={}", *(f"pretrain.train.{each}=null" for each in AMOUNTS if each != name), f"pretrain.train.{name}={amount}"]
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "lexloom", "run", str(options.recipe), "--out", str(options.run), "-q", *words]
    subprocess.run(command, check=True)


def theirs(options: argparse.Namespace, rate: str) -> tuple[float, float]:
    """Minutes of the Trainer, and its loss; in a process of its own."""
    out = options.run.with_name(f"{options.run.name}-trainer-{rate}")
    command = [sys.executable, __file__, "--run", str(options.run), "--trainer", str(out), "--rates", rate]
    amount = ["--their-tokens", str(options.their_tokens)] if options.their_tokens else ["--their-minutes", str(options.their_minutes)]
    began = time.perf_counter()
    subprocess.run([*command, *amount], check=True)
    return (time.perf_counter() - began) / 60, loss(out, options.run)


def train_theirs(options: argparse.Namespace) -> None:
    """The child: trains and saves a folder that both libraries open."""
    from transformers import BertForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizerFast, Trainer, TrainingArguments

    torch.set_num_threads(compute.cores())
    network = sized_as(options.run, BertForMaskedLM)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.run / "tokenizer")
    rows = Rows(packing(options.run, "train"))

    def trainer(steps: int) -> Trainer:
        arguments = TrainingArguments(
            max_steps=steps,
            per_device_train_batch_size=ROWS,
            learning_rate=float(options.rates[0]),
            warmup_steps=int(0.06 * steps),
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            weight_decay=0.01,
            bf16=True,
            seed=1,
            **{**TRAINER, "output_dir": str(options.trainer)},
        )
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        return Trainer(model=network, args=arguments, train_dataset=rows, data_collator=collator)

    trainer(their_steps(options, trainer)).train()
    network.save_pretrained(options.trainer)
    tokenizer.save_pretrained(options.trainer)


def sized_as(run: Path, kind: type) -> torch.nn.Module:
    """A network of the size of ours, as `transformers` starts one."""
    from transformers import BertConfig

    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = json.loads((run / "pretrain" / "bundle" / "config.json").read_text())
    torch.manual_seed(1)
    return kind(BertConfig(**{name: config[name] for name in names}, max_position_embeddings=LENGTH))


def their_steps(options: argparse.Namespace, trainer: Callable[[int], Any]) -> int:
    """As many as its tokens are, or as its minutes hold: some are timed at a rate of nothing."""
    if options.their_tokens:
        return math.ceil(options.their_tokens / (ROWS * LENGTH))
    tried = trainer(TRIED)
    tried.args.learning_rate = 0.0
    return int(options.their_minutes * 60 / (tried.train().metrics["train_runtime"] / TRIED))


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A packing as the Trainer wants it."""

    def __init__(self, found: Packing) -> None:
        self.found = found

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, i: int) -> dict[str, list[int]]:
        [row] = self.found.rows([i])
        return {"input_ids": row["input_ids"].tolist(), "special_tokens_mask": row["special"].astype(int).tolist()}


def tell(found: dict[str, tuple[float, float]], ours: tuple[float, float], options: argparse.Namespace) -> None:
    """A line a side, and whether ours got there."""
    for name, (minutes, reached) in {**found, "lexloom": ours}.items():
        print(f"{name:<24} {minutes:>7.1f} min   loss {reached:.4f}")
    best = min(found, key=lambda name: found[name][1])
    verdict = "reached" if ours[1] <= found[best][1] else "not reached"
    print(f"the loss of {best}: {verdict} in {ours[0]:.1f} minutes")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/bert-mini-en.yaml"))
    parser.add_argument("--run", type=Path, default=Path("runs/time-to-loss"))
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--their-minutes", type=float, default=60)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--their-tokens", type=int)
    parser.add_argument("--rates", nargs="+", default=["1e-3", "5e-4", "2e-3"])
    parser.add_argument("--trainer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.trainer:
        return train_theirs(options)
    print(f"lexloom {lexloom.__version__}, {compute.cores()} threads", flush=True)
    lexloom_run(options, "steps", 1)  # text, tokenizer and shards, which both start from, and the size of the network
    found = {f"Trainer bf16, rate {rate}": theirs(options, rate) for rate in options.rates}
    tell(found, ours(options), options)
    return None


if __name__ == "__main__":
    main()
