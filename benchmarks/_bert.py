"""The same pre-training step on both sides: BERT of one size, masked LM, random rows of full length with word frequencies like a text's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _ours import Loop, MadeRows
from _trainer import TrainerSteps

from lexloom import compute, keys
from lexloom.models.base import Network
from lexloom.models.bert import Bert, BertConfig
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM, MaskedLMConfig

SPECIAL = (0, 1, 2, 3, 4)  # padding, unknown, [CLS], [SEP], [MASK]
FILLS = {"input_ids": 0, "token_type_ids": 0}


@dataclass(frozen=True)
class Size:
    """What is trained: L layers of width D, V pieces, rows of T tokens, B rows a step, a share `rate` masked."""

    layers: int = 4
    width: int = 256
    vocabulary: int = 30522
    length: int = 128
    rows: int = 32
    rate: float = 0.15
    dropout: float = 0.1

    @property
    def heads(self) -> int:
        """64 wide each, as all published sizes."""
        return self.width // 64

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.rows * self.length

    def __str__(self) -> str:
        shape = f"{self.layers} × {self.width}, V = {self.vocabulary:,}, {self.rows} × {self.length} a step"
        return f"{shape}, {self.rate:.0%} masked, dropout {self.dropout}"

    def head(self) -> Iterator[tuple[str, int, int, int]]:
        """The linear layers of the head: name, positions of a step, width, outputs."""
        positions = self.rows * max(1, round(self.rate * self.length))
        yield "head dense", positions, self.width, self.width
        yield "head vocabulary", positions, self.width, self.vocabulary

    def config(self) -> dict[str, Any]:
        """Under the names of `config.json`."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
            "max_position_embeddings": self.length,
            "hidden_dropout_prob": self.dropout,
            "attention_probs_dropout_prob": self.dropout,
        }


class RandomRows(MadeRows):
    """A packing of `n` rows: ids drawn as 1 / rank, special tokens at both ends."""

    def __init__(self, size: Size, n: int = 2048) -> None:
        drawn = keys.uniform(keys.key(1, "rows", np.arange(n)), size.length)
        ids = len(SPECIAL) + ((size.vocabulary - len(SPECIAL)) ** drawn).astype(np.int64) - 1
        ids[:, 0], ids[:, -1] = SPECIAL[2], SPECIAL[3]
        special = np.zeros(size.length, dtype=bool)
        special[[0, -1]] = True
        types = np.zeros(size.length, dtype=np.int64)
        super().__init__([{"id": i, "input_ids": row, "token_type_ids": types, "special": special} for i, row in enumerate(ids)])


class Ours(Loop):
    """See `Loop`.

    Args:
        size: the fields of a `Size`.
        overrides: of what `compute.choose` picks: dtype, threads, compile.
    """

    def __init__(self, size: Mapping[str, Any], **overrides: Any) -> None:
        wanted = Size(**size)
        chosen = compute.choose(compute.ComputeConfig(**overrides), steps=10**6)
        chosen.apply()
        self.about = chosen.line()
        objective = MaskedLM(MaskedLMConfig(rate=wanted.rate), Vocabulary(wanted.vocabulary, SPECIAL[4], frozenset(SPECIAL), FILLS))
        network = Network.build(Bert, BertConfig.read(wanted.config()), ("masked-lm",), seed=1)
        super().__init__(network, objective, chosen, RandomRows(wanted), rows=wanted.rows, length=wanted.length)


class TrainerPeer(TrainerSteps):
    """`transformers.Trainer` on the same rows, masking by its own collator.

    Args:
        bf16: autocast; compile: `torch_compile`; attention: `eager` or `sdpa`.
    """

    def __init__(self, size: Mapping[str, Any], *, bf16: bool, compile: bool = False, attention: str = "sdpa") -> None:
        from transformers import BertConfig as TheirConfig
        from transformers import BertForMaskedLM, BertTokenizer, DataCollatorForLanguageModeling

        wanted = Size(**size)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(wanted.vocabulary - 5))]
        tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
        torch.manual_seed(1)
        model = BertForMaskedLM(TheirConfig(**wanted.config(), attn_implementation=attention))
        rows = [{"input_ids": row["input_ids"].tolist()} for row in RandomRows(wanted).made]
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=wanted.rate)
        super().__init__(model, rows, collator, batch=wanted.rows, bf16=bf16, compile=compile)
