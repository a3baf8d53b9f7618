"""Products of few rows, in float32 and with weights of 8 bits; networks that share their weights with a copy made for single steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lexloom import keys
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.models.decoder import WRITING, CausalDecoder, SourceDecoder, lean
from lexloom.nn.few_rows import MOST, FewRowsLinear, few
from lexloom.nn.linears import with_linears
from lexloom.nn.quantized import QuantizedLinear, quantize, quantized


def numbers(*shape: int, name: str = "x") -> torch.Tensor:
    found = keys.normal(keys.key(name), torch.Size(shape).numel())
    return torch.from_numpy(found).float().view(shape)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 13, MOST, MOST + 1])
@pytest.mark.parametrize(("wide", "out"), [(1, 2), (5, 3), (24, 17), (64, 2049), (130, 32)])
def test_the_product_is_that_of_a_linear_layer(rows: int, wide: int, out: int) -> None:
    x, weight, bias = numbers(rows, wide), numbers(out, wide, name="w"), numbers(out, name="b")
    for given in (bias, None):
        exact = torch.nn.functional.linear(x.double(), weight.double(), None if given is None else given.double())
        ours = FewRowsLinear(weight, given)(x)
        assert ours.shape == exact.shape and (ours - exact).abs().max() <= 1e-5 * exact.abs().max()
        assert torch.equal(FewRowsLinear(weight, given)(x.view(rows, 1, wide)).view(rows, out), ours)


def test_a_row_is_the_same_beside_any_others() -> None:
    x, weight, bias = numbers(MOST, 70), numbers(33, 70, name="w"), numbers(33, name="b")
    for layer in (FewRowsLinear(weight, bias), QuantizedLinear(weight, bias)):
        whole = layer(x)
        for n in range(1, MOST):
            assert torch.equal(layer(x[:n]), whole[:n])


@pytest.mark.parametrize("rows", [1, 6, MOST, MOST + 8])
def test_weights_of_8_bits_are_off_by_half_a_step_at_most(rows: int) -> None:
    weight, bias, x = numbers(37, 50, name="w"), numbers(37, name="b"), numbers(rows, 50)
    weight[5] = 0
    q, scales = quantize(weight)
    assert q.dtype == torch.int8 and q.abs().amax(1).tolist() == [127 * (n != 5) for n in range(37)]
    assert ((q * scales[:, None] - weight).abs() <= scales[:, None] / 2 * 1.0001).all()
    exact = torch.nn.functional.linear(x.double(), q.double() * scales.double()[:, None], bias.double())
    assert (QuantizedLinear(weight, bias)(x) - exact).abs().max() <= 1e-4
    assert torch.equal(QuantizedLinear(weight, bias).weight, q)


def test_which_inputs_are_few_rows() -> None:
    x = torch.zeros(MOST, 3)
    assert few(x) and few(x[None]) and few(x[:1])
    assert not few(torch.zeros(MOST + 1, 3)) and not few(x.double()) and not few(x[:0]) and not few(x.clone().requires_grad_())


WRITERS = [(name, role) for name in ARCHITECTURES.names() for role in sorted(WRITING) if frozenset({role}) in ARCHITECTURES.get(name).ROLES]


@pytest.mark.parametrize(("name", "role"), WRITERS)
def test_a_copy_for_single_steps_shares_its_weights(name: str, role: str) -> None:
    kind = ARCHITECTURES.get(name)
    network = Network.build(kind, kind.Config.read(dict(kind.TINY)), [role], seed=1).eval()
    copy, small = with_linears(network, FewRowsLinear), quantized(network)
    linears = sum(isinstance(module, nn.Linear) for module in network.modules())
    assert sum(isinstance(module, FewRowsLinear) for module in copy.modules()) == linears + 1  # and the head
    assert sum(isinstance(module, QuantizedLinear) for module in small.modules()) == linears + 1
    assert all(a is b for a, b in zip(network.parameters(), copy.parameters(), strict=True))
    assert small.backbone.embedding.weight is network.backbone.embedding.weight
    assert not any(isinstance(module, FewRowsLinear | QuantizedLinear) for module in network.modules())
    ids = torch.from_numpy(keys.integers(keys.key("ids"), 2 * 9, 97)).view(2, 9)
    with torch.inference_mode():
        scores = []
        for one in (network, copy, small):
            decoder = CausalDecoder(one) if role == "causal-lm" else SourceDecoder(one)
            cache = decoder.cache(2, 9, [[5, 6, 7], [8]] if role == "seq-to-seq" else None)
            scores.append(torch.stack([decoder(ids[:, t : t + 1], None, cache) for t in range(9)]))
    spread = scores[0].std()
    assert (scores[1] - scores[0]).abs().max() <= 1e-5 * spread
    assert 0 < (scores[2] - scores[0]).abs().max() <= 0.1 * spread


def test_small_networks_and_other_dtypes_stay_as_they_are() -> None:
    kind = ARCHITECTURES.get("gpt2")
    small = Network.build(kind, kind.Config.read(dict(kind.TINY)), ["causal-lm"], seed=1)
    large = Network.build(kind, kind.Config.read({**kind.TINY, "n_embd": 192, "n_inner": 768, "n_layer": 3}), ["causal-lm"], seed=1)
    assert lean(small) is small and lean(large) is not large and lean(large.double()) is large
