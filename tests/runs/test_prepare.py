from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lexloom import files
from lexloom.errors import ConfigError, DataError
from lexloom.runs.prepare import PrepareConfig, prepare
from lexloom.text.corpus import Corpus, Document

WORDS = ["time", "year", "way", "day", "man", "world", "school", "state", "group", "hand", "part", "place"]


def text(number: int, size: int = 30) -> str:
    """An English-looking text of its own for each number."""
    words = [f"{WORDS[(number * 31 + i * i) % len(WORDS)]}{(number * 31 + i * 17) % 997}" for i in range(size)]
    return f"The {number} of it. The " + " of the ".join(words) + "."


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run(base: Path, out: str = "corpus", **settings: Any) -> Corpus:
    return prepare(PrepareConfig.read(settings), base / out, base=base, seed=1)


def every(corpus: Corpus) -> dict[str, Document]:
    return {document.id: document for split in corpus.splits for document in corpus.documents(split)}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_sources_of_all_kinds_become_one_corpus(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("One line.\nAnother.", encoding="utf-8")
    (tmp_path / "texts" / "b.txt.gz").write_bytes(gzip.compress("这是中文文本。第二句在这里。".encode("gb18030")))
    jsonl(tmp_path / "c.jsonl", [{"text": text(i), "id": f"c{i}"} for i in range(50)])
    (tmp_path / "d.csv").write_text('text,id\n"quoted, text\nhere",d1\n')
    pq.write_table(pa.table({"text": [text(900)], "id": [900]}), tmp_path / "e.parquet")
    corpus = run(tmp_path, sources=["texts/", "c.jsonl", "d.csv", "e.parquet"], split={"validation": 0.1})
    found = every(corpus)
    assert set(found) == {"texts/a.txt", "texts/b.txt.gz", "d1", "900", *(f"c{i}" for i in range(50))}
    assert found["texts/b.txt.gz"].sentences == ["这是中文文本。", "第二句在这里。"]
    assert found["d1"].text == "quoted, text\nhere"
    report = corpus.report
    assert [(s["path"], s["encoding"], s["documents"]) for s in report["sources"]] == [
        ("texts/a.txt", "utf-8", 1),
        ("texts/b.txt.gz", "gb18030", 1),
        ("c.jsonl", "utf-8", 50),
        ("d.csv", "utf-8", 1),
        ("e.parquet", "", 1),
    ]
    assert report["sources"][2]["sha256"] == files.digest(tmp_path / "c.jsonl")
    assert report["counts"]["read"] == report["counts"]["kept"] == len(corpus) == 54
    assert corpus.languages["zh"] == 1
    assert report["settings"]["sources"] == ["texts/", "c.jsonl", "d.csv", "e.parquet"]
    assert sorted(path.name for path in corpus.folder.iterdir()) == [
        "corpus.json",
        "dropped.jsonl",
        "manifest.json",
        "train-00000.parquet",
        "validation-00000.parquet",
    ]
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name or "bad" in path.name] == []


def test_equal_input_gives_equal_files_and_another_seed_another_split(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"text": text(i)} for i in range(300)] + [{"text": text(5) + " more"}])
    config = PrepareConfig.read({"sources": "a.jsonl", "split": {"validation": 0.1}})
    first, second, third = (prepare(config, tmp_path / name, base=tmp_path, seed=seed) for name, seed in (("x", 1), ("y", 1), ("z", 2)))
    assert files.read_manifest(first.folder) == files.read_manifest(second.folder)
    assert {d.id for d in first.documents("validation")} != {d.id for d in third.documents("validation")}
    assert first.report["duplicates"] == third.report["duplicates"] == {"exact": 0, "near": 1}


def test_what_is_left_out_is_told_document_by_document(tmp_path: Path) -> None:
    footer = "\nSubscribe to our letter!"
    rows = [{"id": f"a{i}", "text": text(i, 60) + footer} for i in range(80)]
    rows += [{"id": "exact", "text": text(3, 60).upper() + " " + footer}, {"id": "near", "text": text(4, 60) + " plus" + footer}]
    rows += [
        {"id": "short", "text": "tiny" + footer},
        {"id": "nothing", "text": footer},
        {"id": "zh", "text": "我们今天去公园看花，天气很好。"},
    ]
    jsonl(tmp_path / "a.jsonl", rows)
    corpus = run(tmp_path, sources="a.jsonl", clean={"languages": ["en"], "min_characters": 10})
    assert lines(corpus.folder / "dropped.jsonl") == [
        {"id": "exact", "source": "a.jsonl", "reason": "exact duplicate", "of": "a3", "similarity": 1.0},
        {"id": "near", "source": "a.jsonl", "reason": "near duplicate", "of": "a4", "similarity": pytest.approx(0.99, abs=0.01)},
        {"id": "short", "source": "a.jsonl", "reason": "too short"},
        {"id": "nothing", "source": "a.jsonl", "reason": "empty"},
        {"id": "zh", "source": "a.jsonl", "reason": "language zh"},
    ]
    report = corpus.report
    assert report["dropped"] == {"empty": 1, "exact duplicate": 1, "language zh": 1, "near duplicate": 1, "too short": 1}
    assert report["counts"]["read"] == 85
    assert report["counts"]["kept"] == len(corpus) == 80
    assert report["boilerplate"] == {"a.jsonl": [{"line": "Subscribe to our letter!", "documents": 84}]}
    assert not any("Subscribe" in document.text for document in every(corpus).values())


