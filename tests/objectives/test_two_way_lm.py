"""Two-way LM: no state has seen the word that it predicts, in either direction and wherever padding stands; and what the loss is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from lexloom import keys
from lexloom.batch import Batch
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.nn.eager import leave_alone
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.two_way_lm import BACKWARD, FORWARD, ROLE, TwoWayLM, TwoWayLMConfig
from lexloom.text.spelling import spelled
from lexloom.train.step import Step

V, C, T = 97, 12, 12
FILLS = {"input_ids": 0, "characters": 0}
OBJECTIVE = TwoWayLM(TwoWayLMConfig(), Vocabulary(V, None, frozenset(range(5)), FILLS, characters=C))
NETWORKS = [name for name in ARCHITECTURES.names() if frozenset({ROLE}) in ARCHITECTURES.get(name).ROLES]
networks = pytest.mark.parametrize("name", NETWORKS)


def network(name: str, dtype: torch.dtype = torch.float64, **settings: Any) -> Network:
    kind = ARCHITECTURES.get(name)
    return Network.build(kind, kind.Config.read({**kind.TINY, **settings}), {ROLE}, seed=1).to(dtype)


def characters(ids: Any) -> np.ndarray:
    return spelled([f"w{i}" for i in ids], C)


def batch(lengths: tuple[int, ...] = (12, 7, 3), size: int = 4) -> Batch:
    rows: list[dict[str, Any]] = []
    for i, n in enumerate(lengths):
        ids = 5 + keys.integers(keys.key("two-way", i), n, V - 5)
        ids[0], ids[-1], special = 2, 3, np.zeros(n, dtype=bool)
        special[[0, -1]] = True
        rows.append({"input_ids": ids, "special": special, "characters": characters(ids)})
    return OBJECTIVE.collate(rows, keys.key(5, np.arange(len(rows))), length=T, size=size)


def tensors(made: Batch) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in made.items() if name != "row_keys"}


def turned(made: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same rows with their padding in front."""
    kept = made["attention_mask"]
    back = (torch.arange(T) + kept.sum(1, keepdim=True)) % T
    return {
        **made,
        **{name: torch.stack([made[name][i, place] for i, place in enumerate(back)]) for name in made if made[name].shape[1] == T},
    }


