"""What every architecture, objective and task must do. A new file in `models/`, `objectives/` or `tasks/` is picked up by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lexloom import keys
from lexloom.batch import Batch, padded
from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.hub import weights
from lexloom.hub.answering import answering
from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Architecture, Network
from lexloom.nn.dropout import Dropout
from lexloom.objectives.base import OBJECTIVES, Objective, Vocabulary, dropout_keys
from lexloom.objectives.together import Together
from lexloom.registry import Registry
from lexloom.tasks.base import TASKS, Task
from lexloom.tasks.metrics import Bootstrap
from lexloom.text.spelling import spelled
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

OF_THE_WHOLE_TEXT = ("next-sentence", "sequence-classification", "multiple-choice")
NETWORKS = [(name, roles) for name in ARCHITECTURES.names() for roles in sorted(ARCHITECTURES.get(name).ROLES, key=sorted)]
TRAINED = [name for name in TASKS.names() if TASKS.get(name).trained]
OBJECTIVE_CASES = [*OBJECTIVES.names(), "masked-lm + next-sentence", "masked-lm + sentence-order", *(f"task {name}" for name in TRAINED)]
TEXTS = [
    "The old house stood at the end of the lane.",
    "Nobody had lived there for years!",
    "那座老房子在小路的尽头。",
    "One, two, three and four.",
]


def named(case: tuple[str, frozenset[str]]) -> str:
    return f"{case[0]}: {' + '.join(sorted(case[1])) or 'bare'}"


networks = pytest.mark.parametrize("case", NETWORKS, ids=named)
objectives = pytest.mark.parametrize("name", OBJECTIVE_CASES)
tasks = pytest.mark.parametrize("name", TASKS.names())


# Registries


@pytest.mark.parametrize("registry", [ARCHITECTURES, OBJECTIVES, TASKS], ids=lambda registry: registry.kind)
def test_everything_registered_says_what_it_is(registry: Registry[Any]) -> None:
    assert registry.names()
    for name in registry.names():
        found = registry.found()[name]
        assert len(found.summary) > 20
        assert found.summary == (registry.get(name).__doc__ or "").split("\n")[0].strip()
        assert registry.get(name).Config.read({}) == registry.get(name).Config()


# Architectures


def build(kind: type[Architecture], roles: frozenset[str], *, seed: int = 1, labels: int = 3, **settings: Any) -> Network:
    return Network.build(kind, kind.Config.read({**kind.TINY, **settings}), roles, labels=labels, seed=seed)


def token_rows(n: int = 4, *, vocab: int = 97, longest: int = 12) -> list[dict[str, Any]]:
    """Rows of different lengths with two segments."""
    found = []
    for i in range(n):
        length = longest - 2 * (i % 4)
        ids = keys.integers(keys.key("contract", i), length, vocab)
        types = (np.arange(length) >= length // 2).astype(np.int64)
        found.append({"input_ids": ids, "token_type_ids": types, "characters": characters(ids)})
    return found


def characters(ids: Sequence[int]) -> np.ndarray:
    """(T, C): words are called by their numbers."""
    return spelled([f"{'word' * (i % 3)}{i}" for i in ids], 12)


FILLS = {"input_ids": 0, "token_type_ids": 0, "characters": 0}


def answers(network: Network, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the backbone and every head give, padding set to 0."""
    output = network.backbone(batch)
    mask = batch["attention_mask"][:, :, None]
    found = {"hidden": output.hidden * mask}
    if output.pooled is not None:
        found["pooled"] = output.pooled
    for role, head in network.heads.items():
        if role in OF_THE_WHOLE_TEXT:
            found[role] = head(output.pooled if output.pooled is not None else output.hidden[:, 0])
        else:
            found[role] = head(output.hidden) * mask
    return found


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@networks
def test_more_padding_changes_nothing(case: tuple[str, frozenset[str]]) -> None:
    network = build(ARCHITECTURES.get(case[0]), case[1]).double()
    rows = token_rows()
    short, long = answers(network, padded(rows, FILLS)), answers(network, padded(rows, FILLS, length=21, size=6))
    for name, value in short.items():
        wide = long[name][:4]
        assert close(wide if name in ("pooled", *OF_THE_WHOLE_TEXT) else wide[:, : value.shape[1]], value), name


