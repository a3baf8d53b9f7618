"""Starting values that imitate trained encoders: what they claim is measured on the weights themselves."""

from __future__ import annotations

import pytest
import torch

from lexloom import keys
from lexloom.errors import ConfigError
from lexloom.models.base import Architecture, Network
from lexloom.models.bert import Bert, BertConfig
from lexloom.nn.attention import SelfAttention
from lexloom.nn.mimetic import IDENTITY, NOISE, OFFSETS, contrast
from lexloom.nn.positions import sinusoids


def test_sinusoids_are_those_of_the_paper() -> None:
    found = sinusoids(40, 6)
    for position in (0, 1, 39):
        for i in range(3):
            angle = torch.tensor(position / 10000 ** (2 * i / 6), dtype=torch.float64)
            assert torch.allclose(found[position, 2 * i : 2 * i + 2], torch.stack([angle.sin(), angle.cos()]).float(), atol=1e-6)
    assert sinusoids(4, 5).shape == (4, 5)


def test_a_shift_is_one_rotation_at_every_position() -> None:
    found = sinusoids(60, 16).double()
    products = found @ found.T
    for shift in range(5):
        diagonal = products.diagonal(shift)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)


def test_the_value_path_leans_to_a_negative_identity() -> None:
    attention = SelfAttention(128, 4, dropout=0.0, site=0)
    contrast(attention, keys.key(1, "test"))
    product = attention.out.weight @ attention.qkv.weight[256:]
    rest = product - torch.diag(product.diagonal())
    assert product.diagonal().mean().item() == pytest.approx(-IDENTITY, abs=0.02)
    assert rest.std().item() * 128**0.5 == pytest.approx(NOISE, rel=0.05)


def mimetic(**settings: object) -> Network:
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    config = BertConfig.read({"vocab_size": 500, "initialization": "mimetic", **sizes, **settings})
    return Network.build(Bert, config, ("masked-lm",), seed=3)


def test_heads_of_the_first_layer_look_beside() -> None:
    backbone = mimetic().backbone
    ids = torch.from_numpy(keys.integers(keys.key(2), 400, 500)).view(4, 100)
    x = backbone.embedding_norm(backbone.embedding(ids) + backbone.positions.weight[:100] + backbone.segments.weight[0])
    q, k, _ = backbone.blocks[0].attention.qkv(x).view(4, 100, 3, 4, 32).permute(2, 0, 3, 1, 4)
    seen = (q @ k.transpose(-1, -2) * 32**-0.5).softmax(-1)
    for head, offset in enumerate(OFFSETS):
        shares = [seen[:, head].diagonal(shift, 1, 2).mean().item() for shift in range(-4, 5)]
        assert shares[offset + 4] == max(shares) > 0.15
        assert sum(shares[:4]) > 5 * sum(shares[5:]) if offset < 0 else sum(shares[5:]) > 5 * sum(shares[:4])


def test_the_same_seed_gives_the_same_start_and_the_config_keeps_it() -> None:
    one, two = mimetic().state_dict(), mimetic().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert mimetic().backbone.config.plain()["initialization"] == "mimetic"
    assert "initialization" not in BertConfig().plain()


@pytest.mark.parametrize("settings", [{"hidden_size": 30, "num_attention_heads": 5}, {"hidden_size": 3, "num_attention_heads": 1}])
def test_odd_sizes_start_too(settings: dict[str, int]) -> None:
    assert all(value.isfinite().all() for value in mimetic(**settings).state_dict().values())


def test_an_architecture_without_it_says_so() -> None:
    class Other(Architecture):
        MODEL_TYPE = "other"

    with pytest.raises(ConfigError, match="other has no mimetic"):
        Other(None).imitate(1)
