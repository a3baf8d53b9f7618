"""Text to text: what encoder–decoders write for texts of mixed length, under which settings, and what `transformers` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import lexloom
from lexloom import files, keys
from lexloom.cli import app
from lexloom.errors import ConfigError, DataError, TokenizerError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.nn.decoding import GenerationConfig
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.text_to_text import TextToText, TextToTextConfig, begins
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.tasks.conftest import TEXTS

SOURCES = ["a warm film", "The capital of France is Paris. Two and two make four.", "这家酒店", "one two three four five six", "e"]
ROLES = frozenset({"seq-to-seq"})
KINDS = [name for name in ARCHITECTURES.names() if ROLES in ARCHITECTURES.get(name).ROLES]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, TokenizerConfig(kind="byte-bpe", vocab_size=320)).with_max_length(64)


def made(name: str, words: Tokenizer, **settings: Any) -> Bundle:
    """A tiny network drawn so that texts differ."""
    kind = ARCHITECTURES.get(name)
    model = {**kind.TINY, "init_std": 0.3, "max_position_embeddings": 64, "tie_word_embeddings": False, **settings}
    config = kind.Config.read(kind.fitted(model, length=64, vocabulary=len(words), ids=words.ids))
    task = TextToText(TextToTextConfig(), Vocabulary.of(words))
    return Bundle(Network.build(kind, config, ROLES, seed=4), words, task)


@pytest.fixture(scope="module")
def bundles(words: Tokenizer) -> dict[str, Bundle]:
    return {name: made(name, words) for name in KINDS}


@pytest.fixture(params=KINDS)
def bundle(request: pytest.FixtureRequest, bundles: dict[str, Bundle]) -> Bundle:
    return bundles[request.param]


def test_what_transformers_writes(bundle: Bundle, tmp_path: Path) -> None:
    """Each text by itself there, all at once here."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder = bundle.save(tmp_path / "bundle")
    model, theirs, opened = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), Bundle.load(folder)
    asked: list[dict[str, Any]] = [
        {"max_new_tokens": 12},
        {"max_new_tokens": 12, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
        {"max_length": 14, "min_length": 9},
        {"max_new_tokens": 9, "num_beams": 3, "num_return_sequences": 2, "length_penalty": 2.0, "early_stopping": True},
    ]
    seen = set()
    for options in asked:
        ours = opened.predict(SOURCES, **options)
        assert ours == bundle.predict(SOURCES, **options)
        for source, answer in zip(SOURCES, ours, strict=True):
            batch = {name: tensor for name, tensor in theirs([source], return_tensors="pt").items() if name != "token_type_ids"}
            written = theirs.batch_decode(model.generate(**batch, **options, do_sample=False), skip_special_tokens=True)
            expected = [{"generated_text": text} for text in written]
            assert answer == (expected if options.get("num_return_sequences") else expected[0])
        seen.add(str(ours))
    assert len(seen) == len(asked) and len({str(answer) for answer in opened.predict(SOURCES, max_new_tokens=12)}) > 2


def test_drawing_is_a_function_of_seed_and_text(bundle: Bundle) -> None:
    options = {"do_sample": True, "max_new_tokens": 8, "num_return_sequences": 3}
    first = bundle.predict(SOURCES, **options)
    assert all(len({one["generated_text"] for one in answer}) == 3 for answer in first)
    assert bundle.predict(SOURCES[::-1], **options) == first[::-1] and bundle.predict(SOURCES, batch_tokens=1, **options) == first
    assert bundle.predict(SOURCES, seed=2, **options) != first


def test_forced_tokens_and_stop_strings(bundle: Bundle) -> None:
    words, config = bundle.tokenizer, bundle.network.backbone.config
    first, last = (int(words.encode_plain([text])[0][0]) for text in ("one", "."))
    for beams in (1, 3):
        options = {"num_beams": beams, "max_new_tokens": 6, "suppress_tokens": [config.eos_token_id]}
        found = bundle.predict(SOURCES, forced_bos_token_id=first, forced_eos_token_id=last, **options)
        assert all(one["generated_text"].startswith("one") and one["generated_text"].endswith(".") for one in found)
        assert found != (stopped := bundle.predict(SOURCES, forced_bos_token_id=first, stop_sequence="one", **_but(options)))
        assert stopped == [{"generated_text": "one"}] * len(SOURCES)


def _but(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "suppress_tokens"}


def test_settings_of_the_folder_are_the_default(bundle: Bundle, tmp_path: Path) -> None:
    wanted = bundle.predict(SOURCES, num_beams=3, max_new_tokens=7)
    loaded = Bundle.load(bundle.save(tmp_path / "bundle"))
    loaded.generation = {**files.read_json(tmp_path / "bundle/generation_config.json"), "num_beams": 3, "max_length": 8}
    again = Bundle.load(loaded.save(tmp_path / "again"))
    assert again.predict(SOURCES) == wanted != again.predict(SOURCES, num_beams=1)
    older = tmp_path / "again"  # has them in its config.json
    files.write_json(older / "config.json", files.read_json(older / "config.json") | {"num_beams": 3, "max_length": 8, "top_k": None})
    (older / "generation_config.json").unlink()
    assert Bundle.load(older).predict(SOURCES) == wanted
    assert Bundle.load(Bundle.load(older).save(tmp_path / "new")).predict(SOURCES) == wanted
    files.write_json(older / "config.json", files.read_json(older / "config.json") | {"num_beam_groups": 3})
    with pytest.raises(ConfigError, match="num_beam_groups is not supported"):
        Bundle.load(older).predict(SOURCES)


@pytest.mark.parametrize(
    ("text", "options", "error", "said"),
    [
        ("", {}, DataError, "row 2: this text gives no token to write something for"),
        ("one two " * 90, {}, DataError, "row 2: this text is longer than the model's context"),
        ("one", {"forced_eos_token_id": 5, "suppress_tokens": [5]}, ConfigError, "forced_eos_token_id forces a token that is banned"),
        ("one", {"forced_bos_token_id": 5, "bad_words_ids": [[5]]}, ConfigError, "forced_bos_token_id forces a token that is banned"),
        ("one", {"bad_words_ids": [[9999]]}, ConfigError, "bad_words_ids is outside the vocabulary"),
        ("one", {"decoder_start_token_id": 9999}, DataError, "a prompt has an id outside the vocabulary"),
        ("one", {"max_length": 1}, DataError, "max_length counts the prompt too"),
        ("one", {"return_full_text": True}, ConfigError, "return_full_text"),
    ],
)
def test_bad_input_is_named_before_the_first_step(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, text: str, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    def step(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(bundle.network.backbone, "forward", step)
    with pytest.raises(error, match=said):
        bundle.predict([SOURCES[0], text], **options)


def test_a_text_that_fills_the_context_is_answered(bundle: Bundle) -> None:
    whole = "one two three " * 90
    ids = bundle.tokenizer.encode_plain([whole])[0][:62]
    text = bundle.tokenizer.decode(ids.tolist())
    assert len(bundle.tokenizer.encode([text])[0]["input_ids"]) == 64
    assert len(bundle.predict([text, "e"], max_new_tokens=3)) == 2


def test_what_begins_an_answer(bundle: Bundle) -> None:
    network = bundle.network
    own = network.backbone.config.decoder_start_token_id
    assert begins(network, GenerationConfig.read({"bos_token_id": 9})) == own
    assert begins(network, GenerationConfig.read({"decoder_start_token_id": 7, "bos_token_id": 9})) == 7
    other = Network.build(
        ARCHITECTURES.get("bert"), ARCHITECTURES.get("bert").Config.read(dict(ARCHITECTURES.get("bert").TINY)), (), seed=1
    )
    assert begins(other, GenerationConfig.read({"bos_token_id": 9})) == 9
    with pytest.raises(ConfigError, match="nothing says with which token an answer begins"):
        begins(other, GenerationConfig.read({}))


def test_answers_of_another_vocabulary_are_refused(words: Tokenizer) -> None:
    other = made("marian", words, share_encoder_decoder_embeddings=False, decoder_vocab_size=len(words) - 9)
    with pytest.raises(ConfigError, match="a vocabulary that the bundle has no tokenizer for"):
        other.predict(SOURCES)


def test_weights_of_8_bits(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.save(tmp_path / "bundle")
    small = Bundle.load(folder).to(dtype="int8")
    first = small.predict(SOURCES, max_new_tokens=6)
    assert first == small.predict(SOURCES, max_new_tokens=6) and len({str(answer) for answer in first}) > 1
    again = Bundle.load(small.save(tmp_path / "small"))
    assert again.dtype == "int8" and again.predict(SOURCES, max_new_tokens=6) == first
    assert (tmp_path / "small/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_the_command_line_and_files(bundle: Bundle, tmp_path: Path) -> None:
    folder, options = bundle.save(tmp_path / "bundle"), ["--set", "max_new_tokens=6", "--set", "num_beams=2"]
    expected = bundle.predict(SOURCES, max_new_tokens=6, num_beams=2)
    done = CliRunner().invoke(app, ["predict", str(folder), SOURCES[0], "--json", *options])
    assert json.loads(done.stdout) == {"text": SOURCES[0], "answer": expected[0]}
    plain = CliRunner().invoke(app, ["predict", str(folder), *SOURCES[:2], *options])
    assert plain.stdout.strip() == "\n".join(one["generated_text"].strip("\n") for one in expected[:2]).strip()
    files.write_text(tmp_path / "in.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in [*SOURCES, ""]))
    lexloom.runs.verbs.predict_file(folder, tmp_path / "in.jsonl", tmp_path / "out.jsonl", max_new_tokens=6, num_beams=2)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["answers"] for row in rows] == expected
    assert "gives no token" in (tmp_path / "out.jsonl.bad-rows.jsonl").read_text(encoding="utf-8")


def test_an_empty_answer_is_shown_as_one(bundle: Bundle, tmp_path: Path) -> None:
    folder, end = bundle.save(tmp_path / "bundle"), bundle.network.backbone.config.eos_token_id
    plain = CliRunner().invoke(app, ["predict", str(folder), "one", "--set", f"forced_bos_token_id={end}"])
    assert (plain.exit_code, plain.stdout.strip()) == (0, "")


PAIRS = [{"text": "eins zwei", "label": "one two"}, {"text": "drei", "label": " three"}]


def test_scores_are_of_the_first_answer(words: Tokenizer) -> None:
    task = TextToText(TextToTextConfig(), Vocabulary.of(words))
    gold = task.gold(PAIRS)
    assert gold == ["one two", "three"]
    answers: list[Any] = [{"generated_text": " one\ttwo\n"}, [{"generated_text": "four"}, {"generated_text": "three"}]]
    assert task.score(gold, answers)["accuracy"] == 0.5 and 0.5 < task.score(gold, answers)["chrf"] < 1.0
    assert task.decided(task.untaught(PAIRS)) == ["eins zwei", "drei"]


def test_what_is_learned_from_a_pair(words: Tokenizer) -> None:
    task = TextToText(TextToTextConfig(label_smoothing=0.1), Vocabulary.of(words))
    first, second = task.encode(PAIRS, words, max_length=16, labelled=True)
    assert (
        words.decode(first["input_ids"].tolist()).strip() == "eins zwei" and words.decode(first["target_ids"].tolist()).strip() == "one two"
    )
    assert first["target_ids"].tolist() == words.encode(["one two"])[0]["input_ids"].tolist()
    assert task.length(first) == max(len(first["input_ids"]), len(first["target_ids"])) and second["row"] == 1
    assert task.parts == {"seq-to-seq": 1.0, "seq-to-seq unsmoothed": 0.0}
    batch = task.collate([first, second], keys.key(1, np.arange(2)), length=16, size=3)
    assert batch.counts["seq-to-seq"] == len(first["target_ids"]) + len(second["target_ids"]) == batch["target_weights"].sum()


def test_pairs_that_do_not_fit_are_not_learned_from(words: Tokenizer) -> None:
    long = "one two three " * 9
    rows = [*PAIRS, {"text": long, "label": "one"}, {"text": "one", "label": long}, {"text": "", "label": "one"}]
    task, cut = (TextToText(TextToTextConfig.read(settings), Vocabulary.of(words)) for settings in ({}, {"long_texts": "cut"}))
    assert [row["row"] for row in task.encode(rows, words, max_length=16, labelled=True)] == [0, 1]
    found = cut.encode(rows, words, max_length=16, labelled=True)
    assert [(row["row"], row["cut"], len(row["input_ids"])) for row in found][2:] == [(2, True, 16)]
    assert len(cut.encode([{"text": long}], words, max_length=16)[0]["input_ids"]) == 16
    with pytest.raises(DataError, match="there is no pair to learn from"):
        task.encode(rows[2:], words, max_length=16, labelled=True)
    with pytest.raises(DataError, match="row 2: this row has no label"):
        task.encode([PAIRS[0], {"text": "one", "label": ""}], words, max_length=16, labelled=True)


def test_without_a_token_that_ends_a_text_nothing_is_learned() -> None:
    bare = train_tokenizer(TEXTS * 3, TokenizerConfig(kind="byte-bpe", vocab_size=320, template="none"))
    with pytest.raises(TokenizerError, match="a special token at the end of a text"):
        TextToText(TextToTextConfig(), Vocabulary.of(bare)).encode(PAIRS, bare, max_length=16, labelled=True)
