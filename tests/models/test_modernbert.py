"""ModernBERT: what its config says in either spelling, what its layers reach, and how its weights start."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lexloom.errors import ConfigError
from lexloom.models.base import Network
from lexloom.models.modernbert import GLOBAL, LOCAL, ModernBert, ModernBertConfig


def read(**settings: Any) -> ModernBertConfig:
    return ModernBertConfig.read({**ModernBert.TINY, **settings})


def test_both_spellings_of_reach_and_base_are_read_and_the_published_one_is_written() -> None:
    ropes = {GLOBAL: {"rope_type": "default", "rope_theta": 500.0}, LOCAL: {"rope_type": "default", "rope_theta": 20.0}}
    newer = read(num_hidden_layers=5, layer_types=[GLOBAL, LOCAL, LOCAL, GLOBAL, LOCAL], rope_parameters=ropes)
    assert newer == read(num_hidden_layers=5, global_attn_every_n_layers=3, global_rope_theta=500.0, local_rope_theta=20.0)
    written = newer.plain()
    assert (written["global_attn_every_n_layers"], written["global_rope_theta"], written["local_rope_theta"]) == (3, 500.0, 20.0)
    assert not {"layer_types", "rope_parameters"} & set(written) and ModernBertConfig.read(written) == newer


def test_layers_without_a_rule_are_written_one_by_one() -> None:
    config = read(num_hidden_layers=3, layer_types=[LOCAL, GLOBAL, LOCAL])
    assert config.plain()["layer_types"] == config.reaches() == [LOCAL, GLOBAL, LOCAL]
    assert ModernBertConfig.read(config.plain()) == config


def test_no_local_base_is_the_global_one() -> None:
    assert read(local_rope_theta=None, global_rope_theta=77.0).local_rope_theta == 77.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_parameters": {GLOBAL: {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}}, "rope_type"),
        ({"rope_parameters": {GLOBAL: {"rope_theta": "wide"}}}, "a number"),
        ({"layer_types": [GLOBAL]}, "layer_types"),
        ({"layer_types": 3}, "layer_types"),
        ({"layer_types": ["sideways"] * 3}, "layer_types"),
        ({"num_attention_heads": 8}, "even width"),
    ],
)
def test_what_cannot_be_computed_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(**change)


def reached(config: ModernBertConfig, place: int, length: int = 20) -> list[int]:
    """The tokens that a change of one token reaches."""
    backbone = Network.build(ModernBert, config, (), seed=1).double().backbone
    ids = torch.arange(length)[None] % 50 + 5
    other = ids.clone()
    other[0, place] = 60
    before, after = (backbone({"input_ids": one}).hidden[0] for one in (ids, other))
    return torch.nonzero((before != after).any(-1)).flatten().tolist()


def test_a_local_layer_reaches_half_the_window_and_two_reach_twice_as_far() -> None:
    assert reached(read(num_hidden_layers=1, layer_types=[LOCAL], local_attention=7), 10) == list(range(7, 14))
    assert reached(read(num_hidden_layers=2, layer_types=[LOCAL] * 2, local_attention=7), 10) == list(range(4, 17))
    assert reached(read(num_hidden_layers=2, layer_types=[LOCAL, GLOBAL], local_attention=7), 10) == list(range(20))


def test_in_long_texts_a_local_layer_reaches_as_far() -> None:
    for place, near in ((1023, range(1020, 1027)), (0, range(4)), (1099, range(1096, 1100))):
        assert reached(read(num_hidden_layers=1, layer_types=[LOCAL], local_attention=7), place, 1100) == list(near)
    assert reached(read(num_hidden_layers=2, layer_types=[LOCAL, GLOBAL], local_attention=7), 10, 1100) == list(range(1100))


def test_the_first_layer_takes_its_states_as_they_come() -> None:
    names = set(Network.build(ModernBert, read(), ()).state_dict())
    assert "backbone.blocks.0.attention_norm.weight" not in names and "backbone.blocks.1.attention_norm.weight" in names
    assert not {name for name in names if name.endswith("bias")}


def test_padding_on_the_left_changes_nothing() -> None:
    for pooling in ("cls", "mean"):
        config = read(classifier_pooling=pooling, pad_token_id=1)
        made = Network.build(ModernBert, config, {"sequence-classification"}, seed=1).double()
        found = []
        for ids in (torch.tensor([[1, 1, 9, 8, 7, 6]]), torch.tensor([[9, 8, 7, 6, 1, 1]])):
            out = made.backbone({"input_ids": ids, "attention_mask": ids != 1})
            found.append((out.hidden[ids != 1], out.pooled))
        for left, right in zip(*found, strict=True):
            assert torch.allclose(left, right, atol=1e-6)  # rotary tables are of float32


def test_what_adds_to_the_states_starts_smaller() -> None:
    state = Network.build(ModernBert, read(hidden_size=96, intermediate_size=96), {"token-classification"}, labels=30, seed=1).state_dict()
    inner, outer = (float(state[f"backbone.blocks.1.feed_forward.{name}.weight"].std()) for name in ("up", "down"))
    assert inner == pytest.approx(0.02, rel=0.05) and outer == pytest.approx(0.02 / 6**0.5, rel=0.05)
    assert float(state["heads.token-classification.linear.weight"].std()) == pytest.approx(96**-0.5, rel=0.1)
