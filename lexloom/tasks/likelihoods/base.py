"""What a likelihood is: log-probabilities of the tokens of texts, long texts in overlapping stretches.

Letters: B rows, T tokens, N tokens of all rows, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lexloom.errors import ConfigError
from lexloom.models.base import Network
from lexloom.nn.cross_entropy import CHUNK, at_least_fp32
from lexloom.registry import Registry

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Sureness:
    """Of the tokens of one text: `logs` (N,) float64, natural logarithms of their probabilities, and `best` (N,) bool, whether each is
    the likeliest of the whole vocabulary."""

    logs: npt.NDArray[np.float64]
    best: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stretch:
    """Tokens `begin` to `end` of a text as a network sees them at once; those before `first` are context alone."""

    begin: int
    first: int
    end: int


class Likelihood:
    """How sure a network with a head for a role is of the tokens of texts. A subclass is one file and says how.

    Attributes of a subclass:
        role: the head it reads; it is registered under the same name.
        pseudo: whether a text's sum is no probability, since each token is judged with those after it in sight.
    """

    role: ClassVar[str]
    pseudo: ClassVar[bool] = False

    def __init__(self, network: Network, tokenizer: Any, *, max_length: int, batch_tokens: int = 4096) -> None:
        self.network, self.tokenizer, self.max_length, self.batch_tokens = network, tokenizer, max_length, batch_tokens

    @property
    def room(self) -> int:
        """How many tokens of a text one stretch holds."""
        raise NotImplementedError

    def of_stretches(self, texts: Sequence[Ids], stretches: Sequence[tuple[int, Stretch]]) -> list[npt.NDArray[np.float32]]:
        """For each (number of a text, stretch) the (n, 2) logarithms and bests of its tokens from `first` on."""
        raise NotImplementedError

    def __call__(self, texts: Sequence[str], *, stride: int | None = None) -> list[Sureness]:
        """Every token of every text, each once. What looks like a special token in a text is text.

        Args:
            stride: how far a long text moves on from stretch to stretch; half of what fits where None. The less, the more context
                tokens have, and the longer it takes.

        Raises:
            ConfigError: a stretch has no room for that stride.
            TokenizerError: the tokenizer lacks the special token that the role needs.
        """
        step = max(1, self.room // 2) if stride is None else stride
        if not 1 <= step <= self.room:
            raise ConfigError("a long text cannot move on so far", expected=f"a stride of 1 to {self.room} tokens", got=str(step))
        ids = self.tokenizer.encode_plain(list(texts))
        cuts = [(i, stretch) for i, row in enumerate(ids) for stretch in stretches(len(row), self.room, step)]
        pieces: list[list[npt.NDArray[np.float32]]] = [[] for _ in ids]
        for (i, _), found in zip(cuts, self.of_stretches(ids, cuts), strict=True):
            pieces[i].append(found)
        whole = [np.concatenate(piece) if piece else np.zeros((0, 2), np.float32) for piece in pieces]
        return [Sureness(piece[:, 0].astype(np.float64), piece[:, 1] > 0) for piece in whole]

    def sure(self, states: Tensor, labels: Tensor) -> Tensor:
        """(N, D) states, (N,) int64 -> (N, 2): log-probability of each label, and 1 where it is the best; some rows of scores at a time."""
        size = max(1, CHUNK // len(self.tokenizer))
        parts = []
        for a in range(0, len(labels), size):
            scores = at_least_fp32(self.network.scores(self.role, states[a : a + size]))
            wanted = labels[a : a + size, None]
            logs = scores.gather(-1, wanted)[:, 0] - scores.logsumexp(-1)
            parts.append(torch.stack([logs, (scores.argmax(-1, keepdim=True) == wanted)[:, 0].to(logs.dtype)], dim=1))
        return torch.cat(parts) if parts else states.new_zeros((0, 2))


LIKELIHOODS: Registry[type[Likelihood]] = Registry("likelihood", "LIKELIHOODS", "lexloom.tasks.likelihoods")


def stretches(n: int, room: int, stride: int) -> Iterator[Stretch]:
    """Cuts n tokens so that each is new in one stretch: the first holds as many as fit, each further one `stride` new ones at its end."""
    end = min(n, room)
    if n:
        yield Stretch(0, 0, end)
    while end < n:
        first, end = end, min(n, end + stride)
        yield Stretch(max(0, end - room), first, end)
