"""Words by their characters: beside filters slid over each word by hand; a word is the same among any others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lexloom.errors import DataError
from lexloom.models.base import normal
from lexloom.nn.characters import CharacterCNN, Highway, distinct, everywhere, symbols_of
from lexloom.nn.mix import LayerMix
from lexloom.text.spelling import SYMBOLS, spelled

WORDS = ["a", "of", "the", "the", "words", "", "internationalization", "的", "房子", "the", "b" * 60]


def network() -> CharacterCNN:
    made = CharacterCNN(SYMBOLS, 3, [(1, 4), (2, 5), (5, 6)])
    for name, parameter in made.named_parameters():
        parameter.data.copy_(normal(parameter.shape, 3, name, 0.7))
    return made.double()


def symbols(width: int = 50) -> Tensor:
    return torch.from_numpy(spelled(WORDS, width)).long()


def by_hand(made: CharacterCNN, word: Tensor) -> Tensor:
    """(C,) symbols of one word -> (F,): each filter at each place of the word, and where nothing stands."""
    letters = made.symbols.weight[word[word != 0]]
    padded = torch.cat([letters, letters.new_zeros(made.widest, letters.shape[1])])
    found = []
    for kind in made.filters:
        span = kind.weight.shape[1] // letters.shape[1]  # type: ignore[operator]
        places = [padded[p : p + span].flatten() for p in range(len(letters) + 1)]
        found.append(F.relu((torch.stack(places) @ kind.weight.t()).amax(0) + kind.bias))  # type: ignore[operator]
    return torch.cat(found)


def test_it_is_each_filter_at_each_place() -> None:
    made, given = network(), symbols()
    words, place = distinct(given)
    found = everywhere(made(words), place)
    assert found.shape == (len(WORDS), made.width)
    assert all(torch.allclose(found[i], by_hand(made, given[i]), atol=1e-12) for i in range(len(WORDS)))


def test_each_word_is_read_once_and_is_the_same_among_others() -> None:
    made = network()
    words, place = distinct(symbols())
    lengths = (words != 0).sum(1)
    assert len(words) == len(set(WORDS)) and torch.equal(lengths, lengths.sort().values)
    assert torch.equal(words[place], symbols()[:, : words.shape[1]])
    alone = [made(distinct(symbols()[i : i + 1])[0])[0] for i in range(len(WORDS))]
    assert all(torch.allclose(everywhere(made(words), place)[i], alone[i], atol=1e-14) for i in range(len(WORDS)))


def test_words_that_share_their_mark_stay_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lexloom.keys.bits", lambda key, n: torch.zeros(n, dtype=torch.int64).numpy().view("uint64"))
    made, given = network(), torch.from_numpy(spelled(["ab", "ba", "cc", "d"], 6)).long()  # of one length and sum
    words, place = distinct(given)
    assert torch.equal(words[place], given[:, : words.shape[1]])
    assert torch.allclose(everywhere(made(words), place)[1], by_hand(made, given[1]), atol=1e-12)


def test_highway_carries_and_changes() -> None:
    made = Highway(6).double()
    for name, parameter in made.named_parameters():
        parameter.data.copy_(normal(parameter.shape, 3, name, 0.7))
    x = normal((4, 6), 4, "x", 1.0).double()
    gate = 1 / (1 + (-(x @ made.gate.weight.t() + made.gate.bias)).exp())
    assert torch.allclose(made(x), gate * (x @ made.change.weight.t() + made.change.bias).clamp(min=0) + (1 - gate) * x, atol=1e-12)


def test_the_mix_is_equation_one() -> None:
    made = LayerMix(3)
    made.scores.data.copy_(torch.tensor([0.5, -1.0, 2.0]))
    made.gamma.data.fill_(1.5)
    layers = [normal((2, 3), i, "h", 1.0) for i in range(3)]
    shares = [2.718281828459045**s for s in (0.5, -1.0, 2.0)]
    expected = 1.5 * sum(share / sum(shares) * layer for share, layer in zip(shares, layers, strict=True))
    assert torch.allclose(made(layers), torch.as_tensor(expected), atol=1e-6)


def test_a_batch_without_characters_is_told() -> None:
    with pytest.raises(DataError, match="reads the characters of words"):
        symbols_of({"input_ids": torch.zeros(1, 2, dtype=torch.int64)})
