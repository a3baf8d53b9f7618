"""Each processor gives the scores of its namesake in `transformers`, and of a padded row what it gives of the row alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lexloom import keys
from lexloom.errors import ConfigError
from lexloom.nn.decoding import GenerationConfig, Trie
from lexloom.nn.decoding.drawing import Rule, warped
from lexloom.nn.decoding.processors import History, applied, processors

V, LENGTH = 23, 9
SETTINGS: dict[str, dict[str, Any]] = {
    "temperature": {"do_sample": True, "top_k": 0, "temperature": 0.7},
    "top-k": {"do_sample": True, "top_k": 5},
    "top-p": {"do_sample": True, "top_k": 0, "top_p": 0.6},
    "min-p": {"do_sample": True, "top_k": 0, "min_p": 0.2},
    "all-drawing": {"do_sample": True, "top_k": 9, "top_p": 0.9, "min_p": 0.05, "temperature": 1.3},
    "repetition": {"repetition_penalty": 1.4},
    "ngrams": {"no_repeat_ngram_size": 2},
    "one-token-ngrams": {"no_repeat_ngram_size": 1},
    "bad-words": {"bad_words_ids": [[4], [1, 2], [3, 1, 2], [6]], "eos_token_id": 6},
    "suppressed": {"suppress_tokens": [0, 22], "begin_suppress_tokens": [1]},
}


def scores(rows: int) -> Tensor:
    return torch.from_numpy(keys.normal(keys.key("scores"), rows * V)).float().view(rows, V) * 2


def history(ids: Tensor, lengths: list[int], made: int = 3, most: int = 8, least: int = 5) -> History:
    n = torch.ones(len(lengths), dtype=torch.int64)
    return History(ids, torch.tensor(lengths), n * made, n * most, n * least)


def some_ids() -> Tensor:
    return torch.from_numpy(keys.integers(keys.key("ids"), 4 * LENGTH, 4)).view(4, LENGTH)


def processed(name: str, given: Tensor, past: History) -> Tensor:
    """What is chosen from in the end."""
    asked = GenerationConfig.read(SETTINGS[name])
    found = applied(given, past, processors(asked, V))
    return warped(found, Rule.of(asked)) if asked.do_sample else found


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_those_of_transformers(name: str) -> None:
    from transformers import GenerationConfig as Theirs
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=2, n_layer=1, n_head=1, vocab_size=V, bos_token_id=None, eos_token_id=None))
    ids, given = some_ids(), scores(4)
    config, _ = model._prepare_generation_config(Theirs(max_length=20, **SETTINGS[name]))
    model._prepare_special_tokens(config, device="cpu")
    made = model._get_logits_processor(config, input_ids_seq_length=LENGTH - 3, device="cpu", logits_processor=[])
    expected = made(ids, given.clone())
    ours = processed(name, given, history(ids, [LENGTH] * 4))
    assert torch.equal(ours.isinf(), expected.isinf())
    assert torch.allclose(ours, expected, rtol=1e-6)
    assert not torch.equal(ours, given)


@pytest.mark.parametrize("name", SETTINGS)
def test_padding_does_not_count(name: str) -> None:
    """Whatever stands behind a row, another row's tokens say, changes nothing."""
    ids, given, lengths = some_ids(), scores(4), [9, 2, 5, 1]
    together = processed(name, given, history(ids, lengths))
    for row, length in enumerate(lengths):
        alone = processed(name, given[row : row + 1], history(ids[row : row + 1, :length], [length]))
        assert torch.equal(alone[0], together[row])


def test_what_depends_on_the_step() -> None:
    config = GenerationConfig.read(
        {"eos_token_id": [2, 5], "min_new_tokens": 5, "forced_bos_token_id": 7, "forced_eos_token_id": 5, "begin_suppress_tokens": [9]}
    )
    ids, steps = some_ids(), processors(config, V)

    def left(made: int) -> list[int]:
        found = applied(scores(4), history(ids, [LENGTH] * 4, made=made), steps)
        assert all(torch.equal(row.isinf(), found[0].isinf()) for row in found)
        return (~found[0].isinf()).nonzero()[:, 0].tolist()

    assert left(0) == [7]
    assert left(1) == left(4) == [i for i in range(V) if i not in (2, 5)]
    assert left(5) == left(6) == list(range(V))
    assert left(7) == [5]


def test_a_constraint_is_asked_for_what_was_generated() -> None:
    trie = Trie([[3, 1], [3, 1, 4], [8]], ends=[0])
    assert [sorted(trie(made)) for made in ([], [3], [3, 1], [3, 1, 4], [8], [8, 0])] == [[3, 8], [1], [0, 4], [0], [0], [0]]
    steps = processors(GenerationConfig(), V, [trie, None])
    ids = torch.tensor([[5, 6, 3, 1, 9], [5, 6, 3, 1, 9]])
    found = applied(scores(2), history(ids, [4, 4], made=2), steps)
    assert (~found.isinf()).sum(-1).tolist() == [2, V]
    with pytest.raises(ConfigError, match="allows no token"):
        applied(scores(1), history(ids[:1], [4]), processors(GenerationConfig(), V, [lambda made: []]))
    banned = GenerationConfig.read({"suppress_tokens": [0, 4]})
    with pytest.raises(ConfigError, match="no token may come next"):
        applied(scores(1), history(ids[:1], [4], made=2), processors(banned, V, [trie]))


def test_plain_greedy_decoding_has_no_processors() -> None:
    assert processors(GenerationConfig.read({"eos_token_id": 3}), V) == []
