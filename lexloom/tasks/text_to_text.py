"""Text to text: what an encoder–decoder writes for a text, and learns to write from pairs of texts.

Letters: B rows, S source tokens, T target tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from lexloom import keys
from lexloom.batch import Batch
from lexloom.config import Config
from lexloom.errors import ConfigError, DataError, TokenizerError
from lexloom.keys import Keys
from lexloom.models.base import Network, Output
from lexloom.models.decoder import SourceDecoder
from lexloom.nn.decoding import GenerationConfig, Request
from lexloom.objectives.base import Row, Vocabulary
from lexloom.objectives.seq_to_seq import SeqToSeq, SeqToSeqConfig
from lexloom.tasks.base import TASKS, Task
from lexloom.tasks.columns import Columns, ColumnsConfig, place
from lexloom.tasks.generation import StopStrings, settled, written
from lexloom.tasks.overlap import Overlap


class TextToTextConfig(Config):
    """How long answers get where nobody says, where the texts of a row stand, how targets are learned."""

    max_new_tokens: int = Field(default=256, ge=1)
    columns: ColumnsConfig = ColumnsConfig()
    long_texts: Literal["refuse", "cut"] = "refuse"
    """What is done to a source over the limit. Pairs that are too long are not learned from, unless it is the source, and that is cut."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


