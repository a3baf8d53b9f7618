"""What a task is: an objective over labelled rows that also answers and is scored.

Letters: B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lexloom.batch import Batch, padded
from lexloom.errors import ConfigError
from lexloom.keys import Keys
from lexloom.models.base import Network, Output
from lexloom.objectives.base import Objective, Row, Vocabulary
from lexloom.registry import Registry


class Task(Objective):
    """A task: one file with its Config, `encode`, `collate`, `loss`, `predict` and `score`.

    Rows are mappings from column to value, or such mappings with their place in a file (`text.rows.Placed`), which errors then name.

    Attributes of a subclass:
        role: the head it uses. `roles` follows from it.
        primary: the metric by which models are compared, higher is better.
        pipeline: the name of the `transformers` pipeline whose answers it copies.
        trained: whether it is fine-tuned; False for tasks that a pre-trained head answers as it is.
        classes: whether its labels are classes, which it has to know by name; False where a label may be any text.
        cuts: whether it cuts a text over the limit; False: it refuses one, unless its settings say otherwise.
        whole: the setting under which texts over the limit are read whole; empty where there is none.
        plain: whether it is what a folder answers that has a head for its role and does not say its task.
        SAMPLE: a few labelled rows that show its columns; the contract tests run on them.

    Args:
        config: its Config, kept in the bundle.
        vocabulary: of the tokenizer.
        labels: the label names in the order of their ids; empty for tasks without.
    """

    rows: ClassVar[str] = "labelled"
    role: ClassVar[str]
    primary: ClassVar[str]
    pipeline: ClassVar[str]
    trained: ClassVar[bool] = True
    classes: ClassVar[bool] = True
    cuts: ClassVar[bool] = True
    whole: ClassVar[str] = ""
    plain: ClassVar[bool] = False
    SAMPLE: ClassVar[Sequence[Row]] = ()

    def __init__(self, config: Any, vocabulary: Vocabulary, labels: Sequence[str] = ()) -> None:
        super().__init__(config, vocabulary)
        self.labels = list(labels)

    @classmethod
    def read_labels(cls, config: Any, rows: Sequence[Any]) -> list[str]:
        """The label names of training rows, in the order that their ids will have.

        Raises:
            DataError: there is only one class, or none.
            ConfigError: it has no labels and is not fine-tuned, which is so unless the task says otherwise.
        """
        raise cls._untrained()

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`.

        Raises:
            ConfigError: it is not fine-tuned, which is so unless the task says otherwise.
        """
        raise self._untrained()

    @classmethod
    def _untrained(cls) -> ConfigError:
        return ConfigError(f"{cls.pipeline} is not fine-tuned", hint=f"it is what pre-training with {cls.role} learns")

    def encode(self, rows: Sequence[Any], tokenizer: Any, *, max_length: int, labelled: bool) -> list[dict[str, Any]]:
        """Token rows out of labelled ones: at least `row` (index of the row it came from), `input_ids`, `token_type_ids`.

        A long text may become several token rows (windows) with the same `row`; one that nothing can be learned from, none.

        Args:
            labelled: whether rows must carry a known label: they are to be learned from.

        Raises:
            DataError: a column is missing, or a label was never seen in training.
        """
        raise NotImplementedError

    def length(self, row: Row) -> int:
        """Tokens that a batch has to have room for, of one of `encode`'s rows."""
        return len(row["input_ids"])

    def predict(self, network: Network, tokenizer: Any, rows: Sequence[Any], *, max_length: int, batch_tokens: int = 4096) -> list[Any]:
        """One answer a row, in order, shaped like the `transformers` pipeline's of the same name."""
        raise NotImplementedError

    def gold(self, rows: Sequence[Any]) -> list[Any]:
        """What is right, as `score` wants it."""
        raise NotImplementedError

    def score(self, gold: Sequence[Any], answers: Sequence[Any]) -> dict[str, float]:
        """Metric -> value over all rows; the first is `primary`."""
        raise NotImplementedError

    def perfect(self, gold: Sequence[Any]) -> list[Any]:
        """The answers of a model that is always right: `predict`'s shape, and a score of 1."""
        raise NotImplementedError

    def untaught(self, rows: Sequence[Any]) -> list[Any] | None:
        """Answers that nothing was learned for, to stand beside; None where the most frequent label is what costs nothing."""
        return None

    def decided(self, answers: Sequence[Any]) -> list[Any]:
        """What each answer says, to be held against `gold`."""
        raise NotImplementedError

    def statistics(self) -> Any:
        """What is summed over rows to get from `gold` and `decided` to the metrics: a `tasks.metrics.Statistics`."""
        raise NotImplementedError