@networks
@pytest.mark.parametrize("padding", ["behind", "in front"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # of which the second goes through the kernel
@torch.no_grad()
def test_no_state_has_seen_the_word_that_it_predicts(name: str, padding: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another word at t: forward states before t stay to the bit and all others of the row move, backward states the other way round.

    In float64 to 1e-12: each word is embedded once, so another word moves rows of a product, and MKL gives a row other last bits elsewhere.
    """
    monkeypatch.setattr("lexloom.nn.recurrent.ONE_PASS_FROM", 0)
    model, made = network(name, dtype), tensors(batch())
    made = made if padding == "behind" else turned(made)
    before, kept = model.backbone(made, layers=True), made["attention_mask"]
    least = 1e-12 if dtype == torch.float64 else 0.0
    for row, t in kept.nonzero().tolist():
        other = {**made, "characters": made["characters"].clone(), "input_ids": made["input_ids"].clone()}
        other["input_ids"][row, t] = V - 1 if made["input_ids"][row, t] != V - 1 else V - 2
        other["characters"][row, t] = torch.from_numpy(characters([other["input_ids"][row, t].item()]))[0]
        after = model.backbone(other, layers=True)
        moved = {way: ((getattr(after, way) - getattr(before, way)).abs() > least).any(-1) for way in ("forward", "backward")}
        place = torch.arange(T)
        assert torch.equal(moved["forward"][row], kept[row] & (place >= t))
        assert torch.equal(moved["backward"][row], kept[row] & (place <= t))
        assert not any(way[i].any() for way in moved.values() for i in range(len(kept)) if i != row)
        for old, new in zip(before.layers or (), after.layers or (), strict=True):  # in every layer each half keeps to its side
            first, second = ((new - old).abs() > least)[row].chunk(2, dim=-1)
            assert not first[:t].any() and not second[t + 1 :].any()


@networks
def test_the_loss_of_a_word_never_hears_of_the_word_but_as_its_label(name: str) -> None:
    """The gradient of word t's loss in each direction, by its characters: only those on the one side get any."""
    model, made = network(name), tensors(batch((12,), 1))
    embedded: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    model.backbone.word_dropout.register_forward_hook(keep)
    output = model.backbone(made)
    for t in range(1, T - 1):
        only = torch.zeros(1, T - 1)
        for part, weights, reached in (
            (FORWARD, {"forward_weights": only.clone().index_fill_(1, torch.tensor(t - 1), 1.0)}, range(t)),
            (BACKWARD, {"backward_weights": only.clone().index_fill_(1, torch.tensor(t), 1.0)}, range(t + 1, T)),
        ):
            loss = OBJECTIVE.loss(output, {**made, **weights}, dict(model.heads.items()))[part]
            [gradient] = torch.autograd.grad(loss, embedded[-1:], retain_graph=True)
            assert gradient[0].any(-1).nonzero()[:, 0].tolist() == list(reached)


@networks
@pytest.mark.parametrize("cutoffs", [[], [20, 50]])
def test_it_is_the_log_probability_of_each_word(name: str, cutoffs: list[int]) -> None:
    model, made = network(name, cutoffs=cutoffs), batch()
    output = model.backbone(tensors(made))
    ahead, behind = (model.heads[ROLE].softmax(states) for states in (output.forward, output.backward))  # type: ignore[operator, union-attr]
    words = [(row, t) for row, n in enumerate((12, 7, 3)) for t in range(1, n - 1)]  # all but the special tokens at both ends
    expected = {
        FORWARD: -sum(ahead[row, t - 1, made["input_ids"][row, t]] for row, t in words),
        BACKWARD: -sum(behind[row, t + 1, made["input_ids"][row, t]] for row, t in words),
    }
    found = OBJECTIVE.loss(output, made, dict(model.heads.items()))
    assert made.counts == dict.fromkeys(expected, float(len(words))) and dict(OBJECTIVE.parts) == dict.fromkeys(expected, 0.5)
    assert all(torch.allclose(found[part], expected[part], rtol=1e-12) for part in expected)


@networks
def test_words_beyond_those_predicted_are_the_unknown_one(name: str) -> None:
    model, made = network(name, predicted_words=40, unk_token_id=1), batch()
    output = model.backbone(tensors(made))
    folded = {**made.tensors, "input_ids": torch.where(made["input_ids"] >= 40, 1, made["input_ids"])}
    one, two = (OBJECTIVE.loss(output, ids, dict(model.heads.items())) for ids in (made.tensors, folded))
    assert all(torch.equal(one[part], two[part]) for part in one)
    assert model.heads[ROLE](output.hidden).shape[-1] == 2 * 40


def test_a_text_without_special_tokens_has_words_that_nothing_predicts() -> None:
    ids = np.arange(5, 9)
    row = {"input_ids": ids, "special": np.zeros(4, dtype=bool), "characters": characters(ids)}
    made = OBJECTIVE.collate([row], keys.key(5, np.arange(1)), length=6, size=1)
    assert made["forward_weights"].tolist() == [[1, 1, 1, 0, 0]] and made["backward_weights"].tolist() == [[1, 1, 1, 0, 0]]
    assert made.counts == {FORWARD: 3.0, BACKWARD: 3.0}


def test_a_guess_that_knows_frequencies_alone() -> None:
    counts = np.zeros(V)
    counts[[2, 7, 8]] = (100, 5, 5)  # the first is special
    assert OBJECTIVE.blind(counts) == dict.fromkeys((FORWARD, BACKWARD), pytest.approx(math.log(2)))
    assert OBJECTIVE.blind(np.zeros(V)) == {}


@networks
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_compiled_it_is_the_same_for_any_number_of_different_words(name: str, dtype: torch.dtype, tolerance: float) -> None:
    step = Step(network(name, dtype), OBJECTIVE)
    counter = CompileCounterWithBackend("inductor")
    leave_alone()
    compiled = torch.compile(step, backend=counter, dynamic=False)
    frames = []
    for lengths in ((12, 7, 3), (12, 12, 12, 12), (3, 3)):
        made, found = batch(lengths), []
        for run in (step, compiled):
            step.zero_grad()
            torch.stack(list(run(made.tensors).values())).sum().backward()
            found.append(torch.cat([p.grad.flatten().double() for p in step.parameters() if p.grad is not None]))
        assert (found[0] - found[1]).norm() <= tolerance * found[0].norm() > 0
        frames.append(counter.frame_count)
    assert frames[0] == frames[-1] > 0
