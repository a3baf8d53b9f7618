from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lexloom.console import Console
from lexloom.errors import DataError, FormatError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.models.bert import Bert, BertConfig
from lexloom.objectives.base import Vocabulary
from lexloom.runs.evaluate import (
    FINE_TUNED,
    MAJORITY,
    TFIDF,
    evaluate,
    majority_answers,
    show,
    summary,
    write_seen,
)
from lexloom.tasks.classification import TextClassification, TextClassificationConfig
from lexloom.tasks.columns import ColumnsConfig
from lexloom.tasks.fill_mask import FillMask, FillMaskConfig
from lexloom.tasks.tfidf import TfidfClassifier
from lexloom.text.rows import Placed
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

WORDS = ["warm", "funny", "bright", "kind", "dull", "ugly", "slow", "cold"]


def text_rows(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows whose first word says the label."""
    rows = []
    for i in range(start, start + n):
        word = WORDS[i % 8]
        rows.append({"text": f"a {word} film number {i}", "label": "good" if i % 8 < 4 else "bad", "source": "odd" if i % 2 else "even"})
    return rows


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([row["text"] for row in text_rows(40)], TokenizerConfig(vocab_size=120, min_frequency=1))


def small(tokenizer: Tokenizer, *, labels: Sequence[str] = ("bad", "good"), seed: int = 1, **settings: Any) -> Bundle:
    """An untrained classifier: its answers are arbitrary, and always the same."""
    config = BertConfig.read({**Bert.TINY, "vocab_size": len(tokenizer)})
    network = Network.build(Bert, config, ["sequence-classification"], labels=len(labels), seed=seed)
    task = TextClassification(TextClassificationConfig.read(settings), Vocabulary.of(tokenizer), labels)
    return Bundle(network, tokenizer, task, about={"labels": {"bad": 30, "good": 10}})


def baseline(seed: int = 1) -> TfidfClassifier:
    rows = text_rows(40)
    return TfidfClassifier.fit([row["text"] for row in rows], None, [row["label"] for row in rows], seed=seed)


@pytest.fixture(scope="module")
def run(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning run: bundle, baselines, test rows."""
    folder = tmp_path_factory.mktemp("run") / "topics"
    small(tokenizer).save(folder / "bundle")
    baseline().save(folder / "baselines" / "tfidf")
    write_seen(folder / "baselines", [row["text"] for row in text_rows(40)])
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text_rows(64, 100)), encoding="utf-8")
    return folder


def model_names(found: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in found))


def test_the_summary_of_a_stage(tokenizer: Tokenizer) -> None:
    bundle, rows = small(tokenizer), [Placed(row, "test.jsonl", i + 1) for i, row in enumerate(text_rows(24))]
    assert isinstance(bundle.task, TextClassification)
    answers = {FINE_TUNED: [bundle.predict([row.row for row in rows])] * 2, MAJORITY: [majority_answers({"bad": 30, "good": 10}, 24)]}
    found = summary(bundle.task, rows, answers, seed=1, notes={FINE_TUNED: "on validation rows"})
    assert set(found) == {"scores", "differences", "verdict", "confusion", "examples"}
    assert found["confusion"]["labels"] == ["bad", "good"] and sum(map(sum, found["confusion"]["counts"])) == 24
    assert [s["note"] for s in found["scores"][:2]] == ["on validation rows", ""]
    assert (found["scores"][0]["seeds"], found["scores"][1]["value"]) == (2, 0.5)


def test_a_bundle_stands_beside_its_baselines(run: Path) -> None:
    found = evaluate(run / "bundle", run / "test.jsonl", resamples=100)
    assert model_names(found.comparison.scores) == ["topics/bundle", TFIDF, MAJORITY]
    values = {row["model"]: row for row in found.comparison.scores if row["metric"] == "accuracy"}
    assert (values[TFIDF]["value"], values[MAJORITY]["value"], values[MAJORITY]["note"]) == (1.0, 0.5, "always 'bad'")
    assert (found.n, found.columns, found.task) == (64, "text: text, label: label", "text-classification")
    assert found.verdict.startswith("Use TF-IDF: ")
    assert found.notes == []
    assert json.loads(json.dumps(found.plain()))["n"] == 64


