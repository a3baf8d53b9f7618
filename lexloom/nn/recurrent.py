"""LSTM, with or without a projection of its states, over rows of unequal length (Hochreiter and Schmidhuber 1997; Sak et al. 2014).

    i, f, z, o = W x_t + U h_{t-1} + b, cut in four
    c_t = σ(f) · c_{t-1} + σ(i) · tanh(z);   m_t = σ(o) · tanh(c_t);   h_t = P m_t, or m_t where there is no projection

At padding c and h are 0, so that a row begins where its text does, in either direction and wherever the padding stands.

`nn.LSTM` with `proj_size` has no oneDNN kernel, takes no note of padding, and finds the gradient of U step by step. Here W x is one product
over all steps, so are the gradients of U and P, and of a step's gates a kernel makes the states in one pass (docs/log.md has the times).

Letters: B rows, T tokens, I width of the input, H cells, P width of a state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lexloom.nn.eager import eager

ONE_PASS_FROM = 1 << 13  # gates of a batch from which the kernel is worth its compiler


class LSTM(nn.Module):
    """One direction of one layer.

    Args:
        width: I. cells: H. projected: P, or None for no projection.
    """

    def __init__(self, width: int, cells: int, projected: int | None = None) -> None:
        super().__init__()
        self.input = nn.Linear(width, 4 * cells)
        self.recurrent = nn.Linear(projected or cells, 4 * cells, bias=False)
        self.projection = nn.Linear(cells, projected, bias=False) if projected else None

    @eager  # a compiler would write out every step
    def forward(self, x: Tensor, kept: Tensor, *, backwards: bool = False) -> Tensor:
        """(B, T, I), and (B, T) bool where there is text -> (B, T, P): h_t of x_1 … x_t, or of x_t … x_T where `backwards`."""
        gates, kept = self.input(x.transpose(0, 1).contiguous()), kept.t().contiguous()
        weights = self.recurrent.weight, None if self.projection is None else self.projection.weight
        if gates.device.type == "cpu" and gates.dtype in (torch.float32, torch.bfloat16) and gates.numel() >= ONE_PASS_FROM:
            states: Tensor = Recurrence.apply(gates, kept, *weights, backwards)
        elif gates.is_meta:  # nothing is computed there: all steps as one take as much memory
            states = plain(gates.flatten(0, 1)[None], kept.flatten()[None], *weights, backwards).view(*gates.shape[:2], -1)
        else:
            states = plain(gates, kept, *weights, backwards)
        return states.transpose(0, 1)


def plain(gates: Tensor, kept: Tensor, recurrent: Tensor, projection: Tensor | None, backwards: bool) -> Tensor:
    """The recurrence in PyTorch's own operations, for any device and dtype.

    Args:
        gates: (T, B, 4H), W x + b. kept: (T, B) bool. recurrent: U (4H, P). projection: (P, H) or None.

    Returns:
        (T, B, P).
    """
    steps, rows, _ = gates.shape
    cells = gates.new_zeros(rows, recurrent.shape[0] // 4)
    state, found = gates.new_zeros(rows, recurrent.shape[1]), list[Tensor]()
    for step in reversed(range(steps)) if backwards else range(steps):
        i, f, z, o = (gates[step] + state @ recurrent.t()).chunk(4, dim=1)
        here = kept[step, :, None].to(gates.dtype)
        cells = (f.sigmoid() * cells + i.sigmoid() * z.tanh()) * here
        state = o.sigmoid() * cells.tanh() * here
        state = state if projection is None else state @ projection.t()
        found.append(state)
    return torch.stack(found[::-1] if backwards else found)


class Recurrence(torch.autograd.Function):
    """`plain` by the kernel, cells in fp32. What comes back through time costs two products a step; all others are of all steps at once."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, kept: Tensor, recurrent: Tensor, projection: Tensor | None, backwards: bool) -> Tensor:
        from lexloom.nn import lstm_kernel  # brings a compiler, which small batches can do without

        steps, rows, _ = gates.shape
        width, cells = recurrent.shape[1], recurrent.shape[0] // 4
        inner = gates.new_empty(steps, rows, cells)
        states = inner if projection is None else gates.new_empty(steps, rows, width)
        kernel = lstm_kernel.Forward(gates, inner, kept)
        to_gates, to_state = recurrent.t().contiguous(), None if projection is None else projection.t().contiguous()
        product, state = gates.new_empty(rows, 4 * cells), gates.new_zeros(rows, width)
        for done, step in enumerate(_order(steps, backwards)):
            torch.mm(state, to_gates, out=product)
            kernel.step(product, step, done)
            state = inner[step] if to_state is None else torch.mm(inner[step], to_state, out=states[step])
        ctx.save_for_backward(kernel.gates, kernel.cells, inner, states, kept, recurrent, projection)
        ctx.backwards = backwards
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from lexloom.nn import lstm_kernel

        gates, cells, inner, states, kept, recurrent, projection = ctx.saved_tensors
        steps, rows, _ = gates.shape
        kernel, coming = lstm_kernel.Backward(gates, cells, kept), gates.new_zeros(rows, recurrent.shape[1])
        of_states = gradient.contiguous().clone()
        for done, step in reversed(list(enumerate(_order(steps, ctx.backwards)))):
            of_states[step] += coming
            of_inner = of_states[step] if projection is None else of_states[step] @ projection
            kernel.step(of_inner, step, done)
            torch.mm(kernel.gradient[step], recurrent, out=coming)
        later, before = (slice(None, -1), slice(1, None)) if ctx.backwards else (slice(1, None), slice(None, -1))
        of_recurrent = kernel.gradient[later].flatten(0, 1).t() @ states[before].flatten(0, 1)
        of_projection = None if projection is None else of_states.flatten(0, 1).t() @ inner.flatten(0, 1)
        return kernel.gradient, None, of_recurrent, of_projection, None


def _order(steps: int, backwards: bool) -> range:
    return range(steps - 1, -1, -1) if backwards else range(steps)