@networks
def test_the_order_of_rows_does_not_matter(case: tuple[str, frozenset[str]]) -> None:
    network = build(ARCHITECTURES.get(case[0]), case[1]).double()
    rows, order = token_rows(), [2, 0, 3, 1]
    straight, shuffled = answers(network, padded(rows, FILLS)), answers(network, padded([rows[i] for i in order], FILLS))
    for name, value in straight.items():
        assert close(shuffled[name], value[order]), name


@networks
def test_what_comes_later_is_seen_by_encoders_only(case: tuple[str, frozenset[str]]) -> None:
    kind = ARCHITECTURES.get(case[0])
    network = build(kind, case[1]).double()
    batch = padded(token_rows(1), FILLS)
    other = {name: tensor.clone() for name, tensor in batch.items()}
    other["input_ids"][0, 8] = (other["input_ids"][0, 8] + 1) % 97
    other["characters"][0, 8] = torch.from_numpy(characters(other["input_ids"][0, 8:9].tolist()))
    before = network.backbone(batch).hidden[0, :8]
    assert close(network.backbone(other).hidden[0, :8], before) == ("encoder" not in kind.ABILITIES)


@networks
def test_every_parameter_gets_a_gradient(case: tuple[str, frozenset[str]]) -> None:
    network = build(ARCHITECTURES.get(case[0]), case[1])
    total = torch.zeros(())
    for name, value in answers(network, padded(token_rows(), FILLS)).items():
        if name in network.heads or not network.heads:
            total = total + (value * torch.from_numpy(keys.uniform(keys.key(name), value.numel())).reshape(value.shape)).sum()
    total.backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@networks
def test_weights_come_back_from_disk_as_they_were(case: tuple[str, frozenset[str]]) -> None:
    kind = ARCHITECTURES.get(case[0])
    network, other = build(kind, case[1], seed=1), build(kind, case[1], seed=2)
    tensors = weights.to_disk(network)
    report = weights.load_into(other, tensors)
    assert (report.missing, report.unused) == ([], [])
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


@networks
def test_dropout_is_a_function_of_the_keys(case: tuple[str, frozenset[str]]) -> None:
    network = build(ARCHITECTURES.get(case[0]), case[1]).double()
    batch = padded(token_rows(), FILLS)
    plain = network.backbone(batch).hidden
    words = [dropout_keys(keys.key("dropout", epoch, np.arange(4)), 4) for epoch in (0, 0, 1)]
    first, again, other = (network.backbone({**batch, "row_keys": word}).hidden for word in words)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(network.backbone(batch).hidden, plain)
    order = [3, 1]
    some = padded([token_rows()[i] for i in order], FILLS, length=12)
    assert close(network.backbone({**some, "row_keys": words[0][order]}).hidden[0, :6], first[3, :6])


@networks
def test_no_two_dropouts_share_a_site(case: tuple[str, frozenset[str]]) -> None:
    network = build(ARCHITECTURES.get(case[0]), case[1])
    sites = [module.site for module in network.modules() if isinstance(module, Dropout) and module.p > 0]
    assert sites and len(set(sites)) == len(sites)


