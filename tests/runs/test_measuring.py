"""Language models measured as they are: perplexity of texts, minimal pairs, cloze; what is said of them and what is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lexloom
from lexloom.console import Console
from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.models.bert import Bert
from lexloom.runs.evaluate import evaluate, show
from lexloom.tasks.likelihoods.base import Likelihood, Sureness
from lexloom.tasks.measures.base import MEASURES
from lexloom.tasks.measures.cloze import Cloze, ClozeConfig
from lexloom.tasks.measures.minimal_pairs import MinimalPairs, MinimalPairsConfig
from tests.tasks.test_likelihoods import bundle, tokenizer

NAMES = ("bundle, int8", "other")
SENTENCES = [("the cat sat", "cat the sat"), ("mat the dog", "a dog and a")]
PAIRS = [
    {"UID": f"kind {i % 4}", "term": "agreement" if i < 20 else "islands", "sentence_good": f"{good} {i}", "sentence_bad": f"{bad} {i}"}
    for i in range(40)
    for good, bad in [SENTENCES[i % 2][:: (1, -1)[i % 3 == 0]]]
]


class Told(Likelihood):
    """A likelihood out of a table: what measures make of it can be seen."""

    role = "causal-lm"

    def __init__(self, table: dict[str, list[tuple[float, bool]]]) -> None:
        self.table, self.tokenizer = table, tokenizer("causal-lm")

    def __call__(self, texts: Any, *, stride: int | None = None) -> list[Sureness]:
        found = [self.table[text] for text in texts]
        return [Sureness(np.asarray([log for log, _ in row]), np.asarray([best for _, best in row], dtype=bool)) for row in found]


def gpt(name: str = "gpt2") -> Bundle:
    return bundle(name, "causal-lm")


def values(found: Any) -> dict[str, float]:
    return {score["metric"]: score["value"] for score in found.comparison.scores}


def test_text_is_measured_a_token_and_a_byte() -> None:
    made, texts = gpt(), [f"the cat and the dog {i} 深" for i in range(30)]
    found = evaluate(made, [{"text": text} for text in texts], resamples=100)
    logs = np.concatenate([sure.logs for sure in made.likelihood()(texts)])
    told = values(found)
    assert told["loss"] == pytest.approx(-logs.mean()) and told["perplexity"] == pytest.approx(math.exp(-logs.mean()))
    assert told["bits_per_byte"] == pytest.approx(-logs.sum() / math.log(2) / sum(len(text.encode()) for text in texts))
    assert (found.task, found.n, found.comparison.scores[0]["n"], found.notes) == ("language-model", 30, 30, [])
    assert found.comparison.scores[0]["low"] < told["bits_per_byte"] < found.comparison.scores[0]["high"]


def test_one_long_text_has_an_interval_too(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    lines = "\n".join(f"the cat sat on the mat\n\nand a dog {i}" for i in range(200))
    path.write_text(lines, encoding="utf-8")
    made = gpt()
    found = evaluate(made, path, resamples=100)
    assert found.n == 1 and found.comparison.scores[0]["n"] == round(len(lines) / 1024) > 3
    assert found.comparison.scores[0]["low"] < found.comparison.scores[0]["high"] and "kilobytes" in found.notes[0]
    assert values(found)["loss"] == pytest.approx(-made.likelihood()([lines])[0].logs.mean())
    nearer = evaluate(made, path, settings={"stride": 2}, resamples=10)
    assert values(nearer)["loss"] != values(found)["loss"]


def test_tokenizers_are_compared_by_the_byte(tmp_path: Path) -> None:
    rows = [{"text": "the cat and the dog " * 300}]
    found = evaluate(gpt(), rows, against=gpt("llama"), resamples=50)
    assert [d["metric"] for d in found.comparison.differences] == ["bits_per_byte"]
    assert len({score["n"] for score in found.comparison.scores}) == 1


def test_what_a_dtype_costs_is_the_difference_to_the_same_model() -> None:
    made, rows = gpt(), [{"text": f"the cat and the dog {i}"} for i in range(30)]
    found = evaluate(made, rows, against=made, dtype="int8", resamples=50)
    low, whole = ({score["metric"]: score["value"] for score in found.comparison.scores if score["model"] == name} for name in NAMES)
    assert low == values(evaluate(made.to(dtype="int8"), rows, resamples=50)) and whole == values(evaluate(made.to(dtype="float32"), rows))
    assert 0 < abs(low["perplexity"] / whole["perplexity"] - 1) < 0.01 and made.dtype == "float32"
    with pytest.raises(ConfigError, match="one of these ways"):
        evaluate(made, rows, dtype="int4")


def test_pairs_are_scored_by_whole_sentences_and_shown_by_phenomenon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = gpt()
    found = evaluate(made, PAIRS, resamples=100)
    sums = [sure.logs.sum() for name in ("sentence_good", "sentence_bad") for sure in made.likelihood()([row[name] for row in PAIRS])]
    right = [a > b for a, b in zip(sums[:40], sums[40:], strict=True)]
    assert 0 < np.mean(right) == values(found)["accuracy"] < 1
    assert [(group["column"], group["group"], group["n"]) for group in found.groups] == [("term", "agreement", 20), ("term", "islands", 20)]
    assert found.groups[0]["scores"][0]["value"] == np.mean(right[:20])
    assert [group["group"] for group in evaluate(made, PAIRS, by="UID", resamples=10).groups] == [f"kind {i}" for i in range(4)]
    show(found, Console())
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("95 % from", "By term", "islands", "a guess: 0.5"))
    show(found, Console(json=True))
    assert json.loads(capsys.readouterr().out)["groups"][1]["scores"][0]["n"] == 20


def test_ties_count_half() -> None:
    table = {"a": [(-1.0, True), (-2.0, True)], "b": [(-3.0, True)], "c": [(-2.0, True)]}
    rows = [{"sentence_good": good, "sentence_bad": bad} for good, bad in ("ab", "ca", "bc", "aa")]
    measure = MinimalPairs(MinimalPairsConfig())
    answers = measure.answers(Told(table), rows)
    assert [answer["credit"] for answer in answers] == [0.5, 1.0, 0.0, 0.5]
    assert float(measure.statistics().value("accuracy", np.asarray(measure.statistics().rows([], answers).sum(axis=0)))) == 0.5


def test_an_encoder_is_measured_by_masking_each_token() -> None:
    made = bundle("bert", "masked-lm", tokenizer("masked-lm", "wordpiece"))
    found = evaluate(made, PAIRS, resamples=10)
    assert found.task == "minimal-pairs" and "pseudo-likelihood" in found.notes[0]
    both = evaluate(made, PAIRS, against=gpt(), resamples=10)
    assert len(both.comparison.differences) == 1
    with pytest.raises(LexloomError, match="no figures of one kind"):
        evaluate(made, [{"text": "the cat"}], against=gpt())
    told = evaluate(made, [{"text": "the cat 🙂"}] * 3, resamples=10)
    assert any("unknown to the tokenizer" in note for note in told.notes)


def test_the_last_word_is_found_where_each_of_its_tokens_is_the_best() -> None:
    cut = len(tokenizer("causal-lm").encode_plain(["the cat"])[0])
    word = len(tokenizer("causal-lm").encode_plain(["the cat xyzzy"])[0]) - cut
    before, after = [(-1.0, False)] * cut, [(-0.5, True)] * word
    measure = Cloze(ClozeConfig())
    rows = [{"text": "the cat xyzzy"}, {"text": "the cat xyzzy \n"}]
    found = measure.answers(Told({"the cat xyzzy": [*before, *after]}), rows)
    assert found[0] == {"row": 0, "word": "xyzzy", "found": True, "nats": 0.5 * word} == {**found[1], "row": 0}
    missed = measure.answers(Told({"the cat xyzzy": [*before, *after[:-1], (-9.0, False)]}), rows[:1])
    assert missed[0]["found"] is False and word > 1
    with pytest.raises(DataError, match="row 1: this passage has no last word"):
        measure.answers(Told({}), [{"text": "word"}])


def test_cloze_is_measured_where_it_is_asked_for() -> None:
    rows = [{"text": f"the cat sat on the mat and the dog sat {i}"} for i in range(6)]
    found = evaluate(gpt(), rows, measure="cloze", resamples=10)
    assert set(values(found)) == {"accuracy", "perplexity"} and found.task == "cloze"
    with pytest.raises(ConfigError, match="a head for causal-lm"):
        evaluate(bundle("bert", "masked-lm"), rows, measure="cloze")


@pytest.mark.parametrize(
    ("rows", "options", "problem"),
    [
        ([{"text": ""}] * 3, {}, "all rows are empty"),
        ([{"text": "a"}, {"text": 3}], {}, "row 2|rows:2"),
        ([{"sentence_good": "a", "sentence_bad": ""}], {}, "is empty"),
        ([{"text": "a"}], {"measure": "minimal-pairs"}, "no text under 'sentence_good'"),
        ([{"text": "a"}], {"measure": "perplexity"}, "no measure called 'perplexity'"),
        ([{"text": "a"}], {"settings": {"strid": 3}}, "strid"),
        ([{"text": "a"}], {"by": "sorce"}, "no column 'sorce'"),
        ([], {}, "no rows"),
    ],
)
def test_what_cannot_be_measured_is_named(rows: list[dict[str, Any]], options: dict[str, Any], problem: str) -> None:
    with pytest.raises(LexloomError, match=problem):
        evaluate(gpt(), rows, resamples=10, **options)


def test_settings_are_refused_where_a_task_is_scored() -> None:
    classifier = Bundle(Network.build(Bert, Bert.Config.read(Bert.TINY), ["sequence-classification"], seed=1), tokenizer("masked-lm"))
    with pytest.raises(ConfigError, match="settings are for measures"):
        evaluate(classifier, [{"text": "a", "label": "b"}], settings={"stride": 3})
    with pytest.raises(ConfigError, match="cannot be measured"):
        evaluate(classifier, [{"text": "a"}], measure="language-model")


def test_the_verb_takes_files_and_lists_what_there_is(tmp_path: Path) -> None:
    folder = gpt().save(tmp_path / "gpt")
    found = lexloom.evaluate(folder, PAIRS, measure="minimal-pairs", console=Console(quiet=True))
    assert found.verdict.startswith("Gpt has") and found.bundle == "gpt"
    measures = {row["name"]: row["what"] for row in lexloom.components("measures")}
    assert set(measures) == set(MEASURES.names()) >= {"language-model", "minimal-pairs", "cloze"}
    assert all(len(what) > 20 for what in measures.values())
    sizes = {row["name"]: row["what"] for row in lexloom.components("presets")}
    assert sizes["gpt2-small"] == "gpt2: 12 layers × 768, 124.4 M parameters"
    assert {"bert-tiny", "bert-base", "bert-large", "roberta-base", "modernbert-base", "gpt2-xl"} <= set(sizes)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_other_harness_says_the_same_of_the_bundle_as_it_is(kind: str, tmp_path: Path) -> None:
    """EleutherAI's lm-eval, where it is installed: sums of both sentences, its accuracy, and a long text in windows."""
    pytest.importorskip("lm_eval")
    folder, long = gpt(kind).save(tmp_path / kind), " ".join(f"the cat {i} sat" for i in range(60))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("oracle_lm_eval.py")), str(folder), str(tmp_path / "pairs.jsonl"), long]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "HF_HOME": str(tmp_path / "hf")})
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    opened = Bundle.load(folder)
    likelihood = opened.likelihood()
    sums = [[sure.logs.sum() for sure in likelihood([row[name] for row in PAIRS])] for name in ("sentence_good", "sentence_bad")]
    np.testing.assert_allclose(np.transpose(sums), theirs["pairs"], atol=1e-4)
    assert values(evaluate(opened, PAIRS, resamples=10))["accuracy"] == theirs["accuracy"]
    assert likelihood([long], stride=likelihood.room)[0].logs.sum() == pytest.approx(theirs["long"], rel=1e-6)
