"""Fill the mask: which words a pre-trained encoder would put in the place of [MASK]. Answers only; masked-lm is how it is learned.

Letters: B rows, T tokens, D width, V vocabulary, P masks of a batch, k answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from lexloom.config import Config
from lexloom.errors import ConfigError, DataError, TokenizerError
from lexloom.models.base import Network, Output
from lexloom.objectives.base import Row
from lexloom.tasks import metrics
from lexloom.tasks.base import TASKS, Task, run
from lexloom.tasks.columns import Columns, ColumnsConfig, place

_SPELLINGS = ("[MASK]", "<mask>")
_HEAD_ROWS = 64  # masks that go through the head at once: P · V scores are large


class FillMaskConfig(Config):
    """How many answers, and where the text of a row stands."""

    top_k: int = Field(default=5, ge=1)
    columns: ColumnsConfig = ColumnsConfig()


@TASKS.register("fill-mask")
class FillMask(Task):
    """Say what stands behind each [MASK] of a text (Devlin et al. 2018); needs a model with a masked-lm head."""

    Config = FillMaskConfig
    role = "masked-lm"
    roles: ClassVar[tuple[str, ...]] = ("masked-lm",)
    primary = "accuracy"
    pipeline = "fill-mask"
    plain = True
    trained = False
    classes = False
    SAMPLE: ClassVar[Sequence[Row]] = (
        {"text": "The capital of France is [MASK].", "label": "paris"},
        {"text": "She opened the [MASK] and went in.", "label": "door"},
        {"text": "Two and two make [MASK].", "label": "four"},
    )

    def encode(self, rows: Sequence[Any], tokenizer: Any, *, max_length: int, labelled: bool = False) -> list[dict[str, Any]]:
        """See `Task.encode`. A text over the limit is cut around its masks, so that they keep what stands beside them.

        Raises:
            DataError: a text has no mask, or its masks are too far apart.
        """
        if not len(rows):
            return []
        if tokenizer.mask_id is None:
            raise TokenizerError("this tokenizer has no mask token, so there is nothing to fill")
        texts = self._texts(rows)
        mask = tokenizer.token(tokenizer.mask_id)
        found = []
        for i, row in enumerate(tokenizer.encode([_with_mask(text, mask) for text in texts])):
            ids = [int(token) for token in row["input_ids"]]
            if tokenizer.mask_id not in ids:
                got, hint = repr(texts[i][:60]), f"write {mask} where the word is missing"
                raise DataError("this text has no mask", expected=f"a text with {mask}", got=got, where=place(rows[i], i), hint=hint)
            places = _around_masks(ids, np.asarray(row["special"]), tokenizer.mask_id, max_length, place(rows[i], i))
            kept = {name: np.asarray(row[name])[places] for name in ("input_ids", "token_type_ids") if name in row}
            found.append({"row": i, **kept, "cut": len(places) < len(ids)})
        return found

    def _texts(self, rows: Sequence[Any]) -> list[str]:
        return Columns.find(self.config.columns, rows, labelled=False).texts(rows)

    def predict(
        self,
        network: Network,
        tokenizer: Any,
        rows: Sequence[Any],
        *,
        max_length: int,
        batch_tokens: int = 4096,
        top_k: int | None = None,
        targets: str | Sequence[str] | None = None,
    ) -> list[Any]:
        """For each text a list of `{"score", "token", "token_str", "sequence"}`, best first; for several masks a list of such lists.

        Args:
            top_k: answers for each mask; the config's where None.
            targets: the only words to choose from; their scores stay shares of the whole vocabulary.

        Raises:
            ConfigError: a target is not one token, or `top_k` is below 1.
            DataError: a text has no mask.
        """
        top_k = self.config.top_k if top_k is None else top_k
        if top_k < 1:
            raise ConfigError("top_k is how many words to give", expected="1 or more", got=str(top_k))
        chosen = _target_ids(targets, tokenizer) if targets is not None else None
        encoded = self.encode(rows, tokenizer, max_length=max_length)

        def best(output: Output, batch: Mapping[str, Tensor]) -> list[Any]:
            masks = batch["input_ids"] == tokenizer.mask_id
            parts = torch.split(output.hidden[masks], _HEAD_ROWS)
            pieces = [_best(network.scores(self.role, part), top_k, chosen) for part in parts]
            scores, ids = (torch.cat(found).cpu().numpy() for found in zip(*pieces, strict=True))
            ends = np.cumsum(masks.sum(dim=1).cpu().numpy())[:-1]
            return list(zip(np.split(scores, ends), np.split(ids, ends), strict=True))

        found = run(network, encoded, self.vocabulary.fills, best, batch_tokens=batch_tokens)
        return [_answer(row["input_ids"], scores, ids, tokenizer) for row, (scores, ids) in zip(encoded, found, strict=True)]

    def gold(self, rows: Sequence[Any]) -> list[str]:
        """The word under `label` of each row, in lower case."""
        columns = Columns.find(self.config.columns, rows, labelled=True)
        return [_folded(columns.raw_label(row, i)) for i, row in enumerate(rows)]

    def score(self, gold: Sequence[str], answers: Sequence[Any]) -> dict[str, float]:
        """How often the first answer is the word, and how often one of the answers is; upper and lower case are the same.

        Raises:
            DataError: there are no rows, or a text has several masks.
        """
        if not len(gold):
            raise DataError("there are no rows to score")
        wanted, first = [_folded(word) for word in gold], self.decided(answers)
        among = [word in {_folded(entry["token_str"]) for entry in found} for word, found in zip(wanted, answers, strict=True)]
        return {"accuracy": sum(map(str.__eq__, wanted, first)) / len(gold), "among_answers": sum(among) / len(gold)}

    def decided(self, answers: Sequence[Any]) -> list[str]:
        """The first word of each answer, in lower case.

        Raises:
            DataError: a text has several masks.
        """
        if any(isinstance(entry, list) for answer in answers for entry in answer):
            raise DataError("texts with several masks have no one right word")
        return [_folded(answer[0]["token_str"]) for answer in answers]

    def statistics(self) -> metrics.Right:
        """See `Task.statistics`."""
        return metrics.Right()

    def perfect(self, gold: Sequence[str]) -> list[Any]:
        """See `Task.perfect`."""
        return [[{"score": 1.0, "token": 0, "token_str": word, "sequence": word}] for word in gold]


def _folded(word: str) -> str:
    return word.strip().lower()


def _with_mask(text: str, mask: str) -> str:
    """The text with this tokenizer's own mask, also where that of another family was typed."""
    if mask not in text:
        for spelling in _SPELLINGS:
            text = text.replace(spelling, mask)
    return text


