"""AdamW (Loshchilov and Hutter 2019) over fp32 masters, and learning-rate schedules.

The network may compute in bfloat16; masters, moments and accumulated gradients stay fp32, and checkpoints and bundles hold the masters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import CheckpointError
from lexloom.train.parallel import World


class OptimizerConfig(Config):
    """AdamW's settings and the schedule of its rate."""

    learning_rate: float = Field(5e-4, gt=0)
    schedule: Literal["linear", "cosine", "wsd", "constant"] = "linear"
    warmup: float = Field(0.06, ge=0)  # a share of all steps, or steps where 1 or more
    decay: float = Field(0.2, gt=0, le=1)  # the last share of the steps, in which wsd falls to 0
    weight_decay: float = Field(0.01, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    clip: float = Field(1.0, gt=0)


def rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate of step 0 … steps-1: linear warm-up, then linear, cosine, warm-up–stable–decay (Hu et al. 2024) or constant.

    Linear, cosine and wsd reach 0 one step after the last.
    """
    warm = config.warmup if config.warmup >= 1 else config.warmup * steps
    if step < warm:
        return config.learning_rate * (step + 1) / (math.ceil(warm) + 1 if warm else 1)
    rest = max(1.0, steps - warm)
    left = (steps - step) / rest
    factors = {
        "linear": left,
        "cosine": 0.5 * (1 + math.cos(math.pi * (1 - left))),
        "wsd": min(1.0, (steps - step) / max(1.0, config.decay * steps)),
        "constant": 1.0,
    }
    return config.learning_rate * max(0.0, factors[config.schedule])


def decays(name: str, parameter: Tensor) -> bool:
    """Weight decay is for matrices: not for biases and norms."""
    return parameter.ndim > 1


class AdamW:
    """The one owner of fp32 masters, moments and accumulated gradients.

    Attributes:
        gradients: by name, parts of the one tensor `sums`, so that they can be added up over processes at once.

    Args:
        parameters: own name -> parameter of the network; those that need no gradient are left out.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> None:
        self.config = config
        self.parameters = {name: p for name, p in parameters if p.requires_grad}
        # Where the network computes in fp32 or fp64 its own tensors are the masters.
        self.masters = {n: p.data if p.dtype in (torch.float32, torch.float64) else p.data.float() for n, p in self.parameters.items()}
        numbers = sum(m.numel() for m in self.masters.values())
        self.sums, self._first, self._second = (next(iter(self.masters.values()), torch.zeros(0)).new_zeros(numbers) for _ in range(3))
        self.gradients, first, second = (self._parts(flat) for flat in (self.sums, self._first, self._second))
        self.moments = {n: (first[n], second[n]) for n in self.masters}
        self.steps = 0
        self.fresh = True  # nothing is accumulated yet: the next gradients overwrite

    def _parts(self, flat: Tensor) -> dict[str, Tensor]:
        """Each parameter's part of a tensor that holds a number for each weight."""
        pieces = flat.split([m.numel() for m in self.masters.values()])
        return {n: piece.view(m.shape) for (n, m), piece in zip(self.masters.items(), pieces, strict=True)}

    def adopt(self, masters: Mapping[str, Tensor]) -> None:
        """Takes full-precision weights as masters, e.g. those that a bundle held before the network was cast down."""
        for name, master in self.masters.items():
            if name in masters:
                master.copy_(masters[name])
        self._publish()

    def restart(self, masters: Mapping[str, Tensor]) -> None:
        """Back to the first step, from these weights."""
        self.forget()
        self.steps = 0
        for first, second in self.moments.values():
            first.zero_()
            second.zero_()
        self.adopt(masters)

    def collect(self) -> None:
        """Adds the network's gradients to the fp32 ones and clears them; once after each micro-batch's backward."""
        found = {n: p.grad for n, p in self.parameters.items() if p.grad is not None}
        sums, grads = [self.gradients[n] for n in found], list(found.values())
        if self.fresh:
            for total, gradient in zip(sums, grads, strict=True):
                total.copy_(gradient)
            for name in self.gradients.keys() - found.keys():
                self.gradients[name].zero_()
        elif found:
            torch._foreach_add_(sums, [g.to(s.dtype) for g, s in zip(grads, sums, strict=True)])
        self.fresh = False
        for parameter in self.parameters.values():
            parameter.grad = None

    def forget(self) -> None:
        """Drops what was collected of a step that is not finished."""
        self.fresh = True
        for parameter in self.parameters.values():
            parameter.grad = None

    def exchange(self, world: World) -> None:
        """Adds the accumulated gradients up over all processes, once a step."""
        world.add_(self.sums)

    def norm(self) -> Tensor:
        """The 2-norm of all accumulated gradients."""
        return torch.stack(torch._foreach_norm(list(self.gradients.values()))).norm()

    def sound(self) -> bool:
        """Whether the moments are finite: what is not would reach the weights with the next step. One look at each number."""
        return bool(torch.dot(self._first, self._second).isfinite())

    @torch.no_grad()
    def step(self, learning_rate: float, norm: Tensor | None = None) -> None:
        """Clips by the global norm, updates the masters, writes them back into the network; what is collected next starts anew.

        The kernel divides the gradients on its way, so that clipping costs no pass over memory of its own.
        """
        norm = self.norm() if norm is None else norm
        excess = torch.clamp((norm + 1e-6) / self.config.clip, min=1.0)
        divisor = excess if norm.dtype == torch.float32 else None  # the kernel reads nothing else
        if divisor is None:
            torch._foreach_div_(list(self.gradients.values()), excess)
        self.steps += 1
        for decayed in (True, False):
            self._update([n for n, m in self.masters.items() if decays(n, m) == decayed], learning_rate, decayed, divisor)
        self._publish()
        self.fresh = True

    def _update(self, names: list[str], learning_rate: float, decayed: bool, divisor: Tensor | None) -> None:
        if not names:
            return
        c = self.config
        torch._fused_adamw_(
            [self.masters[n] for n in names],
            [self.gradients[n] for n in names],
            [self.moments[n][0] for n in names],
            [self.moments[n][1] for n in names],
            [],
            [torch.tensor(float(self.steps), device=self.masters[n].device) for n in names],
            lr=learning_rate,
            beta1=c.beta1,
            beta2=c.beta2,
            weight_decay=c.weight_decay if decayed else 0.0,
            eps=c.epsilon,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )

    @torch.no_grad()
    def _publish(self) -> None:
        for name, parameter in self.parameters.items():
            if parameter.data_ptr() != self.masters[name].data_ptr():
                parameter.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """The moments, by `first.NAME` and `second.NAME`."""
        found = {f"first.{n}": first for n, (first, _) in self.moments.items()}
        return found | {f"second.{n}": second for n, (_, second) in self.moments.items()}

    def load(self, masters: Mapping[str, Tensor], moments: Mapping[str, Tensor], steps: int) -> None:
        """Puts a saved state back.

        Raises:
            CheckpointError: the names or shapes are not this network's.
        """
        expected = {**{n: m.shape for n, m in self.masters.items()}}
        found = {n: t.shape for n, t in masters.items()}
        if expected != found or set(moments) != set(self.state()):
            odd = sorted(set(expected) ^ set(found)) or [n for n in expected if expected[n] != found[n]]
            raise CheckpointError("this checkpoint is of another network", got=", ".join(odd[:5]), hint="the recipe's model was changed")
        self.adopt(masters)
        for name, tensor in self.state().items():
            tensor.copy_(moments[name])
        self.steps = steps