def test_what_is_switched_off_keeps_everything(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"text": "same  text"}] * 60)
    off = {"boilerplate": None, "unicode": "keep", "control": False, "whitespace": False}
    corpus = run(tmp_path, sources="a.jsonl", clean=off, dedup={"exact": False, "near": False}, split={"validation": 0.0})
    assert [document.text for document in corpus.documents()] == ["same  text"] * 60
    assert corpus.splits == ["train"]


def test_groups_and_dates_are_never_divided(tmp_path: Path) -> None:
    rows = [{"body": text(i), "patient": f"p{i % 23}", "when": f"20{i % 20:02d}-01-11"} for i in range(230)]
    jsonl(tmp_path / "a.jsonl", rows)
    settings: dict[str, Any] = {"sources": "a.jsonl", "columns": {"text": "body"}}
    corpus = run(tmp_path, **settings, split={"validation": 0.2, "test": 0.2, "group": "patient"})
    groups = {split: {document.metadata["group"] for document in corpus.documents(split)} for split in corpus.splits}
    assert set(groups) == {"train", "validation", "test"}
    assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == 23
    corpus = run(tmp_path, **settings, split={"validation": 0.2, "test": 0.2, "by": "place"})
    places = [int(document.id.rpartition(":")[2]) for split in ("train", "validation", "test") for document in corpus.documents(split)]
    assert places == sorted(places) and corpus.count("validation") == corpus.count("test") == round(0.2 * len(places))
    corpus = run(tmp_path, **settings, split={"validation": 0.2, "test": 0.2, "date": "when"})
    dates = {split: {document.metadata["date"] for document in corpus.documents(split)} for split in corpus.splits}
    assert max(dates["train"]) < min(dates["validation"]) <= max(dates["validation"]) < min(dates["test"])
    assert abs(corpus.count("validation") - 46) <= 6 >= abs(corpus.count("test") - 46)


def test_bad_rows_are_put_aside_and_good_ones_kept(tmp_path: Path) -> None:
    good = [json.dumps({"text": text(i)}).encode() for i in range(200)]
    broken = [b'{"text": "\xff"}', b'{"text": 5}', b'{"txt": "x"}', b"nope", b'{"text": "a\0b"}', b'{"text": "' + b"x" * 20_000 + b'"}']
    mixed = [line for i, row in enumerate(good) for line in ([row, broken[i // 40]] if i % 40 == 39 else [row])]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([*mixed, broken[5]]))
    packed = gzip.compress(b"\n".join(json.dumps({"text": text(i)}).encode() for i in range(1000, 1400)))
    (tmp_path / "b.jsonl.gz").write_bytes(packed[:-9])
    corpus = run(tmp_path, sources=["a.jsonl", "b.jsonl.gz"], max_line_bytes=10_000)
    listed = lines(corpus.folder / "bad-rows.jsonl")
    assert [(row["file"], row["line"]) for row in listed[:6]] == [("a.jsonl", line) for line in (41, 82, 123, 164, 205, 206)]
    assert listed[6]["file"] == "b.jsonl.gz"
    assert corpus.report["bad_rows"]["total"] == len(listed) == 7
    documents = every(corpus)
    assert {id_ for id_ in documents if id_.startswith("a.")} == {f"a.jsonl:{line}" for line in range(1, 205) if line % 41}
    assert corpus.report["counts"]["read"] == 200 + listed[6]["line"] - 1


def test_limits_on_bad_rows_stop_the_work_and_leave_the_list(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"text": "a good row"}, {"text": 1}, {"text": 2}])
    with pytest.raises(DataError, match=r"a\.jsonl:2: column 'text' is not text: int") as strict:
        run(tmp_path, sources="a.jsonl", strict=True)
    assert strict.value.exit_code == 3
    with pytest.raises(DataError, match="at most 1"):
        run(tmp_path, sources="a.jsonl", max_bad_rows=1)
    aside = tmp_path / "corpus.bad-rows.jsonl"
    assert [row["line"] for row in lines(aside)] == [2, 3]
    assert not (tmp_path / "corpus").exists()
    corpus = run(tmp_path, sources="a.jsonl", max_bad_rows=2)
    assert len(lines(corpus.folder / "bad-rows.jsonl")) == 2
    assert not aside.exists()


@pytest.mark.parametrize(
    ("content", "settings", "told"),
    [
        (b"", {}, "sources are empty"),
        (b"\n\n", {"documents": "line"}, "a.txt"),
        ("café\n".encode("latin-1") * 9, {}, "encoding: latin-1"),
        (b"some text", {"clean": {"min_characters": 100}}, "too short (1)"),
    ],
    ids=["empty", "blank", "latin-1", "filtered"],
)
def test_when_nothing_is_left_the_reason_is_told(tmp_path: Path, content: bytes, settings: dict[str, Any], told: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError) as error:
        run(tmp_path, sources="a.txt", **settings)
    assert told in str(error.value)
    assert error.value.exit_code == 3
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sources": []}, "no sources"),
        ({"sources": ["a.jsonk"]}, "a.jsonl"),
        ({"source": ["a.jsonl"]}, "did you mean 'sources'"),
        ({"sources": "a.jsonl", "encoding": "utf8x"}, "utf-8"),
        ({"sources": "a.jsonl", "language": "english"}, "'en'"),
        ({"sources": "a.jsonl", "columns": {"txt": "body"}}, "did you mean 'text'"),
        ({"sources": "a.jsonl", "split": {"by": "group"}}, "no column says the group"),
        ({"sources": "a.jsonl", "split": {"group": "a"}, "columns": {"group": "b"}}, "different columns"),
        ({"sources": "a.jsonl", "split": {"validation": 0.5, "test": 0.5}}, "nothing to train on"),
        ({"sources": "a.jsonl", "split": {"validation": 10}}, "less than 1"),
        ({"sources": "a.jsonl", "clean": {"whitespace": "no"}}, "write false"),
    ],
)
def test_mistakes_in_settings_are_told_before_anything_is_read(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(ConfigError) as error:
        run(tmp_path, **settings)
    assert told in str(error.value)
    assert error.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_wrong_column_is_named_with_the_ones_there(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"body": "x", "id": 1}] * 3)
    with pytest.raises(DataError, match=r"columns: \{text: body\}"):
        run(tmp_path, sources="a.jsonl")
    (tmp_path / "b.csv").write_text("review,id\nx,1\n")
    with pytest.raises(DataError, match="did you mean 'review'"):
        run(tmp_path, sources="b.csv", columns={"text": "reviews"})


