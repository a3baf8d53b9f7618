"""Denoising: the source is a spoilt text, the target what it was (Lewis et al. 2019, "BART") or what is missing (Raffel et al. 2020, "T5").

`infilling` is BART's: the sentences of each document stand in a random order, and spans of tokens, their lengths drawn from a Poisson
distribution, are each replaced by one mask token; a span of no token puts one in. The target is the whole text.
`sentinels` is T5's: spans of random lengths are each replaced by a token of their own; the target is those tokens with what they stand for,
and one more that ends it.

Everything is drawn anew from the row's key at every visit. Letters: T tokens of a row, N of them of the text, M in spans, K spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor, nn

from lexloom import keys
from lexloom.batch import Batch
from lexloom.config import Config
from lexloom.errors import TokenizerError
from lexloom.keys import Keys
from lexloom.models.base import Output
from lexloom.objectives.base import OBJECTIVES, Objective, Row, Vocabulary, entropy
from lexloom.objectives.seq_to_seq import ROLE, parts_of, target_losses, translated

PART = "denoising"
Ints = npt.NDArray[np.int64]


class DenoisingConfig(Config):
    """What is spoilt, and how much.

    Attributes:
        noise: `infilling` as in BART, `sentinels` as in T5.
        rate: the share of tokens in spans; 0.3 for infilling and 0.15 for sentinels where it is not given.
        span: the mean length of a span, in tokens.
        permute: whether sentences are shuffled, each among those of its document; for infilling they are, unless it says no.
        smoothing: see seq-to-seq. weight: its share in the total loss.
    """

    noise: Literal["infilling", "sentinels"] = "infilling"
    rate: float | None = Field(None, gt=0, le=0.5)
    span: float = Field(3.0, ge=1, le=100)
    permute: bool | None = None
    smoothing: float = Field(0.0, ge=0, lt=1)
    weight: float = Field(1.0, gt=0)


@OBJECTIVES.register("denoising")
class Denoising(Objective):
    """Restore a text whose spans are hidden and whose sentences are shuffled (Lewis et al. 2019), or write the hidden spans (T5)."""

    Config = DenoisingConfig
    needs = frozenset({"cross-attention"})
    rows = "block"
    borders = True
    roles: ClassVar[tuple[str, ...]] = (ROLE,)

    def __init__(self, config: DenoisingConfig, vocabulary: Vocabulary) -> None:
        super().__init__(config, vocabulary)
        self.fills_in = config.noise == "infilling"
        self.rate = config.rate or (0.3 if self.fills_in else 0.15)
        self.permutes = self.fills_in if config.permute is None else config.permute
        self.parts = parts_of(PART, config.weight, config.smoothing)
        if not vocabulary.closes:
            hint = "tokenizer: {template: roberta} or {template: bert}"
            raise TokenizerError("denoising needs a special token at the end of a text, or the decoder never learns to stop", hint=hint)
        if self.fills_in and vocabulary.mask is None:
            raise TokenizerError("denoising needs a mask token", hint="add one to the tokenizer, or noise: sentinels")
        if not self.fills_in and not vocabulary.sentinels:
            raise TokenizerError("noise: sentinels needs tokens <extra_id_0>, <extra_id_1>, …", hint="tokenizer: {sentinels: 100}")

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `Objective.collate`. `special` (T,) says what is left alone; `sentences` (T,), where it is there, numbers the sentences.

        The batch has `input_ids` and `attention_mask` (size, length) of the source, `target_ids` int64 and `target_weights` float32
        (size, length), or as short as the spans of such rows are.

        Raises:
            TokenizerError: rows of that length have more spans than there are sentinels.
        """
        lengths = (length, self.target_length(length))
        made = [self._spoilt(row, key) for row, key in zip(rows, row_keys, strict=True)]
        return translated(made, self.vocabulary, row_keys, self.parts, lengths=lengths, size=size)

    def target_length(self, length: int) -> int:
        """The longest target of rows of that length.

        Raises:
            TokenizerError: they have more spans than there are sentinels.
        """
        if self.fills_in:
            return length
        hidden, spans = self._amounts(length)
        if spans + 1 > (there := len(self.vocabulary.sentinels)):
            hint = f"tokenizer: {{sentinels: {spans + 1}}}, a longer span, or a smaller rate"
            raise TokenizerError(
                f"rows of {length} tokens have too many spans", expected=f"{spans + 1} sentinels", got=str(there), hint=hint
            )
        return hidden + spans + 2  # a sentinel more, and the token that ends the row

    def _amounts(self, tokens: int) -> tuple[int, int]:
        """M and K of N tokens, as T5 counts them."""
        hidden = max(1, round(self.rate * tokens))
        return hidden, max(1, round(hidden / self.config.span))

    def _spoilt(self, row: Row, key: Any) -> tuple[Ints, Ints]:
        """Source and target."""
        ids, special = np.asarray(row["input_ids"], dtype=np.int64), np.asarray(row["special"], dtype=bool)
        order = shuffled_sentences(special, row["sentences"], key) if self.permutes and "sentences" in row else np.arange(len(ids))
        text, free = ids[order], np.flatnonzero(~special)  # special tokens stay where they are
        if self.fills_in:
            return self._infilled(text, free, key), ids
        return self._with_sentinels(text, free, special, key)

    def _infilled(self, text: Ints, free: Ints, key: Any) -> Ints:
        starts, lengths = poisson_spans(len(free), self.rate, self.config.span, key)
        return replaced(text, free, starts, lengths, np.full(len(starts), self.vocabulary.mask))

    def _with_sentinels(self, text: Ints, free: Ints, special: npt.NDArray[np.bool_], key: Any) -> tuple[Ints, Ints]:
        end = text[-1:][special[-1:]]
        if len(free) < 2:
            return text, end
        starts, lengths = even_spans(len(free), *self._amounts(len(free)), key)
        marks = np.asarray(self.vocabulary.sentinels[: len(starts) + 1], dtype=np.int64)
        hidden = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        spans = np.insert(text[free[hidden]], np.cumsum(lengths) - lengths, marks[:-1])
        return replaced(text, free, starts, lengths, marks[:-1]), np.concatenate([spans, marks[-1:], end])

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Cross-entropy of the targets, summed: (B, T, D) states -> a scalar for each part."""
        return target_losses(output, batch, heads, self.parts, self.config.smoothing)

    def blind(self, counts: np.ndarray) -> dict[str, float]:
        """The entropy of the tokens' frequencies, where the target is the text."""
        found = entropy(counts) if self.fills_in else None
        return {} if found is None else {list(self.parts)[-1]: found}