@networks
def test_weights_are_drawn_by_name_and_seed(case: tuple[str, frozenset[str]]) -> None:
    kind = ARCHITECTURES.get(case[0])
    one, same, other = (build(kind, case[1], seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


# Objectives, and tasks as objectives

V, SPECIAL = 97, (0, 1, 2, 3, 4)
VOCABULARY = Vocabulary(V, 4, frozenset(SPECIAL), FILLS, 3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    samples = [str(row["text"]) for name in TASKS.names() for row in TASKS.get(name).SAMPLE if "text" in row]
    return train_tokenizer([*TEXTS, *samples] * 3, TokenizerConfig(vocab_size=300, min_frequency=1))


@pytest.fixture
def objective(name: str, tokenizer: Tokenizer) -> Objective:
    if name.startswith("task "):
        return make_task(name.removeprefix("task "), tokenizer)
    found = [OBJECTIVES.get(part)(OBJECTIVES.get(part).Config(), VOCABULARY) for part in name.split(" + ")]
    return found[0] if len(found) == 1 else Together(found)


def objective_rows(objective: Objective, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Eight rows of the kind that an objective wants."""
    if isinstance(objective, Task):
        rows = list(objective.SAMPLE)
        copies = [{**row, "text": f"{row['text']} {n}"} for n in range(8) for row in rows][:8]
        return objective.encode(copies, tokenizer, max_length=16, labelled=True)
    found = []
    for i in range(8):
        length = 16 - 2 * (i % 3)
        ids = len(SPECIAL) + keys.integers(keys.key("objective", i), length, V - len(SPECIAL))
        special = np.zeros(length, dtype=bool)
        special[[0, length // 2, length - 1]] = True
        ids[special] = (2, 3, 3)
        types = (np.arange(length) > length // 2).astype(np.int64)
        row = {"id": i, "input_ids": ids, "token_type_ids": types, "special": special, "characters": characters(ids)}
        more = {"labelled": {"target_ids": ids[: length - 3][::-1]}, "block": {}}
        found.append(row | more.get(objective.rows, {"next_sentence_label": i % 2}))
    return found


def network_for(objective: Objective, **settings: Any) -> Network:
    """A tiny network of the first architecture that can do what the objective needs."""
    roles = frozenset(objective.roles)
    for name in ARCHITECTURES.names():
        kind = ARCHITECTURES.get(name)
        if objective.needs <= kind.ABILITIES and roles in kind.ROLES:
            labels = len(objective.labels) if isinstance(objective, Task) and objective.labels else 2
            return build(kind, roles, labels=labels, vocab_size=max(V, objective.vocabulary.size), **settings)
    raise AssertionError(f"no architecture has the heads {set(roles)}")


def row_keys(n: int, epoch: int = 0) -> keys.Keys:
    return keys.key(5, "row", epoch, np.arange(n))


def total(network: Network, objective: Objective, batch: Batch, counts: Mapping[str, float], *, dropout: bool = False) -> Tensor:
    tensors = batch.tensors if dropout else {name: t for name, t in batch.items() if name != "row_keys"}
    sums = objective.loss(network.backbone(tensors), tensors, network.heads)
    assert set(sums) == set(objective.parts) == set(counts)
    return torch.stack([weight * sums[part] / counts[part] for part, weight in objective.parts.items()]).sum()


def gradient(network: Network, objective: Objective, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Of the mean over all batches: each part's sum is divided by its count over all of them."""
    network.zero_grad()
    counts = {part: sum(batch.counts[part] for batch in batches) for part in objective.parts}
    for batch in batches:
        total(network, objective, batch, counts, dropout=True).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@objectives
def test_the_same_keys_give_the_same_batch(objective: Objective, tokenizer: Tokenizer) -> None:
    rows = objective_rows(objective, tokenizer)
    one, two = (objective.collate(rows, row_keys(8), length=16, size=10) for _ in range(2))
    assert (list(one), one.counts) == (list(two), two.counts)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert set(one.counts) == set(objective.parts)
    assert all(tensor.shape[0] == 10 for tensor in one.values())


@objectives
def test_a_row_is_the_same_in_any_batch(objective: Objective, tokenizer: Tokenizer) -> None:
    if objective.couples != "row":
        pytest.skip("its rows belong together")
    rows, order = objective_rows(objective, tokenizer), [6, 1]
    whole = objective.collate(rows, row_keys(8), length=16, size=8)
    part = objective.collate([rows[i] for i in order], row_keys(8)[order], length=16, size=3)
    assert all(torch.equal(part[name][:2], whole[name][order]) for name in whole)


@objectives
def test_cutting_into_micro_batches_gives_the_same_gradient(objective: Objective, tokenizer: Tokenizer) -> None:
    if objective.couples == "batch":
        pytest.skip("its rows belong together")
    rows, words = objective_rows(objective, tokenizer), row_keys(8)
    network = network_for(objective).double()
    whole = gradient(network, objective, [objective.collate(rows, words, length=16, size=8)])
    cuts = [(0, 3), (3, 4), (4, 8)]
    cut = gradient(network, objective, [objective.collate(rows[a:b], words[a:b], length=16, size=5) for a, b in cuts])
    scale = torch.stack([value.abs().max() for value in whole.values()]).max()
    for name, value in whole.items():
        assert (cut[name] - value).abs().max() <= 1e-9 * scale, name


@objectives
def test_nothing_to_learn_counts_nothing(objective: Objective, tokenizer: Tokenizer) -> None:
    batch = objective.collate([], row_keys(0), length=16, size=2)
    assert batch.counts == dict.fromkeys(objective.parts, 0.0)
    network = network_for(objective)
    sums = objective.loss(network.backbone(batch), batch, network.heads)
    assert {part: float(value.detach()) for part, value in sums.items()} == dict.fromkeys(objective.parts, 0.0)
    torch.stack(list(sums.values())).sum().backward()
    assert all(p.grad is None or not p.grad.isnan().any() for p in network.parameters())


@objectives
def test_dropout_comes_from_the_keys_of_the_batch(objective: Objective, tokenizer: Tokenizer) -> None:
    rows, network = objective_rows(objective, tokenizer), network_for(objective)
    ones = dict.fromkeys(objective.parts, 1.0)
    same = [
        float(total(network, objective, objective.collate(rows, row_keys(8), length=16, size=8), ones, dropout=True).detach()) for _ in "ab"
    ]
    batch = objective.collate(rows, row_keys(8), length=16, size=8)
    batch.tensors["row_keys"] = dropout_keys(row_keys(8, epoch=1), 8)
    other = float(total(network, objective, batch, ones, dropout=True).detach())
    assert same[0] == same[1] != other


@objectives
def test_eight_rows_are_learned_by_heart(objective: Objective, tokenizer: Tokenizer) -> None:
    network = network_for(objective)
    batch = objective.collate(objective_rows(objective, tokenizer), row_keys(8), length=16, size=8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=0.0)
    losses = []
    for _ in range(200):
        loss = total(network, objective, batch, batch.counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if losses[-1] < 0.02 * losses[0]:
            break
    assert losses[-1] < 0.05 * losses[0]


# Tasks


def make_task(name: str, tokenizer: Tokenizer) -> Task:
    kind = TASKS.get(name)
    labels = kind.read_labels(kind.Config(), kind.SAMPLE) if kind.trained else []
    return kind(kind.Config(), Vocabulary.of(tokenizer), labels)


@pytest.fixture
def task(name: str, tokenizer: Tokenizer) -> Task:
    return make_task(name, tokenizer)


def predict(task: Task, tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]], **options: Any) -> list[Any]:
    return task.predict(network_for(task), tokenizer, rows, max_length=32, **options)


def unlabelled(task: Task) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "label"} for row in task.SAMPLE]


def alike(a: Any, b: Any) -> bool:
    """Equal answers; numbers to five digits, since a batch's shape may choose another kernel."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return bool(np.isclose(a, b, rtol=1e-5)) if isinstance(a, float) else a == b


@tasks
def test_right_answers_score_one(task: Task) -> None:
    gold = task.gold(task.SAMPLE)
    perfect = task.perfect(gold)
    scores = task.score(gold, perfect)
    assert next(iter(scores)) == task.primary
    assert scores[task.primary] == 1.0
    assert task.decided(perfect) == gold
    assert task.score(gold, [*perfect[1:], perfect[0]])[task.primary] < 1.0


@tasks
def test_intervals_are_around_the_score(task: Task, tokenizer: Tokenizer) -> None:
    gold, found = task.gold(task.SAMPLE), predict(task, tokenizer, task.SAMPLE)
    resampled = Bootstrap(gold, {"it": [task.decided(found)]}, task.statistics(), seed=1, resamples=50)
    scores = task.score(gold, found)
    assert set(task.statistics().metrics) <= set(scores)
    for metric in task.statistics().metrics:
        assert resampled.interval(metric, "it").value == pytest.approx(scores[metric])


@tasks
def test_answers_stand_in_the_order_of_the_rows(task: Task, tokenizer: Tokenizer) -> None:
    rows = unlabelled(task)
    rows = [{**row, "text": f"{row['text']}{' and so on' * (i % 3)}"} for i, row in enumerate(rows * 3)]
    together = predict(task, tokenizer, rows, batch_tokens=64)
    assert len(together) == len(rows)
    assert alike(together, [predict(task, tokenizer, [row])[0] for row in rows])
    assert alike(together[::-1], predict(task, tokenizer, rows[::-1]))


@tasks
def test_no_rows_no_answers(task: Task, tokenizer: Tokenizer) -> None:
    assert predict(task, tokenizer, []) == []
    with pytest.raises(DataError):
        task.score([], [])


@tasks
@pytest.mark.parametrize("text", ["", " \t\n", "\x00", "\ud800", "e\u0301\u0301\u0301", "🤯👩‍👩‍👧", "的" * 3])
def test_odd_texts_are_answered_or_refused_in_words(task: Task, tokenizer: Tokenizer, text: str) -> None:
    row = {**unlabelled(task)[0], "text": text}
    try:
        assert len(predict(task, tokenizer, [row])) == 1
    except LexloomError as error:
        assert "text" in error.problem


@tasks
def test_texts_over_the_limit_are_answered_or_refused_by_name(task: Task, tokenizer: Tokenizer) -> None:
    rows = [{**row, "text": f"{row['text']}{' and so on' * 200}"} for row in unlabelled(task)]
    if not task.cuts:
        with pytest.raises(DataError, match=r"row 2: this text .* context"):
            predict(task, tokenizer, [unlabelled(task)[0], *rows])
        return
    assert len(predict(task, tokenizer, rows)) == len(rows)
    encoded = task.encode(rows, tokenizer, max_length=32, labelled=False)
    assert {row["row"] for row in encoded} == set(range(len(rows)))
    assert max(len(row["input_ids"]) for row in encoded) == 32


@tasks
def test_a_row_without_text_is_named(task: Task, tokenizer: Tokenizer) -> None:
    rows = [*unlabelled(task)[:1], {**unlabelled(task)[1], "text": None}]
    with pytest.raises(DataError, match="row 2"):
        predict(task, tokenizer, rows)


@tasks
def test_a_task_survives_the_bundle(task: Task, tokenizer: Tokenizer, tmp_path: Path) -> None:
    bundle = Bundle(network_for(task), tokenizer, task)
    again = Bundle.load(bundle.save(tmp_path / "bundle"))
    rows = unlabelled(task)
    assert (again.labels, again.task.config) == (task.labels, task.config)
    assert again.predict(rows) == bundle.predict(rows) == predict_long(bundle, rows)


def predict_long(bundle: Bundle, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    assert bundle.task is not None
    return bundle.task.predict(answering(bundle.network, bundle.dtype), bundle.tokenizer, rows, max_length=bundle.max_length)


@pytest.mark.parametrize("name", sorted(set(TASKS.names()) - set(TRAINED)))
def test_a_task_without_training_says_so(task: Task) -> None:
    with pytest.raises(ConfigError, match="not fine-tuned"):
        task.read_labels(task.config, task.SAMPLE)
    with pytest.raises(ConfigError, match="not fine-tuned"):
        task.collate([], row_keys(0), length=8, size=1)
