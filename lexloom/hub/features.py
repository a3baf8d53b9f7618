"""Features: the states of tokens and words at chosen layers, for other tools to build on (as BERT's and ELMo's are used).

Letters: T tokens, W words, D width, K chosen layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lexloom.errors import ConfigError, DataError
from lexloom.models.base import Network, Output
from lexloom.tasks.base import run

Floats = npt.NDArray[np.float32]
Spans = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Features:
    """The states of one text.

    Attributes:
        text: the text; of given words, the words with spaces between.
        tokens: (T) as the vocabulary spells them, special ones left out.
        offsets: (T, 2) the characters of `text` that each covers.
        states: (T, D) float32, or (K, T, D) where several layers were asked for.
        spans: (W) start and end of each word: of the given words, else of what stands between spaces.
        cut: whether the text was longer than the model takes, so that its end has no tokens.
    """

    text: str
    tokens: list[str]
    offsets: npt.NDArray[np.int32]
    states: Floats
    spans: Spans
    cut: bool

    def words(self, pool: Literal["mean", "first", "last"] = "mean", spans: Spans | None = None) -> Floats:
        """One vector a word: (W, D), or (K, W, D).

        Args:
            pool: the mean over the tokens of a word, or the state of its first or last one.
            spans: other words than the text's own, as characters from and to; a token that lies in two counts for both.

        Returns:
            NaN for a word without tokens: one behind the cut, or of signs that the tokenizer drops.

        Raises:
            ConfigError: there is no such pool.
        """
        if pool not in ("mean", "first", "last"):
            raise ConfigError("words are pooled in one of these ways", expected="mean, first, last", got=repr(pool))
        spans = self.spans if spans is None else spans
        found = np.full((*self.states.shape[:-2], len(spans), self.states.shape[-1]), np.nan, dtype=np.float32)
        for i, (start, end) in enumerate(spans):
            places = np.flatnonzero((self.offsets[:, 0] < end) & (self.offsets[:, 1] > start))
            if len(places):
                chosen = places if pool == "mean" else places[:1] if pool == "first" else places[-1:]
                found[..., i, :] = self.states[..., chosen, :].mean(axis=-2)
        return found


def read(texts: Sequence[str | Sequence[str]]) -> tuple[list[str], list[Spans]]:
    """Texts and the words in them; a list of words is one text.

    Raises:
        DataError: an entry is neither.
    """
    if isinstance(texts, str):
        raise DataError("features are made of a list of texts", got=repr(texts)[:60], hint="put it in brackets: [text]")
    found, spans = list[str](), list[Spans]()
    for i, text in enumerate(texts):
        words = [text] if isinstance(text, str) or text is None else list(text)
        if not all(isinstance(word, str) for word in words):
            raise DataError("a text is a string, or a list of words", got=f"{type(text).__name__} at place {i}")
        found.append(" ".join(words))
        if isinstance(text, str):
            spans.append([match.span() for match in re.finditer(r"\S+", text)])
        else:
            ends = np.cumsum([len(word) + 1 for word in words]) - 1
            spans.append([(int(end) - len(word), int(end)) for word, end in zip(words, ends, strict=True)])
    return found, spans


def chosen(layers: Any, network: Network) -> list[int]:
    """Places among the states of a network's layers, the embeddings being the first, out of a number, numbers, or `all`.

    Raises:
        ConfigError: there is no such layer.
    """
    n = network.backbone.depth + 1
    one = isinstance(layers, int | float) or layers is None
    wanted = range(n) if isinstance(layers, str) and layers == "all" else [layers] if one else layers
    if isinstance(wanted, str) or not all(isinstance(layer, int) and -n <= layer < n for layer in wanted):
        expected = f"{-n} to {n - 1} (0 is the embeddings, {n - 1} and -1 the last layer), several of them, or all"
        raise ConfigError("the model has no such layer", expected=expected, got=str(layers))
    return [layer % n for layer in wanted]


def states(output: Output) -> tuple[Tensor, ...]:
    """Every layer's states of an output that was asked for them."""
    assert output.layers is not None
    return output.layers


def made(
    network: Network, tokenizer: Any, texts: Sequence[str | Sequence[str]], *, layers: Any, max_length: int, batch_tokens: int
) -> list[Features]:
    """Features of texts, in their order; see `Bundle.features`."""
    raw, spans = read(texts)
    places = chosen(layers, network)
    rows = tokenizer.encode(raw, max_length=max_length, offsets=True)

    def answer(output: Output, batch: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([states(output)[place] for place in places], dim=1)  # (B, K, T, D)

    found = []
    for i, values in enumerate(run(network, rows, tokenizer.fills, answer, batch_tokens=batch_tokens, layers=True)):
        row, kept = rows[i], np.flatnonzero(~rows[i]["special"])
        inside = values[0, kept] if isinstance(layers, int) else values[:, kept]
        tokens = [tokenizer.token(int(number)) for number in row["input_ids"][kept]]
        found.append(Features(raw[i], tokens, row["offsets"][kept], inside, spans[i], bool(row["cut"])))
    return found
