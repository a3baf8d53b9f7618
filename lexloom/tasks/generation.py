"""Text generation: what a decoder writes after a text. Answers only; causal-lm is how it is learned.

Letters: T tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from lexloom import keys
from lexloom.config import Config
from lexloom.errors import ConfigError, DataError
from lexloom.models.base import Network
from lexloom.models.decoder import CausalDecoder, special_ids
from lexloom.nn.decoding import ROWS, Decoder, Generated, GenerationConfig, Request, generate
from lexloom.objectives.base import Row
from lexloom.tasks import metrics
from lexloom.tasks.base import TASKS, Task
from lexloom.tasks.columns import Columns, ColumnsConfig, place
from lexloom.tasks.overlap import squeezed

_SPARE = 8  # tokens more than a stop string has bytes: some show nothing, and the first of a piece may show otherwise


class TextGenerationConfig(Config):
    """How long answers get where nobody says, whether they begin with the text, and where the text of a row stands."""

    max_new_tokens: int = Field(default=256, ge=1)
    return_full_text: bool = True
    columns: ColumnsConfig = ColumnsConfig()


class StopStrings:
    """Says whether one of some strings stands at the end of what was generated; the text ends with the token that completed it."""

    def __init__(self, tokenizer: Any, strings: str | Sequence[str]) -> None:
        self.tokenizer, self.strings = tokenizer, [strings] if isinstance(strings, str) else list(strings)
        if not self.strings or not all(isinstance(one, str) and one for one in self.strings):
            raise ConfigError("stop_sequence is a text, or several", expected="one character or more each", got=repr(strings)[:60])
        self.tokens = max(len(one.encode("utf-8", "surrogatepass")) for one in self.strings) + _SPARE

    def __call__(self, made: Sequence[int]) -> bool:
        text = self.tokenizer.decode(made[-self.tokens :])
        return any(one in text for one in self.strings)


def settled(network: Network, generation: GenerationConfig | None, asked: Mapping[str, Any], *, most: int) -> GenerationConfig:
    """What is asked for, on top of a bundle's own settings; of the two ways to say a length the one that is asked for counts.

    Args:
        generation: the bundle's settings; without, what the network's config says of special tokens.
        most: how many tokens follow where nobody says.

    Raises:
        ConfigError: there is no such setting, or settings contradict each other.
    """
    found = generation.given() if generation is not None else special_ids(network)
    for one, other in (("max_length", "max_new_tokens"), ("max_new_tokens", "max_length"), ("min_length", "min_new_tokens")):
        if one in asked and other not in asked:
            found.pop(other, None)
    found |= asked
    if "max_length" not in found:
        found.setdefault("max_new_tokens", most)
    return GenerationConfig.read(found)


@TASKS.register("text-generation")
class TextGeneration(Task):
    """Go on with a text, token by token (Radford et al. 2019); needs a model with a causal-lm head."""

    Config = TextGenerationConfig
    needs = frozenset({"decoder"})
    role = "causal-lm"
    roles: ClassVar[tuple[str, ...]] = ("causal-lm",)
    primary = "accuracy"
    pipeline = "text-generation"
    plain = True
    trained = False
    classes = False
    cuts = False
    SAMPLE: ClassVar[Sequence[Row]] = (
        {"text": "The capital of France is", "label": " Paris."},
        {"text": "Once upon a time", "label": " there was a house."},
        {"text": "Two and two make", "label": " four."},
    )

    def encode(self, rows: Sequence[Any], tokenizer: Any, *, max_length: int, labelled: bool = False) -> list[dict[str, Any]]:
        """See `Task.encode`. A prompt is the text, behind the token that begins a text where the tokenizer puts one there.

        Raises:
            DataError: a text gives no token, or leaves no room for one in the context.
        """
        found = []
        for i, row in enumerate(tokenizer.encode(self._texts(rows)) if len(rows) else ()):
            ids, special = np.asarray(row["input_ids"]), np.asarray(row["special"])
            prompt = ids[~special | ((ids == tokenizer.bos_id) & (np.cumsum(~special) == 0))]
            if not (~special).any():
                raise DataError("this text gives no token to go on with", expected="a text", where=place(rows[i], i))
            if len(prompt) >= max_length:
                expected, got = f"at most {max_length - 1} tokens", f"{len(prompt)} tokens"
                hint = "shorten it: what has to be left out, nobody but you can say"
                raise DataError(
                    "this text leaves no room in the model's context", expected=expected, got=got, where=place(rows[i], i), hint=hint
                )
            found.append({"row": i, "input_ids": prompt})
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
        return_full_text: bool | None = None,
        stop_sequence: str | Sequence[str] | None = None,
        seed: int = 1,
        **settings: Any,
    ) -> list[Any]:
        """For each text a list of `{"generated_text"}`, as many as `num_return_sequences`; of a beam search best first.

        What is drawn for a text is a function of (seed, the text, number of the answer, step): neither its place nor other texts count.

        Args:
            generation: the bundle's `generation_config.json`; without, what the network's config says of special tokens.
            return_full_text: whether the text stands in front of what was generated; the config's where None.
            stop_sequence: texts after which an answer ends; they stand in it.
            settings: of `GenerationConfig`, such as `max_new_tokens`, `do_sample`, `num_beams`, `temperature`.

        Raises:
            ConfigError: there is no such setting, or settings contradict each other.
            DataError: see `encode`.
        """
        config = settled(network, generation, settings, most=self.config.max_new_tokens)
        prompts = self.encode(rows, tokenizer, max_length=max_length)
        whole = self.config.return_full_text if return_full_text is None else return_full_text
        stop, texts = StopStrings(tokenizer, stop_sequence) if stop_sequence is not None else None, self._texts(rows) if prompts else []
        decoder = CausalDecoder(network, max_length)
        requests = [
            Request(row["input_ids"].tolist(), config, seed=seed, key=int(keys.key(text)), stop=stop)
            for row, text in zip(prompts, texts, strict=True)
        ]
        answers = written(decoder, requests, batch_tokens=batch_tokens)
        return [
            [{"generated_text": (text if whole else "") + tokenizer.decode(one.ids)} for one in found]
            for text, found in zip(texts, answers, strict=True)
        ]

    def gold(self, rows: Sequence[Any]) -> list[str]:
        """What the answer should be, without white space: the text and its `label`, or the label alone, as `return_full_text` has it."""
        columns = Columns.find(self.config.columns, rows, labelled=True)
        texts = columns.texts(rows) if self.config.return_full_text else [""] * len(rows)
        return [squeezed(text + columns.raw_label(row, i)) for i, (text, row) in enumerate(zip(texts, rows, strict=True))]

    def score(self, gold: Sequence[str], answers: Sequence[Any]) -> dict[str, float]:
        """How often the first answer is the very text, white space aside.

        Raises:
            DataError: there are no rows to score.
        """
        return exact(gold, self.decided(answers))

    def decided(self, answers: Sequence[Any]) -> list[str]:
        """The first text of each answer, without white space."""
        return [squeezed(answer[0]["generated_text"]) for answer in answers]

    def statistics(self) -> metrics.Right:
        """See `Task.statistics`."""
        return metrics.Right()

    def perfect(self, gold: Sequence[str]) -> list[Any]:
        """See `Task.perfect`."""
        return [[{"generated_text": text}] for text in gold]


def written(decoder: Decoder, requests: Sequence[Request], *, batch_tokens: int) -> list[list[Generated]]:
    """What follows each request, as many at once as `batch_tokens` hold of the longest one."""
    longest = max((len(request.source or ()) + len(request.prompt) + request.most(decoder) for request in requests), default=1)
    return generate(decoder, requests, rows=min(ROWS, max(1, batch_tokens // longest)))


def exact(gold: Sequence[str], found: Sequence[str]) -> dict[str, float]:
    """How often a text is the very text that it should be.

    Raises:
        DataError: there are no rows to score.
    """
    if not len(gold):
        raise DataError("there are no rows to score")
    return {"accuracy": sum(map(str.__eq__, gold, found)) / len(gold)}