def shuffled_sentences(special: npt.NDArray[np.bool_], sentences: Any, key: Any) -> Ints:
    """The places of a row in the order that they are read in: all orders of the sentences between two special tokens are equally likely.

    Args:
        special: (T,) bool: these stay where they are.
        sentences: (T,) the number of each token's sentence.
    """
    free, numbers = np.flatnonzero(~special), np.asarray(sentences)
    between = np.cumsum(special)[free]
    fresh = (np.diff(between, prepend=-1) != 0) | (np.diff(numbers[free], prepend=-1) != 0)
    group = np.cumsum(fresh) - 1
    drawn = keys.bits(keys.key(key, "sentences"), int(fresh.sum()))
    order = np.arange(len(special))
    order[free] = free[np.lexsort((free, drawn[group], between))]
    return order


def poisson_spans(n: int, rate: float, mean: float, key: Any) -> tuple[Ints, Ints]:
    """Where spans begin among N tokens, and how long they are, which may be 0: round(rate · N) tokens in all, and one at least.

    Lengths are drawn until they are as many tokens; the last one is cut. Then each is put into a gap of its own between the other tokens,
    all ways to do so being equally likely: so two spans never touch.

    Returns:
        (K,) and (K,), in order. K is at most the number of tokens in spans, so that no row becomes longer: in rows of a few tokens
        spans of no token are left out.
    """
    hidden = min(n, max(1, round(rate * n)))
    lengths = keys.poisson(keys.key(key, "lengths"), 32 + int(2 * hidden / mean), mean)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), hidden)) + 1]
    lengths[-1:] += hidden - lengths.sum()
    empty = np.flatnonzero(lengths == 0)
    lengths = np.delete(lengths, empty[max(0, hidden - (len(lengths) - len(empty))) :])
    gaps = keys.shuffled(keys.key(key, "gaps"), n - hidden + 1)[: len(lengths)]
    order = np.argsort(gaps)
    gaps, lengths = gaps[order], lengths[order]
    return gaps + np.cumsum(lengths) - lengths, lengths


def even_spans(n: int, hidden: int, spans: int, key: Any) -> tuple[Ints, Ints]:
    """Where K spans of M tokens in all begin among N, and how long they are, one token at least; the text begins with what stays.

    Both what is hidden and what stays are cut at random places, all being equally likely (Raffel et al. 2020, appendix of the code:
    `random_spans_noise_mask`).
    """
    hidden = min(hidden, n - 1)
    spans = min(spans, hidden, n - hidden)
    lengths, stays = (_cut(total, spans, keys.key(key, what)) for what, total in (("hidden", hidden), ("stays", n - hidden)))
    return np.cumsum(stays) + np.cumsum(lengths) - lengths, lengths


def _cut(total: int, parts: int, key: Any) -> Ints:
    """`total` as that many numbers of at least 1."""
    borders = np.sort(keys.shuffled(key, total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], borders, [total]]))


def replaced(text: Ints, free: Ints, starts: Ints, lengths: Ints, marks: Any) -> Ints:
    """A row with one token in the place of each span.

    Args:
        text: (T,) ids. free: (N,) the places that spans are counted over; what stands between them, a separator within a span, stays.
        starts, lengths: (K,) spans, in order. marks: (K,) what stands for them.
    """
    kept = np.ones(len(text), dtype=bool)
    kept[free[np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())]] = False
    behind = free[-1] + 1 if len(free) else 0
    places = np.append(free, behind)[starts]
    return np.insert(text[kept], np.cumsum(np.append(0, kept))[places], marks)
