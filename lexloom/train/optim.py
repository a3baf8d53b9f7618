"""AdamW (Loshchilov and Hutter 2019) over fp32 masters, and learning-rate schedules.

The network may compute in bfloat16; masters, moments and accumulated gradients stay fp32, and checkpoints and bundles hold the masters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lexloom.config import Config
from lexloom.errors import CheckpointError
from lexloom.train.parallel import World

ONE_PASS_FROM = 1 << 20
"""Weights from which the pass over memory is what an update costs."""
_PASSED = (torch.bfloat16, torch.float32)


class OptimizerConfig(Config):
    """The optimizer's settings and the schedule of its rate."""

    optimizer: Literal["adamw", "muon"] = Field("adamw", exclude_if=lambda value: value == "adamw")
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

    On a CPU large networks are updated in one pass over memory, by `train.adamw`; else by PyTorch's fused kernel.

    Args:
        parameters: own name -> parameter of the network; those that need no gradient are left out.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> None:
        self.config = config
        self.parameters = {name: p for name, p in parameters if p.requires_grad}
        # Where the network computes in fp32 or fp64 its own tensors are the masters.
        self.masters = {n: p.data if p.dtype in (torch.float32, torch.float64) else p.data.float() for n, p in self.parameters.items()}
        self._first, self._second = (self._flat() for _ in range(2))
        first, second = self._parts(self._first), self._parts(self._second)
        self.moments = {n: (first[n], second[n]) for n in self.masters}
        self.adaptive = list(self.masters)  # what is updated by AdamW's rule: all, unless a subclass has another one
        self._held = dict[str, Tensor]()  # the gradients of the one micro-batch, as they came
        self.steps = 0
        self.fresh = True  # nothing is accumulated yet: the next gradients overwrite
        self._pass = self._one_pass()

    def _one_pass(self) -> Any:
        """`train.adamw`; None where PyTorch's kernel is the better one, or the only one."""
        if sum(m.numel() for m in self.masters.values()) < ONE_PASS_FROM:
            return None
        if any(m.device.type != "cpu" or m.dtype != torch.float32 for m in self.masters.values()):
            return None
        from lexloom.train import adamw  # brings a compiler, which small trainings and answers can do without

        return adamw

    def _flat(self) -> Tensor:
        """Zeros, one for each weight."""
        numbers = sum(m.numel() for m in self.masters.values())
        return next(iter(self.masters.values()), torch.zeros(0)).new_zeros(numbers)

    def _parts(self, flat: Tensor) -> dict[str, Tensor]:
        """Each parameter's part of a tensor that holds a number for each weight."""
        pieces = flat.split([m.numel() for m in self.masters.values()])
        return {n: piece.view(m.shape) for (n, m), piece in zip(self.masters.items(), pieces, strict=True)}

    def adopt(self, masters: Mapping[str, Tensor]) -> None:
        """Takes full-precision weights as masters, e.g. those that a bundle held before the network was cast down."""
        for name, master in self.masters.items():
            if name in masters:
                master.copy_(masters[name])
        self._publish(*self.masters)

    def restart(self, masters: Mapping[str, Tensor]) -> None:
        """Back to the first step, from these weights."""
        self.forget()
        self.steps = 0
        for first, second in self.moments.values():
            first.zero_()
            second.zero_()
        self.adopt(masters)

    @property
    def gradients(self) -> dict[str, Tensor]:
        """What is accumulated, by name; those of one micro-batch in the dtype in which they came."""
        return self._held or self._summed()[1]

    @property
    def sums(self) -> Tensor:
        """The accumulated gradients as one fp32 tensor, so that they can be added up over processes at once."""
        return self._summed()[0]

    @cached_property
    def _total(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Where more than one micro-batch or process is added up, in fp32, and its parts by name; made when it is first wanted."""
        flat = self._flat()
        return flat, self._parts(flat)

    def _summed(self) -> tuple[Tensor, dict[str, Tensor]]:
        """What is accumulated, with what was held until now."""
        for name, gradient in self._held.items():
            self._total[1][name].copy_(gradient)
        self._held = {}
        return self._total

    def collect(self) -> None:
        """Adds the network's gradients to those collected before and clears them; once after each micro-batch's backward."""
        found = {n: p.grad for n, p in self.parameters.items() if p.grad is not None}
        if self.fresh:
            self._begin(found)
        elif found:
            _, totals = self._summed()
            sums = [totals[n] for n in found]
            torch._foreach_add_(sums, [g.to(s.dtype) for g, s in zip(found.values(), sums, strict=True)])
        self.fresh = False
        for parameter in self.parameters.values():
            parameter.grad = None

    def _begin(self, found: Mapping[str, Tensor]) -> None:
        """Holds the gradients of the first micro-batch, which may stay the only one; the sums begin with them where some are missing."""
        self._held = {}
        if self._pass is not None and len(found) == len(self.parameters) and all(g.dtype in _PASSED for g in found.values()):
            self._held = {n: g.contiguous() for n, g in found.items()}
            return
        for name, total in self._summed()[1].items():
            if name in found:
                total.copy_(found[name])
            else:
                total.zero_()

    def forget(self) -> None:
        """Drops what was collected of a step that is not finished."""
        self.fresh = True
        for parameter in self.parameters.values():
            parameter.grad = None

    def exchange(self, world: World) -> None:
        """Adds the accumulated gradients up over all processes, once a step."""
        if world.size > 1:
            world.add_(self.sums)

    def norm(self) -> Tensor:
        """The 2-norm of all accumulated gradients."""
        gradients = list(self.gradients.values())
        if self._pass is None:
            return torch.stack(torch._foreach_norm(gradients)).norm()
        return torch.tensor(math.sqrt(sum(self._pass.squares(_numbers(g)) for g in gradients)))

    @torch.no_grad()
    def step(self, learning_rate: float, norm: Tensor | None = None) -> bool:
        """Clips by the global norm, updates the masters, writes them back into the network; what is collected next starts anew.

        Returns:
            whether the moments were finite. If not, no weight has heard of those that were not; but others may have been updated.
        """
        norm = self.norm() if norm is None else norm
        self.steps += 1
        done = self._walk(learning_rate, torch.clamp((norm + 1e-6) / self.config.clip, min=1.0))
        self.fresh = True
        return done

    def _walk(self, learning_rate: float, excess: Tensor) -> bool:
        """The update itself, of gradients that are to be divided by `excess`."""
        return (self._fused if self._pass is None else self._passed)(learning_rate, excess)

    def _passed(self, learning_rate: float, excess: Tensor) -> bool:
        """By `train.adamw`."""
        c, scale = self.config, np.float32(1) / np.float32(excess.item())
        step, spread = learning_rate / (1 - c.beta1**self.steps), 1 / math.sqrt(1 - c.beta2**self.steps)
        settings = [np.float32(x) for x in (c.beta1, c.beta2, step, spread, c.epsilon)]
        sound, gradients = True, self.gradients
        for name in self.adaptive:
            master = self.masters[name]
            keep = np.float32(1 - learning_rate * (c.weight_decay if decays(name, master) else 0.0))
            tensors = (master, *self.moments[name], gradients[name], self.parameters[name].data)
            sound &= self._pass.update(*map(_numbers, tensors), scale, keep, *settings)
        return sound

    def _fused(self, learning_rate: float, excess: Tensor) -> bool:
        """By PyTorch's kernel, which divides the gradients on its way, so that clipping costs no pass over memory of its own."""
        if not torch.dot(self._first, self._second).isfinite():  # one look at each number
            return False
        divisor = excess if excess.dtype == torch.float32 else None  # the kernel reads nothing else
        gradients = self.gradients
        if divisor is None:
            torch._foreach_div_(list(gradients.values()), excess)
        for decayed in (True, False):
            names = [n for n in self.adaptive if decays(n, self.masters[n]) == decayed]
            self._update(names, gradients, learning_rate, decayed, divisor)
        self._publish(*self.adaptive)
        return True

    def _update(
        self, names: list[str], gradients: Mapping[str, Tensor], learning_rate: float, decayed: bool, divisor: Tensor | None
    ) -> None:
        if not names:
            return
        c = self.config
        torch._fused_adamw_(
            [self.masters[n] for n in names],
            [gradients[n] for n in names],
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
    def _publish(self, *names: str) -> None:
        """Writes masters back into the network."""
        for name in names:
            parameter = self.parameters[name]
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


def _numbers(tensor: Tensor) -> np.ndarray:
    """The same memory as NumPy's numbers, flat; bfloat16 as its bits, for NumPy has none."""
    flat = tensor.detach().view(-1)
    return flat.view(torch.uint16).numpy() if flat.dtype == torch.bfloat16 else flat.numpy()
