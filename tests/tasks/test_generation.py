"""Text generation: prompts, what is asked for and what the bundle says, stop strings, and the answers of `transformers`' pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import lexloom
from lexloom import files
from lexloom.cli import app
from lexloom.errors import ConfigError, DataError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.nn.decoding import GenerationConfig
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.generation import StopStrings, TextGeneration, TextGenerationConfig
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.tasks.conftest import TEXTS

PROMPTS = ["a warm film", "The capital of France", "这家酒店", "one two three four five six"]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A tiny GPT-2 with a byte-level tokenizer, drawn so that texts differ."""
    kind = ARCHITECTURES.get("gpt2")
    tokenizer = train_tokenizer(TEXTS * 3, TokenizerConfig(kind="byte-bpe", vocab_size=320, template="none")).with_max_length(64)
    model = {**kind.TINY, "initializer_range": 0.4, "max_position_embeddings": 64}
    config = kind.Config.read(kind.fitted(model, length=64, vocabulary=len(tokenizer), ids=tokenizer.ids))
    task = TextGeneration(TextGenerationConfig(), Vocabulary.of(tokenizer))
    return Bundle(Network.build(kind, config, ["causal-lm"], seed=4), tokenizer, task)


@pytest.fixture(scope="module")
def folder(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle.save(tmp_path_factory.mktemp("generation") / "bundle")


def texts(answers: list[Any]) -> list[list[str]]:
    return [[one["generated_text"] for one in answer] for answer in answers]


def test_the_same_answers_as_the_pipeline(bundle: Bundle, folder: Path) -> None:
    from transformers import GenerationConfig as Theirs
    from transformers import pipeline

    write, opened = pipeline("text-generation", model=str(folder), device="cpu"), Bundle.load(folder)
    asked: list[dict[str, Any]] = [
        {"max_new_tokens": 12},
        {"max_new_tokens": 12, "return_full_text": False, "repetition_penalty": 1.4},
        {"max_new_tokens": 9, "num_beams": 3, "num_return_sequences": 2},
        {"max_new_tokens": 20, "stop_sequence": ["e", "的"], "return_full_text": False},
    ]
    seen = set()
    for options in asked:
        ours = opened.predict(PROMPTS, **options)
        assert ours == bundle.predict(PROMPTS, **options)
        theirs = [write(prompt, **options, do_sample=False) for prompt in PROMPTS]
        assert texts(ours) == texts(theirs)
        seen.add(str(ours))
    assert len(seen) == len(asked)
    assert write.model.generation_config.eos_token_id == Theirs.from_pretrained(folder).eos_token_id == bundle.tokenizer.eos_id


def test_drawing_is_a_function_of_seed_and_text(bundle: Bundle) -> None:
    options = {"do_sample": True, "max_new_tokens": 8, "num_return_sequences": 3}
    first = bundle.predict(PROMPTS, **options)
    assert all(len(set(answer)) == 3 for answer in texts(first))
    assert bundle.predict(PROMPTS[::-1], **options) == first[::-1] and bundle.predict(PROMPTS, batch_tokens=1, **options) == first
    assert bundle.predict(PROMPTS, seed=2, **options) != first


def test_the_bundles_file_is_the_default_and_what_is_asked_for_counts_more(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    ids = {"bos_token_id": bundle.tokenizer.bos_id, "eos_token_id": bundle.tokenizer.eos_id, "pad_token_id": bundle.tokenizer.pad_id}
    assert files.read_json(folder / "generation_config.json") == {"_from_model_config": True, **ids}
    loaded = Bundle.load(folder)
    loaded.generation = {**ids, "max_length": 12, "num_beams": 2, "transformers_version": "5.0"}
    again = Bundle.load(loaded.save(tmp_path / "again"))
    assert again.generation == loaded.generation
    prompt = PROMPTS[:1]
    room = 12 - len(loaded.tokenizer.encode(prompt)[0]["input_ids"])
    assert again.predict(prompt) == bundle.predict(prompt, num_beams=2, max_new_tokens=room)
    assert again.predict(prompt, max_new_tokens=20, num_beams=1) == bundle.predict(prompt, max_new_tokens=20)
    assert bundle.predict(prompt, num_beams=2, max_length=12) == again.predict(prompt)
    with pytest.raises(ConfigError, match="max_length"):
        bundle.predict(prompt, max_length="long")
    again.generation = {**ids, "penalty_alpha": 0.6}
    assert len(again.embed(prompt)) == 1
    with pytest.raises(ConfigError, match="penalty_alpha is not supported"):
        again.predict(prompt)
    files.write_text(tmp_path / "again/generation_config.json", "[]")
    with pytest.raises(lexloom.errors.FormatError, match="not a mapping"):
        Bundle.load(tmp_path / "again")


def test_an_answer_ends_with_the_token_that_completes_a_stop_string(bundle: Bundle) -> None:
    stop = StopStrings(bundle.tokenizer, ["two t", "早餐"])
    ids = [int(token) for token in bundle.tokenizer.encode_plain(["one two three 这家早餐也"])[0]]
    over = [n for n in range(1, len(ids) + 1) if stop(ids[:n])]
    first = bundle.tokenizer.decode(ids[: over[0]])
    assert "two t" in first and "two t" not in bundle.tokenizer.decode(ids[: over[0] - 1])
    assert not stop(ids[: over[0] - 1]) and any("早餐" in bundle.tokenizer.decode(ids[:n]) for n in over)
    assert StopStrings(bundle.tokenizer, "three")([*ids]) == ("three" in bundle.tokenizer.decode(ids[-13:]))
    for wrong in ("", [], ["a", ""]):
        with pytest.raises(ConfigError, match="stop_sequence"):
            bundle.predict(PROMPTS, stop_sequence=wrong)


@pytest.mark.parametrize(
    ("text", "options", "error", "words"),
    [
        ("", {}, DataError, "row 2: this text gives no token to go on with"),
        ("one two " * 90, {}, DataError, "row 2: this text leaves no room in the model's context"),
        ("one", {"forced_eos_token_id": 5, "suppress_tokens": [5]}, ConfigError, "forced_eos_token_id forces a token that is banned"),
        ("one", {"bad_words_ids": [[9999]]}, ConfigError, "bad_words_ids is outside the vocabulary"),
        ("one", {"max_new_token": 5}, ConfigError, "max_new_tokens"),
        ("one", {"num_return_sequences": 2}, ConfigError, "do_sample or num_beams"),
    ],
)
def test_bad_input_is_named_before_the_first_step(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, text: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    def step(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(bundle.network.backbone, "forward", step)
    with pytest.raises(error, match=words):
        bundle.predict([PROMPTS[0], text], **options)


def test_weights_of_8_bits(bundle: Bundle, folder: Path, tmp_path: Path, network: Callable[..., Network], tokenizer: Tokenizer) -> None:
    small = Bundle.load(folder).to(dtype="int8")
    assert small.dtype == "int8" and small.predict(PROMPTS, max_new_tokens=4) == small.predict(PROMPTS, max_new_tokens=4)
    again = Bundle.load(small.save(tmp_path / "small"))
    assert again.dtype == "int8" and again.predict(PROMPTS, max_new_tokens=4) == small.predict(PROMPTS, max_new_tokens=4)
    assert (tmp_path / "small/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="weights of 8 bits are for decoders"):
        Bundle(network("masked-lm"), tokenizer).to(dtype="int8")
    with pytest.raises(ConfigError, match="one of these ways"):
        bundle.to(dtype="int4")


def test_options_that_a_task_does_not_take_are_named(network: Callable[..., Network], tokenizer: Tokenizer) -> None:
    from lexloom.tasks.fill_mask import FillMask, FillMaskConfig

    encoder = Bundle(network("masked-lm"), tokenizer, FillMask(FillMaskConfig(), Vocabulary.of(tokenizer)))
    with pytest.raises(ConfigError, match="no option of fill-mask called 'top_n'"):
        encoder.predict(["a [MASK]"], top_n=3)


def test_only_the_token_that_begins_a_text_stands_before_it(tokenizer: Tokenizer) -> None:
    """What else an encoder's tokenizer puts around a text was not there in training."""
    task = TextGeneration(TextGenerationConfig(), Vocabulary.of(tokenizer))
    (row,) = task.encode([{"text": "one two"}], tokenizer, max_length=32)
    assert row["input_ids"].tolist() == tokenizer.encode_plain(["one two"])[0].tolist()
    begins = Tokenizer(tokenizer.folder)
    begins.bos_id = tokenizer.cls_id
    (row,) = task.encode([{"text": "one two"}], begins, max_length=32)
    assert row["input_ids"].tolist() == [tokenizer.cls_id, *tokenizer.encode_plain(["one two"])[0].tolist()]


def test_the_command_line_and_files(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    options = ["--set", "max_new_tokens=6", "--set", "no_repeat_ngram_size=2"]
    expected = texts(bundle.predict(PROMPTS, max_new_tokens=6, no_repeat_ngram_size=2))
    done = CliRunner().invoke(app, ["predict", str(folder), PROMPTS[0], "--json", *options])
    assert json.loads(done.stdout) == {"text": PROMPTS[0], "answer": [{"generated_text": expected[0][0]}]}
    plain = CliRunner().invoke(app, ["predict", str(folder), PROMPTS[0], *options])
    assert plain.stdout.strip() == expected[0][0].strip()
    files.write_text(tmp_path / "in.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in [*PROMPTS, ""]))
    lexloom.runs.verbs.predict_file(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", max_new_tokens=6, no_repeat_ngram_size=2)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [[one["generated_text"] for one in row["answers"]] for row in rows] == expected
    assert "no token to go on with" in (tmp_path / "out.jsonl.bad-rows.jsonl").read_text(encoding="utf-8")


def test_scores_are_for_the_very_text() -> None:
    rows = [{"text": "one two", "label": " three"}, {"text": "four", "label": " five"}]
    for whole, gold in ((True, ["onetwothree", "fourfive"]), (False, ["three", "five"])):
        task = TextGeneration(TextGenerationConfig(return_full_text=whole), Vocabulary(9, None, frozenset(), {}))
        assert task.gold(rows) == gold
        assert task.score(gold, [[{"generated_text": f" {gold[0]}\n"}], [{"generated_text": "six"}]]) == {"accuracy": 0.5}


def test_settings_of_the_bundle_are_those_of_transformers(bundle: Bundle) -> None:
    assert bundle.generation_config == GenerationConfig.read(
        {"bos_token_id": bundle.tokenizer.bos_id, "eos_token_id": bundle.tokenizer.eos_id, "pad_token_id": bundle.tokenizer.pad_id}
    )
