"""Pseudo-log-likelihood by an encoder: each token is masked in turn and judged with all others in sight (Salazar et al. 2020, equation 1).

It ranks sentences well and is no probability: what it gives of a whole text stands beside no decoder's perplexity. It takes as many
passes as there are tokens.

Letters: B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lexloom.models.base import Output
from lexloom.tasks.base import run
from lexloom.tasks.likelihoods.base import LIKELIHOODS, Ids, Likelihood, Stretch
from lexloom.text.encoded import Ragged

_ROWS = 1 << 14  # masked copies that stand in memory at once


@LIKELIHOODS.register("masked-lm")
class Masked(Likelihood):
    """The sum over the tokens of a text of how likely each is in the place of a mask, special tokens around the text."""

    role = "masked-lm"
    pseudo = True

    @property
    def room(self) -> int:
        """What the special tokens leave."""
        return int(self.max_length - self.tokenizer.templates[0].added)

    def of_stretches(self, texts: Sequence[Ids], stretches: Sequence[tuple[int, Stretch]]) -> list[npt.NDArray[np.float32]]:
        """See `Likelihood.of_stretches`."""
        mask = self.tokenizer.require("mask", "a pseudo-likelihood")

        def answer(output: Output, batch: Mapping[str, Tensor]) -> list[npt.NDArray[np.float32]]:
            masked = batch["input_ids"] == mask  # one a row
            return list(self.sure(output.hidden[masked], batch["labels"][masked]).float().cpu().numpy())

        fills = {**self.tokenizer.fills, "labels": 0}
        found: list[npt.NDArray[np.float32]] = []
        copies = self._copies(texts, stretches, mask)
        while rows := list(islice(copies, _ROWS)):
            found += run(self.network, rows, fills, answer, batch_tokens=self.batch_tokens)
        ends = np.cumsum([s.end - s.first for _, s in stretches])[:-1]
        return np.split(np.stack(found), ends) if found else []

    def _copies(self, texts: Sequence[Ids], stretches: Sequence[tuple[int, Stretch]], mask: int) -> Iterator[dict[str, Ids]]:
        for i, s in stretches:
            made = self.tokenizer.templates[0].compose(Ragged.of([texts[i][s.begin : s.end]]))
            for place in np.flatnonzero(made.sequence == 0)[s.first - s.begin :]:
                ids = made.input_ids.copy()
                ids[place] = mask
                yield {"input_ids": ids, "token_type_ids": made.token_type_ids, "labels": made.input_ids}
