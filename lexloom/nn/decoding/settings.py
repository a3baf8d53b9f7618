"""How text is continued: the settings of `generation_config.json`, under their names there, and which of them contradict each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lexloom.config import Config
from lexloom.errors import ConfigError

NEW_TOKENS = 20  # where neither of the two lengths is given, as `transformers` has it
# Settings that would change what is chosen and that are not here, with the values under which they change nothing.
_ABSENT: Mapping[str, tuple[Any, ...]] = {
    "diversity_penalty": (None, 0, 0.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1, 1.0),
    "epsilon_cutoff": (None, 0, 0.0),
    "eta_cutoff": (None, 0, 0.0),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1, 1.0),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0, 0.0),
    "sequence_bias": (None,),
    "top_h": (None,),
    "typical_p": (None, 1, 1.0),
    "watermarking_config": (None,),
}


class GenerationConfig(Config):
    """How a decoder goes on with a text; the names are those of `generation_config.json`.

    Attributes:
        max_new_tokens, max_length: the most tokens after the prompt, or with it; the first counts where both are given. A row also ends
            where the network's context does.
        min_new_tokens, min_length: no end before so many.
        do_sample: draw; else take the likeliest.
        temperature, top_k, top_p, min_p: of drawing, in this order: scores are divided by the first; then only the `top_k` best stay
            (0: all), of those the fewest with a share of `top_p` together (Holtzman et al. 2020), and those with at least `min_p` of the
            best one's share (Nguyen et al. 2024).
        repetition_penalty: scores of tokens that have occurred are made worse by this factor (Keskar et al. 2019, section 4.1).
        no_repeat_ngram_size: no so many tokens in a row occur twice (Paulus et al. 2017); 0: they may.
        num_beams: 1, or how many texts are followed at once.
        length_penalty: a finished text's log-probability is divided by its length to this power.
        early_stopping: True: a search ends with `num_beams` finished texts; False: when no better one is likely; "never": when there can
            be none.
        num_return_sequences: answers a prompt.
        bad_words_ids: sequences of ids that never occur. suppress_tokens: ids that never occur. begin_suppress_tokens: not at first.
        forced_bos_token_id, forced_eos_token_id: the first new token; the last one where the length is used up.
    """

    max_new_tokens: int | None = Field(None, ge=1)
    max_length: int | None = Field(None, ge=1)
    min_new_tokens: int | None = Field(None, ge=0)
    min_length: int = Field(0, ge=0)
    do_sample: bool = False
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(50, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    no_repeat_ngram_size: int = Field(0, ge=0)
    num_beams: int = Field(1, ge=1)
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    num_return_sequences: int = Field(1, ge=1)
    bad_words_ids: list[list[int]] | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    forced_bos_token_id: int | None = Field(None, ge=0)
    forced_eos_token_id: int | list[int] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _unset_is_default(cls, values: Any) -> Any:
        """Published files write `null` for what they leave alone."""
        return {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.num_return_sequences > 1 and self.num_beams == 1 and not self.do_sample:
            raise ValueError("do_sample or num_beams for several num_return_sequences: the likeliest text is one")
        if 1 < self.num_beams < self.num_return_sequences:
            raise ValueError(f"at most num_beams ({self.num_beams}) num_return_sequences, not {self.num_return_sequences}")
        if self.num_beams > 1 and self.do_sample:
            raise ValueError("num_beams or do_sample, not both")
        if self.max_new_tokens is not None and (self.min_new_tokens or 0) > self.max_new_tokens:
            raise ValueError(f"at most max_new_tokens ({self.max_new_tokens}) min_new_tokens, not {self.min_new_tokens}")
        if any(not word for word in self.bad_words_ids or ()):
            raise ValueError("bad_words_ids of one token or more each")
        return self

    @classmethod
    def known(cls, values: Mapping[str, Any], *, where: str) -> tuple[Self, dict[str, Any]]:
        """Reads a `generation_config.json`: the settings, and those that are of no account here.

        Raises:
            ConfigError: one would change what is chosen, and is not to be had here.
        """
        for name, idle in _ABSENT.items():
            if values.get(name) not in idle:
                hint = f"leave it out, or set it to {idle[-1]}"
                raise ConfigError(f"{name} is not supported", expected=str(idle[-1]), got=str(values[name]), where=where, hint=hint)
        fields = cls.model_fields
        return cls.read({name: value for name, value in values.items() if name in fields}), {
            name: value for name, value in values.items() if name not in fields
        }

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a `config.json` says of generation, as older folders do that have no file for it."""
        return {name: value for name, value in values.items() if value is not None and (name in cls.model_fields or name in _ABSENT)}

    def given(self) -> dict[str, Any]:
        """As JSON, without what is as it is by default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def within(self, max_length: Any) -> Self:
        """The same with this for the most tokens.

        Raises:
            ConfigError: it is no length.
        """
        return self.read({name: value for name, value in self.given().items() if name != "max_new_tokens"} | {"max_length": max_length})

    @property
    def ends(self) -> frozenset[int]:
        """Ids after which a text ends."""
        return frozenset(_ids(self.eos_token_id))

    @property
    def last(self) -> tuple[int, ...]:
        """Ids of which one is forced where the length is used up."""
        return tuple(_ids(self.forced_eos_token_id))

    def new_tokens(self, prompt: int, context: int) -> int:
        """How many tokens may follow a prompt of so many; below 1 where there is no room for any."""
        wanted = self.max_new_tokens or (self.max_length - prompt if self.max_length is not None else NEW_TOKENS)
        return min(wanted, context - prompt)

    def least(self, prompt: int) -> int:
        """How many tokens follow a prompt of so many before it may end."""
        return self.min_new_tokens if self.min_new_tokens is not None else max(0, self.min_length - prompt)

    def check(self, vocabulary: int, allowed: Any = None) -> None:
        """Looks before the first step. An end outside the vocabulary is none: published configs name one that small networks do not have.

        Args:
            vocabulary: V, how many ids there are.
            allowed: a constraint; one that knows its ids (`ids`) is held against the banned ones.

        Raises:
            ConfigError: an id is none of this vocabulary, or banned and forced ids contradict each other.
        """
        for name, ids in self._named():
            if odd := [number for number in ids if not 0 <= number < vocabulary]:
                raise ConfigError(f"{name} is outside the vocabulary", expected=f"0 to {vocabulary - 1}", got=str(odd[0]))
        banned = self.banned
        at_first = banned | set(self.begin_suppress_tokens or ())
        _forced("forced_bos_token_id", _ids(self.forced_bos_token_id), at_first)
        _forced("forced_eos_token_id", self.last, banned)
        if len(at_first) >= vocabulary:
            raise ConfigError("every token is banned", expected="one or more that may be chosen", got=f"{vocabulary} banned")
        if (known := getattr(allowed, "ids", None)) is not None and known <= banned:
            raise ConfigError("all that the constraint allows is banned", got=", ".join(map(str, sorted(known)[:10])))
        if allowed is not None and self.forced_bos_token_id is not None and self.forced_bos_token_id not in allowed([]):
            raise ConfigError("the constraint does not allow the forced first token", got=f"forced_bos_token_id {self.forced_bos_token_id}")

    @property
    def banned(self) -> frozenset[int]:
        """Ids that never occur; an end is never banned as a bad word."""
        alone = {word[0] for word in self.bad_words_ids or () if len(word) == 1}
        return frozenset(self.suppress_tokens or ()) | (alone - self.ends)

    def _named(self) -> Iterator[tuple[str, Collection[int]]]:
        for name in ("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"):
            yield name, _ids(getattr(self, name))
        yield "bad_words_ids", [number for word in self.bad_words_ids or () for number in word]


def _ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


def _forced(name: str, ids: Collection[int], banned: Collection[int]) -> None:
    """Raises ConfigError where all of the forced ids are banned."""
    if ids and all(number in banned for number in ids):
        got = ", ".join(str(number) for number in ids)
        raise ConfigError(f"{name} forces a token that is banned", expected="a token that may be chosen", got=got)
