"""Dropout whose masks are a function of (row key, site, place): equal under any batch, rank, restart or compiler.

It is also cheap: on a CPU the Bernoulli draws of `F.dropout` take a quarter of a small model's step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WEYL = -1640531527  # 0x9E3779B9 as int32
_M1, _M2 = -2048144789, -1028477387  # MurmurHash3's 0x85EBCA6B and 0xC2B2AE35 as int32
ONE_PASS_FROM = 1 << 17  # values from which a pass over memory for each operation is what a mask costs


def mix32(x: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finaliser (Appleby 2011) on int32, wrapping; a bijection that looks random."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * _M1
    x = (x ^ ((x >> 13) & 0x7FFFF)) * _M2
    return x ^ ((x >> 16) & 0xFFFF)


def keep_mask(row_keys: Tensor, site: int, shape: torch.Size, p: float, dtype: torch.dtype = torch.bool) -> Tensor:
    """Which values stay.

    Args:
        row_keys: (B, 2) int32, one key of two words a row.
        site: the number of the place in the network; every dropout has its own.
        shape: (B, …) of the values.
        p: the share that is dropped.
        dtype: of the result. On a CPU multiplying by numbers is two and a half times as fast as selecting by bools, and Inductor
            (torch 2.13) takes longer to make bools fit for selecting than for all the rest of an attention's softmax.

    Returns:
        (B, …) of 1 with probability 1 - p, and 0.
    """
    offset, least = (site * 0x27D4EB2F + 1) & 0x7FFFFFFF, int(p * (1 << 24))
    compiling = torch.compiler.is_compiling()
    # Of what follows Inductor makes code that writes beyond the end of a row whose size is no multiple of a vector's.
    if row_keys.device.type == "cpu" and (compiling or shape.numel() >= ONE_PASS_FROM):
        from lexloom.nn import mask_kernel  # brings a compiler, which small batches can do without

        work = mask_kernel.compiled if compiling else mask_kernel.kept
        return work(row_keys, offset, shape[1:].numel(), least, dtype).view(shape)
    places = torch.arange(shape[1:].numel(), dtype=torch.int32, device=row_keys.device)
    start = mix32(row_keys[:, :1] + offset)
    # The second word enters between two rounds, so that no two rows run along one sequence at a shift.
    hashed = mix32(mix32(places * _WEYL + start) + row_keys[:, 1:])
    return (((hashed >> 8) & 0xFFFFFF) >= least).view(shape).to(dtype)


class Dropout(nn.Module):
    """Keyed dropout (Srivastava et al. 2014): zeroes a share `p` of the values and scales the rest by 1 / (1 - p).

    Does nothing without keys, which is how evaluation runs.
    """

    def __init__(self, p: float, site: int) -> None:
        super().__init__()
        self.p, self.site = p, site

    def forward(self, x: Tensor, row_keys: Tensor | None) -> Tensor:
        """(B, …) -> (B, …); `row_keys` (B, 2) int32 or None."""
        if row_keys is None or self.p <= 0.0:
            return x
        return x * keep_mask(row_keys, self.site, x.shape, self.p, x.dtype) * (1.0 / (1.0 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}, site={self.site}"


def set_dropout(network: nn.Module, p: float) -> None:
    """Every dropout of a network drops a share `p` from now on; its config keeps what it says."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.p = p
