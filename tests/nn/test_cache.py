"""Reading token by token through a cache gives the states of reading at once: rows of mixed length, padding in front, rows that pause."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lexloom import keys
from lexloom.errors import ConfigError, LexloomError
from lexloom.models.base import ARCHITECTURES, Architecture, Network

DECODERS = [name for name in ARCHITECTURES.names() if "decoder" in ARCHITECTURES.get(name).ABILITIES]
decoders = pytest.mark.parametrize("name", DECODERS)
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


def test_an_encoder_has_none() -> None:
    kind = ARCHITECTURES.get("bert")
    with pytest.raises(ConfigError, match="token by token"):
        Network.build(kind, kind.Config.read(dict(kind.TINY)), (), seed=1).backbone.cache(1, 4)
