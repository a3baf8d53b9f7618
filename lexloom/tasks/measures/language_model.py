"""How well a model predicts text: loss, perplexity, and bits for each byte of the raw text, whatever the tokenizer.

Letters: N units, S statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field
from scipy.sparse import csr_array

from lexloom.config import Config
from lexloom.errors import DataError
from lexloom.tasks.likelihoods.base import Likelihood
from lexloom.tasks.measures.base import MEASURES, Measure, texts
from lexloom.tasks.metrics import Floats

FEW_TEXTS = 20
"""Of fewer texts kilobytes are resampled: an interval over so few texts would say nothing."""
BLOCK_BYTES = 1024


class LanguageModelConfig(Config):
    """Where the text stands, and how a long one is read."""

    text: str = "text"
    stride: int | None = Field(None, ge=1)
    """How many tokens further on each stretch of a long text begins; half of what the model takes where not given."""


class Surprise:
    """Statistics of predicted text: nats, tokens and bytes."""

    metrics = ("bits_per_byte", "perplexity", "loss")

    def rows(self, gold: Sequence[Any], predicted: Sequence[Any]) -> csr_array:
        """(N, 3): nats, tokens, bytes."""
        return csr_array(np.asarray([[unit["nats"], unit["tokens"], unit["bytes"]] for unit in predicted], dtype=np.float64))

    def value(self, metric: str, sums: Floats) -> Floats:
        """`loss` is in nats a token; `perplexity` is e to that."""
        if metric == "bits_per_byte":
            return sums[..., 0] / sums[..., 2] / math.log(2)
        loss = sums[..., 0] / sums[..., 1]
        return np.exp(loss) if metric == "perplexity" else loss


@MEASURES.register("language-model")
class LanguageModel(Measure):
    """How well texts are predicted: loss a token, perplexity, and bits a byte of the raw text, which any two tokenizers can share."""

    Config = LanguageModelConfig
    comparable = False
    whole = True

    def answers(self, likelihood: Likelihood, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """`{"row", "nats", "tokens", "bytes", "unknown"}` for about each kilobyte of a text.

        A text is cut into parts of equally many tokens, as many parts whatever the tokenizer, so that two models can be compared by them.
        """
        found = []
        given = texts(rows, self.config.text)
        unknown = [row == likelihood.tokenizer.unk_id for row in likelihood.tokenizer.encode_plain(given)]
        for i, (text, sure) in enumerate(zip(given, likelihood(given, stride=self.config.stride), strict=True)):
            size = len(text.encode("utf-8", "surrogatepass"))
            blocks = max(1, round(size / BLOCK_BYTES)) if len(sure.logs) else 0
            for logs, odd in zip(*(np.array_split(part, blocks) if blocks else [] for part in (sure.logs, unknown[i])), strict=True):
                part = {"nats": -float(logs.sum()), "tokens": len(logs), "bytes": size / blocks, "unknown": int(np.sum(odd))}
                found.append({"row": i, **part})
        return found

    def units(self, answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Whole texts, or kilobytes where there are few.

        Raises:
            DataError: all texts are empty.
        """
        if not answers:
            raise DataError("there is no text to predict: all rows are empty")
        whole: dict[int, dict[str, Any]] = {}
        for answer in answers:
            held = whole.setdefault(answer["row"], {"row": answer["row"]})
            held.update({name: held.get(name, 0) + answer[name] for name in ("nats", "tokens", "bytes", "unknown")})
        return list(whole.values()) if len(whole) >= min(FEW_TEXTS, len(answers)) else list(answers)

    def notes(self, answers: Sequence[dict[str, Any]]) -> list[str]:
        """What an interval is over, and tokens that stand for text they do not tell."""
        texts_, unknown = len({answer["row"] for answer in answers}), sum(answer["unknown"] for answer in answers)
        found = []
        if texts_ < min(FEW_TEXTS, len(answers)):
            found.append(f"n counts kilobytes of text, there being no more than {texts_} texts: of others it may lie further off")
        if unknown:
            share = 100 * unknown / sum(answer["tokens"] for answer in answers)
            found.append(f"{share:.2f} % of the tokens are unknown to the tokenizer: bits a byte are too few by what they stand for")
        return found

    def statistics(self) -> Surprise:
        """See `Measure.statistics`."""
        return Surprise()
