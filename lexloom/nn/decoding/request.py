"""What is asked of a decoder: a prompt with the settings of its continuation; and what comes back.

Letters: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from lexloom.errors import DataError
from lexloom.nn.cache import Cache
from lexloom.nn.decoding.drawing import Choice
from lexloom.nn.decoding.processors import Allowed
from lexloom.nn.decoding.settings import GenerationConfig

End = Literal["end", "stop", "length"]
"""Why a text is over: an end token, what `stop` saw, or the length is used up."""


class Decoder(Protocol):
    """Something that takes new ids and a cache, and gives scores.

    Attributes:
        vocabulary: V.
        max_length: the most tokens of a row, prompt and continuation.
    """

    @property
    def vocabulary(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def device(self) -> torch.device: ...

    def check_source(self, source: Any) -> None:
        """Looks at what a request has for an encoder; None where it has nothing.

        Raises:
            DataError: it has none and there is an encoder, the other way round, or the encoder cannot read it.
        """
        ...

    def cache(self, rows: int, length: int, sources: Sequence[Any] | None = None) -> Cache:
        """An empty cache for rows of at most `length` tokens.

        Args:
            sources: what an encoder–decoder reads first, one a row; without them rows are filled by `Cache.take`.
        """
        ...

    def __call__(self, ids: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """Reads (B, T) new tokens into the cache: (B, V) scores of what follows the last one of each row.

        Args:
            mask: (B, T) bool, False at padding, before or behind; None where there is none. A row of padding alone gets any scores.
        """
        ...


@runtime_checkable
class InBursts(Protocol):
    """A decoder that can choose some tokens by itself, one after the other, before anybody looks at them."""

    def burst(self, rows: int) -> int:
        """How many tokens of each of so many rows it should choose at once; 1 where it cannot."""
        ...

    def ahead(self, ids: Tensor, cache: Cache, choice: Choice) -> tuple[Tensor, Tensor]:
        """Reads (B, 1) new tokens and then what it chooses: (T, B) tokens and their log-probabilities.

        There are fewer where a row comes to an end, which is then the last step.
        """
        ...


@dataclass(frozen=True)
class Request:
    """A prompt and how to go on with it.

    Attributes:
        prompt: ids, one or more; of an encoder–decoder what the target begins with, its start token first.
        key, copy: what is drawn for it is a function of (seed, key, copy, step); requests that should differ differ in one of them.
        stop: sees the generated ids after each token, and says whether that is all.
        allowed: a constraint, such as a `Trie`.
        source: what an encoder–decoder reads first: ids.
    """

    prompt: Sequence[int]
    config: GenerationConfig = field(default_factory=lambda: GenerationConfig.read({}))
    seed: int = 1
    key: int = 0
    copy: int = 0
    stop: Callable[[Sequence[int]], bool] | None = None
    allowed: Allowed | None = None
    source: Any = None

    def check(self, decoder: Decoder) -> None:
        """Looks at everything before the first step.

        Raises:
            DataError: the prompt is empty, fills the context, or has ids outside the vocabulary; or see `Decoder.check_source`.
            ConfigError: the settings contradict each other.
        """
        if not len(self.prompt):
            raise DataError("there is no prompt to go on with", expected="one token or more", got="none")
        if odd := [int(token) for token in self.prompt if not 0 <= token < decoder.vocabulary]:
            raise DataError("a prompt has an id outside the vocabulary", expected=f"0 to {decoder.vocabulary - 1}", got=str(odd[0]))
        if self.most(decoder) < 1:
            room = min(decoder.max_length, self.config.max_length or decoder.max_length)
            raise DataError(
                "the prompt leaves no room for a token",
                expected=f"at most {room - 1} tokens",
                got=str(len(self.prompt)),
                hint="shorten the prompt" if room == decoder.max_length else "max_length counts the prompt too; set max_new_tokens",
            )
        decoder.check_source(self.source)
        self.config.check(decoder.vocabulary, self.allowed)

    def most(self, decoder: Decoder) -> int:
        """How many tokens follow at most."""
        return self.config.new_tokens(len(self.prompt), decoder.max_length)

    def end(self, made: Sequence[int], most: int) -> End | None:
        """Why the text is over after these generated ids, or None."""
        if made[-1] in self.config.ends:
            return "end"
        if self.stop is not None and self.stop(made):
            return "stop"
        return "length" if len(made) >= most else None


@dataclass(frozen=True)
class Generated:
    """A continuation.

    Attributes:
        ids: without the prompt; the end token is among them where there is one.
        logprobs: of each, under the decoder's own scores, before settings changed them.
        score: what a beam search ranks by: the log-probability, divided by the length to the power of `length_penalty`; else the sum.
    """

    ids: list[int]
    logprobs: list[float]
    end: End
    score: float


def prefilled(decoder: Decoder, requests: Sequence[Request]) -> tuple[Tensor, Cache]:
    """Reads the prompts: (B, V) scores of what follows them, and a cache with as many slots as the longest has tokens."""
    longest = max(len(request.prompt) for request in requests)
    ids = torch.zeros(len(requests), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row, request in enumerate(requests):
        ids[row, : len(request.prompt)] = torch.as_tensor(request.prompt, dtype=torch.int64)
        mask[row, : len(request.prompt)] = True
    sources = None if requests[0].source is None else [request.source for request in requests]
    cache = decoder.cache(len(requests), longest, sources)
    return decoder(ids.to(decoder.device), None if mask.all() else mask.to(decoder.device), cache), cache