def test_another_bundle_is_compared_on_the_same_rows(run: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    other = small(tokenizer, seed=2).save(tmp_path / "other")
    found = evaluate(run / "bundle", run / "test.jsonl", against=other, resamples=100)
    assert model_names(found.comparison.scores)[:2] == ["topics/bundle", f"{tmp_path.name}/other"]
    difference = found.comparison.differences[0]
    values = [row["value"] for row in found.comparison.scores if row["metric"] == "accuracy"]
    assert difference["value"] == pytest.approx(values[0] - values[1])
    same = evaluate(run / "bundle", run / "test.jsonl", against=run / "bundle", resamples=100).comparison.differences[0]
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)


def test_the_baseline_is_a_bundle_too(run: Path) -> None:
    found = evaluate(run / "baselines" / "tfidf", run / "test.jsonl", against=run / "bundle", resamples=100)
    assert model_names(found.comparison.scores) == ["baselines/tfidf", "topics/bundle", MAJORITY]
    assert found.comparison.scores[0]["value"] == 1.0


def test_scores_by_group(run: Path) -> None:
    found = evaluate(run / "bundle", run / "test.jsonl", by="source", resamples=100)
    assert [(group["group"], group["n"]) for group in found.groups] == [("even", 32), ("odd", 32)]
    overall = found.comparison.scores[0]["value"]
    assert sum(group["scores"][0]["value"] * group["n"] for group in found.groups) == pytest.approx(overall * 64)
    with pytest.raises(DataError, match="did you mean 'source'"):
        evaluate(run / "bundle", run / "test.jsonl", by="sorce")


def test_rare_groups_are_taken_together(tokenizer: Tokenizer) -> None:
    rows = [{**row, "id": i if i < 60 else None} for i, row in enumerate(text_rows(64))]
    groups = evaluate(small(tokenizer), rows, by="id", resamples=10).groups
    assert (len(groups), groups[0]["group"], groups[0]["n"], groups[-1]["group"]) == (51, "(none)", 4, "(other)")
    assert sum(group["n"] for group in groups) == 64


def test_rows_that_were_trained_on_are_told(run: Path) -> None:
    seen = [{**row, "text": row["text"].upper() + " "} for row in text_rows(8)]
    found = evaluate(run / "bundle", run / "test.jsonl", resamples=10)
    assert found.notes == []
    again = evaluate(run / "bundle", [*seen, *text_rows(8, 200)], resamples=10)
    assert again.notes == ["8 of 16 rows stand word for word in the training rows: the scores may flatter"]


def test_without_a_run_around_it_what_is_missing_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    bundle = small(tokenizer)
    bundle.about = {}
    found = evaluate(bundle.save(tmp_path / "alone"), text_rows(20), resamples=10)
    assert model_names(found.comparison.scores) == ["alone", MAJORITY]
    assert "no TF-IDF baseline" in found.notes[0]
    assert "most frequent label of these rows" in found.comparison.scores[1]["note"]


def test_a_baseline_of_other_labels_is_not_taken(tokenizer: Tokenizer, run: Path, tmp_path: Path) -> None:
    small(tokenizer, labels=["good", "bad"]).save(tmp_path / "bundle")
    baseline().save(tmp_path / "baselines" / "tfidf")
    assert TFIDF not in model_names(evaluate(tmp_path / "bundle", text_rows(20), resamples=10).comparison.scores)


def test_files_with_other_column_names(tokenizer: Tokenizer, run: Path) -> None:
    bundle = small(tokenizer, columns={"text": "body", "label": "mood"})
    rows = [{"sentence": row["text"], "label": row["label"]} for row in text_rows(16)]
    found = evaluate(bundle, rows, resamples=10)
    assert found.columns == "text: sentence, label: label"
    assert "other names than in training" in found.notes[0]
    same = evaluate(bundle, [{"body": row["sentence"], "mood": row["label"]} for row in rows], resamples=10)
    assert same.comparison == found.comparison and same.columns == "text: body, label: mood"


def test_pairs(tokenizer: Tokenizer) -> None:
    rows = [{"sentence1": row["text"], "sentence2": "film", "label": row["label"]} for row in text_rows(16)]
    bundle = small(tokenizer, columns={"text": "sentence1", "pair": "sentence2", "label": "label"})
    found = evaluate(bundle, rows, resamples=10)
    assert "⏎ film" in found.examples[0]["text"]
    with pytest.raises(DataError, match="no column 'sentence2'"):
        evaluate(bundle, text_rows(16), resamples=10)


