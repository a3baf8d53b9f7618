"""How a token is chosen out of scores: the likeliest, or drawn from what temperature, top-k, top-p and min-p leave.

On a CPU a kernel does it (`nn/drawn.py`), elsewhere and for small vocabularies PyTorch, in the order of `transformers`.

Letters: B rows, V vocabulary, T steps.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lexloom.nn.decoding.settings import GenerationConfig

_NEVER = float("-inf")


@dataclass(frozen=True)
class Rule:
    """How a token is chosen.

    Attributes:
        temperature: what scores are divided by; 0 takes the likeliest.
        k: so many of the best stay; 0 for all.
        share: the fewest stay that have this share together.
        least: those stay that have at least this share of what the best one has.
        penalty: of tokens that stand in the row already, before all else; 1 for none. `processors.repeated` is that with PyTorch.
    """

    temperature: float = 0.0
    k: int = 0
    share: float = 1.0
    least: float = 0.0
    penalty: float = 1.0

    @classmethod
    def of(cls, config: GenerationConfig) -> Rule:
        """What a configuration asks for."""
        if not config.do_sample:
            return cls(penalty=config.repetition_penalty)
        return cls(config.temperature, config.top_k, config.top_p, config.min_p or 0.0, config.repetition_penalty)

    @property
    def draws(self) -> bool:
        """Whether anything is drawn."""
        return self.temperature > 0

    def array(self) -> npt.NDArray[np.float64]:
        """(5,), for kernels."""
        return np.array(astuple(self), dtype=np.float64)


@dataclass(frozen=True)
class Choice:
    """How some tokens of each row are chosen, one after the other.

    Attributes:
        rules: (B, 5), what `Rule.array` gives. uniforms: (T, B) numbers in [0, 1), of T steps.
        ends: (E,) tokens after which there is no further step.
        ids, lengths: (B, S) tokens that stand in the rows already, of which so many (B,) count; for rules with a penalty.
    """

    rules: npt.NDArray[np.float64]
    uniforms: npt.NDArray[np.float64]
    ends: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def none(cls, rows: int, steps: int = 1) -> Choice:
        """The likeliest tokens, up to no end."""
        rules, nothing = np.tile(Rule().array(), (rows, 1)), np.zeros((rows, 0), dtype=np.int64)
        return cls(rules, np.zeros((steps, rows)), np.zeros(0, dtype=np.int64), nothing, np.zeros(rows, dtype=np.int64))


def choose(scores: Tensor, rule: Rule, uniforms: Tensor | None, *, compiled: bool) -> Tensor:
    """(B, V) scores -> (B,) ids.

    Args:
        uniforms: (B,) numbers in [0, 1); None where nothing is drawn.
        compiled: whether a kernel draws; scores are float32 on a CPU then. It may differ in the last digit of a share.
    """
    if uniforms is None:
        return scores.argmax(-1)
    if compiled:
        from lexloom.nn.drawn import drawn  # brings a compiler, which small vocabularies can do without

        return drawn(scores, rule.array(), uniforms)
    return draw(warped(scores, rule), uniforms)


def warped(scores: Tensor, rule: Rule) -> Tensor:
    """(B, V) -> (B, V): scores that are drawn from, minus infinity where nothing is."""
    scores = tempered(scores, rule.temperature)
    if rule.k > 0:
        scores = top_k(scores, rule.k)
    if rule.share < 1.0:
        scores = top_p(scores, rule.share)
    return min_p(scores, rule.least) if rule.least > 0 else scores


def tempered(scores: Tensor, temperature: float) -> Tensor:
    """Below 1 the likely becomes likelier, above 1 less so."""
    return scores if temperature == 1.0 else scores / temperature


def top_k(scores: Tensor, k: int) -> Tensor:
    """The `k` best stay, and what is as good as the last of them (Fan et al. 2018)."""
    return scores.masked_fill(scores < scores.topk(min(k, scores.shape[-1])).values[:, -1:], _NEVER)


def top_p(scores: Tensor, share: float) -> Tensor:
    """The fewest tokens stay that have this share together (Holtzman et al. 2020); of equals those behind."""
    ordered, places = scores.sort(descending=False, stable=True)
    out = ordered.softmax(-1).cumsum(-1) <= 1 - share
    out[:, -1] = False
    return scores.masked_fill(out.scatter(1, places, out), _NEVER)


def min_p(scores: Tensor, least: float) -> Tensor:
    """Those stay that have at least this share of what the best one has (Nguyen et al. 2024)."""
    shares = scores.softmax(-1)
    return scores.masked_fill(shares < least * shares.amax(-1, keepdim=True), _NEVER)


def draw(scores: Tensor, uniforms: Tensor) -> Tensor:
    """One token a row, by the inverse of the cumulative shares: (B, V) scores and (B,) numbers in [0, 1) -> (B,) ids.

    In order of the ids and in float64, so that a last digit of a score seldom changes what is drawn.
    """
    sums = scores.double().softmax(-1).cumsum(-1)
    found = torch.searchsorted(sums, (uniforms * sums[:, -1])[:, None], right=True)[:, 0]
    return torch.minimum(found, (sums < sums[:, -1:]).sum(-1))  # never behind the last one that has a share