TASKS: Registry[type[Task]] = Registry("task", "TASKS", "lexloom.tasks")


def plain_task(roles: Collection[str], vocabulary: Vocabulary, labels: Sequence[str] | None = None) -> Task | None:
    """The task that a network with heads for these roles answers where nothing says which; None where there is none.

    Args:
        labels: names of its classes; without, a task that needs them is out of the question.
    """
    for name in TASKS.names():
        kind = TASKS.get(name)
        if kind.plain and kind.role in roles and (labels is not None or not kind.classes):
            return kind(kind.Config(), vocabulary, labels if kind.classes and labels else ())
    return None


SHAPE_TOKENS = 256
"""What a CPU's kernels take to be prepared for one more shape of batch, in tokens that it could have answered meanwhile."""


def buckets(lengths: Sequence[int], batch_tokens: int, *, edges: Sequence[int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cuts rows into batches of about equal length: yields (T, B, indices), longest first.

    A CPU's kernels are prepared anew for each shape, so a bucket has one: its batches are equal but for at most one row, which B counts.
    """
    sizes = np.asarray(lengths)
    places = np.searchsorted(np.asarray(edges), sizes)
    order = np.argsort(-sizes, kind="stable")
    for bucket in range(len(edges) - 1, -1, -1):
        members = order[places[order] == bucket]
        batches = -(-len(members) // max(1, batch_tokens // edges[bucket]))
        for batch in np.array_split(members, batches) if batches else []:
            yield edges[bucket], -(-len(members) // batches), batch


def length_edges(lengths: Sequence[int], most: int = 6, *, multiple: int = 8, shape: int | None = None) -> list[int]:
    """The bucket lengths, at most `most`, that leave the least padding; fewer where one more would not save what it costs.

    The last one holds the longest row. Found exactly, by dynamic programming over the lengths rounded up to `multiple`.

    Args:
        shape: what one more bucket costs, in tokens. Where None, the fewest buckets are taken that come within 1 % of the best.
    """
    if not len(lengths):
        return [multiple]
    while max(lengths) > 512 * multiple:
        multiple *= 2
    edges, counts = np.unique(-(-np.asarray(lengths) // multiple) * multiple, return_counts=True)
    rows = np.cumsum(counts)
    cost, chosen = edges * rows, [np.zeros(len(edges), dtype=np.int64)]  # of all rows up to each edge, in one bucket
    costs = [cost]
    for _ in range(1, min(most, len(edges))):
        further = costs[-1][:, None] + edges[None, :] * (rows[None, :] - rows[:, None])  # (edge before, this edge)
        further[np.tril_indices(len(edges))] = 1 << 60  # no edge comes before itself
        chosen.append(further.argmin(axis=0))
        costs.append(further.min(axis=0))
    totals = [int(cost[-1]) + (shape or 0) * n for n, cost in enumerate(costs)]
    n = next(n for n, total in enumerate(totals) if total <= (1.01 if shape is None else 1) * min(totals))
    place, found = len(edges) - 1, list[int]()
    for level in range(n, -1, -1):
        found.append(int(edges[place]))
        place = int(chosen[level][place])
    return found[::-1]


@torch.inference_mode()
def run(
    network: Network,
    rows: Sequence[Mapping[str, Any]],
    fills: Mapping[str, int],
    answer: Callable[[Output, Mapping[str, Tensor]], Tensor | Sequence[Any]],
    *,
    batch_tokens: int = 4096,
    layers: bool = False,
) -> list[Any]:
    """Runs token rows through a network in length buckets, and gives `answer`'s row for each, in their order.

    Args:
        answer: makes (B, …) out of the backbone's output and the batch, one entry a row; or a list of one thing a row.
        layers: whether the output has every layer's states.

    Returns:
        one float32 array, or what stood in the list, a token row.
    """
    network.eval()
    device = next(network.parameters()).device
    lengths = [len(row["input_ids"]) for row in rows]
    limit = network.backbone.max_length
    edges = sorted({min(edge, limit) for edge in length_edges(lengths, 16, shape=SHAPE_TOKENS)}) if rows else []
    found: list[Any] = [None] * len(rows)
    for length, size, members in buckets(lengths, batch_tokens, edges=edges):
        batch = padded([rows[i] for i in members], fills, length=length, size=size)
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        answers = answer(network.backbone(batch, layers=True) if layers else network.backbone(batch), batch)
        values = answers.float().cpu().numpy() if isinstance(answers, Tensor) else answers
        for i, value in zip(members, values, strict=False):
            found[i] = value
    return found
