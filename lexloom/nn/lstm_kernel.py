"""What an LSTM does with its gates between two products on a CPU, in one pass: `nn.recurrent.plain` in float32, which reads and writes
bfloat16 where the network computes so.

tanh is the rational function of degree 13 over 6 that Eigen has (off by less than 4e-7), out of which a compiler makes a dozen vector
instructions; σ(x) = (1 + tanh(x / 2)) / 2.

Letters: B rows, T tokens, H cells.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from numba import prange
from torch import Tensor

from lexloom.compute import kernel, shared
from lexloom.nn.bits import Bits, Floats, numbers, read, write

Kept = npt.NDArray[np.bool_]
f32 = np.float32
_MOST = f32(7.90531110763549805)


@kernel(error_model="numpy", fastmath={"contract"})
def _tanh(x):  # type: ignore[no-untyped-def]
    x = _MOST if x > _MOST else x  # so written that what is not a number stays so
    x = -_MOST if x < -_MOST else x
    y = x * x
    p = y * f32(-2.76076847742355e-16) + f32(2.00018790482477e-13)
    p = y * p + f32(-8.60467152213735e-11)
    p = y * p + f32(5.12229709037114e-08)
    p = y * p + f32(1.48572235717979e-05)
    p = y * p + f32(6.37261928875436e-04)
    p = y * p + f32(4.89352455891786e-03)
    q = y * f32(1.19825839466702e-06) + f32(1.18534705686654e-04)
    q = y * q + f32(2.26843463243900e-03)
    q = y * q + f32(4.89352518554385e-03)
    return x * p / q


@kernel(error_model="numpy", fastmath={"contract"})
def _tanhs(x):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        x[j] = _tanh(x[j])


@kernel(error_model="numpy", fastmath={"contract"})
def _sigmoids(x):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        x[j] = f32(0.5) + f32(0.5) * _tanh(f32(0.5) * x[j])


@kernel(error_model="numpy", fastmath={"contract"})
def _forward_row(gates, product, before, cells, inner, a, b):  # type: ignore[no-untyped-def]
    """One row; `a` (4H,) and `b` (H,) are room to work in. Short loops over slices are what becomes vector code."""
    n = cells.size
    i, f, z, o = a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n :]
    for j in range(a.size):
        a[j] = read(gates, j) + read(product, j)
    _sigmoids(a[: 2 * n])
    _tanhs(z)
    _sigmoids(o)
    for j in range(b.size):
        b[j] = f[j] * before[j] + i[j] * z[j]
    for j in range(b.size):
        cells[j] = b[j]
    _tanhs(b)
    for j in range(b.size):
        write(inner, j, o[j] * b[j])
    for j in range(a.size):
        write(gates, j, a[j])


@kernel(error_model="numpy", fastmath={"contract"})
def _backward_row(gates, before, cells, of_inner, of_cells, gradient, a, b, d):  # type: ignore[no-untyped-def]
    """One row; `a`, `d` (4H,) and `b` (2H,) are room to work in."""
    n, one = cells.size, f32(1)
    i, f, z, o = a[:n], a[n : 2 * n], a[2 * n : 3 * n], a[3 * n :]
    of_i, of_f, of_z, of_o = d[:n], d[n : 2 * n], d[2 * n : 3 * n], d[3 * n :]
    g, t = b[:n], b[n:]
    for j in range(a.size):
        a[j] = read(gates, j)
    for j in range(g.size):
        g[j] = read(of_inner, j)
    for j in range(t.size):
        t[j] = cells[j]
    _tanhs(t)
    for j in range(g.size):
        of_o[j] = g[j] * t[j] * o[j] * (one - o[j])
        g[j] = of_cells[j] + g[j] * o[j] * (one - t[j] * t[j])
    for j in range(g.size):
        of_i[j] = g[j] * z[j] * i[j] * (one - i[j])
        of_z[j] = g[j] * i[j] * (one - z[j] * z[j])
    for j in range(g.size):
        of_f[j] = g[j] * before[j] * f[j] * (one - f[j])
        of_cells[j] = g[j] * f[j]
    for j in range(a.size):
        write(gradient, j, d[j])


def _forward(gates: Bits, product: Bits, cells: Floats, inner: Bits, kept: Kept, step: int, done: int) -> None:
    """A step: `gates` (T, B, 4H) become those after σ and tanh; `cells` (T + 1, B, H) by the order of steps, `inner` (T, B, H) by place."""
    n = cells.shape[2]
    for row in prange(cells.shape[1]):
        if kept[step, row]:
            a, b = np.empty(4 * n, np.float32), np.empty(n, np.float32)
            _forward_row(gates[step, row], product[row], cells[done, row], cells[done + 1, row], inner[step, row], a, b)
        else:
            gates[step, row, :] = 0
            cells[done + 1, row, :] = 0
            inner[step, row, :] = 0


def _backward(gates: Bits, cells: Floats, of_inner: Bits, of_cells: Floats, gradient: Bits, kept: Kept, step: int, done: int) -> None:
    """The gradient of a step's gates, and in `of_cells` (B, H) that of the cells of the step before."""
    n = cells.shape[2]
    for row in prange(cells.shape[1]):
        if kept[step, row]:
            a, b, d = np.empty(4 * n, np.float32), np.empty(2 * n, np.float32), np.empty(4 * n, np.float32)
            first, second = cells[done, row], cells[done + 1, row]
            _backward_row(gates[step, row], first, second, of_inner[row], of_cells[row], gradient[step, row], a, b, d)
        else:
            gradient[step, row, :] = 0
            of_cells[row, :] = 0


_forwarded, _backwarded = (shared(function, error_model="numpy") for function in (_forward, _backward))


class Forward:
    """A batch on its way forward.

    Args:
        gates: (T, B, 4H) float32 or bfloat16, which become those after σ and tanh. inner: (T, B, H), what is made. kept: (T, B) bool.

    Attributes:
        cells: (T + 1, B, H) float32, in the order of the steps, those before the first in front.
    """

    def __init__(self, gates: Tensor, inner: Tensor, kept: Tensor) -> None:
        self.gates, self.cells = gates, torch.zeros(gates.shape[0] + 1, *inner.shape[1:])
        self._gates, self._cells, self._inner, self._kept = map(numbers, (gates, self.cells, inner, kept))

    def step(self, product: Tensor, step: int, done: int) -> None:
        """The step at place `step`, after `done` others; `product` (B, 4H) is U h."""
        _forwarded(self._gates, numbers(product), self._cells, self._inner, self._kept, step, done)


class Backward:
    """The same batch on its way back.

    Attributes:
        gradient: (T, B, 4H) of the gates before σ and tanh.
    """

    def __init__(self, gates: Tensor, cells: Tensor, kept: Tensor) -> None:
        self.gradient, self.of_cells = torch.empty_like(gates), torch.zeros_like(cells[0])
        self._gates, self._cells, self._kept, self._gradient, self._of_cells = map(
            numbers, (gates, cells, kept, self.gradient, self.of_cells)
        )

    def step(self, of_inner: Tensor, step: int, done: int) -> None:
        """The step at place `step`, which was made after `done` others; `of_inner` (B, H) is the gradient of m."""
        _backwarded(self._gates, self._cells, numbers(of_inner), self._of_cells, self._gradient, self._kept, step, done)