def _around_masks(ids: Sequence[int], special: npt.NDArray[np.bool_], mask: int, max_length: int, where: str) -> npt.NDArray[np.int64]:
    """Which tokens to keep: the special ones at both ends, and of those between as many around the masks as there is room for."""
    inside = np.flatnonzero(~special)
    begin, end = int(inside[0]), int(inside[-1]) + 1
    room = max_length - begin - (len(ids) - end)
    if end - begin <= room:
        return np.arange(len(ids))
    masks = [i for i, token in enumerate(ids) if token == mask]
    if masks[-1] - masks[0] >= room:
        got = f"{masks[-1] - masks[0] + 1} tokens from the first to the last"
        raise DataError("the masks are too far apart", expected=f"at most {room} tokens", got=got, where=where)
    start = min(max(begin, (masks[0] + masks[-1] + 1 - room) // 2), end - room)
    return np.r_[0:begin, start : start + room, end : len(ids)]


def _best(logits: Tensor, top_k: int, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
    """(P, V) logits -> the best scores and their token ids, both (P, k)."""
    shares = logits.float().softmax(dim=-1)
    if chosen is None:
        found = shares.topk(min(top_k, shares.shape[-1]))
        return found.values, found.indices
    found = shares[:, chosen].topk(min(top_k, len(chosen)))
    return found.values, chosen.to(found.indices.device)[found.indices]


def _target_ids(targets: str | Sequence[str], tokenizer: Any) -> Tensor:
    """The token of each target, in order, each once."""
    words = [targets] if isinstance(targets, str) else list(targets)
    if not words:
        raise ConfigError("targets are the words to choose from", expected="one or more", got="none")
    found: list[int] = []
    for word, row in zip(words, tokenizer.encode(words), strict=True):
        ids = [int(token) for token in np.asarray(row["input_ids"])[~np.asarray(row["special"])]]
        if len(ids) != 1 or ids[0] == tokenizer.unk_id:
            got = " ".join(tokenizer.token(token) for token in ids) or "nothing"
            raise ConfigError(f"the target {word!r} is not one token of this vocabulary", got=got, hint="a mask stands for one token")
        found += ids
    return torch.tensor(list(dict.fromkeys(found)), dtype=torch.int64)


def _answer(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], tokens: npt.NDArray[np.int64], tokenizer: Any) -> list[Any]:
    """The answers for one text: (masks, k) scores and tokens, shaped like those of the `fill-mask` pipeline of `transformers`."""
    masks = np.flatnonzero(ids == tokenizer.mask_id)
    alone = len(masks) == 1  # with several, the others have to stay in sight
    found = []
    for mask, mask_scores, mask_tokens in zip(masks, scores, tokens, strict=True):
        entries = []
        for score, token in zip(mask_scores.tolist(), mask_tokens.tolist(), strict=True):
            filled = [token if i == mask else int(other) for i, other in enumerate(ids)]
            sequence, word = tokenizer.decode(filled, skip_special=alone), tokenizer.decode([token], skip_special=False)
            entries.append({"score": score, "token": token, "token_str": word, "sequence": sequence})
        found.append(entries)
    return found[0] if len(found) == 1 else found
