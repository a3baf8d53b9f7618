"""Generation, token by token: requests that come and go, what is drawn, where a text ends, and bad input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lexloom import keys
from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.models.decoder import CausalDecoder, SourceDecoder
from lexloom.nn.cache import Cache
from lexloom.nn.decoding import Generated, GenerationConfig, InBursts, Request, Scheduler, Trie, generate, stream
from lexloom.nn.decoding.drawing import Choice, draw
from lexloom.nn.few_rows import FewRowsLinear
from lexloom.nn.linears import with_linears

ABLE = {name: ARCHITECTURES.get(name).ABILITIES for name in ARCHITECTURES.names()}
TRANSLATORS = [name for name, able in ABLE.items() if "cross-attention" in able]
decoders = pytest.mark.parametrize("name", [name for name, able in ABLE.items() if able == {"decoder"}] + TRANSLATORS)
translators = pytest.mark.parametrize("name", TRANSLATORS)
kinds = pytest.mark.parametrize("name", ["gpt2", *TRANSLATORS])
V = 97


def decoder(name: str = "gpt2", *, length: int = 64) -> CausalDecoder | SourceDecoder:
    """A tiny network whose scores lie far enough apart that texts differ."""
    kind, reads = ARCHITECTURES.get(name), name in TRANSLATORS
    spread = {"init_std" if reads else "initializer_range": 0.4, "max_position_embeddings": length}
    config = kind.Config.read(kind.fitted({**kind.TINY, **spread}, length=length, vocabulary=V, ids={}))
    network = Network.build(kind, config, ["seq-to-seq" if reads else "causal-lm"], seed=3)
    return SourceDecoder(network) if reads else CausalDecoder(network)


def bursting() -> CausalDecoder:
    """The same that finds up to 16 tokens of a row before anybody looks at them."""
    one = CausalDecoder(with_linears(decoder().network, FewRowsLinear))
    assert isinstance(one, InBursts) and one.burst(1) == 16
    return one


def prompt(number: int, length: int) -> list[int]:
    return [int(token) for token in keys.integers(keys.key("prompt", number), length, V)]


def source(one: CausalDecoder | SourceDecoder, number: int) -> list[int] | None:
    """Sources of mixed length, where one is read."""
    return prompt(100 + number, 3 + 11 * (number % 3)) if isinstance(one, SourceDecoder) else None


def request(one: CausalDecoder | SourceDecoder, number: int, **settings: Any) -> Request:
    config = GenerationConfig.read({"max_new_tokens": 4 + 3 * (number % 5), **settings})
    return Request(prompt(number, 1 + 5 * (number % 4)), config, key=number, source=source(one, number))


DRAWN = {"do_sample": True, "top_k": 0, "temperature": 1.5}
KINDS: list[dict[str, Any]] = [
    {},
    DRAWN,
    {**DRAWN, "top_p": 0.9, "repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2, "eos_token_id": list(range(0, V, 7))},
    {"eos_token_id": list(range(0, V, 5))},
]


@decoders
@torch.inference_mode()
def test_requests_that_join_and_leave_get_what_they_get_alone(name: str) -> None:
    """In fp32: forty requests with other settings, three of which come before each third step, over four rows."""
    one = decoder(name)
    requests = [request(one, number, **KINDS[number % len(KINDS)]) for number in range(40)]
    scheduler, todo, made, widths = Scheduler(one, rows=4), list(requests), dict[int, list[Any]](), Counter[int]()
    steps = 0
    while todo or not scheduler.idle:
        if steps % 3 == 0:
            for new in todo[:3]:
                made[scheduler.add(new)] = []
            del todo[:3]
        found = scheduler.step()
        widths[len(found)] += 1
        for chosen in found:
            made[chosen.ticket].append(chosen)
        steps += 1
    assert max(widths) == 4 and len(widths) > 1 and list(made) == list(range(1, 41))
    for asked, parts in zip(requests, made.values(), strict=True):
        ((alone,),) = generate(one, [asked])
        assert [chosen.token for chosen in parts] == alone.ids
        assert [chosen.logprob for chosen in parts] == pytest.approx(alone.logprobs, abs=1e-4)
        assert [chosen.end for chosen in parts] == [None] * (len(parts) - 1) + [alone.end]
    assert {parts[-1].end for parts in made.values()} == {"end", "length"}


@pytest.mark.parametrize("rows", [1, 4])
@torch.inference_mode()
def test_tokens_found_ahead_are_told_one_by_one_whoever_comes_and_goes(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one, made, steps = bursting(), dict[int, list[Any]](), list[int]()
    ahead = one.ahead

    def counting(ids: torch.Tensor, cache: Cache, choice: Choice) -> tuple[torch.Tensor, torch.Tensor]:
        steps.append(len(choice.uniforms))
        return ahead(ids, cache, choice)

    monkeypatch.setattr(one, "ahead", counting)
    ends = {"eos_token_id": list(range(0, V, 3))}
    narrow = {**DRAWN, "top_k": 20, "top_p": 0.8, "min_p": 0.01}
    penalised = {"repetition_penalty": 1.4}
    settings: list[dict[str, Any]] = [{}, {**DRAWN, **ends}, narrow, {**ends, **penalised}, KINDS[3], {**narrow, **penalised}]
    requests = [
        request(one, number, **settings[number % 6 if number > 25 else [0, 1, 2, 3, 5][number % 5]], max_new_tokens=1 + 7 * (number % 4))
        for number in range(36)
    ]
    requests = [replace(asked, stop=lambda ids: len(ids) > 5) if number % 6 == 5 else asked for number, asked in enumerate(requests)]
    scheduler, todo, taken_back = Scheduler(one, rows=rows), list(requests), set[int]()
    for count in range(10_000):
        if count % 4 == 0 and todo:
            made[scheduler.add(todo.pop(0))] = []
        busy, found = {row.ticket for row in scheduler.busy}, scheduler.step()
        assert len(found) <= rows and busy <= {chosen.ticket for chosen in found}, "each row gets one token a step"
        for chosen in found:
            made[chosen.ticket].append(chosen)
        if count % 29 == 28 and scheduler.busy:
            taken_back.add(ticket := scheduler.busy[0].ticket)
            assert scheduler.cancel(ticket)
        if not todo and scheduler.idle:
            break
    assert len(steps) > 10 and max(steps) > 8 and taken_back and len(made) == len(requests)
    slow = decoder()
    for asked, (ticket, parts) in zip(requests, made.items(), strict=True):
        ((alone,),) = generate(slow, [asked])
        tokens = [chosen.token for chosen in parts]
        assert tokens == alone.ids[: len(tokens)] and (ticket in taken_back or tokens == alone.ids)
        assert [chosen.logprob for chosen in parts] == pytest.approx(alone.logprobs[: len(parts)], abs=1e-4)
        assert ticket in taken_back or parts[-1].end == alone.end
    assert {parts[-1].end for ticket, parts in made.items() if ticket not in taken_back} == {"end", "length", "stop"}


@decoders
@pytest.mark.parametrize("rows", [1, 3, 32])
def test_how_many_rows_there_are_changes_nothing(name: str, rows: int) -> None:
    one = decoder(name)
    requests = [request(one, number, **KINDS[number % len(KINDS)]) for number in range(9)]
    requests.append(request(one, 9, num_beams=3, num_return_sequences=2))
    expected = generate(one, requests, rows=16)
    assert [ids(texts) for texts in generate(one, requests, rows=rows)] == [ids(texts) for texts in expected]


def ids(texts: Sequence[Generated]) -> list[list[int]]:
    return [text.ids for text in texts]


@decoders
def test_padding_on_either_side_gives_the_same_scores(name: str) -> None:
    one = decoder(name)
    tokens, lengths = torch.tensor([prompt(row, 12) for row in range(3)]), torch.tensor([[12], [5], [1]])
    sources = [source(one, row) for row in range(3)] if isinstance(one, SourceDecoder) else None
    with torch.inference_mode():
        alone = [
            one(tokens[row : row + 1, :n], None, one.cache(1, 20, None if sources is None else sources[row : row + 1]))[0]
            for row, n in enumerate([12, 5, 1])
        ]
        behind = one(tokens, torch.arange(12) < lengths, one.cache(3, 20, sources))
        turned = torch.stack([row.roll(12 - int(n)) for row, n in zip(tokens, lengths, strict=True)])
        before = one(turned, torch.arange(12) >= 12 - lengths, one.cache(3, 20, sources))
    assert torch.allclose(behind, torch.stack(alone), atol=1e-4) and torch.allclose(before, torch.stack(alone), atol=1e-4)


@kinds
def test_log_probabilities_are_the_networks_own(name: str) -> None:
    one = decoder(name)
    asked = [request(one, number, **{**DRAWN, "repetition_penalty": 1.5}) for number in (1, 2)] + [request(one, 3, num_beams=2)]
    for wanted, (text,) in zip(asked, generate(one, asked), strict=True):
        whole = torch.tensor([[*wanted.prompt, *text.ids]])
        reads = {} if wanted.source is None else {"input_ids": torch.tensor([wanted.source])}
        batch = {"decoder_input_ids" if reads else "input_ids": whole, **reads}
        with torch.inference_mode():
            (head,) = one.network.heads.values()
            logits = head(one.network.backbone(batch).hidden)[0, len(wanted.prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(text.ids)[:, None])[:, 0]
        assert text.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
        assert text.score == pytest.approx(sum(text.logprobs) / (len(text.ids) if wanted.config.num_beams > 1 else 1), abs=1e-4)


@kinds
def test_what_is_drawn_is_a_function_of_seed_request_and_step(name: str) -> None:
    one, settings = decoder(name), GenerationConfig.read({**DRAWN, "max_new_tokens": 12, "num_return_sequences": 3})
    base = Request(prompt(1, 4), settings, seed=5, key=7, source=source(one, 1))
    first, again = (generate(one, [base])[0] for _ in "ab")
    assert ids(first) == ids(again) and len({tuple(one) for one in ids(first)}) == 3
    others = [replace(base, seed=6), replace(base, key=8)]
    assert all(ids(generate(one, [other])[0]) != ids(first) for other in others)
    assert ids(generate(one, [request(one, 3), *others, base])[3]) == ids(first)


def test_draws_have_the_shares_of_the_scores() -> None:
    n = 40_000
    scores = torch.tensor([1.0, float("-inf"), 0.0, 2.0, -1.0, float("-inf")])
    drawn = draw(scores.expand(n, -1), torch.from_numpy(keys.uniform(keys.key("draws"), n)))
    shares = np.bincount(drawn.numpy(), minlength=6) / n
    assert shares == pytest.approx(scores.softmax(-1).numpy(), abs=0.01)
    assert shares[1] == shares[5] == 0
    extremes = draw(scores.expand(2, -1), torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64))
    assert extremes.tolist() == [0, 4]


@kinds
def test_a_text_stops_where_stop_says_so(name: str) -> None:
    one = decoder(name)
    whole = generate(one, [request(one, 4)])[0][0].ids
    for config in ({}, {"num_beams": 2}):
        seen: list[list[int]] = []
        stops = replace(request(one, 4, **config), stop=lambda made, seen=seen: seen.append(list(made)) or len(made) == 3)
        text = generate(one, [stops])[0][0]
        assert (len(text.ids), text.end) == (3, "stop")
        assert sorted({len(made) for made in seen})[-1:] == [3]
    assert generate(one, [replace(request(one, 4), stop=lambda made: len(made) == 3)])[0][0].ids == whole[:3]


@kinds
def test_a_constraint_gives_one_of_its_sequences(name: str) -> None:
    one, sequences = decoder(name), [[5, 6, 7], [5, 6], [9, 1, 2, 3]]
    for settings in ({}, {"num_beams": 3, "num_return_sequences": 3}, {**DRAWN, "num_return_sequences": 5}):
        config = GenerationConfig.read({"max_new_tokens": 9, "eos_token_id": 0, **settings})
        texts = generate(one, [Request(prompt(2, 5), config, allowed=Trie(sequences, config.ends), source=source(one, 2))])[0]
        assert all(text.ids[:-1] in sequences and text.ids[-1] == 0 and text.end == "end" for text in texts)
    found = generate(
        one, [Request(prompt(2, 5), config, allowed=Trie(sequences, config.ends), key=n, source=source(one, n)) for n in range(40)]
    )
    assert len({tuple(text.ids) for texts in found for text in texts}) == 3


@kinds
def test_the_stream_tells_each_step(name: str) -> None:
    one = decoder(name)
    requests = [request(one, number) for number in range(3)]
    steps = list(stream(one, requests))
    assert [len(step) for step in steps] == sorted((len(step) for step in steps), reverse=True)
    for number, (text,) in enumerate(generate(one, requests), start=1):
        assert [chosen.token for step in steps for chosen in step if chosen.ticket == number] == text.ids
    assert list(stream(one, [])) == [] and generate(one, []) == []
    with pytest.raises(LexloomError, match="no single tokens"):
        next(stream(one, [request(one, 1, num_beams=2)]))


@kinds
def test_a_request_can_be_taken_back(name: str) -> None:
    one = decoder(name)
    asked = [request(one, number, max_new_tokens=9) for number in range(4)]
    scheduler = Scheduler(one, rows=2, length=64)
    tickets = [scheduler.add(each) for each in asked]
    made: dict[int, list[int]] = {ticket: [] for ticket in tickets}
    for step in range(40):
        if step == 2:
            assert scheduler.cancel(tickets[0]) and scheduler.cancel(tickets[2]) and not scheduler.cancel(99)
        for chosen in scheduler.step():
            made[chosen.ticket].append(chosen.token)
    assert scheduler.idle and not scheduler.cancel(tickets[1]) and scheduler.step() == []
    assert [len(tokens) for tokens in made.values()] == [2, 9, 0, 9]
    assert [made[tickets[i]] for i in (1, 3)] == [generate(one, [asked[i]])[0][0].ids for i in (1, 3)]


@kinds
def test_a_text_ends_with_the_context(name: str) -> None:
    one = decoder(name, length=16)
    for settings in ({}, {"num_beams": 2}):
        config = GenerationConfig.read({"max_new_tokens": 50, **settings})
        asked = [Request(prompt(n, n), config, source=source(one, n)) for n in (3, 15, 9)]
        assert [(len(text.ids), text.end) for (text,) in generate(one, asked)] == [(13, "length"), (1, "length"), (7, "length")]


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (Request([]), DataError, "no prompt"),
        (Request(prompt(1, 64)), DataError, "no room for a token"),
        (Request(prompt(1, 9), GenerationConfig.read({"max_length": 9})), DataError, "no room for a token"),
        (Request([5, V]), DataError, "outside the vocabulary"),
        (Request([5], GenerationConfig.read({"forced_eos_token_id": 4, "suppress_tokens": [4]})), ConfigError, "is banned"),
    ],
)
def test_bad_input_is_named_before_the_first_step(wrong: Request, error: type[Exception], words: str) -> None:
    one = decoder()
    scheduler = Scheduler(one, rows=1)
    for ask in (
        lambda: generate(one, [request(one, 1), wrong]),
        lambda: next(stream(one, [request(one, 1), wrong])),
        lambda: scheduler.add(wrong),
    ):
        with pytest.raises(error, match=words):
            ask()
    assert scheduler.idle
    with pytest.raises(LexloomError, match="does not fit"):
        Scheduler(one, rows=1, length=6).add(request(one, 1))


@translators
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Request([2]), ["the encoder cannot read this source", "1 to 64 tokens", "none"]),
        (Request([2], source=[]), ["the encoder cannot read this source", "1 to 64 tokens", "none"]),
        (Request([2], source=prompt(1, 65)), ["the encoder cannot read this source", "1 to 64 tokens", "65 tokens", "cut it into parts"]),
        (Request([2], source=[5, V]), ["a source has an id outside the vocabulary", "0 to 96", "97"]),
        (Request([], source=[5]), ["no prompt"]),
    ],
)
def test_bad_sources_are_named_before_the_first_step(name: str, wrong: Request, words: list[str]) -> None:
    one = decoder(name)
    scheduler = Scheduler(one, rows=1)
    for ask in (lambda: generate(one, [request(one, 1), wrong]), lambda: scheduler.add(wrong)):
        with pytest.raises(DataError) as error:
            ask()
        assert all(word in str(error.value) for word in words)
    with pytest.raises(DataError, match="reads no source"):
        generate(decoder("gpt2"), [request(one, 1)])


@translators
def test_a_source_is_read_once_and_stays_where_it_is(name: str) -> None:
    """Whatever becomes of the rows; beams have one source, so their steps move none."""
    one, read, kept = decoder(name), list[int](), set[int]()
    backbone: Any = one.network.backbone
    backbone.encoder[0].register_forward_hook(lambda _, given, __: read.append(len(given[0])))
    generate(one, [request(one, number) for number in range(5)], rows=2)
    assert sum(read) == 5 and max(read) <= 2
    cross = backbone.decoder[0].cross
    attended = cross.forward

    def forward(x: torch.Tensor, source: Any, bias: Any, row_keys: Any, recall: Any) -> torch.Tensor:
        kept.add(recall(lambda: pytest.fail("it is read again"))[0].data_ptr()) if source is None else None
        return attended(x, source, bias, row_keys, recall)

    cross.forward = forward
    (texts,) = generate(one, [request(one, 4, num_beams=4, num_return_sequences=4)])
    assert sum(read) == 6 and len(kept) == 1 and len({tuple(text.ids) for text in texts}) == 4


@translators
def test_sources_are_looked_at_up_to_where_the_longest_of_busy_rows_ends(name: str) -> None:
    one = decoder(name)
    full = one.cache(3, 20)
    with torch.inference_mode():
        for row, length in enumerate((9, 60, 4)):
            read = one.cache(2, 20, [prompt(row, length), prompt(7, 64)])
            one(torch.full((2, 1), 2), None, read)
            full.take(row, read, 0)
    assert [full.front(n, 1).sources[0][0].shape[2] for n in (1, 2, 3)] == [9, 60, 60]
    with torch.inference_mode():
        full.take(1, full, 2)
    found = full.front(2, 1)
    assert found.sources[0][0].shape[2] == 9 and found.source_bias is not None
    assert (found.source_bias[:, 0, 0] == 0).sum(1).tolist() == [9, 4]


@translators
def test_rows_that_change_places_take_their_sources_along(name: str) -> None:
    one, order = decoder(name), torch.tensor([2, 0, 0])
    sources = [prompt(row, length) for row, length in enumerate((9, 30, 4))]
    tokens = torch.tensor([[3], [4], [5]])
    with torch.inference_mode():
        cache = one.cache(3, 20, sources)
        one(torch.full((3, 1), 2), None, cache)
        cache.select(order)
        found = one(tokens, None, cache)
        targets = torch.cat([torch.full((3, 1), 2), tokens], dim=1)
        whole = [one(targets[i : i + 1], None, one.cache(1, 20, [sources[row]]))[0] for i, row in enumerate(order)]
    assert torch.allclose(found, torch.stack(whole), atol=1e-4)


def test_an_encoder_does_not_go_on_with_texts() -> None:
    kind = ARCHITECTURES.get("bert")
    network = Network.build(kind, kind.Config.read(dict(kind.TINY)), ["masked-lm"], seed=1)
    with pytest.raises(ConfigError, match="does not go on with texts"):
        CausalDecoder(network)
    for other in (network, decoder("gpt2").network):
        with pytest.raises(ConfigError, match="does not write a text for a text"):
            SourceDecoder(other)