def test_nothing_but_a_corpus_is_replaced(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"text": "x"}])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out, told in (("mine", "something else"), (".", "its own source"), ("a.jsonl", "its own source")):
        with pytest.raises(ConfigError, match=told):
            run(tmp_path, out=out, sources=["a.jsonl"])
    assert (tmp_path / "mine" / "thesis.txt").exists()
    run(tmp_path, sources="a.jsonl")
    jsonl(tmp_path / "a.jsonl", [{"text": "other"}])
    again = run(tmp_path, sources=["."])  # the corpus in it is no source, the thesis is
    assert {document.text for document in again.documents()} | {document.text for document in again.documents("validation")} == {
        "other",
        "years of work",
    }


def test_rows_from_memory_are_a_source(tmp_path: Path) -> None:
    rows = ({"body": text(i), "n": i} for i in range(30))
    corpus = prepare(PrepareConfig.read({"columns": {"text": "body", "keep": ["n"]}}), tmp_path / "c", rows=rows)
    assert corpus.count("train") == 29
    assert next(corpus.documents()).metadata["n"] == "0"


def test_progress_is_told_and_ends_at_the_end(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"text": text(i)} for i in range(20)])
    events: list[dict[str, Any]] = []
    prepare(PrepareConfig.read({"sources": "a.jsonl"}), tmp_path / "c", base=tmp_path, report=events.append)
    assert {event["step"] for event in events} >= {"select", "write"}
    assert [event["done_bytes"] for event in events] == sorted(event["done_bytes"] for event in events)
    assert events[-1]["done_bytes"] == events[-1]["total_bytes"] == 3 * (tmp_path / "a.jsonl").stat().st_size


def test_settings_come_back_from_plain_data(tmp_path: Path) -> None:
    config = PrepareConfig.read({"sources": "a", "clean": {"languages": ["en"]}, "dedup": {"threshold": 0.7}, "max_line_bytes": "2M"})
    assert PrepareConfig.read(config.plain()) == config
    assert (config.sources, config.max_line_bytes) == (["a"], 2_000_000)


def test_a_warning_tells_when_the_language_seems_wrong(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"text": f"今天是第{i}天，我们去了公园看花。" * 3} for i in range(10)])
    corpus = run(tmp_path, sources="a.jsonl", language="en", dedup={"near": False})
    assert any("zh" in warning for warning in corpus.report["warnings"])


def test_preparing_needs_no_torch() -> None:
    code = "import sys; import lexloom.runs.prepare; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
@pytest.mark.parametrize("language", ["en", "zh"])
def test_wikipedia_is_prepared(tmp_path: Path, language: str) -> None:
    source = Path(os.environ["LEXLOOM_DATA"]) / f"wikipedia_{language}" / "valid.jsonl.gz"
    corpus = prepare(PrepareConfig.read({"sources": [str(source)], "language": language}), tmp_path / "c")
    assert len(corpus) == corpus.report["counts"]["read"]
    assert corpus.language == language
    lengths = [len(sentence) for document in corpus.documents() for sentence in document.sentences]
    assert {"en": 80, "zh": 20}[language] < sum(lengths) / len(lengths) < {"en": 180, "zh": 60}[language]
