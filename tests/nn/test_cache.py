"""Reading token by token through a cache gives the states of reading at once: rows of mixed length, padding in front, rows that pause."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lexloom import keys
from lexloom.errors import ConfigError, LexloomError
from lexloom.models.base import ARCHITECTURES, Architecture, Network
from lexloom.nn.encoder_decoder import later

ABLE = {name: ARCHITECTURES.get(name).ABILITIES for name in ARCHITECTURES.names()}
DECODERS = [name for name, able in ABLE.items() if "decoder" in able and "cross-attention" not in able]
decoders = pytest.mark.parametrize("name", DECODERS)
translators = pytest.mark.parametrize("name", [name for name, able in ABLE.items() if "cross-attention" in able])
PADDING = (0, 5, 2, 9)  # in front of each row
T = 90  # more than the slots that are looked at in one step


def backbone(name: str) -> Architecture:
    kind = ARCHITECTURES.get(name)
    config = kind.Config.read(kind.fitted({**kind.TINY, "max_position_embeddings": 100}, length=100, vocabulary=97, ids={}))
    return Network.build(kind, config, (), seed=1).double().backbone


def rows() -> dict[str, Tensor]:
    ids = torch.from_numpy(keys.integers(keys.key("cache"), len(PADDING) * T, 97)).view(len(PADDING), T)
    return {"input_ids": ids, "attention_mask": torch.arange(T) >= torch.tensor(PADDING)[:, None]}


@torch.no_grad()
def read(network: Any, batch: dict[str, Tensor], cuts: list[int], slots: int) -> Tensor:
    """The states of a batch that is handed to a cache in parts; the mask goes along for as long as there is padding in it."""
    cache, found = network.cache(len(PADDING), slots), []
    for a, b in zip([0, *cuts], [*cuts, T], strict=True):
        part = {name: tensor[:, a:b] for name, tensor in batch.items()}
        found.append(network({"input_ids": part["input_ids"]} if part["attention_mask"].all() else part, cache=cache).hidden)
    assert cache.lengths.tolist() == [T - n for n in PADDING]
    return torch.cat(found, dim=1)


@decoders
@pytest.mark.parametrize("slots", [T, 100])
@pytest.mark.parametrize("cuts", [[], [10, 11, 12, 50], [3, 70], list(range(1, T))], ids=["at-once", "steps", "parts", "one-by-one"])
def test_the_states_are_those_of_reading_at_once(name: str, slots: int, cuts: list[int]) -> None:
    network, batch = backbone(name), rows()
    seen = batch["attention_mask"]
    with torch.no_grad():
        whole = network(batch).hidden
    assert (read(network, batch, cuts, slots) - whole)[seen].abs().max() <= 1e-9
    assert (network(batch).hidden - whole)[seen].abs().max() <= 1e-9, "attention written out, as in training"


@decoders
@torch.no_grad()
def test_a_row_that_pauses_and_its_neighbours_do_not_notice(name: str) -> None:
    """Padding leaves no trace, wherever it stands: row 1 gets its tokens in every third step only."""
    network, ids = backbone(name), rows()["input_ids"][:2]
    cache, taken, found = network.cache(2, 100), 0, []
    for t in range(30):
        step = torch.stack([ids[0, t], ids[1, taken]])[:, None]
        here = t % 3 == 2
        hidden = network({"input_ids": step, "attention_mask": torch.tensor([[True], [here]])}, cache=cache).hidden  # type: ignore[call-arg]
        taken += here
        found.append((hidden[0], hidden[1] if here else None))
    assert cache.lengths.tolist() == [30, 10]
    for row, n in ((0, 30), (1, 10)):
        alone = network({"input_ids": ids[row : row + 1, :n]}).hidden[0]
        stepped = torch.cat([states[row] for states in found if states[row] is not None])
        assert (stepped - alone).abs().max() <= 1e-9


@decoders
@torch.no_grad()
def test_padding_on_either_side_changes_nothing(name: str) -> None:
    network, ids = backbone(name), rows()["input_ids"][:, :20]
    alone, blank = network({"input_ids": ids}).hidden, torch.zeros(len(PADDING), 7, dtype=torch.int64)
    for front in (True, False):
        wide = torch.cat([blank, ids] if front else [ids, blank], dim=1)
        mask = torch.cat([blank.bool(), torch.ones_like(ids).bool()][:: 1 if front else -1], dim=1)
        found = network({"input_ids": wide, "attention_mask": mask}).hidden
        assert (found[mask].view_as(alone) - alone).abs().max() <= 1e-9
        with torch.enable_grad():
            written = network({"input_ids": wide, "attention_mask": mask}).hidden
        assert (written[mask].view_as(alone) - alone).abs().max() <= 1e-9


@decoders
@torch.no_grad()
def test_what_does_not_fit_is_named(name: str) -> None:
    network = backbone(name)
    cache = network.cache(2, 6)
    assert cache.slots == 6 and network.cache(2, 1000).slots == 100
    ids = torch.ones(2, 5, dtype=torch.int64)
    network({"input_ids": ids}, cache=cache)  # type: ignore[call-arg]
    with pytest.raises(LexloomError, match="outgrown its cache"):
        network({"input_ids": ids[:, :2]}, cache=cache)  # type: ignore[call-arg]
    with pytest.raises(LexloomError, match="fixed number of rows"):
        network({"input_ids": ids[:1]}, cache=cache)  # type: ignore[call-arg]
    padded = {"input_ids": ids, "attention_mask": torch.tensor([[False, False, False, False, True]] * 2)}
    assert network(padded, cache=cache).hidden.isfinite().all() and cache.lengths.tolist() == [6, 6]  # type: ignore[call-arg]
    with pytest.raises(LexloomError, match="outgrown its cache"):
        network(padded, cache=cache)  # type: ignore[call-arg]


def sources() -> dict[str, Tensor]:
    """Of another length than the targets, with padding on both sides."""
    ids = torch.from_numpy(keys.integers(keys.key("sources"), len(PADDING) * 13, 97)).view(len(PADDING), 13)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[0, 9:] = mask[2, :4] = False
    return {"input_ids": ids, "attention_mask": mask}


@translators
@torch.no_grad()
@pytest.mark.parametrize("cuts", [[], [10, 11, 12, 50], list(range(1, T))], ids=["at-once", "steps", "one-by-one"])
def test_a_target_read_in_parts_has_the_states_of_reading_at_once(name: str, cuts: list[int]) -> None:
    network: Any = backbone(name)
    targets = {f"decoder_{key}": tensor for key, tensor in rows().items()}
    whole = network({**sources(), **targets})
    cache, found = network.cache(len(PADDING), T), []
    for a, b in zip([0, *cuts], [*cuts, T], strict=True):
        part = {key: tensor[:, a:b] for key, tensor in targets.items()} | (sources() if a == 0 else {})
        out = network(part, cache=cache)
        assert (out.encoder is None) == (a > 0)
        found.append(out.hidden)
    assert cache.lengths.tolist() == [T - n for n in PADDING]
    assert (torch.cat(found, dim=1) - whole.hidden)[targets["decoder_attention_mask"]].abs().max() <= 1e-9


@translators
@torch.no_grad()
def test_keys_of_the_source_are_made_once(name: str) -> None:
    network: Any = backbone(name)
    cache, made = network.cache(len(PADDING), T), []
    for block in network.decoder:
        block.cross.kv.register_forward_hook(lambda *_: made.append(1))
    first = {"decoder_input_ids": rows()["input_ids"][:, :1]}
    network({**sources(), **first}, cache=cache)
    kept = [t.clone() for pair in cache.sources.values() for t in pair]
    for t in range(1, 5):
        network({"decoder_input_ids": rows()["input_ids"][:, t : t + 1]}, cache=cache)
    assert len(made) == len(network.decoder) == len(cache.sources)
    assert all(torch.equal(a, b) for a, b in zip(kept, [t for pair in cache.sources.values() for t in pair], strict=True))
    with pytest.raises(LexloomError, match="reads its source once"):
        network({**sources(), **first}, cache=cache)
    with pytest.raises(LexloomError, match="reads its source once"):
        network(first, cache=network.cache(len(PADDING), T))


@translators
@torch.no_grad()
def test_padding_around_source_and_target_changes_nothing(name: str) -> None:
    """Behind both, and in front of the target; the positions of a source count what stands in front, as in `transformers`."""
    network, source, target = backbone(name), sources()["input_ids"], rows()["input_ids"][:, :20]
    alone, blank = network({"input_ids": source, "decoder_input_ids": target}).hidden, torch.zeros(len(PADDING), 7, dtype=torch.int64)
    wide = {"input_ids": torch.cat([source, blank], 1), "attention_mask": torch.cat([torch.ones_like(source), blank], 1).bool()}
    for front in (True, False):
        ids = torch.cat([blank, target] if front else [target, blank], dim=1)
        mask = torch.cat([blank.bool(), torch.ones_like(target).bool()][:: 1 if front else -1], dim=1)
        for learning in (False, True):
            with torch.set_grad_enabled(learning):
                found = network({**wide, "decoder_input_ids": ids, "decoder_attention_mask": mask}).hidden
            assert (found[mask].view_as(alone) - alone).abs().max() <= 1e-9


@translators
@torch.no_grad()
def test_without_a_target_a_text_is_read_again_one_place_later(name: str) -> None:
    """As BART classifies tokens; the start token stands before the first, wherever padding puts it."""
    network, ids = backbone(name), sources()["input_ids"]
    start = torch.full((len(PADDING), 1), network.config.decoder_start_token_id)
    expected = network({"input_ids": ids, "decoder_input_ids": torch.cat([start, ids[:, :-1]], 1)}).hidden
    assert torch.equal(network({"input_ids": ids}).hidden, expected)
    assert torch.equal(network({"input_ids": ids, "target_ids": ids}).hidden, expected)
    mask = torch.tensor([[False] * 3 + [True] * 10])
    shifted = later(ids[:1], mask, 5)
    assert shifted[0, 3] == 5 and torch.equal(shifted[0, 4:], ids[0, 3:-1])


def test_an_encoder_has_none() -> None:
    kind = ARCHITECTURES.get("bert")
    with pytest.raises(ConfigError, match="token by token"):
        Network.build(kind, kind.Config.read(dict(kind.TINY)), (), seed=1).backbone.cache(1, 4)
