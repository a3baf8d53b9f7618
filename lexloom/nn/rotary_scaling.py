"""Rotary scaling: how the turns of rotary positions are slowed down, so that a network reads longer texts than it was first trained on.

The kinds and names of published `config.json`s, computed as `transformers` does, in float32. Letters: K head width.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lexloom.config import Config
from lexloom.nn.rotary import frequencies

_NEEDS = {"linear": ("factor",), "dynamic": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor"), "yarn": ("factor",)}


def _optional(**limits: Any) -> Any:
    return Field(None, exclude_if=lambda value: value is None, **limits)


class RotaryScaling(Config):
    """The settings of `rope_scaling`; what a kind does not use is left out.

    Attributes:
        rope_type: `linear` (all turns slower), `llama3` (only the slow ones; Llama 3.1), `yarn` (Peng et al. 2023), and `dynamic`, which
            changes nothing up to the length that the network was trained on and is not taken further here.
        original_max_position_embeddings: the length before scaling, that of the config where it is not given.
    """

    rope_type: Literal["default", "linear", "dynamic", "llama3", "yarn"]
    factor: float | None = _optional(ge=1)
    original_max_position_embeddings: int | None = _optional(ge=1)
    low_freq_factor: float | None = _optional(gt=0)
    high_freq_factor: float | None = _optional(gt=0)
    attention_factor: float | None = _optional(gt=0)
    beta_fast: float | None = _optional(gt=0)
    beta_slow: float | None = _optional(gt=0)
    mscale: float | None = _optional()
    mscale_all_dim: float | None = _optional()
    truncate: bool | None = _optional()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if missing := [name for name in _NEEDS.get(self.rope_type, ()) if getattr(self, name) is None]:
            raise ValueError(f"{' and '.join(missing)} for rope_type {self.rope_type}")
        return self

    def turns(self, width: int, base: float, length: int) -> tuple[Tensor, float]:
        """The angle that each pair turns by from one token to the next, and what the tables are multiplied by.

        Args:
            width: K. base: `rope_theta`.
            length: the most positions that the config has.
        """
        plain, before = frequencies(width, base, torch.device("cpu")), self.original_max_position_embeddings or length
        if self.rope_type == "linear":
            return plain / self._factor, 1.0
        if self.rope_type == "llama3":
            return self._llama3(plain, before), 1.0
        return self._yarn(width, base, before) if self.rope_type == "yarn" else (plain, 1.0)

    @property
    def _factor(self) -> float:
        assert self.factor is not None
        return self.factor

    def _llama3(self, plain: Tensor, before: int) -> Tensor:
        """Turns that go round many times in `before` tokens stay, those that do not once are slowed down, between is interpolated."""
        assert self.low_freq_factor is not None and self.high_freq_factor is not None
        wave = 2 * math.pi / plain
        slow, fast = before / self.low_freq_factor, before / self.high_freq_factor
        scaled = torch.where(wave > slow, plain / self._factor, plain)
        share = (before / wave - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        between = (1 - share) * scaled / self._factor + share * scaled
        return torch.where((wave < fast) | (wave > slow), scaled, between)

    def _yarn(self, width: int, base: float, before: int) -> tuple[Tensor, float]:
        """Peng et al. 2023, "YaRN", section 3.2: a ramp over the pairs between those kept and those slowed down; sharper attention."""
        waves = base ** (torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width)
        ends = [
            width * math.log(before / (rounds * 2 * math.pi)) / (2 * math.log(base))
            for rounds in (self.beta_fast or 32, self.beta_slow or 1)
        ]
        if self.truncate is not False:
            ends = [math.floor(ends[0]), math.ceil(ends[1])]
        low, high = max(ends[0], 0), min(ends[1], width - 1)
        ramp = (torch.arange(width // 2, dtype=torch.float32, device="cpu") - low) / (high - low if high != low else 0.001)
        kept = 1 - ramp.clamp(0, 1)
        return 1.0 / (self._factor * waves) * (1 - kept) + 1.0 / waves * kept, self._sharper()

    def _sharper(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor

        def of(scale: float) -> float:
            return 1.0 if self._factor <= 1 else 0.1 * scale * math.log(self._factor) + 1.0

        return of(self.mscale) / of(self.mscale_all_dim) if self.mscale and self.mscale_all_dim else of(1.0)
