"""The ids that `transformers.generate` finds for sources of mixed length, greedy and by beams, under every setting; in float64."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from lexloom.models.base import ARCHITECTURES
from lexloom.models.decoder import SourceDecoder
from lexloom.nn.decoding import GenerationConfig, Request, generate
from tests.parity.beside import opened
from tests.parity.test_generate import ORACLE
from tests.parity.test_seq_to_seq import SIZES

PAD = 60  # with which Marian begins a target, and which it may not say
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("BartForConditionalGeneration", {**SIZES, "tie_word_embeddings": False, "activation_function": "relu"}),
    "marian": (
        "MarianMTModel",
        {
            **SIZES,
            **{"vocab_size": 67, "decoder_vocab_size": 61, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
            **{"pad_token_id": PAD, "decoder_start_token_id": PAD, "scale_embedding": True},
        },
    ),
}
ENDS, BEAMS = [15, 41, 52, 53], {"num_beams": 3, "max_new_tokens": 12}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"max_new_tokens": 14},
    "greedy-ends": {"max_new_tokens": 14, "eos_token_id": ENDS},
    "greedy-length": {"max_length": 11, "eos_token_id": 52},
    "greedy-least": {"max_new_tokens": 14, "min_new_tokens": 6, "eos_token_id": ENDS},
    "greedy-least-length": {"max_length": 14, "min_length": 7, "eos_token_id": ENDS},
    "greedy-repetition": {"max_new_tokens": 14, "repetition_penalty": 1.7},
    "greedy-ngrams": {"max_new_tokens": 14, "no_repeat_ngram_size": 2},
    "greedy-banned": {
        **{"max_new_tokens": 14, "bad_words_ids": [[PAD], [52], [50], [4, 4], [56, 11], [3, 4, 7]]},
        **{"eos_token_id": 52, "suppress_tokens": [9, 18]},
    },
    "greedy-at-first": {"max_new_tokens": 9, "begin_suppress_tokens": list(range(0, 61, 2))},
    "greedy-forced": {"max_new_tokens": 9, "forced_bos_token_id": 7, "forced_eos_token_id": [3, 4]},
    "greedy-allowed": {"max_new_tokens": 14, "allowed": True, "eos_token_id": ENDS},
    "greedy-all": {
        **{"max_new_tokens": 14, "min_new_tokens": 3, "eos_token_id": ENDS, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
        **{"bad_words_ids": [[PAD], [3, 4]], "forced_bos_token_id": 5, "forced_eos_token_id": 3},
    },
    "beams": BEAMS,
    "beams-returned": {**BEAMS, "num_beams": 5, "num_return_sequences": 4, "eos_token_id": 52},
    "beams-repetition": {**BEAMS, "repetition_penalty": 1.7, "eos_token_id": ENDS},
    "beams-ngrams": {**BEAMS, "no_repeat_ngram_size": 2, "eos_token_id": ENDS},
    "beams-least": {**BEAMS, "min_new_tokens": 7, "eos_token_id": ENDS, "early_stopping": True},
    "beams-length": {"num_beams": 2, "max_length": 9, "min_length": 4, "eos_token_id": ENDS},
    "beams-banned": {**BEAMS, "bad_words_ids": [[PAD], [11], [4, 4]], "suppress_tokens": [9, 54], "begin_suppress_tokens": [1, 2]},
    "beams-forced": {**BEAMS, "forced_bos_token_id": 7, "forced_eos_token_id": 3, "eos_token_id": [3, 41]},
    "beams-allowed": {**BEAMS, "allowed": True, "eos_token_id": ENDS, "num_return_sequences": 3},
} | {
    f"beams-{early}-{penalty}": {
        **BEAMS,
        **{"early_stopping": early, "length_penalty": penalty, "eos_token_id": ENDS, "num_return_sequences": 3},
    }
    for early in (True, False, "never")
    for penalty in (-1.5, 1.0, 2.5)
}


@dataclass
class Model:
    """One model and what `transformers` generated with it."""

    decoder: SourceDecoder
    sources: list[list[int]]
    generated: dict[str, Tensor]

    def requests(self, case: str) -> list[Request]:
        settings = {key: value for key, value in CASES[case].items() if key != "allowed"}
        config = GenerationConfig.read(settings)
        every = (lambda made: [*range(len(made) % 3, 61, 3), *config.ends]) if CASES[case].get("allowed") else None
        start = self.decoder.network.backbone.config.decoder_start_token_id
        return [Request([start], config, allowed=every, source=source) for source in self.sources]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    root = tmp_path_factory.mktemp("generate")
    jobs = [[cls, str(root / name), {**settings, "is_encoder_decoder": True}, CASES] for name, (cls, settings) in MODELS.items()]
    done = subprocess.run([sys.executable, str(ORACLE), json.dumps(jobs)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    models = {}
    for name, (class_name, _) in MODELS.items():
        network, _ = opened(root / name, ARCHITECTURES.get(name), class_name)
        inputs = load_file(root / name / "inputs.safetensors")
        sources = [ids[mask].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)]
        models[name] = Model(SourceDecoder(network), sources, load_file(root / name / "generated.safetensors"))
    return models


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_the_ids_are_theirs(name: str, case: str, found: dict[str, Model]) -> None:
    model = found[name]
    ours = [one for texts in generate(model.decoder, model.requests(case)) for one in texts]
    theirs = model.generated[f"{case}.ids"].tolist()
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.ids == other[: len(one.ids)]
        assert set(other[len(one.ids) :]) <= {PAD}
    if (scores := model.generated.get(f"{case}.scores")) is not None:
        assert [one.score for one in ours] == pytest.approx(scores.tolist(), rel=1e-5, abs=1e-6)


def test_the_cases_differ(found: dict[str, Model]) -> None:
    for model in found.values():
        assert len({str(tensor.tolist()) for key, tensor in model.generated.items() if key.endswith(".ids")}) > 18
        assert any(row[-2:] == [PAD, PAD] for row in model.generated["greedy-ends.ids"].tolist()), "no text ended early"
        assert all(len(set(map(str, model.generated[f"{case}.ids"].tolist()))) > 1 for case in ("greedy", "beams")), "sources do not count"


@pytest.mark.parametrize("case", ["greedy-all", "beams-allowed", "beams-False-1.0", "beams-ngrams"])
@pytest.mark.parametrize("name", MODELS)
def test_a_source_alone_gets_what_it_gets_among_others(name: str, case: str, found: dict[str, Model]) -> None:
    model = found[name]
    together = generate(model.decoder, model.requests(case))
    for one, others in zip(model.requests(case), together, strict=True):
        ((alone),) = generate(model.decoder, [one])
        assert [text.ids for text in alone] == [text.ids for text in others]
        for a, b in zip(alone, others, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
            assert (a.score, a.end) == (pytest.approx(b.score, abs=1e-5), b.end)
