"""Text to text: what an encoder–decoder writes for a text. Answers only; denoising and seq-to-seq are how it is learned.

Letters: S tokens of a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lexloom import keys
from lexloom.config import Config
from lexloom.errors import ConfigError, DataError
from lexloom.models.base import Network
from lexloom.models.decoder import SourceDecoder
from lexloom.nn.decoding import GenerationConfig, Request
from lexloom.objectives.base import Row
from lexloom.tasks import metrics
from lexloom.tasks.base import TASKS, Task
from lexloom.tasks.columns import Columns, ColumnsConfig, place
from lexloom.tasks.generation import StopStrings, exact, settled, squeezed, written


class TextToTextConfig(Config):
    """How long answers get where nobody says, and where the text of a row stands."""

    max_new_tokens: int = Field(default=256, ge=1)
    columns: ColumnsConfig = ColumnsConfig()


@TASKS.register("text2text-generation")
class TextToText(Task):
    """Write a text for a text (Sutskever et al. 2014): its translation, summary or restoration; needs a model with a seq-to-seq head."""

    Config = TextToTextConfig
    needs = frozenset({"cross-attention"})
    role = "seq-to-seq"
    roles: ClassVar[tuple[str, ...]] = ("seq-to-seq",)
    primary = "accuracy"
    pipeline = "text2text-generation"
    plain = True
    trained = False
    cuts = False
    SAMPLE: ClassVar[Sequence[Row]] = (
        {"text": "Das Haus ist alt.", "label": "The house is old."},
        {"text": "Guten Morgen!", "label": "Good morning!"},
        {"text": "Wo ist der Fluss?", "label": "Where is the river?"},
    )

    def encode(self, rows: Sequence[Any], tokenizer: Any, *, max_length: int, labelled: bool = False) -> list[dict[str, Any]]:
        """See `Task.encode`. A source is the text with the special tokens that the tokenizer puts around it.

        Raises:
            DataError: a text gives no token, or more than the context has room for.
        """
        found = []
        for i, row in enumerate(tokenizer.encode(self._texts(rows)) if len(rows) else ()):
            ids, where = np.asarray(row["input_ids"]), place(rows[i], i)
            if np.asarray(row["special"]).all():
                raise DataError("this text gives no token to write something for", expected="a text", where=where)
            if len(ids) > max_length:
                expected, got = f"at most {max_length} tokens, special ones included", f"{len(ids)} tokens"
                hint = "shorten it, or cut it into parts that stand for themselves"
                raise DataError("this text is longer than the model's context", expected=expected, got=got, where=where, hint=hint)
            found.append({"row": i, "input_ids": ids})
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
        """What the answer should be, without white space: the `label`."""
        columns = Columns.find(self.config.columns, rows, labelled=True)
        return [squeezed(columns.raw_label(row, i)) for i, row in enumerate(rows)]

    def score(self, gold: Sequence[str], answers: Sequence[Any]) -> dict[str, float]:
        """How often the first answer is the very text, white space aside.

        Raises:
            DataError: there are no rows to score.
        """
        return exact(gold, self.decided(answers))

    def decided(self, answers: Sequence[Any]) -> list[str]:
        """The first text of each answer, without white space."""
        return [squeezed((answer[0] if isinstance(answer, list) else answer)["generated_text"]) for answer in answers]

    def statistics(self) -> metrics.Right:
        """See `Task.statistics`."""
        return metrics.Right()

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
