"""What settings make of a decoder's scores before a token is chosen (`drawing.py`): small functions, each from scores to scores.

They stand in the order in which `transformers` applies them. Of a row they see its own tokens alone: neither padding nor neighbours count.

Letters: B rows, V vocabulary, S the longest row, N tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lexloom.errors import ConfigError
from lexloom.nn.decoding.settings import GenerationConfig

_NEVER = float("-inf")
Allowed = Callable[[Sequence[int]], Collection[int]]
"""A constraint: the ids generated so far -> those that may come next."""


@dataclass(frozen=True)
class History:
    """What stands in each row already.

    Attributes:
        ids: (B, S) int64, prompts and what was generated, from the front.
        lengths: (B,) int64, how much of each row counts.
        made: (B,) int64, how many of these tokens were generated.
        most, least: (B,) int64, how many may be generated, and how many have to be before an end.
    """

    ids: Tensor
    lengths: Tensor
    made: Tensor
    most: Tensor
    least: Tensor

    @property
    def counted(self) -> Tensor:
        """(B, S) bool: where tokens stand."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < self.lengths[:, None]

    def tail(self, n: int) -> Tensor:
        """(B, n): the last tokens of each row; -1 where it is shorter."""
        places = self.lengths[:, None] - n + torch.arange(n, device=self.ids.device)
        return torch.where(places >= 0, self.ids.gather(1, places.clamp(min=0)), -1)


Processor = Callable[[Tensor, History], Tensor]
"""(B, V) scores and what stands there already -> (B, V) scores."""


def processors(config: GenerationConfig, vocabulary: int, allowed: Sequence[Allowed | None] = ()) -> list[Processor]:
    """What a configuration asks for, in order; nothing where a token is chosen from the scores as they are.

    Args:
        vocabulary: V.
        allowed: a constraint a row, or None; empty where there are none.
    """
    c, ends = config, sorted(end for end in config.ends if end < vocabulary)
    found: list[Processor] = []
    if c.repetition_penalty != 1.0:
        found.append(partial(repeated, penalty=c.repetition_penalty))
    if c.no_repeat_ngram_size > 0:
        found.append(partial(ngrams, n=c.no_repeat_ngram_size))
    if words := [word for word in c.bad_words_ids or () if len(word) > 1 or word[0] not in ends]:
        found.append(partial(bad_words, words=words))
    if ends and (c.min_new_tokens or c.min_length):
        found.append(partial(not_yet, ends=ends))
    if any(one is not None for one in allowed):
        found.append(partial(constrained, allowed=allowed))
    if c.forced_bos_token_id is not None:
        found.append(partial(forced_first, token=c.forced_bos_token_id))
    if c.last:
        found.append(partial(forced_last, tokens=c.last))
    if c.suppress_tokens:
        found.append(partial(suppressed, tokens=c.suppress_tokens))
    if c.begin_suppress_tokens:
        found.append(partial(suppressed_at_first, tokens=c.begin_suppress_tokens))
    return found


def applied(scores: Tensor, history: History, steps: Sequence[Processor]) -> Tensor:
    """All of them in turn.

    Raises:
        ConfigError: of a row nothing is left to choose.
    """
    for step in steps:
        scores = step(scores, history)
    if steps and bool((scores.amax(-1) == _NEVER).any()):
        raise ConfigError("no token may come next: what is banned, forced and allowed leaves none", hint="loosen one of them")
    return scores


def repeated(scores: Tensor, history: History, *, penalty: float) -> Tensor:
    """Scores of tokens that stand in the row: positive ones divided by the penalty, negative ones multiplied."""
    rows, width = scores.shape
    there = torch.zeros(rows, width + 1, dtype=torch.bool, device=scores.device)
    there.scatter_(1, torch.where(history.counted, history.ids.clamp(max=width), width), True)
    return torch.where(there[:, :width], torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def ngrams(scores: Tensor, history: History, *, n: int) -> Tensor:
    """Tokens that would make `n` tokens in a row occur twice are out."""
    if history.ids.shape[1] < n:
        return scores
    windows = history.ids.unfold(1, n, 1)  # (B, S - n + 1, n)
    whole = torch.arange(n, history.ids.shape[1] + 1, device=scores.device) <= history.lengths[:, None]
    same = (windows[..., :-1] == history.tail(n - 1)[:, None]).all(-1) & whole
    return _without(scores, torch.where(same, windows[..., -1], -1))


def bad_words(scores: Tensor, history: History, *, words: Sequence[Sequence[int]]) -> Tensor:
    """The last id of a sequence is out where the others stand before it."""
    begun = [(history.tail(len(word) - 1) == torch.tensor(word[:-1], device=scores.device)).all(-1) for word in words]
    last = torch.tensor([word[-1] for word in words], device=scores.device)
    return _without(scores, torch.where(torch.stack(begun, dim=1), last, -1))


def _without(scores: Tensor, banned: Tensor) -> Tensor:
    """Without the (B, N) ids of each row; -1 is none."""
    rows, width = scores.shape
    out = torch.zeros(rows, width + 1, dtype=torch.bool, device=scores.device)
    out.scatter_(1, torch.where((banned < 0) | (banned > width), width, banned), True)
    return scores.masked_fill(out[:, :width], _NEVER)


def not_yet(scores: Tensor, history: History, *, ends: Sequence[int]) -> Tensor:
    """No end before there are as many tokens as there have to be."""
    return _where(history.made < history.least, _banned(scores, ends), scores)


def constrained(scores: Tensor, history: History, *, allowed: Sequence[Allowed | None]) -> Tensor:
    """Only what a row's constraint allows."""
    out = torch.zeros_like(scores, dtype=torch.bool)
    for row, (ids, length, made) in enumerate(zip(history.ids, history.lengths.tolist(), history.made.tolist(), strict=True)):
        if (constraint := allowed[row]) is not None:
            may = list(constraint(ids[length - made : length].tolist()))
            if not may:
                raise ConfigError("the constraint allows no token", got=f"nothing after {ids[length - made : length].tolist()}")
            out[row] = True
            out[row, may] = False
    return scores.masked_fill(out, _NEVER)


def forced_first(scores: Tensor, history: History, *, token: int) -> Tensor:
    """This token comes first."""
    return _where(history.made == 0, _only(scores, [token]), scores)


def forced_last(scores: Tensor, history: History, *, tokens: Sequence[int]) -> Tensor:
    """One of these tokens comes last, where the length is used up."""
    return _where(history.made == history.most - 1, _only(scores, tokens), scores)


def suppressed(scores: Tensor, history: History, *, tokens: Sequence[int]) -> Tensor:
    """These tokens are out."""
    return _banned(scores, tokens)


def suppressed_at_first(scores: Tensor, history: History, *, tokens: Sequence[int]) -> Tensor:
    """These tokens do not come first."""
    return _where(history.made == 0, _banned(scores, tokens), scores)


def _banned(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    return scores.index_fill(1, torch.tensor(tokens, device=scores.device), _NEVER)


def _only(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    return torch.full_like(scores, _NEVER).index_fill(1, torch.tensor(tokens, device=scores.device), 0.0)


def _where(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(rows[:, None], a, b)
