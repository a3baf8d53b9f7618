"""Settings of decoding: read as published files have them, and contradictions named before the first step."""

from __future__ import annotations

from typing import Any

import pytest

from lexloom.errors import ConfigError
from lexloom.nn.decoding import GenerationConfig, Trie


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"forced_bos_token_id": 4, "suppress_tokens": [4]}, "forced_bos_token_id forces a token that is banned"),
        ({"forced_bos_token_id": 4, "begin_suppress_tokens": [4]}, "forced_bos_token_id forces a token that is banned"),
        ({"forced_bos_token_id": 4, "bad_words_ids": [[4]]}, "forced_bos_token_id forces a token that is banned"),
        ({"forced_eos_token_id": [4, 5], "suppress_tokens": [5, 4]}, "forced_eos_token_id forces a token that is banned"),
        ({"suppress_tokens": list(range(10))}, "every token is banned"),
        ({"suppress_tokens": list(range(9)), "begin_suppress_tokens": [9]}, "every token is banned"),
        ({"suppress_tokens": [10]}, "suppress_tokens is outside the vocabulary"),
        ({"bad_words_ids": [[1, -1]]}, "bad_words_ids is outside the vocabulary"),
        ({"forced_eos_token_id": 10}, "forced_eos_token_id is outside the vocabulary"),
    ],
)
def test_contradictions_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GenerationConfig.read(settings).check(10)


@pytest.mark.parametrize(
    "settings",
    [
        {"forced_eos_token_id": [4, 5], "suppress_tokens": [5]},
        {"forced_bos_token_id": 4, "bad_words_ids": [[4, 5]]},
        {"forced_eos_token_id": 4, "eos_token_id": 4, "bad_words_ids": [[4]]},  # an end is no bad word
        {"suppress_tokens": list(range(9))},
        {"eos_token_id": [3, 99], "min_new_tokens": 2},
    ],
)
def test_what_does_not_contradict_passes(settings: dict[str, Any]) -> None:
    GenerationConfig.read(settings).check(10)


def test_constraints_are_held_against_what_is_banned() -> None:
    trie = Trie([[4, 1], [5]], ends=[9])
    GenerationConfig.read({"suppress_tokens": [5]}).check(10, trie)
    with pytest.raises(ConfigError, match="all that the constraint allows is banned"):
        GenerationConfig.read({"suppress_tokens": [5, 4]}).check(10, trie)
    with pytest.raises(ConfigError, match="does not allow the forced first token"):
        GenerationConfig.read({"forced_bos_token_id": 3}).check(10, trie)
    for sequences, ends in (([], [1]), ([[]], [1]), ([[2]], [])):
        with pytest.raises(ConfigError, match="a trie holds sequences"):
            Trie(sequences, ends)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_return_sequences": 2}, "do_sample or num_beams"),
        ({"num_return_sequences": 3, "num_beams": 2}, r"at most num_beams \(2\)"),
        ({"num_beams": 2, "do_sample": True}, "not both"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, r"at most max_new_tokens \(3\)"),
        ({"bad_words_ids": [[]]}, "one token or more"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"early_stopping": "always"}, "early_stopping"),
        ({"max_new_token": 3}, "max_new_tokens"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GenerationConfig.read(settings)


def test_published_files_are_read() -> None:
    values = {"eos_token_id": [2, 3], "temperature": 0.6, "top_p": None, "typical_p": 1.0, "transformers_version": "5.0", "use_cache": True}
    config, rest = GenerationConfig.known(values, where="generation_config.json")
    assert (config.ends, config.temperature, config.top_p) == ({2, 3}, 0.6, 1.0)
    assert rest == {"typical_p": 1.0, "transformers_version": "5.0", "use_cache": True}
    assert config.given() == {"eos_token_id": [2, 3], "temperature": 0.6}
    with pytest.raises(ConfigError, match="penalty_alpha is not supported"):
        GenerationConfig.known({"penalty_alpha": 0.6, "top_k": 4}, where="generation_config.json")


def test_lengths() -> None:
    def made(**settings: Any) -> int:
        return GenerationConfig.read(settings).new_tokens(10, 32)

    assert (made(), made(max_new_tokens=7), made(max_new_tokens=70), made(max_length=13)) == (20, 7, 22, 3)
    assert (made(max_length=13, max_new_tokens=5), made(max_length=9), made(max_length=100)) == (5, -1, 22)
    least = [GenerationConfig.read(s).least(10) for s in ({"min_length": 14}, {"min_length": 4}, {"min_length": 14, "min_new_tokens": 1})]
    assert least == [4, 0, 1]
