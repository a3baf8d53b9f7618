"""Continuous batching: requests that come and go while others are under way, each getting the tokens that it would get alone.

Rows that are busy stand in front of the cache, side by side. A newcomer's prompt is read in a batch of its own and put behind them; the
row of one that ends is taken by the last. So a step computes busy rows only (Yu et al. 2022, "Orca").

Where tokens are chosen from the scores as they are, a decoder may choose those of some steps by itself; they are told one by one, and
newcomers wait for the last of them.

Letters: B busy rows, V vocabulary, T steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lexloom import keys
from lexloom.errors import LexloomError
from lexloom.nn.cache import Cache
from lexloom.nn.decoding.drawing import Choice, Rule, choose
from lexloom.nn.decoding.processors import History, Processor, applied, processors
from lexloom.nn.decoding.request import Decoder, End, InBursts, Request, prefilled

_MANY = 4096  # tokens of a vocabulary from which kernels choose


@dataclass(frozen=True)
class Chosen:
    """One token of a request.

    Attributes:
        ticket: what `Scheduler.add` gave for the request.
        logprob: under the decoder's own scores.
        end: why it is the last one, or None.
    """

    ticket: int
    token: int
    logprob: float
    end: End | None


@dataclass
class _Row:
    """A request under way."""

    ticket: int
    request: Request
    most: int
    made: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.key = keys.key(self.request.seed, "decoding", self.request.key, self.request.copy)


@dataclass(frozen=True)
class _Group:
    """Busy rows with equal settings; `rows` is None where it is all of them."""

    rows: Tensor | None
    steps: Sequence[Processor]
    rule: Rule
    ends: Collection[int]

    @property
    def ruled(self) -> bool:
        """Whether the rule is all that there is: of the steps it knows the penalty."""
        return len(self.steps) == (self.rule.penalty != 1.0)


class Scheduler:
    """Generates for requests as they come.

    `add` at any time, `step` as long as it is not `idle`.

    Args:
        rows: how many requests are worked on at once.
        length: the most tokens of a row, prompt and continuation; the decoder's context where None.
    """

    def __init__(self, decoder: Decoder, *, rows: int, length: int | None = None) -> None:
        self.decoder, self.rows = decoder, rows
        self.length = min(length or decoder.max_length, decoder.max_length)
        self.cache = decoder.cache(rows, self.length)
        self.waiting: deque[_Row] = deque()
        self.busy: list[_Row] = []
        self._tickets = 0
        on_cpu = decoder.device.type == "cpu"
        # the same for all that is ever drawn here, so that neighbours change nothing
        self._compiled = on_cpu and (decoder.vocabulary >= _MANY or (isinstance(decoder, InBursts) and decoder.burst(1) > 1))
        self._ahead: deque[tuple[list[int], list[float]]] = deque()  # tokens of busy rows that are found and not told
        self._front: Cache | None = None  # the busy rows of the cache
        self._groups: list[_Group] | None = None
        self._history: History | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.busy and not self.waiting

    def add(self, request: Request) -> int:
        """Puts a request in the queue; the number that its tokens carry.

        Raises:
            DataError, ConfigError: see `Request.check`.
            LexloomError: it is longer than the rows of this scheduler, or a beam search.
        """
        request.check(self.decoder)
        if request.config.num_beams > 1:
            raise LexloomError("a beam search has no single tokens to tell", hint="use generate")
        if (needed := len(request.prompt) + (most := request.most(self.decoder))) > self.length:
            raise LexloomError("this request does not fit", expected=f"at most {self.length} tokens", got=str(needed))
        self._tickets += 1
        self.waiting.append(_Row(self._tickets, request, most))
        return self._tickets

    @torch.inference_mode()
    def cancel(self, ticket: int) -> bool:
        """Takes a request out, waiting or under way; False where there is none."""
        for row in self.waiting:
            if row.ticket == ticket:
                self.waiting.remove(row)
                return True
        for place, row in enumerate(self.busy):
            if row.ticket == ticket:
                self._leave([place])
                return True
        return False

    @torch.inference_mode()
    def step(self) -> list[Chosen]:
        """One token for each request under way, newcomers among them."""
        if not self._ahead:
            self._find()
        return self._tell(*self._ahead.popleft()) if self._ahead else []

    def _find(self) -> None:
        """One more step, or some of them."""
        if (steps := self._burst()) > 1:
            self._run(steps)
            return
        scores = [self._read()] if self.busy else []
        if newcomers := [self.waiting.popleft() for _ in range(min(len(self.waiting), self.rows - len(self.busy)))]:
            scores.append(self._join(newcomers))
        if scores:
            tokens, logprobs = self._choose(torch.cat(scores) if len(scores) > 1 else scores[0])
            self._tokens = tokens[:, None]
            self._ahead.append((tokens.tolist(), logprobs.tolist()))

    def _burst(self) -> int:
        """How many steps may be found at once."""
        joins = self.waiting and len(self.busy) < self.rows
        if not self.busy or joins or not isinstance(self.decoder, InBursts) or not all(group.ruled for group in self._settings()):
            return 1
        return min(self.decoder.burst(len(self.busy)), *(row.most - len(row.made) for row in self.busy))

    def _run(self, steps: int) -> None:
        """Some steps at once, up to one with an end."""
        assert isinstance(self.decoder, InBursts)
        front = self._begun()
        tokens, logprobs = self.decoder.ahead(self._tokens, front, self._choice(steps))
        self._append(tokens)
        self._tokens = tokens[-1][:, None]
        self._ahead.extend(zip(tokens.tolist(), logprobs.tolist(), strict=True))

    def _choice(self, steps: int) -> Choice:
        """What all busy rows ask for."""
        groups, found = self._settings(), Choice.none(len(self.busy), steps)
        for group in groups:
            found.rules[slice(None) if group.rows is None else group.rows.numpy()] = group.rule.array()
        ends = np.array(sorted({end for group in groups for end in group.ends}), dtype=np.int64)
        uniforms = self._uniforms(None, steps) if any(group.rule.draws for group in groups) else found.uniforms
        ids, lengths = (found.ids, found.lengths) if (past := self._history) is None else (past.ids.numpy(), past.lengths.numpy())
        return Choice(found.rules, uniforms, ends, ids, lengths)

    def _read(self) -> Tensor:
        front = self._begun()
        return self.decoder(self._tokens, None, front).float()

    def _begun(self) -> Cache:
        """The cache of the busy rows, whose last tokens are to be read."""
        if self._front is None:
            longest = max(len(row.request.prompt) + len(row.made) - 1 for row in self.busy)
            self._front = self.cache.front(len(self.busy), longest)
            self._tokens = torch.tensor([[row.made[-1]] for row in self.busy], device=self.decoder.device)
        return self._front

    def _join(self, newcomers: list[_Row]) -> Tensor:
        scores, prompts = prefilled(self.decoder, [row.request for row in newcomers])
        for i, row in enumerate(newcomers):
            self.cache.take(len(self.busy), prompts, i)
            self.busy.append(row)
        self._changed()
        return scores.float()

    def _leave(self, places: Sequence[int]) -> None:
        for place in sorted(places, reverse=True):
            last = len(self.busy) - 1
            row, ahead = self.busy.pop(), [(tokens.pop(), logprobs.pop()) for tokens, logprobs in self._ahead]
            if place < last:
                self.busy[place] = row
                self.cache.take(place, self.cache, last)
                for (tokens, logprobs), (token, logprob) in zip(self._ahead, ahead, strict=True):
                    tokens[place], logprobs[place] = token, logprob
        if not self.busy:
            self._ahead.clear()
        self._changed()

    def _changed(self) -> None:
        """Other rows are busy now: what is kept from step to step no longer holds."""
        self._front, self._groups, self._history = None, None, None

    def _choose(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V) -> (B,) tokens, and their log-probabilities under the scores as they are."""
        groups = self._settings()
        best, tops, norms = _likeliest(scores)
        if not any(group.steps or group.rule.draws for group in groups):
            return best, tops - norms
        tokens = torch.empty_like(best)
        for group in groups:
            part = scores if group.rows is None else scores[group.rows]
            if group.steps and self._history is not None:
                part = applied(part, _of(self._history, group.rows), group.steps)
            uniforms = torch.from_numpy(self._uniforms(group.rows)[0]).to(self.decoder.device) if group.rule.draws else None
            found = choose(part, group.rule, uniforms, compiled=self._compiled)
            if group.rows is None:
                tokens = found
            else:
                tokens[group.rows] = found
        self._append(tokens[None])
        return tokens, scores.gather(1, tokens[:, None])[:, 0] - norms

    def _settings(self) -> list[_Group]:
        """Busy rows by their settings."""
        if self._groups is None:
            self._groups, self._history = self._sorted()
        return self._groups

    def _sorted(self) -> tuple[list[_Group], History | None]:
        found: list[tuple[Request, list[int]]] = []
        for place, row in enumerate(self.busy):
            same = next((places for one, places in found if one.config is row.request.config or one.config == row.request.config), None)
            if same is None:
                found.append((row.request, same := []))
            same.append(place)
        groups = []
        for request, places in found:
            steps = processors(request.config, self.decoder.vocabulary, [self.busy[place].request.allowed for place in places])
            rows = None if len(found) == 1 else torch.tensor(places, device=self.decoder.device)
            groups.append(_Group(rows, steps, Rule.of(request.config), request.config.ends))
        return groups, self._written() if any(group.steps for group in groups) else None

    def _written(self) -> History:
        ids = torch.zeros(len(self.busy), self.length, dtype=torch.int64)
        for place, row in enumerate(self.busy):
            whole = [*row.request.prompt, *row.made]
            ids[place, : len(whole)] = torch.as_tensor(whole, dtype=torch.int64)
        numbers = torch.tensor(
            [
                (len(row.request.prompt) + len(row.made), len(row.made), row.most, row.request.config.least(len(row.request.prompt)))
                for row in self.busy
            ]
        )
        device = self.decoder.device
        return History(ids.to(device), *(column.contiguous().to(device) for column in numbers.T))

    def _append(self, tokens: Tensor) -> None:
        """Notes the (T, B) tokens of some steps, where anybody asks for them."""
        if (history := self._history) is not None:
            places = history.lengths[:, None] + torch.arange(len(tokens), device=tokens.device)
            history.ids.scatter_(1, places.clamp(max=self.length - 1), tokens.T)
            history.lengths.add_(len(tokens))
            history.made.add_(len(tokens))

    def _uniforms(self, rows: Tensor | None, steps: int = 1) -> npt.NDArray[np.float64]:
        """(T, B) numbers in [0, 1), of (seed, request, step)."""
        chosen = self.busy if rows is None else [self.busy[i] for i in rows.tolist()]
        made = np.array([len(row.made) for row in chosen], dtype=np.uint64) + np.arange(steps, dtype=np.uint64)[:, None]
        return np.ascontiguousarray(keys.uniform(keys.key(np.stack([row.key for row in chosen]), made), 1)[..., 0])

    def _tell(self, tokens: list[int], logprobs: list[float]) -> list[Chosen]:
        found, over = [], []
        for place, (row, token, logprob) in enumerate(zip(self.busy, tokens, logprobs, strict=True)):
            row.made.append(token)
            end = row.request.end(row.made, row.most)
            found.append(Chosen(row.ticket, token, logprob, end))
            if end is not None:
                over.append(place)
        if over:
            self._leave(over)
        return found


def _likeliest(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, V) -> (B,) best tokens, (B,) their scores, (B,) log Σ exp of all scores."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.shape[1] >= _MANY:
        from lexloom.nn.likeliest import likeliest  # brings a compiler, which small vocabularies can do without

        return likeliest(scores)
    tops, best = scores.max(-1)
    return best, tops, scores.logsumexp(-1)


def _of(history: History, rows: Tensor | None) -> History:
    if rows is None:
        return history
    return History(*(column[rows] for column in (history.ids, history.lengths, history.made, history.most, history.least)))
