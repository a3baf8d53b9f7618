"""How long and on what a stage trains: the `train:` block of a recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lexloom.compute import ComputeConfig
from lexloom.config import Count, Duration
from lexloom.train.optim import OptimizerConfig

AMOUNTS = ("tokens", "steps", "epochs", "budget", "until")


class TrainConfig(OptimizerConfig, ComputeConfig):
    """Amount, batches, evaluation and saving; the optimizer's and the machine's settings stand beside them."""

    steps: Count | None = None
    tokens: Count | None = None
    epochs: float | None = None
    budget: Duration | None = Field(None, gt=0)  # as many steps as fit into this time
    until: str | None = Field(None, pattern=r"^([01]?\d|2[0-3]):[0-5]\d$")  # the same, by the clock
    batch_tokens: Count = 16384
    micro_batch_tokens: Count = 4096
    evaluate_every: Count | None = None
    save_every: Count | None = None
    keep: Literal["best", "last"] = "last"
    patience: Count | None = None
    checkpoints: Count = 2
    dropout: float | None = Field(None, ge=0, lt=1)  # in this stage, in the place of the model's own
    recompute: bool = False  # inner values of blocks once more in the backward pass, for want of memory
    shard: bool = False  # weights, gradients and moments over the processes

    @property
    def timed(self) -> bool:
        """Whether the steps are those that fit into a time."""
        return self.budget is not None or self.until is not None

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        given = [name for name in AMOUNTS if getattr(self, name) is not None]
        default = self.epochs is not None and "epochs" not in self.model_fields_set and self.timed  # of fine-tuning
        if len(given) - default > 1:
            raise ValueError(f"one of {', '.join(AMOUNTS[:-1])} and {AMOUNTS[-1]}, not {' and '.join(given)}")
        if self.batch_tokens < 1 or self.micro_batch_tokens < 1:
            raise ValueError("batch_tokens and micro_batch_tokens of at least 1")
        return self


class PretrainConfig(TrainConfig):
    """Pre-training: lengths as one number or as shares of the tokens, `{128: 0.9, 512: 0.1}`, shortest first."""

    # RoBERTa's (Liu et al. 2019): with 0.999 small models stay on the plateau of word frequencies several times as long.
    beta2: float = Field(0.98, ge=0, lt=1)
    epsilon: float = Field(1e-6, gt=0)
    length: Count | dict[int, float] = 128
    documents: Literal["joined", "isolated"] = "joined"
    sentences: Literal["cut", "whole"] = "cut"  # where rows of one text may end; those of sentence pairs end anywhere
    validation_tokens: Count = 100_000

    @property
    def lengths(self) -> dict[int, float]:
        """Length -> share of the tokens, shares summing to 1, shortest first."""
        given = {self.length: 1.0} if isinstance(self.length, int) else self.length
        total = sum(given.values())
        return {length: given[length] / total for length in sorted(given)}

    @model_validator(mode="after")
    def _shares(self) -> Self:
        lengths = self.length if isinstance(self.length, dict) else {self.length: 1.0}
        if not lengths or min(lengths) < 8 or min(lengths.values()) <= 0:
            raise ValueError("lengths of at least 8 tokens, each with a share above 0")
        return self


class FinetuneConfig(TrainConfig):
    """Fine-tuning: epochs over labelled rows, over several seeds; the new head alone first where `head_epochs` is given."""

    epochs: float | None = 3
    learning_rate: float = Field(5e-5, gt=0)
    warmup: float = Field(0.1, ge=0)
    batch_rows: Count = 32
    seeds: Count = 1
    head_epochs: float = Field(0.0, ge=0)
    head_learning_rate: float = Field(1e-3, gt=0)
    max_length: Count | None = None
    keep: Literal["best", "last"] = "best"
