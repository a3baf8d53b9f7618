"""Beam search: the likeliest texts, followed some at a time (Graves 2012; length penalty of Wu et al. 2016, section 7, in its plain form).

A round: the best continuations over all beams of a prompt are found; those that end are kept as answers where they are among the best
`n`; the best `n` of the others are followed. Which ids come out is what `transformers` finds.

Letters: R prompts, n beams of each, V vocabulary, k candidates of a round, T the most new tokens, S the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lexloom.nn.decoding.processors import History, applied, processors
from lexloom.nn.decoding.request import Decoder, Generated, Request, prefilled

_OUT = -1e9  # what a beam scores that is none; finite, so that sums stay comparable


@dataclass
class _Texts:
    """Some texts of each prompt, all of one length unless they are over.

    Attributes:
        scores: (R, n) float32. ids: (R, n, T). logprobs: (R, n, T). lengths: (R, n).
    """

    scores: Tensor
    ids: Tensor
    logprobs: Tensor
    lengths: Tensor

    @classmethod
    def none(cls, prompts: int, beams: int, most: int, device: torch.device) -> _Texts:
        ids = torch.zeros(prompts, beams, most, dtype=torch.int64, device=device)
        return cls(torch.full((prompts, beams), _OUT, device=device), ids, torch.zeros(ids.shape, device=device), ids[..., 0].clone())

    def at(self, places: Tensor) -> _Texts:
        """Those at (R, m) places."""
        wide = places[..., None].expand(-1, -1, self.ids.shape[-1])
        return _Texts(
            self.scores.gather(1, places), self.ids.gather(1, wide), self.logprobs.gather(1, wide), self.lengths.gather(1, places)
        )

    def beside(self, other: _Texts) -> _Texts:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Texts(*(torch.cat(pair, dim=1) for pair in pairs))

    def where(self, rows: Tensor, other: _Texts) -> _Texts:
        """These at (R,) rows, others elsewhere."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Texts(*(torch.where(rows.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in pairs))


@torch.inference_mode()
def search(decoder: Decoder, requests: Sequence[Request]) -> list[list[Generated]]:
    """`num_return_sequences` continuations of each prompt, best first.

    Args:
        requests: with one configuration for all; checked.
    """
    work = _Search(decoder, requests)
    while bool(work.open.any()):
        work.round()
    return work.answers()


