"""Mistakes that people make: each gives a message with its place, the hint that helps, and the right exit code. Never a traceback."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lexloom import cli

GOOD = """\
name: good
prepare: {sources: [texts.txt], documents: line, language: en}
tokenizer: {kind: wordpiece, vocab_size: 200}
pretrain:
  model: {kind: bert, preset: bert-tiny}
  objective: [masked-lm, next-sentence]
  train: {tokens: 20k}
finetune:
  topics: {task: text-classification, data: {train: train.jsonl, test: test.jsonl}, train: {epochs: 1}}
"""
PHASES = """\
pretrain:
  - {model: {kind: bert, preset: bert-tiny}, objective: masked-lm, train: {tokens: 20k}}
  - {model: {kind: bert, preset: bert-mini}, objective: masked-lm, train: {tokens: 20k}}
"""


@dataclass(frozen=True)
class Mistake:
    """A change to the good recipe or to its data, and what the user must be told."""

    name: str
    change: Callable[[Path], None]
    code: int
    told: tuple[str, ...]
    command: tuple[str, ...] = ("run", "recipe.yaml", "--out", "out")


def swap(old: str, new: str, *more: str) -> Callable[[Path], None]:
    """The good recipe with `old` replaced, and as many more pairs as are given."""

    def change(folder: Path) -> None:
        text = GOOD
        for before, after in zip((old, *more[::2]), (new, *more[1::2]), strict=True):
            assert before in text
            text = text.replace(before, after)
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")

    return change


def file(name: str, content: bytes) -> Callable[[Path], None]:
    """Another content for one of the files."""
    return lambda folder: (folder / name).write_bytes(content) and None


def nothing(folder: Path) -> None:
    """The command line itself is the mistake."""


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


MISTAKES = [
    Mistake("misspelt stage", swap("tokenizer:", "tokeniser:"), 2, ("recipe.yaml:3:1", "'tokeniser'", "did you mean 'tokenizer'")),
    Mistake("misspelt setting", swap("vocab_size", "vocab_sise"), 2, ("recipe.yaml:3:30", "did you mean 'vocab_size'")),
    Mistake("a peer's name", swap("epochs: 1", "num_train_epochs: 1"), 2, ("recipe.yaml:9", "did you mean 'epochs'")),
    Mistake("another peer's name", swap("tokens: 20k", "max_steps: 20"), 2, ("recipe.yaml:7", "did you mean 'steps'")),
    Mistake("misspelt architecture", swap("kind: bert,", "kind: brt,"), 2, ("recipe.yaml:5", "architecture", "did you mean 'bert'")),
    Mistake("misspelt preset", swap("bert-tiny", "bert-tinny"), 2, ("recipe.yaml:5", "did you mean 'bert-tiny'")),
    Mistake("misspelt objective", swap("next-sentence]", "next-sentense]"), 2, ("recipe.yaml:6", "did you mean 'next-sentence'")),
    Mistake("misspelt task", swap("task: text-classification", "task: text-clasification"), 2, ("did you mean 'text-classification'",)),
    Mistake("misspelt tokenizer kind", swap("wordpiece", "word-piece"), 2, ("recipe.yaml:3", "did you mean 'wordpiece'")),
    Mistake("no for false", swap("vocab_size: 200", "lowercase: no"), 2, ("recipe.yaml:3", "true or false", "write false")),
    Mistake("a number in quotes", swap("tokens: 20k", "steps: 2, learning_rate: '1e-3'"), 2, ("learning_rate", "take the quotes away")),
    Mistake("text without quotes", swap("name: good", "name: 007"), 2, ("recipe.yaml:1", "007", "in quotes")),
    Mistake("a count that is none", swap("20k", "some"), 2, ("recipe.yaml:7", "20000, 20k or 100M", "some")),
    Mistake(
        "two amounts",
        swap("tokens: 20k", "tokens: 20k, steps: 5"),
        2,
        ("one of tokens, steps, epochs, budget and until, not tokens and steps",),
    ),
    Mistake("no amount", swap("{tokens: 20k}", "{learning_rate: 1e-3}"), 2, ("recipe.yaml:4", "tokens, steps, epochs, budget or until")),
    Mistake("a list for a mapping", swap("{sources: [texts.txt], documents: line, language: en}", "[texts.txt]"), 2, ("a mapping",)),
    Mistake("a key twice", swap("name: good", "name: good\nname: better"), 2, ("recipe.yaml:2:1", "twice")),
    Mistake("broken YAML", swap("{kind: wordpiece, vocab_size: 200}", "{kind: wordpiece"), 2, ("recipe.yaml:", "not valid YAML")),
    Mistake("a source that is not there", swap("[texts.txt]", "[text.txt]"), 2, ("recipe.yaml:2", "did you mean 'texts.txt'")),
    Mistake("training rows that are not there", swap("train.jsonl", "trian.jsonl"), 2, ("did you mean 'train.jsonl'",)),
    Mistake("no corpus", swap("prepare: {sources: [texts.txt], documents: line, language: en}\n", ""), 2, ("needs a corpus", "prepare:")),
    Mistake(
        "heads that do not divide the width",
        swap("preset: bert-tiny", "hidden_size: 30, num_attention_heads: 4"),
        2,
        ("30", "4", "divides"),
    ),
    Mistake(
        "sentence pairs on RoBERTa",
        swap("{kind: bert, preset: bert-tiny}", "{kind: roberta, preset: roberta-mini}"),
        2,
        ("recipe.yaml:6", "roberta cannot learn this objective", "masked-lm + next-sentence", "bert can"),
    ),
    Mistake(
        "denoising on a decoder",
        swap("bert, preset: bert-tiny", "gpt2", "[masked-lm, next-sentence]", "denoising"),
        2,
        ("recipe.yaml:6", "gpt2 cannot learn this objective", "cross-attention", "bart, marian can"),
    ),
    Mistake(
        "masks on an encoder–decoder",
        swap("bert, preset: bert-tiny", "bart", "[masked-lm, next-sentence]", "masked-lm"),
        2,
        ("recipe.yaml:6", "bart cannot learn this objective", "heads masked-lm", "bert, modernbert, roberta can"),
    ),
    Mistake(
        "classes from a decoder",
        swap("bert, preset: bert-tiny", "gpt2", "[masked-lm, next-sentence]", "causal-lm"),
        2,
        ("recipe.yaml:9", "gpt2 cannot do text-classification", "bert"),
    ),
    Mistake(
        "a text to fill without a mask",
        swap("  train: {tokens: 20k}", '  train: {tokens: 20k}\n  fills: ["no mask here"]'),
        2,
        ("row 1: fills: this text has no mask", "a text with [MASK]"),
    ),
    Mistake("a task that is not fine-tuned", swap("text-classification", "fill-mask"), 2, ("recipe.yaml:9", "fill-mask is not fine-tuned")),
    Mistake(
        "another network in a later phase",
        swap(GOOD[GOOD.index("pretrain:") : GOOD.index("finetune:")], PHASES),
        2,
        ("recipe.yaml:6", "goes on with the network of the one before it", "take model: away"),
    ),
    Mistake("an unknown baseline", swap("train: {epochs: 1}", "baselines: [tf-idf]"), 2, ("did you mean 'tfidf'",)),
    Mistake("an empty recipe", file("recipe.yaml", b""), 2, ("recipe is empty", "prepare, tokenizer, vectors, pretrain, finetune")),
    Mistake("a recipe that is not there", nothing, 2, ("recipe.yml", "did you mean", "recipe.yaml"), ("run", "recipe.yml")),
    Mistake("a recipe that is no text", file("recipe.yaml", b"name: \xff\xfe"), 2, ("not UTF-8",)),
    Mistake("--set without a value", nothing, 2, ("a.b=value",), ("run", "recipe.yaml", "--set", "seed")),
    Mistake("--set of an unknown key", nothing, 2, ("--set sed=3", "did you mean 'seed'"), ("run", "recipe.yaml", "--set", "sed=3")),
    Mistake("an empty corpus", file("texts.txt", b"\n\n"), 3, ("texts.txt",)),
    Mistake("one label only", file("train.jsonl", jsonl(*[{"text": f"a {i}", "label": "x"} for i in range(20)])), 3, ("same label",)),
    Mistake("a label that training never saw", file("test.jsonl", jsonl({"text": "a", "label": "weathr"})), 3, ("test.jsonl:1", "weather")),
    Mistake(
        "a column that is not there",
        file("train.jsonl", jsonl(*[{"text": "a", "lable": i % 2} for i in range(20)])),
        3,
        ("label", "lable"),
    ),
    Mistake("rows that are no JSON", file("train.jsonl", b"text\tlabel\nhello\tx\n"), 3, ("train.jsonl",)),
    Mistake("a cut gzip", file("texts.txt.gz", gzip.compress(b"A line of text.\n" * 99)[:-20]), 3, ("texts.txt.gz",)),
    Mistake("no model folder", nothing, 1, ("config.json",), ("predict", ".", "hello")),
    Mistake("nothing to answer", nothing, 2, ("--input",), ("predict", ".")),
    Mistake("an unknown kind of list", nothing, 2, ("did you mean 'models'",), ("list", "model")),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_is_explained(
    mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = ("weather", "sports")
    rows = [{"text": f"text number {i} about {topics[i % 2]}", "label": topics[i % 2]} for i in range(40)]
    (tmp_path / "recipe.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "texts.txt").write_text("\n".join(f"Line {i} says something. It says more." for i in range(300)), encoding="utf-8")
    (tmp_path / "train.jsonl").write_bytes(jsonl(*rows))
    (tmp_path / "test.jsonl").write_bytes(jsonl(*rows[:10]))
    mistake.change(tmp_path)
    command = mistake.command
    if "gz" in mistake.name or "gzip" in mistake.name:
        command = ("prepare", "texts.txt.gz", "--out", "out", "--set", "strict=true")
    elif mistake.code == 3 and "corpus" not in mistake.name:  # faults of labelled rows show in fine-tuning; start from the smallest model
        bundle(tmp_path / "start")
        command = ("finetune", "start", "--train", "train.jsonl", "--test", "test.jsonl", "--out", "out")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lexloom", *command])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "fault of lexloom" not in said, said
    for piece in mistake.told:
        assert piece in said, said
    assert stopped.value.code == mistake.code, said


def bundle(folder: Path) -> None:
    """The smallest BERT, untrained."""
    from lexloom.hub.bundle import Bundle
    from lexloom.models.base import Network
    from lexloom.models.bert import Bert
    from lexloom.text.tokenizer import TokenizerConfig, train_tokenizer

    texts = ["text number one about weather", "text number two about sports"] * 20
    tokenizer = train_tokenizer(texts, TokenizerConfig(kind="wordpiece", vocab_size=60))
    config = Bert.Config.read({**Bert.TINY, "vocab_size": len(tokenizer)})
    Bundle(Network.build(Bert, config, (), seed=1), tokenizer).save(folder)


def test_thirty_at_least() -> None:
    assert len(MISTAKES) >= 30
