"""Sequence to sequence: beside PyTorch's loss over all scores, ragged pairs, and tiny networks that learn to copy and to reverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lexloom import keys
from lexloom.batch import Batch
from lexloom.errors import ConfigError, DataError
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.objectives.base import Objective, Vocabulary
from lexloom.objectives.seq_to_seq import ROLE, SeqToSeq, SeqToSeqConfig
from lexloom.objectives.together import Together
from lexloom.text.order import BucketPlan
from lexloom.train.source import LabelledSource
from lexloom.train.step import Step
from tests.parity.test_seq_to_seq import greedy

V, END = 97, 2
VOCABULARY = Vocabulary(V, None, frozenset(range(5)), {"input_ids": 0}, END)
KINDS = [name for name in ARCHITECTURES.names() if frozenset({ROLE}) in ARCHITECTURES.get(name).ROLES]
kinds = pytest.mark.parametrize("name", KINDS)


def objective(smoothing: float = 0.0) -> SeqToSeq:
    return SeqToSeq(SeqToSeqConfig(smoothing=smoothing), VOCABULARY)


def network(name: str, **settings: Any) -> Network:
    kind = ARCHITECTURES.get(name)
    return Network.build(kind, kind.Config.read({**kind.TINY, **settings}), {ROLE}, seed=1)


def batch(made: Objective, size: int = 4) -> Batch:
    """Targets longer than their sources and shorter."""
    lengths = ((12, 5), (3, 9), (1, 1))
    rows = []
    for i, pair in enumerate(lengths):
        ids = {name: 5 + keys.integers(keys.key(name, i), n, V - 5) for name, n in zip(("input_ids", "target_ids"), pair, strict=True)}
        rows.append({"id": i, **ids})
    return made.collate(rows, keys.key(5, np.arange(len(rows))), length=12, size=size)


def plain(tensors: Batch) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != "row_keys"}


@kinds
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_loss_over_all_scores(name: str, smoothing: float) -> None:
    made, model = objective(smoothing), network(name).double()
    tensors = batch(made)
    output = model.backbone(plain(tensors))
    labels = tensors["target_ids"].masked_fill(tensors["target_weights"] == 0, -100).flatten()
    scores = model.heads[ROLE](output.hidden).flatten(0, 1)
    expected = [F.cross_entropy(scores, labels, reduction="sum", label_smoothing=e) for e in dict.fromkeys((smoothing, 0.0))]
    found = made.loss(output, tensors, dict(model.heads.items()))
    assert tensors.counts == dict.fromkeys(made.parts, 15.0)
    assert list(found) == list(made.parts) == (["seq-to-seq", "seq-to-seq unsmoothed"] if smoothing else ["seq-to-seq"])
    assert all(abs(a - b) <= 1e-9 * b for a, b in zip(found.values(), expected, strict=True))
    assert not found.get("seq-to-seq unsmoothed", torch.zeros(())).requires_grad
    gradients = [torch.autograd.grad(value, list(model.parameters()), retain_graph=True) for value in (found["seq-to-seq"], expected[0])]
    assert all((a - b).abs().max() <= 1e-9 for a, b in zip(*gradients, strict=True))


@kinds
@torch.no_grad()
def test_each_side_is_as_wide_as_its_longest_of_a_step(name: str) -> None:
    """In all micro-batches of it, whoever has them; the losses are those of batches as wide as their bucket."""
    made = objective()
    lengths = [(1 + 7 * i % 19, 1 + 5 * i % 11) for i in range(29)]
    rows = [
        {side: 3 + keys.integers(keys.key(i, side), n, V - 3) for side, n in zip(("input_ids", "target_ids"), pair, strict=True)}
        for i, pair in enumerate(lengths)
    ]
    plan = BucketPlan([max(pair) for pair in lengths], edges=[8, 20], batch_rows=6, seed=1)
    wide, narrow = (LabelledSource(rows, made, plan, epochs=1, seed=1, micro_tokens=40) for _ in "ab")
    narrow.padded = False
    step, positions = Step(network(name, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0).eval(), made), [0, 0]
    for number in range(wide.steps):
        batches, expected = narrow.batches(number), wide.batches(number)
        longest = [max(int(row.sum()) for batch in expected for row in batch[mask]) for mask in ("attention_mask", "target_weights")]
        assert {batch["input_ids"].shape[1] for batch in batches} == {longest[0]}
        assert (
            {batch["target_ids"].shape[1] for batch in batches} == {batch["target_weights"].shape[1] for batch in batches} == {longest[1]}
        )
        shapes = [batch["target_ids"].shape for rank in range(2) for batch in narrow.batches(number, rank, 2)]
        assert {shape[1] for shape in shapes} == {longest[1]}
        for batch, whole in zip(batches, expected, strict=True):
            assert batch.counts == whole.counts
            assert step(batch.tensors)[ROLE].item() == pytest.approx(step(whole.tensors)[ROLE].item(), rel=1e-5)
            positions = [n + one["target_ids"].numel() for n, one in zip(positions, (batch, whole), strict=True)]
    assert positions[0] < 0.8 * positions[1]


@kinds
def test_a_target_token_is_predicted_from_those_before_it(name: str) -> None:
    model, tensors = network(name).double(), batch(objective())
    before = model.backbone(plain(tensors)).hidden
    other = {**plain(tensors), "target_ids": tensors["target_ids"].clone()}
    other["target_ids"][1, 4] += 1
    after = model.backbone(other).hidden
    assert torch.equal(after[1, :5], before[1, :5]) and not torch.equal(after[1, 5], before[1, 5])
    assert torch.equal(after[0], before[0])


def test_rows_that_do_not_fit_are_named() -> None:
    row, longer = {"id": 7, "input_ids": np.arange(5)}, {"id": 8, "input_ids": np.arange(5), "target_ids": np.arange(13)}
    for bad, words in ((row, "target_ids of row 7 do not fit(.|\n)*none"), (longer, "target_ids of row 8 do not fit(.|\n)*13 tokens")):
        with pytest.raises(DataError, match=words):
            objective().collate([bad], keys.key(5, np.arange(1)), length=12, size=1)
    with pytest.raises(ConfigError, match="two objectives would teach one head different things"):
        Together([objective(), _Other(SeqToSeqConfig(), VOCABULARY)])


class _Other(SeqToSeq):
    """Another goal for the same head."""

    def __init__(self, config: SeqToSeqConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.parts = {"other": 1.0}


def pairs(task: str, n: int, epoch: int) -> list[dict[str, Any]]:
    """Random letters, up to five of them, and what is to be made of them."""
    found = []
    for i in range(n):
        key = keys.key("letters", epoch, i)
        letters = 5 + keys.integers(key, 2 + i % 4, 10)
        found.append(
            {"id": i, "input_ids": np.append(letters, END), "target_ids": np.append(letters[:: -1 if task == "reverse" else 1], END)}
        )
    return found


@pytest.mark.parametrize(("name", "task"), [("bart", "copy"), ("marian", "reverse")])
def test_a_tiny_network_learns_it(name: str, task: str) -> None:
    sizes = {"d_model": 48, "encoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 15}
    made = SeqToSeq(SeqToSeqConfig(smoothing=0.1), Vocabulary(15, None, frozenset(range(5)), {"input_ids": 0}, END))
    model = network(name, **sizes, encoder_ffn_dim=96, decoder_ffn_dim=96, init_std=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(200):
        tensors = made.collate(pairs(task, 32, step), keys.key(1, step, np.arange(32)), length=6, size=32)
        loss = made.loss(model.backbone(plain(tensors)), tensors, dict(model.heads.items()))[ROLE] / tensors.counts[ROLE]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 20, (200 - step) / 100)
    fresh = pairs(task, 100, -1)
    tensors = made.collate(fresh, keys.key(1, np.arange(100)), length=6, size=100)
    written = greedy(model.eval(), {key: tensors[key] for key in ("input_ids", "attention_mask")}, 6).tolist()
    right = [ids[: len(row["target_ids"])] == row["target_ids"].tolist() for ids, row in zip(written, fresh, strict=True)]
    assert sum(right) >= 95


@kinds
@pytest.mark.slow
def test_compiled_it_is_the_same(name: str) -> None:
    made = objective(smoothing=0.1)
    step, tensors = Step(network(name), made), batch(made).tensors
    found = []
    for run in (step, torch.compile(step, dynamic=False)):
        step.zero_grad()
        sums = run(tensors)
        sums[ROLE].backward()
        gradients = [parameter.grad.flatten() for parameter in step.parameters() if parameter.grad is not None]
        found.append((torch.stack([value.detach() for value in sums.values()]), torch.cat(gradients)))
    (losses, gradient), (other, another) = found
    torch.testing.assert_close(losses, other, rtol=1e-5, atol=1e-5)
    assert (gradient - another).norm() <= 1e-5 * gradient.norm()
