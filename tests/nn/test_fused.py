"""A step of a decoder in one go beside the network's own forward pass: rows of mixed length, all kinds of blocks, both kinds of weights."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lexloom import keys
from lexloom.errors import LexloomError
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.models.decoder import FEW_ROWS, CausalDecoder, SourceDecoder
from lexloom.nn import few_rows
from lexloom.nn.decoding import GenerationConfig, Request, generate
from lexloom.nn.decoding.drawing import Choice
from lexloom.nn.few_rows import FewRowsLinear
from lexloom.nn.fused import FusedStep
from lexloom.nn.linears import with_linears
from lexloom.nn.quantized import quantized

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2-odd": ("gpt2", {"vocab_size": 61, "n_embd": 30, "n_head": 5, "n_inner": 44, "activation_function": "relu"}),
    "gpt2-scaled": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False, "activation_function": "gelu"}),
    "llama": ("llama", {}),
    "llama-biased": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 10, "tie_word_embeddings": True}),
    "llama-one-group": ("llama", {"num_key_value_heads": 1, "hidden_act": "gelu", "rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
}
cases = pytest.mark.parametrize("case", CASES)


def network(case: str) -> Network:
    name, settings = CASES[case]
    kind = ARCHITECTURES.get(name)
    return Network.build(kind, kind.Config.read({**kind.TINY, **settings, "initializer_range": 0.3}), ["causal-lm"], seed=2).eval()


def ids(rows: int, length: int) -> torch.Tensor:
    return torch.from_numpy(keys.integers(keys.key("fused"), rows * length, 61)).view(rows, length)


def likeliest(rows: int, steps: int, *ends: int) -> Choice:
    """The likeliest token, so many times."""
    return replace(Choice.none(rows, steps), ends=np.array(ends, dtype=np.int64))


@cases
@pytest.mark.parametrize("rows", [1, 3, FEW_ROWS])
@torch.inference_mode()
def test_a_step_is_that_of_the_network(case: str, rows: int) -> None:
    plain = CausalDecoder(network(case))
    assert plain._step is None, "a network so small is not worth compiling for"
    own = with_linears(plain.network, FewRowsLinear)
    fused, slow = CausalDecoder(own), CausalDecoder(quantized(plain.network))
    assert isinstance(fused._step, FusedStep) and isinstance(slow._step, FusedStep)
    prompt, mask = ids(rows, 7), torch.arange(7) < 1 + torch.arange(rows)[:, None] % 7
    caches = [one.cache(rows, 20) for one in (plain, fused, slow)]
    for one, cache in zip((plain, fused, slow), caches, strict=True):
        one(prompt, mask, cache)
    tokens = ids(rows, 12)
    for t in range(12):
        expected, found = (one(tokens[:, t : t + 1], None, cache) for one, cache in zip((plain, fused), caches, strict=False))
        assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()
        rounded = slow(tokens[:, t : t + 1], None, caches[2])
        quick, slow._step = slow._step, None
        again = caches[2].front(rows, 20)
        again.lengths -= 1
        assert (slow(tokens[:, t : t + 1], None, again) - rounded).abs().max() <= 2e-5 * rounded.abs().max()
        slow._step = quick
    assert caches[0].lengths.tolist() == caches[1].lengths.tolist() == caches[2].lengths.tolist()
    assert (caches[0].values[..., :19, :] - caches[1].values[..., :19, :]).abs().max() <= 1e-4


@cases
@torch.inference_mode()
def test_a_step_is_the_same_on_any_number_of_threads(case: str) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            decoder = CausalDecoder(with_linears(network(case), FewRowsLinear))
            cache = decoder.cache(3, 9)
            found.append(torch.stack([decoder(ids(3, 9)[:, t : t + 1], None, cache) for t in range(9)]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@cases
@pytest.mark.parametrize("rows", [1, 3])
@torch.inference_mode()
def test_steps_at_once_are_steps_one_by_one(case: str, rows: int) -> None:
    for kind in (lambda network: with_linears(network, FewRowsLinear), quantized):
        decoder = CausalDecoder(kind(network(case)))
        assert decoder.burst(rows) > 1 and decoder.burst(FEW_ROWS + 1) == 1
        caches = [decoder.cache(rows, 20) for _ in "ab"]
        for cache in caches:
            decoder(ids(rows, 7), torch.arange(7) < 1 + torch.arange(rows)[:, None] % 7, cache)
        token, expected, shares = ids(rows, 12)[:, :1], [], []
        for _ in range(12):
            scores = decoder(token, None, caches[0])
            token = scores.argmax(-1, keepdim=True)
            expected.append(token[:, 0])
            shares.append(scores.log_softmax(-1).gather(1, token)[:, 0])
        found, logprobs = decoder.ahead(ids(rows, 12)[:, :1], caches[1], likeliest(rows, 12))
        assert torch.equal(found, torch.stack(expected))
        assert (logprobs - torch.stack(shares)).abs().max() <= 1e-5
        assert torch.equal(caches[0].lengths, caches[1].lengths) and torch.equal(
            caches[0].values[..., :19, :], caches[1].values[..., :19, :]
        )


@torch.inference_mode()
def test_steps_at_once_stop_where_a_row_ends() -> None:
    decoder = CausalDecoder(with_linears(network("gpt2"), FewRowsLinear))
    token, (whole, cut) = ids(3, 1), (decoder.cache(3, 20) for _ in "ab")
    everything, logprobs = decoder.ahead(token, whole, likeliest(3, 15))
    end = int(everything[4, 1])
    first = int((everything == end).any(1).nonzero()[0])
    found, shares = decoder.ahead(token, cut, likeliest(3, 15, end, 1000))
    assert len(found) == first + 1 <= 5 and torch.equal(found, everything[: first + 1]) and torch.equal(shares, logprobs[: first + 1])
    assert cut.lengths.tolist() == [first + 1] * 3
    rest, _ = decoder.ahead(found[-1][:, None], cut, likeliest(3, 15 - len(found)))
    assert torch.equal(rest, everything[first + 1 :]), "what came too much has left no trace"


TRANSLATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("bart", {"decoder_layers": 2}),
    "bart-odd": (
        "bart",
        {"vocab_size": 61, "d_model": 30, "encoder_attention_heads": 5, "decoder_attention_heads": 5, "decoder_ffn_dim": 44},
    ),
    "marian": ("marian", {"decoder_layers": 2, "activation_function": "swish"}),
    "marian-two": ("marian", {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False, "activation_function": "relu"}),
}


def translator(case: str) -> Network:
    name, settings = TRANSLATORS[case]
    kind = ARCHITECTURES.get(name)
    found = Network.build(kind, kind.Config.read({**kind.TINY, **settings, "init_std": 0.3}), ["seq-to-seq"], seed=2).eval()
    with torch.no_grad():
        found.heads["seq-to-seq"].bias.copy_(torch.from_numpy(keys.normal(keys.key("bias"), len(found.heads["seq-to-seq"].bias))))
    return found


@pytest.mark.parametrize("case", TRANSLATORS)
@pytest.mark.parametrize("rows", [1, 3])
@torch.inference_mode()
def test_a_step_with_a_source_is_that_of_the_network(case: str, rows: int) -> None:
    plain = SourceDecoder(translator(case))
    assert plain._step is None
    fused, slow = (SourceDecoder(kind(plain.network)) for kind in (lambda network: with_linears(network, FewRowsLinear), quantized))
    assert isinstance(fused._step, FusedStep) and isinstance(slow._step, FusedStep)
    sources = [ids(rows, 9)[row, : 9 - 3 * row].tolist() for row in range(rows)]
    caches = [one.cache(rows, 20, sources) for one in (plain, fused, slow)]
    for one, cache in zip((plain, fused, slow), caches, strict=True):
        one(ids(rows, 2), None, cache)
    tokens, again = ids(rows, 10), caches[2].front(rows, 20)
    for t in range(10):
        mask = None if t % 3 else torch.arange(rows)[:, None] != 1  # a row that waits leaves no trace
        given = (tokens[:, t : t + 1], mask)
        expected, found = (one(*given, cache) for one, cache in zip((plain, fused), caches, strict=False))
        busy = slice(None) if mask is None else mask[:, 0]
        assert (found - expected)[busy].abs().max() <= 2e-5 * expected.abs().max()
        rounded = slow(*given, caches[2])
        quick, slow._step = slow._step, None
        again.lengths, again._longest = caches[2].lengths - (1 if mask is None else mask[:, 0].long()), 20
        assert (slow(*given, again) - rounded)[busy].abs().max() <= 2e-5 * rounded.abs().max()
        again.lengths = caches[2].lengths.clone()
        slow._step = quick
    assert caches[0].lengths.tolist() == caches[1].lengths.tolist() == caches[2].lengths.tolist()


@pytest.mark.parametrize("case", TRANSLATORS)
def test_what_follows_a_source_is_the_same_in_one_go(case: str) -> None:
    """Greedy, drawn and by beams, of mixed length, over fewer rows than there are requests."""
    slow = SourceDecoder(translator(case))
    quick = SourceDecoder(with_linears(slow.network, FewRowsLinear))
    asked = []
    for number in range(12):
        kind: dict[str, Any] = ({}, {"do_sample": True, "top_k": 9}, {"num_beams": 3, "num_return_sequences": 2})[number % 3]
        config = GenerationConfig.read({"max_new_tokens": 3 + 5 * (number % 4), "eos_token_id": list(range(2, 61, 3)), **kind})
        asked.append(Request([2], config, key=number, source=ids(12, 15)[number, : 3 + number].tolist()))
    expected, found = (generate(one, asked, rows=4) for one in (slow, quick))
    assert [[text.ids for text in texts] for texts in found] == [[text.ids for text in texts] for texts in expected]
    assert {text.end for texts in found for text in texts} == {"end", "length"}


def test_networks_with_other_parts_go_the_long_way() -> None:
    name, settings = CASES["gpt2"]
    kind = ARCHITECTURES.get(name)
    config = kind.Config.read({**kind.TINY, **settings, "activation_function": "tanh"})
    decoder = CausalDecoder(with_linears(Network.build(kind, config, ["causal-lm"], seed=2).eval(), FewRowsLinear))
    assert decoder._step is None


@pytest.mark.parametrize("low", [False, True])
@torch.inference_mode()
def test_what_decoding_needs_is_made_once_and_let_go(low: bool) -> None:
    kind = ARCHITECTURES.get("gpt2")
    made = Network.build(kind, kind.Config.read({**kind.TINY, "vocab_size": 20_000, "n_embd": 60}), ["causal-lm"], seed=2)
    network: Network = quantized(made) if low else made

    def scores(network: Network) -> torch.Tensor:
        decoder = CausalDecoder(network)
        return decoder(ids(2, 1), None, decoder.cache(2, 4))

    before = CausalDecoder(network)._step
    assert isinstance(before, FusedStep) and CausalDecoder(network, 5)._step is before
    first = scores(network)
    network.backbone.norm.weight.mul_(2)  # in place: the step sees it
    assert CausalDecoder(network)._step is before and torch.allclose(scores(network), 2 * first, atol=1e-5)
    network.backbone.norm.weight.data = network.backbone.norm.weight / 2  # elsewhere in memory: it is made again
    assert CausalDecoder(network)._step is not before and torch.allclose(scores(network), first, atol=1e-5)
    gone = weakref.ref(network)
    del network, made
    gc.collect()
    assert gone() is None


def test_a_cache_that_is_full_is_named() -> None:
    decoder = CausalDecoder(with_linears(network("gpt2"), FewRowsLinear))
    cache = decoder.cache(1, 1)
    with torch.inference_mode():
        decoder(ids(1, 1), None, cache)
        with pytest.raises(LexloomError, match="outgrown its cache"):
            decoder(ids(1, 1), None, cache)
        with pytest.raises(LexloomError, match="outgrown its cache"):
            decoder.ahead(ids(1, 1), decoder.cache(1, 3), likeliest(1, 4))


@torch.inference_mode()
def test_ids_outside_the_vocabulary_are_refused() -> None:
    decoder = CausalDecoder(with_linears(network("gpt2"), FewRowsLinear))
    for odd in (-1, 97):
        with pytest.raises(IndexError, match="ids of 0 to 96"):
            decoder(torch.tensor([[3], [odd]]), None, decoder.cache(2, 5))


def test_both_ways_stop_at_as_many_rows() -> None:
    assert FEW_ROWS == few_rows.MOST
