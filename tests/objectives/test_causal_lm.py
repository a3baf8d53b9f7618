"""Causal LM: beside PyTorch's loss over all scores, blind to what comes, and nothing counts at padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lexloom import keys
from lexloom.batch import Batch
from lexloom.errors import TokenizerError
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.nn import cross_entropy
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.causal_lm import PART, CausalLM, CausalLMConfig
from lexloom.train import recompute
from lexloom.train.step import Step

V, END = 97, 3
OBJECTIVE = CausalLM(CausalLMConfig(), Vocabulary(V, None, frozenset(range(5)), {"input_ids": 0}, END))
DECODERS = [name for name in ARCHITECTURES.names() if frozenset({PART}) in ARCHITECTURES.get(name).ROLES]
decoders = pytest.mark.parametrize("name", DECODERS)


def network(name: str) -> Network:
    kind = ARCHITECTURES.get(name)
    return Network.build(kind, kind.Config.read(dict(kind.TINY)), {PART}, seed=1).double()


def batch(lengths: tuple[int, ...] = (12, 7, 1), size: int = 4) -> Batch:
    rows: list[dict[str, Any]] = [{"input_ids": keys.integers(keys.key("causal", i), n, V)} for i, n in enumerate(lengths)]
    return OBJECTIVE.collate(rows, keys.key(5, np.arange(len(rows))), length=12, size=size)


def loss(model: Network, tensors: dict[str, Tensor]) -> Tensor:
    plain = {name: tensor for name, tensor in tensors.items() if name != "row_keys"}
    return OBJECTIVE.loss(model.backbone(plain), plain, dict(model.heads.items()))[PART]


@decoders
@pytest.mark.parametrize("chunk", [1 << 24, 500])
def test_it_is_the_loss_over_all_scores(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    model, made = network(name), batch()
    scores = model.heads[PART](model.backbone({k: made[k] for k in ("input_ids", "attention_mask")}).hidden)
    labels = made["input_ids"].masked_fill(~made["attention_mask"], -100)[:, 1:]
    expected = F.cross_entropy(scores[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    assert made.counts == {PART: float((labels != -100).sum())} == {PART: 11.0 + 6.0 + 0.0}
    found = loss(model, made.tensors)
    gradients = [torch.autograd.grad(value, list(model.parameters()), retain_graph=True) for value in (found, expected)]
    assert abs(found - expected) <= 1e-9 * expected
    assert all((a - b).abs().max() <= 1e-9 for a, b in zip(*gradients, strict=True))
    with torch.no_grad():
        assert abs(loss(model, made.tensors) - expected) <= 1e-9 * expected


@decoders
def test_no_token_sees_what_comes(name: str) -> None:
    """Another token at t: the losses of the tokens before t stay, that of t and of one behind it do not."""
    model, made = network(name), batch((12,), 1)

    def each(tensors: dict[str, Tensor]) -> Tensor:
        """(T - 1,): the loss of each token but the first."""
        places = torch.eye(11)[:, None]
        with torch.no_grad():
            return torch.stack([loss(model, {**tensors, "next_weights": places[i]}) for i in range(11)])

    before = each(made.tensors)
    assert before.sum() == pytest.approx(float(loss(model, made.tensors).detach()))
    for t in range(1, 12):
        other = made["input_ids"].clone()
        other[0, t] = (other[0, t] + 1) % V
        after = each({**made.tensors, "input_ids": other})
        assert torch.equal(after[: t - 1], before[: t - 1]) and after[t - 1] != before[t - 1]
        assert t == 11 or after[t] != before[t]


def test_a_guess_that_knows_frequencies_alone() -> None:
    assert OBJECTIVE.blind(np.array([0, 5, 5, 0])) == {PART: pytest.approx(math.log(2))}
    assert OBJECTIVE.blind(np.zeros(4)) == {}


def test_a_tokenizer_without_an_end_is_refused() -> None:
    with pytest.raises(TokenizerError, match="end token"):
        CausalLM(CausalLMConfig(), Vocabulary(V, 4, frozenset(), {"input_ids": 0}))


@decoders
def test_blocks_that_compute_their_inner_values_twice_give_the_same_bits(name: str) -> None:
    model, made = network(name), batch()
    sums = []
    for change in (None, recompute.begin):
        if change is not None:
            change(model.backbone.blocks)
        model.zero_grad()
        value = OBJECTIVE.loss(model.backbone(made), made, dict(model.heads.items()))[PART]
        value.backward()
        sums.append([value.detach(), *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*sums, strict=True))  # type: ignore[arg-type]


@decoders
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_compiled_it_is_the_same(name: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", 2000)
    step, made = Step(network(name).to(dtype), OBJECTIVE), batch()
    found = []
    for run in (step, torch.compile(step, dynamic=False)):
        step.zero_grad()
        run(made.tensors)[PART].backward()
        found.append(torch.cat([parameter.grad.flatten().double() for parameter in step.parameters() if parameter.grad is not None]))
    assert (found[0] - found[1]).norm() <= tolerance * found[0].norm() > 0
