"""Log-likelihood by a decoder: each token given those before it.

Letters: B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lexloom.models.base import Output
from lexloom.tasks.base import run
from lexloom.tasks.likelihoods.base import LIKELIHOODS, Ids, Likelihood, Stretch


@LIKELIHOODS.register("causal-lm")
class Causal(Likelihood):
    """The probability of a text is the product of its tokens' given those before; the first is given the token that begins texts.

    That token is the tokenizer's `bos`, and its `eos` where it has none: what stands before a document in joined training rows, and what
    other harnesses take. The end token after a text is not counted.
    """

    role = "causal-lm"

    @property
    def room(self) -> int:
        """All that the network takes: the start token stands where the last token of a stretch would, which is only predicted."""
        return self.max_length

    def of_stretches(self, texts: Sequence[Ids], stretches: Sequence[tuple[int, Stretch]]) -> list[npt.NDArray[np.float32]]:
        """See `Likelihood.of_stretches`."""
        start = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.require("eos", "the start of a text")
        before = {i: np.concatenate([[start], texts[i][:-1]]) for i in {i for i, _ in stretches}}
        rows = [{"input_ids": before[i][s.begin : s.end], "labels": texts[i][s.begin : s.end]} for i, s in stretches]

        def answer(output: Output, batch: Mapping[str, Tensor]) -> Tensor:
            shape = batch["labels"].shape
            return self.sure(output.hidden.flatten(0, 1), batch["labels"].flatten()).view(*shape, 2)

        fills = {**self.tokenizer.fills, "labels": 0}
        found = run(self.network, rows, fills, answer, batch_tokens=self.batch_tokens)
        return [piece[s.first - s.begin : s.end - s.begin] for piece, (_, s) in zip(found, stretches, strict=True)]
