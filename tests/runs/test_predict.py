"""Predict: every format in and out, bad rows, formulas, kills. Subjects: a tiny BERT with random weights, and TF-IDF."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexloom import cli
from lexloom.console import Console
from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.models.bert import Bert
from lexloom.objectives.base import Vocabulary
from lexloom.runs.predict import free, identity, predict_file, predict_texts
from lexloom.runs.predict.outputs import cell, is_formula, output_format, schema_of, writing
from lexloom.tasks.classification import TextClassification, TextClassificationConfig
from lexloom.tasks.columns import ColumnsConfig
from lexloom.tasks.fill_mask import FillMask
from lexloom.tasks.tfidf import TfidfClassifier
from lexloom.text.rows import survey
from lexloom.text.tokenizer import TokenizerConfig, train_tokenizer

SENTENCE = "a warm and funny film dull from the first scene to last she plays it with real wit two hours that i want back"
WORDS = SENTENCE.split()
QUIET = Console(quiet=True)
CORPUS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]


def texts_of(n: int) -> list[str]:
    return [" ".join(WORDS[(7 * i + j * (1 + i % 5)) % len(WORDS)] for j in range(1 + i % 9)) for i in range(n)]


def tiny(role: str, **settings: Any) -> Bundle:
    tokenizer = train_tokenizer(CORPUS, TokenizerConfig(vocab_size=80)).with_max_length(32)
    config = Bert.Config.read({**Bert.TINY, "vocab_size": len(tokenizer)})
    network = Network.build(Bert, config, {role}, labels=3, seed=1)
    vocabulary = Vocabulary.of(tokenizer)
    if role == "masked-lm":
        return Bundle(network, tokenizer, FillMask(FillMask.Config(), vocabulary))
    return Bundle(network, tokenizer, TextClassification(TextClassificationConfig(**settings), vocabulary, ["bad", "fine", "=good"]))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny("sequence-classification")


@pytest.fixture(scope="module")
def tfidf() -> TfidfClassifier:
    texts = texts_of(60)
    return TfidfClassifier.fit(texts, None, ["film" if "film" in text else "other" for text in texts])


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_csv(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline=""), delimiter=delimiter))


def rows_of(n: int) -> list[dict[str, Any]]:
    return [{"id": i, "text": text, "tags": ["x", str(i)], "weight": i / 4} for i, text in enumerate(texts_of(n))]


def test_texts_are_answered_as_the_bundle_answers(bundle: Bundle, tmp_path: Path) -> None:
    texts = texts_of(20)
    answers = predict_texts(bundle, texts)
    assert answers == bundle.predict(texts) and {answer["label"] for answer in answers} <= set(bundle.labels)
    assert predict_texts(bundle, [{"text": text} for text in texts], top_k=2) == bundle.predict(texts, top_k=2)
    bundle.save(tmp_path / "saved")
    assert predict_texts(tmp_path / "saved", texts) == answers


def test_jsonl_keeps_columns_order_and_values(bundle: Bundle, tmp_path: Path) -> None:
    rows = [*rows_of(25), {"text": "", "更多": {"a": [1, None]}}]
    found = predict_file(bundle, write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", console=QUIET)
    out = read_jsonl(tmp_path / "out.jsonl")
    assert (found.rows, found.bad, found.resumed_from, found.aside) == (26, 0, 0, None)
    assert [{k: v for k, v in row.items() if k not in ("prediction", "score")} for row in out] == rows
    answers = bundle.predict([row["text"] for row in rows])
    assert [row["prediction"] for row in out] == [answer["label"] for answer in answers]
    assert [row["score"] for row in out] == pytest.approx([answer["score"] for answer in answers], abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


INPUTS = ["in.csv", "in.tsv", "in.txt", "in.jsonl", "in.json", "in.parquet", "in.jsonl.gz", "in.csv.zst"]
OUTPUTS = ["out.csv", "out.tsv", "out.jsonl", "out.json", "out.parquet", "out.jsonl.gz", "out.tsv.zst"]


@pytest.mark.parametrize(("name", "out"), [*((name, "out.csv") for name in INPUTS), *(("in.jsonl", out) for out in OUTPUTS)])
def test_every_format_into_every_other(name: str, out: str, tfidf: TfidfClassifier, tmp_path: Path) -> None:
    texts = [text for text in texts_of(12) if text]
    source = tmp_path / name
    if "parquet" in name:
        pq.write_table(pa.table({"text": texts}), source)
    else:
        kind = name.split(".")[1]
        lines = [json.dumps({"text": text}) for text in texts] if kind.startswith("json") else texts
        lines = ["[" + ",\n".join(lines) + "]"] if kind == "json" else ["text", *lines] if kind in ("csv", "tsv") else lines
        content = "\n".join(lines).encode()
        source.write_bytes(
            gzip.compress(content)
            if name.endswith("gz")
            else pa.compress(content, "zstd", asbytes=True)
            if name.endswith("zst")
            else content
        )
    assert predict_file(tfidf, source, tmp_path / out, console=QUIET).rows == 12
    again = predict_file(tfidf, tmp_path / out, tmp_path / "again.jsonl", console=QUIET)
    assert again.rows == 12 and again.bad == 0
    found = read_jsonl(tmp_path / "again.jsonl")
    assert [row["text"] for row in found] == texts
    assert [row["prediction_2"] for row in found] == [row["prediction"] for row in found] == [a["label"] for a in tfidf.predict(texts)]
    assert [float(row["score"]) for row in found] == [row["score_2"] for row in found]


def test_parquet_keeps_its_types(tfidf: TfidfClassifier, tmp_path: Path) -> None:
    table = pa.table(
        {
            "when": pa.array([0, 86_400_000_000, None], pa.timestamp("us", "UTC")),
            "text": pa.array(["a film", "", "dull"]),
            "small": pa.array([1, None, -3], pa.int8()),
            "raw": pa.array([b"\x00\xff", b"", None]),
            "nested": pa.array([{"a": [1, 2]}, None, {"a": []}]),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    predict_file(tfidf, tmp_path / "in.parquet", tmp_path / "out.parquet", console=QUIET)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(table.column_names).equals(table) and found.column_names == [*table.column_names, "prediction", "score"]
    predict_file(tfidf, tmp_path / "in.parquet", tmp_path / "out.jsonl", console=QUIET)
    first = read_jsonl(tmp_path / "out.jsonl")[0]
    assert first["when"] == "1970-01-01T00:00:00+00:00" and first["raw"] == "AP8=" and first["nested"] == {"a": [1, 2]}


def test_types_of_json_columns(tmp_path: Path) -> None:
    rows = [
        {"n": 1, "f": 1, "s": "x", "l": ["a"], "mixed": 1, "o": {"k": 1}, "none": None, "big": 2**70, "b": True, "e": []},
        {"n": None, "f": 0.5, "s": "", "l": [], "mixed": "one", "o": {}, "none": None, "big": 1, "b": None, "e": []},
    ]
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    schema = schema_of([survey(path)], list(rows[0]), lambda: rows)
    names = {field.name: str(field.type) for field in schema}
    text = dict.fromkeys(("mixed", "o", "none", "big", "s", "e"), "string")
    assert names == {"n": "int64", "f": "double", "l": "list<item: string>", "b": "bool", **text} or names == {
        "n": "int64", "f": "double", "l": "list<element: string>", "b": "bool", **text
    }  # fmt: skip
    with writing(tmp_path / "out.parquet", schema) as writer:
        for row in rows:
            writer.write(row)
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert found[0]["o"] == '{"k": 1}' and found[1]["mixed"] == "one" and found[0]["big"] == str(2**70) and found[0]["l"] == ["a"]


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", "\t=1", " =1", "\ufeff=1", "＝1+1", "-"])
def test_formulas_are_not_obeyed(text: str, tfidf: TfidfClassifier, tmp_path: Path) -> None:
    assert is_formula(text) and cell(text).startswith("'")
    write_jsonl(tmp_path / "in.jsonl", [{text: text, "text": "a film"}])
    for name, delimiter in (("out.csv", ","), ("out.tsv", "\t")):
        predict_file(tfidf, tmp_path / "in.jsonl", tmp_path / name, console=QUIET)
        (row,) = read_csv(tmp_path / name, delimiter)
        for value in (next(iter(row)), next(iter(row.values()))):
            assert value.startswith("'") and value[1:].strip() in text.replace("\t", " ")
    predict_file(tfidf, tmp_path / "in.jsonl", tmp_path / "out.jsonl", console=QUIET)
    assert read_jsonl(tmp_path / "out.jsonl")[0][text] == text


def test_labels_may_be_formulas_too(bundle: Bundle, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_of(40)])
    predict_file(bundle, tmp_path / "in.jsonl", tmp_path / "out.csv", console=QUIET)
    assert {row["prediction"] for row in read_csv(tmp_path / "out.csv")} <= {"bad", "fine", "'=good"}


@pytest.mark.parametrize(("value", "shown"), [("-5", "-5"), ("+4.5e-3", "+4.5e-3"), (-5, "-5"), (None, ""), (True, "true"), ([-1], "[-1]")])
def test_plain_values_stay_in_tables(value: Any, shown: str) -> None:
    assert cell(value) == shown


def test_tables_hold_quotes_newlines_and_escapes(tfidf: TfidfClassifier, tmp_path: Path) -> None:
    odd = ['say "so"', '"quoted"', "two\nlines", "a,b", "tab\there", " space ", "\x1b[31mred\x1b[0m", "", "表,格"]
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in odd])
    predict_file(tfidf, tmp_path / "in.jsonl", tmp_path / "out.csv", console=QUIET)
    kept = [text.replace("\x1b", "␛") for text in odd]
    assert [row["text"] for row in read_csv(tmp_path / "out.csv")] == kept
    predict_file(tfidf, tmp_path / "in.jsonl", tmp_path / "out.tsv", console=QUIET)
    assert [row["text"] for row in read_csv(tmp_path / "out.tsv", "\t")] == [text.replace("\n", " ").replace("\t", " ") for text in kept]


def test_bad_rows_are_put_aside_and_counted(bundle: Bundle, tmp_path: Path) -> None:
    lines = [
        '{"text": "a film", "n": 1}',
        "{broken",
        '{"n": 2}',
        '{"text": ["two", "words"]}',
        '{"text": {"a": 1}}',
        '{"text": null}',
        '{"text": "end"}',
    ]
    (tmp_path / "in.jsonl").write_bytes(("\r\n".join(lines) + "\r\n").encode() + b'{"text": "\xff\xfe"}\n')
    found = predict_file(bundle, tmp_path / "in.jsonl", tmp_path / "out.jsonl", console=QUIET)
    assert (found.rows, found.bad) == (3, 5) and found.aside == tmp_path / "out.jsonl.bad-rows.jsonl"
    assert [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["a film", ["two", "words"], "end"]
    bad = read_jsonl(found.aside)
    assert sorted(row["line"] for row in bad) == [2, 3, 5, 6, 8] and all(row["reason"] and row["file"].endswith("in.jsonl") for row in bad)
    with pytest.raises(DataError, match=r"in\.jsonl:2") as error:
        predict_file(bundle, tmp_path / "in.jsonl", tmp_path / "strict.jsonl", strict=True, console=QUIET)
    (listed,) = read_jsonl(tmp_path / "strict.jsonl.bad-rows.jsonl")
    assert error.value.exit_code == 3 and listed["line"] == 2 and listed["text"] == "{broken"
    with pytest.raises(DataError, match="more bad rows than allowed"):
        predict_file(bundle, tmp_path / "in.jsonl", tmp_path / "some.jsonl", max_bad_rows=3, console=QUIET)
    assert not (tmp_path / "strict.jsonl").exists() and not (tmp_path / "some.jsonl").exists()


def test_a_row_that_the_task_refuses_costs_no_other(tmp_path: Path) -> None:
    masks = tiny("masked-lm")
    rows = [{"text": "a [MASK] film" if i % 5 else "no mask here", "i": i} for i in range(23)]
    found = predict_file(masks, write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", top_k=2, console=QUIET)
    assert (found.rows, found.bad) == (18, 5)
    out = read_jsonl(tmp_path / "out.jsonl")
    assert [row["i"] for row in out] == [i for i in range(23) if i % 5] and all(len(row["answers"]) == 2 for row in out)
    predict_file(masks, tmp_path / "in.jsonl", tmp_path / "out.parquet", top_k=2, console=QUIET)
    assert json.loads(pq.read_table(tmp_path / "out.parquet")["answers"][0].as_py()) == out[0]["answers"]


def test_columns_pairs_and_folders(tmp_path: Path) -> None:
    texts = texts_of(40)
    model = TfidfClassifier.fit(texts, texts[::-1], ["x" if "film" in text else "y" for text in texts])
    rows = [{"premise": a, "note": "n", "hypothesis": b} for a, b in zip(texts, texts[::-1], strict=True)]
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "b.jsonl", rows[20:])
    write_jsonl(tmp_path / "in" / "a.jsonl", rows[:20])
    assert predict_file(model, tmp_path / "in", tmp_path / "out.jsonl", console=QUIET).rows == 40
    out = read_jsonl(tmp_path / "out.jsonl")
    assert [row["premise"] for row in out] == texts
    assert [row["prediction"] for row in out] == [answer["label"] for answer in model.predict(texts, texts[::-1])]
    swapped = {"text": "hypothesis", "pair": "premise"}
    predict_file(model, tmp_path / "in", tmp_path / "other.jsonl", columns=swapped, console=QUIET)
    scores = [answer["score"] for answer in model.predict(texts[::-1], texts)]
    assert [row["score"] for row in read_jsonl(tmp_path / "other.jsonl")] == pytest.approx(scores)


def test_mistakes_are_told(bundle: Bundle, tfidf: TfidfClassifier, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"sentense": "a", "n": 1}])
    with pytest.raises(DataError, match="there is no column 'sentence'") as error:
        predict_file(bundle, source, tmp_path / "out.csv", columns=ColumnsConfig(text="sentence"), console=QUIET)
    assert error.value.hint == "did you mean 'sentense'?"
    with pytest.raises(ConfigError, match="take the place of the input"):
        predict_file(bundle, source, source, console=QUIET)
    with pytest.raises(ConfigError, match="folder of the input"):
        predict_file(bundle, tmp_path, tmp_path / "out.jsonl", console=QUIET)
    for name in ("out.txt", "out.xlsx", "out", "out.parquet.gz"):
        with pytest.raises(ConfigError, match="no format to write"):
            output_format(tmp_path / name)
    with pytest.raises(ConfigError, match="does not exist"):
        predict_file(bundle, tmp_path / "inn.jsonl", tmp_path / "out.csv", console=QUIET)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no row could be answered"):
        predict_file(tfidf, tmp_path / "empty.jsonl", tmp_path / "out.csv", console=QUIET)
    with pytest.raises(ConfigError, match="top_k"):
        predict_file(bundle, source, tmp_path / "out.csv", columns={"text": "sentense"}, top_k=0, console=QUIET)
    with pytest.raises(LexloomError, match="no task"):
        predict_file(Bundle(bundle.network, bundle.tokenizer), source, tmp_path / "out.csv", console=QUIET)
    assert free("score", ["score", "score_2"]) == "score_3"


CHILD = """
import sys
from pathlib import Path
from lexloom import cli
from lexloom.console import Console
from lexloom.runs.predict import predict_file
predict_file(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), batch_rows=50, console=Console(quiet=True))
"""


def _killed_after(parts: int, bundle: Path, source: Path, output: Path, environment: dict[str, str]) -> int:
    """Runs a prediction in a child and kills it when that many parts are there; how many it left."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(bundle), str(source), str(output)], env=environment)
    folder = output.with_name(f"{output.name}.parts")
    deadline = time.monotonic() + 60
    while child.poll() is None and len(list(folder.glob("part-*"))) < parts and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return len(list(folder.glob("part-*")))