def test_filled_masks_are_scored(tokenizer: Tokenizer) -> None:
    config = BertConfig.read({**Bert.TINY, "vocab_size": len(tokenizer)})
    network = Network.build(Bert, config, ["masked-lm"], seed=1)
    bundle = Bundle(network, tokenizer, FillMask(FillMaskConfig(), Vocabulary.of(tokenizer)))
    found = evaluate(bundle, [{"text": "a [MASK] film", "label": "warm"}] * 4, resamples=10)
    assert [row["metric"] for row in found.comparison.scores] == ["accuracy"]
    assert (found.confusion, found.examples) == (None, [])


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "no rows"),
        ([{"text": "a", "label": "good"}, {"text": "a", "label": "godo"}], "'godo' was never seen"),
        ([{"text": "a"}], "no column 'label'"),
        ([{"label": "good"}], "no column 'text'"),
    ],
)
def test_rows_that_cannot_be_scored(tokenizer: Tokenizer, rows: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        evaluate(small(tokenizer), rows)


def test_bad_rows_are_left_out_and_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row) for row in text_rows(8)]
    path.write_text("\n".join([*lines[:3], "{broken", *lines[3:]]), encoding="utf-8")
    found = evaluate(small(tokenizer), path, resamples=10)
    assert (found.n, found.bad["total"]) == (8, 1)
    with pytest.raises(DataError) as caught:
        evaluate(small(tokenizer), path, strict=True)
    assert caught.value.where == f"{path}:4"
    path.write_text("\n".join([*lines, json.dumps({"text": "a", "label": "other"})]), encoding="utf-8")
    with pytest.raises(DataError, match="never seen") as caught:
        evaluate(small(tokenizer), path)
    assert caught.value.where == f"{path}:9"


def test_bundles_that_cannot_be_compared(tokenizer: Tokenizer, run: Path) -> None:
    bare = Bundle(Network.build(Bert, BertConfig.read({**Bert.TINY, "vocab_size": len(tokenizer)}), [], seed=1), tokenizer)
    with pytest.raises(LexloomError, match="has no task"):
        evaluate(bare, text_rows(4))
    with pytest.raises(LexloomError, match="no label in common"):
        evaluate(small(tokenizer), text_rows(4), against=small(tokenizer, labels=["x", "y"]))
    config = BertConfig.read({**Bert.TINY, "vocab_size": len(tokenizer)})
    filler = Bundle(Network.build(Bert, config, ["masked-lm"], seed=1), tokenizer, FillMask(FillMaskConfig(), Vocabulary.of(tokenizer)))
    with pytest.raises(LexloomError, match="different tasks"):
        evaluate(small(tokenizer), text_rows(4), against=filler)


def test_damaged_digests_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    small(tokenizer).save(tmp_path / "bundle")
    write_seen(tmp_path / "baselines", ["a"]).write_bytes(b"123")
    with pytest.raises(FormatError, match="digests"):
        evaluate(tmp_path / "bundle", text_rows(4), resamples=10)


def test_what_is_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(run / "bundle", run / "test.jsonl", by="source", resamples=50)
    show(found, Console())
    shown = capsys.readouterr().out
    assert shown.startswith(found.verdict)
    assert all(word in shown for word in ("95 % from", TFIDF, "Differences on the same rows", "By source"))
    assert "⏎" not in shown
    show(found, Console(json=True))
    assert json.loads(capsys.readouterr().out)["verdict"] == found.verdict
    assert str(found).splitlines()[0] == found.verdict


def test_columns_of_a_baseline_are_kept(tmp_path: Path) -> None:
    rows = text_rows(40)
    model = TfidfClassifier.fit(
        [r["text"] for r in rows], None, [r["label"] for r in rows], columns=ColumnsConfig(text="body", label="mood")
    )
    found = evaluate(model.save(tmp_path / "tfidf"), [{"body": r["text"], "mood": r["label"]} for r in rows], resamples=10)
    assert found.comparison.scores[0]["value"] == 1.0