class _Search:
    def __init__(self, decoder: Decoder, requests: Sequence[Request]) -> None:
        self.decoder, self.requests, self.config = decoder, requests, requests[0].config
        self.n, device = self.config.num_beams, decoder.device
        self.most = torch.tensor([request.most(decoder) for request in requests], device=device)
        self.ends = torch.tensor(sorted(self.config.ends), dtype=torch.int64, device=device)
        n, prompts, most = self.n, len(requests), int(self.most.max())
        self.running, self.done = (_Texts.none(prompts, n, most, device) for _ in "ab")
        self.running.scores[:, 0] = 0.0  # all beams are one at first
        self.over = torch.zeros(prompts, n, dtype=torch.bool, device=device)
        self.better = torch.ones(prompts, dtype=torch.bool, device=device)  # whether what is followed may still win
        self.open = torch.ones(prompts, dtype=torch.bool, device=device)
        self.made = 0
        constraints = [request.allowed for request in requests for _ in range(n)]
        self.steps = processors(self.config, decoder.vocabulary, constraints)
        self._begin(most)

    def _begin(self, most: int) -> None:
        scores, prompts = prefilled(self.decoder, self.requests)
        longest = max(len(request.prompt) for request in self.requests)
        self.cache = self.decoder.cache(len(self.requests) * self.n, min(longest + most, self.decoder.max_length))
        for row in range(len(self.requests) * self.n):
            self.cache.take(row, prompts, row // self.n)
        self.scores = scores.repeat_interleave(self.n, 0)
        self.history = self._written(longest + most)

    def _written(self, longest: int) -> History:
        """The prompts, each once for each of its beams."""
        ids = torch.zeros(len(self.requests), longest, dtype=torch.int64)
        for row, request in enumerate(self.requests):
            ids[row, : len(request.prompt)] = torch.as_tensor(request.prompt, dtype=torch.int64)
        lengths = torch.tensor([len(request.prompt) for request in self.requests])
        least = torch.tensor([self.config.least(len(request.prompt)) for request in self.requests])
        columns = (ids, lengths, torch.zeros_like(lengths), self.most.cpu(), least)
        return History(*(column.to(self.decoder.device).repeat_interleave(self.n, 0) for column in columns))

    def round(self) -> None:
        """One more token for every beam."""
        raw = self.scores.float().log_softmax(-1)
        candidates, beams = self._candidates(applied(raw, self.history, self.steps), raw)
        hits = self._hits(candidates)
        following = candidates.scores + hits * _OUT
        places = following.topk(self.n).indices
        running = candidates.at(places)
        running.scores = following.gather(1, places)
        self._finish(candidates, hits)
        self.made += 1
        self.running = running.where(self.open, self.running)
        self._close(hits)
        if bool(self.open.any()):
            self._follow(beams.gather(1, places))

    def _candidates(self, processed: Tensor, raw: Tensor) -> tuple[_Texts, Tensor]:
        """The best continuations of each prompt, and (R, k) which beam each is of: more than `n`, for some may end."""
        n, width = self.n, processed.shape[-1]
        totals = (processed.view(-1, n, width) + self.running.scores[..., None]).view(-1, n * width)
        best, places = totals.topk(min(max(2, 1 + len(self.ends)) * n, n * width))
        beams, tokens = places // width, places % width
        found = self.running.at(beams)
        found.scores = best
        found.ids[..., self.made] = tokens
        found.logprobs[..., self.made] = raw.view(-1, n * width).gather(1, places)
        found.lengths = torch.full_like(found.lengths, self.made + 1)
        return found, beams

    def _hits(self, candidates: _Texts) -> Tensor:
        """(R, k): which candidates are over."""
        found = torch.isin(candidates.ids[..., self.made], self.ends) | (self.made + 1 >= self.most)[:, None]
        for row, request in enumerate(self.requests):
            if request.stop is not None:
                stopped = [request.stop(ids) for ids in candidates.ids[row, :, : self.made + 1].tolist()]
                found[row] |= torch.tensor(stopped, device=found.device)
        return found

    def _finish(self, candidates: _Texts, hits: Tensor) -> None:
        """Keeps the best `n` of the answers so far and of the candidates that are over and among the best `n`."""
        n = self.n
        fresh = hits & (torch.arange(hits.shape[1], device=hits.device) < n)
        full = self.over.all(1) & (self.config.early_stopping is True)
        scores = candidates.scores / (self.made + 1) ** self.config.length_penalty
        scores = scores + full[:, None] * _OUT + ~self.better[:, None] * _OUT + ~fresh * _OUT
        merged = self.done.beside(_Texts(scores, candidates.ids, candidates.logprobs, candidates.lengths))
        places = merged.scores.topk(n).indices
        self.done = merged.at(places).where(self.open, self.done)
        over = torch.cat([self.over, fresh], dim=1).gather(1, places)
        self.over = torch.where(self.open[:, None], over, self.over)

    def _close(self, hits: Tensor) -> None:
        """Prompts whose search is over."""
        early, penalty = self.config.early_stopping, self.config.length_penalty
        length = self.most if early == "never" and penalty > 0 else torch.full_like(self.most, self.made)
        possible = self.running.scores[:, 0] / length**penalty
        worst = torch.where(self.over, self.done.scores.amin(1, keepdim=True), _OUT)
        self.better &= (possible[:, None] > worst).any(1)
        self.open = self.open & self.better & ~(self.over.all(1) & (early is True)) & ~hits.all(1)

    def _follow(self, beams: Tensor) -> None:
        """Hands the chosen tokens to the decoder, each beam with the past of the one it came from."""
        prompts, n = beams.shape
        open_ = self.open.repeat_interleave(n)
        own = torch.arange(n, device=beams.device).expand(prompts, n)
        rows = (torch.where(self.open[:, None], beams, own) + torch.arange(prompts, device=beams.device)[:, None] * n).view(-1)
        if not torch.equal(rows, torch.arange(prompts * n, device=rows.device)):
            self.cache.select(rows)
        tokens = self.running.ids[..., self.made - 1].reshape(-1, 1)
        if self.steps:
            self._append(rows, tokens, open_)
        self.scores = self.decoder(tokens, None if bool(open_.all()) else open_[:, None], self.cache)

    def _append(self, rows: Tensor, tokens: Tensor, open_: Tensor) -> None:
        h = self.history
        ids = h.ids[rows].scatter(1, h.lengths[:, None].clamp(max=h.ids.shape[1] - 1), tokens)
        self.history = History(ids, h.lengths + open_, h.made + open_, h.most, h.least)

    def answers(self) -> list[list[Generated]]:
        """What came out, best first."""
        most, found = self.most.tolist(), []
        for row, request in enumerate(self.requests):
            texts = []
            for place in range(self.config.num_return_sequences):
                length = int(self.done.lengths[row, place])
                ids = self.done.ids[row, place, :length].tolist()
                logprobs = self.done.logprobs[row, place, :length].tolist()
                texts.append(Generated(ids, logprobs, request.end(ids, most[row]) or "length", float(self.done.scores[row, place])))
            found.append(texts)
        return found