@pytest.mark.kill
def test_a_killed_prediction_goes_on_to_the_same_bytes(bundle: Bundle, tmp_path: Path, child_environment: dict[str, str]) -> None:
    lines = [json.dumps(row) if i % 17 else '{"text": 1' for i, row in enumerate(rows_of(500))]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    bundle.save(tmp_path / "bundle")
    whole, output = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    predict_file(tmp_path / "bundle", tmp_path / "in.jsonl", whole, batch_rows=50, console=QUIET)
    done = 0
    for _ in range(2):
        left = _killed_after(done + 3, tmp_path / "bundle", tmp_path / "in.jsonl", output, child_environment)
        assert left >= done + 3 and not output.exists()
        done = left
    found = predict_file(tmp_path / "bundle", tmp_path / "in.jsonl", output, batch_rows=50, console=QUIET)
    assert found.resumed_from == 50 * done and found.rows + found.bad == 500 and output.read_bytes() == whole.read_bytes()
    aside = [path.with_name(f"{path.name}.bad-rows.jsonl").read_bytes() for path in (whole, output)]
    assert aside[0] == aside[1] and not output.with_name("out.parquet.parts").exists()


def test_parts_of_another_bundle_or_input_are_not_used(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = write_jsonl(tmp_path / "in.jsonl", rows_of(50)), tmp_path / "out.jsonl"

    def interrupted(n: int) -> None:
        """Ends like a kill: an exception in the middle of a part."""
        done = 0

        class Failing(Bundle):
            def predict(self, *arguments: Any, **options: Any) -> list[Any]:
                nonlocal done
                done += 1
                if done > n:
                    raise KeyboardInterrupt
                return super().predict(*arguments, **options)

        failing = Failing(bundle.network, bundle.tokenizer, bundle.task)
        with pytest.raises(KeyboardInterrupt):
            predict_file(failing, source, output, batch_rows=10, console=QUIET)

    interrupted(3)
    found = predict_file(bundle, source, output, batch_rows=10, console=Console())
    assert found.resumed_from == 30 and "going on after 30 rows" in capsys.readouterr().err
    interrupted(3)
    write_jsonl(source, rows_of(49))
    found = predict_file(bundle, source, output, batch_rows=10, console=Console())
    assert found.resumed_from == 0 and found.rows == 49 and "input changed" in capsys.readouterr().err
    interrupted(3)
    other = tiny("sequence-classification", names={"0": "bad"})
    assert identity(other) != identity(bundle)
    found = predict_file(other, source, output, batch_rows=10, console=Console())
    assert found.resumed_from == 0 and "bundle changed" in capsys.readouterr().err
    interrupted(2)
    part = output.with_name("out.jsonl.parts") / "part-000001.jsonl"
    part.write_bytes(part.read_bytes()[:-30])
    assert predict_file(bundle, source, output, batch_rows=10, console=QUIET).resumed_from == 10
    interrupted(2)
    assert predict_file(bundle, source, output, batch_rows=10, restart=True, console=QUIET).resumed_from == 0
    assert len(read_jsonl(output)) == 49


def test_the_command_line_has_what_the_call_has(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = bundle.save(tmp_path / "bundle")
    rows = [{"body": text, "text": "another"} for text in texts_of(8)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no row\nnor this\n", encoding="utf-8")

    def told(*more: str, files: bool = True) -> tuple[int, str]:
        given = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")] if files else ["a text"]
        monkeypatch.setattr(sys, "argv", ["lexloom", "predict", str(saved), *given, "-q", *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    assert told("--columns", "text=body") == (0, "")
    expected = [answer["label"] for answer in bundle.predict([row["body"] for row in rows])]
    assert [row["prediction"] for row in read_jsonl(tmp_path / "out.jsonl")] == expected
    code, said = told("--columns", "text=bodi")
    assert code == 3 and "body" in said
    code, said = told("--columns", "txt=body")
    assert code == 2 and "did you mean 'text'" in said
    code, said = told("--strict")
    assert code == 3 and "in.jsonl:9" in said
    code, said = told("--max-bad-rows", "1")
    assert code == 3 and "at most 1" in said
    assert told("--max-bad-rows", "2", "--restart")[0] == 0
    for flag in ("--strict", "--restart"):
        code, said = told(flag, files=False)
        assert code == 2 and "--input" in said
