"""Linear layers through oneDNN: the same numbers, the same weights, and where they are taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lexloom import compute
from lexloom.hub.answering import answering
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.nn.onednn import OneDnnLinear, through_onednn

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@pytest.mark.parametrize("shape", [(0, 24), (1, 24), (5, 24), (3, 7, 24), (2, 0, 24), (130, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_pytorchs(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(1)
    plain = nn.Linear(24, 17, bias=bias)
    made, turned = OneDnnLinear(plain.weight, plain.bias), torch.randn(24, 9).t()
    for x in (torch.randn(shape), turned):
        with torch.inference_mode():
            torch.testing.assert_close(made(x), plain(x), rtol=1e-5, atol=1e-6)
        assert torch.equal(made(x), plain(x)) and made(x).requires_grad  # with gradients it is PyTorch's own
    low = nn.Linear(24, 17, bias=bias, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.equal(OneDnnLinear(low.weight, low.bias)(turned.double()), low(turned.double()))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES.names() if hasattr(ARCHITECTURES.get(name), "TINY")])
def test_a_copy_of_a_network_shares_its_weights_and_has_all_linear_layers_changed(name: str) -> None:
    kind = ARCHITECTURES.get(name)
    network = Network.build(kind, kind.Config.read(dict(kind.TINY)), [], seed=1).eval()
    copy = through_onednn(network)
    assert all(a is b for a, b in zip(network.parameters(), copy.parameters(), strict=True))
    assert not any(isinstance(module, OneDnnLinear) for module in network.modules())
    assert all(isinstance(module, OneDnnLinear) for module in copy.modules() if isinstance(module, nn.Linear))


def test_it_is_taken_in_float32_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = ARCHITECTURES.get("bert")
    network = Network.build(kind, kind.Config.read(dict(kind.TINY)), ["masked-lm"], seed=1).eval()
    cpus = {"AuthenticAMD": "avx2 avx512f avx512_bf16", "GenuineIntel": "avx2 avx512f amx_bf16"}
    for vendor, flags in (*cpus.items(), ("AuthenticAMD", "avx2")):
        monkeypatch.setattr(compute, "_cpu", {"vendor_id": vendor, "flags": flags}.__getitem__)
        pays = compute.onednn_pays()
        assert pays == (vendor == "AuthenticAMD" and "avx512f" in flags)
        assert (answering(network, "float32") is network) == (not pays)
        assert compute.for_inference("cpu", "auto").dtype == ("float32" if flags == "avx2" else "bfloat16")
        assert not any(isinstance(module, OneDnnLinear) for module in answering(network, "bfloat16").modules())
