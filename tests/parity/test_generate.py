"""The ids that `transformers.generate` finds, greedy and by beams, under every setting; in float64, with prompts of mixed length."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from lexloom.hub import weights
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.models.decoder import CausalDecoder
from lexloom.nn.decoding import GenerationConfig, Request, generate
from tests.parity.test_decoders import GPT2, SIX, settings_in

ORACLE = Path(__file__).with_name("oracle_generate.py")
MODELS = {"gpt2": ("GPT2LMHeadModel", {**GPT2, "tie_word_embeddings": False}), "llama": ("LlamaForCausalLM", SIX)}
ENDS, BEAMS = [17, 38, 44, 46], {"num_beams": 3, "max_new_tokens": 12}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"max_new_tokens": 14},
    "greedy-ends": {"max_new_tokens": 14, "eos_token_id": ENDS},
    "greedy-length": {"max_length": 20, "eos_token_id": 44},
    "greedy-least": {"max_new_tokens": 14, "min_new_tokens": 6, "eos_token_id": ENDS},
    "greedy-least-length": {"max_new_tokens": 14, "min_length": 16, "eos_token_id": ENDS},
    "greedy-repetition": {"max_new_tokens": 14, "repetition_penalty": 1.7},
    "greedy-praised": {"max_new_tokens": 14, "repetition_penalty": 0.6},
    "greedy-ngrams": {"max_new_tokens": 14, "no_repeat_ngram_size": 2},
    "greedy-no-token-twice": {"max_new_tokens": 14, "no_repeat_ngram_size": 1, "suppress_tokens": [0]},
    "greedy-banned": {
        "max_new_tokens": 14,
        "bad_words_ids": [[56], [44], [55, 42], [6, 50, 22], [30, 30]],
        "eos_token_id": 44,
        "suppress_tokens": [9, 21],
    },
    "greedy-at-first": {"max_new_tokens": 9, "begin_suppress_tokens": list(range(0, 61, 2))},
    "greedy-forced": {"max_new_tokens": 9, "forced_eos_token_id": [3, 4]},
    "greedy-allowed": {"max_new_tokens": 14, "allowed": True, "eos_token_id": ENDS},
    "greedy-all": {
        "max_new_tokens": 14,
        "min_new_tokens": 3,
        "eos_token_id": ENDS,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "bad_words_ids": [[56], [30, 31]],
        "begin_suppress_tokens": [1, 2, 3],
        "forced_eos_token_id": 3,
    },
    "beams": {**BEAMS},
    "beams-returned": {**BEAMS, "num_beams": 5, "num_return_sequences": 4, "eos_token_id": 44},
    "beams-repetition": {**BEAMS, "repetition_penalty": 1.7, "eos_token_id": ENDS},
    "beams-ngrams": {**BEAMS, "no_repeat_ngram_size": 2, "eos_token_id": ENDS},
    "beams-least": {**BEAMS, "min_new_tokens": 7, "eos_token_id": ENDS, "early_stopping": True},
    "beams-length": {"num_beams": 2, "max_length": 17, "eos_token_id": ENDS},
    "beams-banned": {**BEAMS, "bad_words_ids": [[56], [55, 42], [34, 21]], "suppress_tokens": [9, 54], "begin_suppress_tokens": [1, 2]},
    "beams-forced": {**BEAMS, "forced_eos_token_id": 3, "eos_token_id": [3, 44]},
    "beams-allowed": {**BEAMS, "allowed": True, "eos_token_id": ENDS, "num_return_sequences": 3},
} | {
    f"beams-{early}-{penalty}-{len(ends)}": {
        **BEAMS,
        "early_stopping": early,
        "length_penalty": penalty,
        "eos_token_id": ends,
        "num_return_sequences": 3,
    }
    for early in (True, False, "never")
    for penalty in (-1.5, 0.0, 1.0, 2.5)
    for ends in (ENDS, [44])
}


@dataclass
class Model:
    """One model and what `transformers` generated with it."""

    network: Network
    prompts: list[list[int]]
    generated: dict[str, Tensor]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    root = tmp_path_factory.mktemp("generate")
    jobs = [[class_name, str(root / name), settings, CASES] for name, (class_name, settings) in MODELS.items()]
    done = subprocess.run([sys.executable, str(ORACLE), json.dumps(jobs)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: _opened(root / name, name) for name in MODELS}


def _opened(folder: Path, name: str) -> Model:
    kind = ARCHITECTURES.get(name)
    config = kind.Config.read({key: value for key, value in settings_in(folder).items() if key in kind.Config.model_fields})
    network = Network.build(kind, config, ["causal-lm"]).double()
    weights.load_into(network, weights.read_tensors(folder))
    inputs = load_file(folder / "inputs.safetensors")
    rows = zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)
    return Model(network, [ids[mask].tolist() for ids, mask in rows], load_file(folder / "generated.safetensors"))


def requests(case: dict[str, Any], prompts: Sequence[Sequence[int]]) -> list[Request]:
    settings = {key: value for key, value in case.items() if key != "allowed"}
    if "max_length" in settings:  # theirs counts the padding of a batch too
        settings["max_new_tokens"] = settings.pop("max_length") - max(map(len, prompts))
    if "min_length" in settings:
        settings["min_new_tokens"] = settings.pop("min_length") - max(map(len, prompts))
    config = GenerationConfig.read(settings)
    every = (lambda made: [*range(len(made) % 3, 61, 3), *config.ends]) if case.get("allowed") else None
    return [Request(prompt, config, allowed=every) for prompt in prompts]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_the_ids_are_theirs(name: str, case: str, found: dict[str, Model]) -> None:
    model = found[name]
    ours = [one for texts in generate(CausalDecoder(model.network), requests(CASES[case], model.prompts)) for one in texts]
    theirs = model.generated[f"{case}.ids"].tolist()
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.ids == other[: len(one.ids)]
        assert set(other[len(one.ids) :]) <= {60}
    if (scores := model.generated.get(f"{case}.scores")) is not None:
        assert [one.score for one in ours] == pytest.approx(scores.tolist(), rel=1e-5, abs=1e-6)


def test_the_cases_differ(found: dict[str, Model]) -> None:
    for model in found.values():
        assert len({str(tensor.tolist()) for key, tensor in model.generated.items() if key.endswith(".ids")}) > 28
        assert any(row.count(60) > 3 for row in model.generated["greedy-ends.ids"].tolist()), "no text ended early"


@pytest.mark.parametrize("case", ["greedy-all", "beams-allowed", "beams-False-1.0-4", "beams-ngrams"])
@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_alone_gets_what_it_gets_among_others(name: str, case: str, found: dict[str, Model]) -> None:
    decoder = CausalDecoder(found[name].network)
    wanted = requests(CASES[case], found[name].prompts)
    together = generate(decoder, wanted)
    for one, others in zip(wanted, together, strict=True):
        ((alone),) = generate(decoder, [one])
        assert [text.ids for text in alone] == [text.ids for text in others]
        for a, b in zip(alone, others, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
            assert (a.score, a.end) == (pytest.approx(b.score, abs=1e-5), b.end)
