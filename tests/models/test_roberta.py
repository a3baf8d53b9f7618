"""What RoBERTa does that BERT does not: positions from the padding token on, one segment, heads without a pooler."""

from __future__ import annotations

import pytest
import torch

from lexloom.errors import ConfigError
from lexloom.models.base import Network
from lexloom.models.roberta import Roberta, RobertaConfig


def network(**settings: object) -> Network:
    return Network.build(Roberta, RobertaConfig.read({**Roberta.TINY, **settings}), (), seed=1).double()


def test_texts_count_from_behind_the_padding_token_wherever_they_start() -> None:
    backbone = network(pad_token_id=5, max_position_embeddings=40).backbone
    assert isinstance(backbone, Roberta)
    ids = torch.tensor([[5, 5, 9, 8, 5], [9, 8, 7, 5, 5]])
    assert backbone.places(ids).tolist() == [[5, 5, 6, 7, 5], [6, 7, 8, 5, 5]]
    assert backbone.max_length == 34


def test_padding_on_the_left_changes_nothing() -> None:
    made, text = network(), [9, 8, 7, 6]
    left, right = (torch.tensor([row]) for row in ([1, 1, *text], [*text, 1, 1]))
    states = [made.backbone({"input_ids": ids, "attention_mask": ids != 1}).hidden[0][ids[0] != 1] for ids in (left, right)]
    assert torch.allclose(*states, rtol=1e-9, atol=1e-12)


def test_one_segment_is_all_there_is() -> None:
    ids = torch.tensor([[9, 8, 7, 6]])
    segments = torch.tensor([[0, 0, 1, 1]])
    for types, alike in ((1, True), (2, False)):
        backbone = network(type_vocab_size=types).backbone
        assert torch.equal(backbone({"input_ids": ids}).hidden, backbone({"input_ids": ids, "token_type_ids": segments}).hidden) == alike


def test_a_recipes_length_is_what_is_left_of_the_positions() -> None:
    ids = {"pad": 7, "bos": 0, "eos": 2, "cls": 0, "sep": 2, "mask": 4, "unk": 3}
    settings = Roberta.fitted({"hidden_size": 24, "num_attention_heads": 3}, length=64, vocabulary=90, ids=ids)
    config = RobertaConfig.read(settings)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id, config.vocab_size) == (7, 0, 2, 90)
    assert Network.planned(Roberta, config, ()).backbone.max_length == 64
    assert Roberta.fitted({"max_position_embeddings": 514}, length=64, vocabulary=90, ids=ids)["max_position_embeddings"] == 514
    assert Roberta.fitted({}, length=64, vocabulary=90, ids={})["max_position_embeddings"] == 66


def test_without_a_padding_token_there_is_nothing_to_count_from() -> None:
    with pytest.raises(ConfigError, match="padding token"):
        Roberta.fitted({}, length=64, vocabulary=90, ids={"pad": None})
    with pytest.raises(ConfigError, match="max_position_embeddings"):
        RobertaConfig.read({"max_position_embeddings": 2})


def test_the_first_heads_look_beside_in_a_mimetic_start() -> None:
    """Positions differ by the offset alone, so the start that BERT has is one for RoBERTa."""
    made = Network.build(Roberta, RobertaConfig.read({**Roberta.TINY, "initialization": "mimetic"}), (), seed=1)
    plain = Network.build(Roberta, RobertaConfig.read(dict(Roberta.TINY)), (), seed=1)
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, plain.state_dict()[name])}
    assert {"backbone.positions.weight", "backbone.blocks.0.attention.qkv.weight", "backbone.blocks.1.attention.out.weight"} <= changed
    assert "backbone.pooler.weight" not in changed
