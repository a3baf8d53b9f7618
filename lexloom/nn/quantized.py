"""Weights of 8 bits: a quarter of the memory to be read, and of the time where that is what counts.

Each row of a matrix has its own scale, so that its largest weight becomes 127 (symmetric, to the nearest; Jacob et al. 2018, section 2.1).
Inputs and sums stay float32.

Letters: D in, N out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexloom.nn import packed
from lexloom.nn.few_rows import Floats
from lexloom.nn.linears import N, with_linears
from lexloom.nn.tile import LANES


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) weights -> (N, D) int8 and (N,) float32 scales; their product is the weights, but for half a scale."""
    high = weight.detach().float()
    scales = high.abs().amax(1) / 127
    return (high / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8), scales


class QuantizedLinear(nn.Module):
    """A linear layer with weights of 8 bits, for inference on a CPU. (…, D) -> (…, N) float32."""

    low: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        low, scales = quantize(weight)
        self.out_features, self.in_features = weight.shape
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)
        self.register_buffer("low", torch.from_numpy(packed.pack(low)))
        zeros = torch.zeros(len(weight)) if self.bias is None else self.bias.detach()
        self.arrays = (self.low.numpy(), scales.numpy(), zeros.numpy())

    @property
    def weight(self) -> Tensor:
        """(N, D) int8, without the scales; made anew."""
        return packed.unpack(self.arrays[0], self.out_features, self.in_features)

    def part(self, begin: int, end: int) -> tuple[packed.Bytes, Floats, Floats]:
        """The arrays of some weight rows."""
        low, scales, bias = self.arrays
        if begin % LANES == 0:
            return low[begin // LANES : -(-end // LANES)], scales[begin:end], bias[begin:end]
        return packed.pack(self.weight[begin:end]), scales[begin:end], bias[begin:end]

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() and x.dtype == torch.float32 and x.device.type == "cpu" and not x.requires_grad:
            return packed.product(x, self.arrays)
        return F.linear(x, self.weight.to(x.dtype) * self.scales[:, None].to(x.dtype), self.bias)


def quantized(network: N) -> N:
    """A copy of a network whose linear layers and next-token head hold 8 bits a weight; its other weights are the network's own."""
    return with_linears(network, QuantizedLinear)
