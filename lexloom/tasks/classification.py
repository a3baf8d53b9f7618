"""Classification of texts and of pairs of texts: one label of several.

Letters: B rows, T tokens, D width, K labels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lexloom.batch import Batch, padded
from lexloom.config import Config
from lexloom.errors import ConfigError, DataError, nearest
from lexloom.keys import Keys
from lexloom.models.base import Network, Output
from lexloom.objectives.base import Row, Vocabulary, dropout_keys
from lexloom.tasks import metrics
from lexloom.tasks.base import TASKS, Task, run
from lexloom.tasks.columns import Columns, ColumnsConfig, place

MAX_LABELS = 10_000
PART = "text-classification"
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")


class TextClassificationConfig(Config):
    """What is read, and how the loss weighs it."""

    columns: ColumnsConfig = ColumnsConfig()
    names: dict[str, str] = Field(default_factory=dict)
    """Label in the data -> name to give it, such as {0: negative, 1: positive}."""
    long_texts: Literal["cut", "windows"] = "cut"
    stride: int = Field(default=64, ge=0)
    """Tokens that two neighbouring windows share; half a window at most."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each label counts N / (K · its rows), so that rare ones are not drowned."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


@TASKS.register("text-classification")
class TextClassification(Task):
    """Give each text, or pair of texts, one of several labels: cross-entropy on the pooled [CLS] (Devlin et al. 2018)."""

    Config = TextClassificationConfig
    role = "sequence-classification"
    roles: ClassVar[tuple[str, ...]] = ("sequence-classification",)
    primary = "accuracy"
    pipeline = "text-classification"
    plain = True
    whole = "long_texts=windows"
    problem_type = "single_label_classification"
    SAMPLE: ClassVar[Sequence[Row]] = (
        {"text": "a warm and funny film", "label": "good"},
        {"text": "dull from the first scene to the last", "label": "bad"},
        {"text": "she plays it with real wit", "label": "good"},
        {"text": "two hours that I want back", "label": "bad"},
    )

    def __init__(self, config: TextClassificationConfig, vocabulary: Vocabulary, labels: Sequence[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self.parts = {PART: 1.0}
        self.ids = {label: i for i, label in enumerate(self.labels)}

    @classmethod
    def settle(cls, config: TextClassificationConfig, rows: Sequence[Any]) -> tuple[TextClassificationConfig, str]:
        """The config with the columns of the training rows filled in, and a line that says which were found.

        Raises:
            DataError: a column is missing.
        """
        columns = Columns.find(config.columns, rows, labelled=True, strict=True)
        return config.model_copy(update={"columns": columns.config()}), columns.said()

    @classmethod
    def read_labels(cls, config: TextClassificationConfig, rows: Sequence[Any]) -> list[str]:
        """See `Task.read_labels`. Whole numbers are sorted as numbers, else labels are sorted as text; then `names` apply."""
        columns = Columns.find(config.columns, rows, labelled=True)
        found = [columns.raw_label(row, i) for i, row in enumerate(rows)]
        distinct = set(found)
        if len(distinct) < 2:
            raise DataError(
                "all rows have the same label: there is nothing to tell apart",
                got=f"{found[0]!r} in {len(rows)} rows",
                where=place(rows[0], 0),
                hint=f"is {columns.label!r} the column of the labels?",
            )
        if len(distinct) > MAX_LABELS or len(distinct) > max(100, len(rows) // 2):
            raise DataError(
                f"there are {len(distinct)} labels in {len(rows)} rows",
                where=place(rows[0], 0),
                hint=f"is {columns.label!r} the column of the labels?",
            )
        return cls._named(config, _ordered(distinct | set(config.names)), rows, columns)

    @staticmethod
    def _named(config: TextClassificationConfig, labels: list[str], rows: Sequence[Any], columns: Columns) -> list[str]:
        """Labels under their given names; names themselves may stand in the data too."""
        given = set(config.names.values())
        without = [label for label in labels if config.names and label not in config.names and label not in given]
        if without:
            i = next(i for i, row in enumerate(rows) if columns.raw_label(row, i) == without[0])
            raise DataError(f"`names` has no name for the label {without[0]!r}", expected=", ".join(config.names), where=place(rows[i], i))
        return list(dict.fromkeys(config.names.get(label, label) for label in labels if label not in given or label in config.names))

    def label_of(self, row: Any, columns: Columns, i: int) -> str:
        """The name of a row's label. Where the names are words, a whole number counts as a label's id.

        Raises:
            DataError: it was never seen in training.
        """
        raw = columns.raw_label(row, i)
        name = self.config.names.get(raw, raw)
        if name not in self.ids and _is_integer(raw) and 0 <= int(raw) < len(self.labels) and not any(map(_is_integer, self.labels)):
            name = self.labels[int(raw)]
        if name in self.ids:
            return name
        guess = nearest(name, self.labels)
        raise DataError(
            f"the label {name!r} was never seen in training",
            expected=", ".join(self.labels[:20]) + (" …" if len(self.labels) > 20 else ""),
            where=place(row, i),
            hint=f"did you mean {guess!r}?" if guess else None,
        )

    def gold(self, rows: Sequence[Any]) -> list[str]:
        """The label of each row, by name."""
        columns = Columns.find(self.config.columns, rows, labelled=True)
        return [self.label_of(row, columns, i) for i, row in enumerate(rows)]

    def encode(self, rows: Sequence[Any], tokenizer: Any, *, max_length: int, labelled: bool) -> list[dict[str, Any]]:
        """See `Task.encode`. Adds `cut`, whether something of the text is missing; labelled, also `label` (id) and `weight`.

        The weight of a text is shared by its windows. Under balanced class weights it is N / (K · rows of its label), by the
        rows given here.
        """
        if not len(rows):
            return []
        columns = Columns.find(self.config.columns, rows, labelled=labelled)
        texts, pairs = columns.texts(rows), columns.pairs(rows)
        found = self._tokens(texts, pairs, tokenizer, max_length)
        if labelled:
            labels = [self.ids[self.label_of(row, columns, i)] for i, row in enumerate(rows)]
            weights, windows = self._weights(labels), Counter(row["row"] for row in found)
            for row in found:
                row |= {"label": labels[row["row"]], "weight": weights[row["row"]] / windows[row["row"]]}
        return found

    def _tokens(self, texts: list[str], pairs: list[str] | None, tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
        if self.config.long_texts == "cut":
            return [_token_row(row, i) for i, row in enumerate(tokenizer.encode(texts, pairs, max_length=max_length))]
        stride = min(self.config.stride, max(0, max_length - 4) // 2)  # one as long as a window would never get on
        return [
            _token_row(row, i)
            for i, text in enumerate(texts)
            for row in tokenizer.windows(text, pairs[i] if pairs else None, max_length=max_length, stride=stride)
        ]

    def _weights(self, labels: Sequence[int]) -> list[float]:
        if self.config.class_weights == "none":
            return [1.0] * len(labels)
        counts = Counter(labels)
        return [len(labels) / (len(counts) * counts[label]) for label in labels]

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`. Adds `labels` (size,) int64 and `label_weights` (size,) float32; their sum is the count."""
        tensors = padded(rows, self.vocabulary.fills, length=length, size=size)
        labels, weights = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.float32)
        for i, row in enumerate(rows):
            labels[i], weights[i] = row["label"], row["weight"]
        tensors |= {"labels": torch.from_numpy(labels), "label_weights": torch.from_numpy(weights)}
        tensors |= {"row_keys": dropout_keys(row_keys, size)}
        return Batch(tensors, {PART: float(weights.sum(dtype=np.float64))})

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Cross-entropy times the row's weight, summed."""
        logits = heads[self.role](_pooled(output), batch.get("row_keys"))
        logits = logits if logits.dtype == torch.float64 else logits.float()
        losses = F.cross_entropy(logits, batch["labels"], reduction="none", label_smoothing=self.config.label_smoothing)
        return {PART: (losses * batch["label_weights"]).sum()}

    def predict(
        self,
        network: Network,
        tokenizer: Any,
        rows: Sequence[Any],
        *,
        max_length: int,
        batch_tokens: int = 4096,
        top_k: int | None = 1,
    ) -> list[Any]:
        """`{"label", "score"}` for each row; a list of them, best first, for another `top_k`, all labels for None."""
        encoded = self.encode(rows, tokenizer, max_length=max_length, labelled=False)
        logits = self.logits(network, encoded, len(rows), batch_tokens=batch_tokens)
        return [answer(softmax(row), self.labels, top_k) for row in logits]

    def logits(self, network: Network, encoded: Sequence[Mapping[str, Any]], n: int, *, batch_tokens: int = 4096) -> np.ndarray:
        """(n, K) float32: of a text in windows, the mean of its windows' logits weighted by their tokens."""

        def head(output: Output, batch: Mapping[str, Tensor]) -> Tensor:
            return network.scores(self.role, _pooled(output))

        found = run(network, encoded, self.vocabulary.fills, head, batch_tokens=batch_tokens)
        total, tokens = np.zeros((n, len(self.labels)), dtype=np.float32), np.zeros((n, 1), dtype=np.float32)
        for row, values in zip(encoded, found, strict=True):
            total[row["row"]] += values * np.float32(len(row["input_ids"]))
            tokens[row["row"]] += np.float32(len(row["input_ids"]))
        return total / np.maximum(tokens, 1)

    def score(self, gold: Sequence[str], answers: Sequence[Any]) -> dict[str, float]:
        """Accuracy, macro-F1, Matthews' coefficient and, for two labels, F1 of the second; answers as `predict` gives them."""
        return metrics.scores(gold, self.decided(answers), self.labels)

    def decided(self, answers: Sequence[Any]) -> list[str]:
        """The best label of each answer."""
        return predicted(answers)

    def statistics(self) -> metrics.Labels:
        """See `Task.statistics`."""
        return metrics.Labels(self.labels)

    def perfect(self, gold: Sequence[str]) -> list[Any]:
        """See `Task.perfect`."""
        return [{"label": label, "score": 1.0} for label in gold]


def predicted(answers: Iterable[Any]) -> list[str]:
    """The best label of each answer."""
    return [(answer if isinstance(answer, Mapping) else answer[0])["label"] for answer in answers]


def answer(scores: np.ndarray, labels: Sequence[str], top_k: int | None) -> Any:
    """One answer out of K scores, shaped like that of the `text-classification` pipeline of `transformers`.

    Raises:
        ConfigError: `top_k` is below 1.
    """
    if top_k is not None and top_k < 1:
        raise ConfigError("top_k is how many labels to give", expected="1 or more, or None for all", got=str(top_k))
    order = np.argsort(-scores, kind="stable")[:top_k]
    found = [{"label": labels[i], "score": float(scores[i])} for i in order]
    return found[0] if top_k == 1 else found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in the dtype given."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def summary(encoded: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What encoding did: how many texts became how many token rows of how many tokens, and how many texts were cut."""
    return {
        "texts": len({row["row"] for row in encoded}),
        "rows": len(encoded),
        "tokens": sum(len(row["input_ids"]) for row in encoded),
        "cut_texts": len({row["row"] for row in encoded if row["cut"]}),
    }


def _token_row(row: Mapping[str, Any], i: int) -> dict[str, Any]:
    kept = {name: row[name] for name in ("input_ids", "token_type_ids", "characters") if name in row}
    return {"row": i, **kept, "cut": bool(row.get("cut", False))}


def _pooled(output: Output) -> Tensor:
    return output.pooled if output.pooled is not None else output.hidden[:, 0]


def _is_integer(label: str) -> bool:
    return _INTEGER.fullmatch(label) is not None


def _ordered(labels: Iterable[str]) -> list[str]:
    found = sorted(labels)
    return sorted(found, key=int) if all(map(_is_integer, found)) else found