@TASKS.register("text2text-generation")
class TextToText(Task):
    """Write a text for a text (Sutskever et al. 2014): its translation, summary or restoration; the label is the text to write."""

    Config = TextToTextConfig
    needs = frozenset({"cross-attention"})
    role = "seq-to-seq"
    roles: ClassVar[tuple[str, ...]] = ("seq-to-seq",)
    primary = "chrf"
    pipeline = "text2text-generation"
    plain = True
    classes = False
    cuts = False
    sides: ClassVar[Mapping[str, tuple[str, ...]]] = SeqToSeq.sides
    SAMPLE: ClassVar[Sequence[Row]] = (
        {"text": "Das Haus ist alt.", "label": "The house is old."},
        {"text": "Guten Morgen!", "label": "Good morning!"},
        {"text": "Wo ist der Fluss?", "label": "Where is the river?"},
    )

    def __init__(self, config: TextToTextConfig, vocabulary: Vocabulary, labels: Sequence[str] = ()) -> None:
        super().__init__(config, vocabulary, labels)
        self.learned = SeqToSeq(SeqToSeqConfig(weight=1.0, smoothing=config.label_smoothing), vocabulary)
        self.parts = self.learned.parts

    @classmethod
    def settle(cls, config: TextToTextConfig, rows: Sequence[Any]) -> tuple[TextToTextConfig, str]:
        """The config with the columns of the training rows filled in, and a line that says which were found.

        Raises:
            DataError: a column is missing.
        """
        columns = Columns.find(config.columns, rows, labelled=True, strict=True)
        return config.model_copy(update={"columns": columns.config()}), columns.said()

    @classmethod
    def read_labels(cls, config: TextToTextConfig, rows: Sequence[Any]) -> list[str]:
        """See `Task.read_labels`: none, for any text may be a label."""
        return []

    def encode(self, rows: Sequence[Any], tokenizer: Any, *, max_length: int, labelled: bool = False) -> list[dict[str, Any]]:
        """See `Task.encode`. A source is the text with the special tokens that the tokenizer puts around it; a target too.

        Pairs to learn from whose source gives no token, or that do not fit, are left out; so `row` may leap.

        Raises:
            DataError: a text gives no token, or more than the context has room for; no pair is left, or one has no label.
            TokenizerError: there are pairs to learn from, and no special token ends a text.
        """
        if labelled:
            return self._pairs(rows, tokenizer, max_length)
        found = []
        for row in self._sources(rows, tokenizer, max_length):
            ids, where = row["input_ids"], place(rows[row["row"]], row["row"])
            if row["empty"]:
                raise DataError("this text gives no token to write something for", expected="a text", where=where)
            if len(ids) > max_length:
                expected, got = f"at most {max_length} tokens, special ones included", f"{len(ids)} tokens"
                hint = "shorten it, or cut it into parts that stand for themselves; settings: {long_texts: cut} leaves its end out"
                raise DataError("this text is longer than the model's context", expected=expected, got=got, where=where, hint=hint)
            found.append({"row": row["row"], "input_ids": ids, "cut": row["cut"]})
        return found

    def _sources(self, rows: Sequence[Any], tokenizer: Any, max_length: int) -> Iterator[dict[str, Any]]:
        """Each text with its special tokens, cut where the settings say so; and whether it is nothing but these."""
        limit = max_length if self.config.long_texts == "cut" else None
        for i, row in enumerate(tokenizer.encode(self._texts(rows), max_length=limit) if len(rows) else ()):
            empty = bool(np.asarray(row["special"]).all())
            yield {"row": i, "input_ids": np.asarray(row["input_ids"]), "cut": bool(row["cut"]), "empty": empty}

    def _pairs(self, rows: Sequence[Any], tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
        if not self.vocabulary.closes:
            hint = "tokenizer: {template: roberta} or {template: bert}"
            raise TokenizerError("learning to write needs a special token at the end of a text, or it never learns to stop", hint=hint)
        found, targets = [], tokenizer.encode(self.gold(rows)) if len(rows) else []
        for source, target in zip(self._sources(rows, tokenizer, max_length), targets, strict=True):
            ids = np.asarray(target["input_ids"])
            if not source["empty"] and max(len(source["input_ids"]), len(ids)) <= max_length:
                found.append({name: source[name] for name in ("row", "input_ids", "cut")} | {"target_ids": ids})
        if len(rows) and not found:
            expected, got = f"texts of 1 to {max_length} tokens", f"{len(rows):,} pairs, none of which fits"
            raise DataError("there is no pair to learn from", expected=expected, got=got, where=place(rows[0], 0))
        return found

    def length(self, row: Row) -> int:
        """See `Task.length`: both sides are padded to one length."""
        return max(len(row["input_ids"]), len(row.get("target_ids", ())))

    def collate(self, rows: Sequence[Row], row_keys: Keys, *, length: int, size: int) -> Batch:
        """See `SeqToSeq.collate`."""
        return self.learned.collate(rows, row_keys, length=length, size=size)

    def loss(self, output: Output, batch: Mapping[str, Tensor], heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """See `SeqToSeq.loss`."""
        return self.learned.loss(output, batch, heads)

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
        generation: GenerationConfig | None = None,
        stop_sequence: str | Sequence[str] | None = None,
        seed: int = 1,
        **settings: Any,
    ) -> list[Any]:
        """For each text `{"generated_text"}`; with `num_return_sequences` above 1 a list of these, of a beam search best first.

        What is drawn for a text is a function of (seed, the text, number of the answer, step): neither its place nor other texts count.

        Args:
            generation: the bundle's `generation_config.json`; without, what the network's config says of special tokens.
            stop_sequence: texts after which an answer ends; they stand in it.
            settings: of `GenerationConfig`, such as `max_new_tokens`, `num_beams`, `length_penalty`; lengths are of the answer, and
                `min_length` and `max_length` count the token that begins it.

        Raises:
            ConfigError: there is no such setting, settings contradict each other, nothing says what begins an answer, or answers have
                another vocabulary than texts.
            DataError: see `encode`.
        """
        config = settled(network, generation, settings, most=self.config.max_new_tokens)
        sources = self.encode(rows, tokenizer, max_length=max_length)
        stop, texts = StopStrings(tokenizer, stop_sequence) if stop_sequence is not None else None, self._texts(rows) if sources else []
        decoder, start = _decoder(network, max_length), begins(network, config)
        requests = [
            Request([start], config, seed=seed, key=int(keys.key(text)), stop=stop, source=row["input_ids"].tolist())
            for row, text in zip(sources, texts, strict=True)
        ]
        answers = written(decoder, requests, batch_tokens=batch_tokens)
        found = [[{"generated_text": tokenizer.decode(one.ids)} for one in several] for several in answers]
        return [several if config.num_return_sequences > 1 else several[0] for several in found]

    def gold(self, rows: Sequence[Any]) -> list[str]:
        """What the answer should be: the `label`.

        Raises:
            DataError: a row has none.
        """
        columns = Columns.find(self.config.columns, rows, labelled=True)
        return [columns.raw_label(row, i) for i, row in enumerate(rows)]

    def score(self, gold: Sequence[str], answers: Sequence[Any]) -> dict[str, float]:
        """How near the first answers are to the right texts, as shares of 1: see `Overlap`.

        Raises:
            DataError: there are no rows to score.
        """
        return self.statistics().scores(gold, self.decided(answers))

    def decided(self, answers: Sequence[Any]) -> list[str]:
        """The first text of each answer, without white space around it."""
        return [(answer[0] if isinstance(answer, list) else answer)["generated_text"].strip() for answer in answers]

    def untaught(self, rows: Sequence[Any]) -> list[Any]:
        """See `Task.untaught`: each text as it is."""
        return [{"generated_text": text} for text in self._texts(rows)]

    def statistics(self) -> Overlap:
        """See `Task.statistics`."""
        return Overlap()

    def perfect(self, gold: Sequence[str]) -> list[Any]:
        """See `Task.perfect`."""
        return [{"generated_text": text} for text in gold]


def _decoder(network: Network, max_length: int) -> SourceDecoder:
    found, embedding = SourceDecoder(network, max_length), network.backbone.embedding
    if embedding is not None and found.vocabulary != embedding.num_embeddings:
        expected, got = f"{embedding.num_embeddings} tokens, as in the texts it reads", f"{found.vocabulary} tokens"
        hint = "lexloom.nn.decoding gives the ids that it writes"
        raise ConfigError("this network writes in a vocabulary that the bundle has no tokenizer for", expected=expected, got=got, hint=hint)
    return found


def begins(network: Network, config: GenerationConfig) -> int:
    """The token that begins an answer: the start token that the settings name, else the network's, else what begins any text.

    Raises:
        ConfigError: there is none.
    """
    own = getattr(network.backbone.config, "decoder_start_token_id", None)
    for found in (config.decoder_start_token_id, own, config.bos_token_id):
        if found is not None:
            return int(found)
    hint = "set decoder_start_token_id in generation_config.json"
    raise ConfigError("nothing says with which token an answer begins", expected="a decoder_start_token_id", got="none", hint=hint)
