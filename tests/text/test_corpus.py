from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lexloom import files
from lexloom.errors import ConfigError, DataError, FormatError
from lexloom.text.corpus import Corpus, CorpusWriter, Document
from lexloom.text.documents import ColumnsConfig, date_number, documents_of, read_documents
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, survey
from lexloom.text.segment import sentences
from lexloom.text.spill import Spill
from lexloom.text.split import TEST, TRAIN, VALIDATION, SplitConfig, by_date, by_key, hashed


def document(number: int, size: int = 5) -> Document:
    text = f"Document {number}. " + "It goes on. " * size + "末尾。😀"
    return Document(f"d{number}", text, sentences(text), "a.jsonl", {"title": f"T{number}"} if number % 2 else {})


def write(folder: Path, n: int = 20, **settings: Any) -> Corpus:
    with files.new_folder(folder, kind="corpus") as temporary:
        writer = CorpusWriter(temporary, ["title", "group"], **settings)
        for number in range(n):
            writer.add("validation" if number % 5 == 4 else "train", document(number))
        writer.finish(languages={"en": n})
    return Corpus.open(folder)


def same(a: Document, b: Document) -> bool:
    return (a.id, a.text, list(a.borders), a.source, a.metadata) == (b.id, b.text, list(b.borders), b.source, b.metadata)


def test_documents_come_back_as_they_were_in_their_order(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c")
    assert (len(corpus), corpus.count("train"), corpus.count("validation"), corpus.count("test")) == (20, 16, 4, 0)
    wanted = [document(number) for number in range(20) if number % 5 != 4]
    assert all(same(a, b) for a, b in zip(corpus.documents("train"), wanted, strict=True))
    assert list(corpus.texts("validation")) == [document(number).text for number in (4, 9, 14, 19)]
    assert list(corpus.documents("test")) == []
    first = next(corpus.documents())
    assert first.sentences == ["Document 0.", *["It goes on."] * 5, "末尾。😀"]
    assert corpus.language == "en"
    assert corpus.report["splits"]["train"]["bytes"] == sum(len(d.text.encode()) for d in wanted)
    assert corpus.report["splits"]["train"]["sentences"] == sum(len(d.borders) for d in wanted)
    corpus.verify()


def test_files_roll_and_row_groups_are_bounded(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c", n=100, group_bytes=1000, file_bytes=4000)
    names = corpus.report["splits"]["train"]["files"]
    assert names[:2] == ["train-00000.parquet", "train-00001.parquet"]
    assert 1 < pq.ParquetFile(corpus.folder / names[0]).num_row_groups < 6
    assert [d.id for d in corpus.documents()] == [f"d{number}" for number in range(100) if number % 5 != 4]


def test_equal_documents_give_equal_files(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert files.read_manifest(first.folder) == files.read_manifest(second.folder)


def test_what_is_no_whole_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lexloom prepare"):
        Corpus.open(tmp_path)
    corpus = write(tmp_path / "c")
    with pytest.raises(ConfigError, match="train"):
        corpus.count("trian")
    path = corpus.folder / "train-00000.parquet"
    content = bytearray(path.read_bytes())
    at = len(content) // 2
    content[at - 200 : at] = bytes(200)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        list(Corpus.open(corpus.folder).documents())
    path.write_bytes(bytes(content[:-1]))
    with pytest.raises(DataError, match="prepare it again"):
        Corpus.open(corpus.folder)
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        Corpus.open(corpus.folder)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with files.new_folder(tmp_path / "c") as folder:
        files.write_json(folder / "corpus.json", {"format": 2, "splits": {}})
    with pytest.raises(FormatError, match="update lexloom"):
        Corpus.open(tmp_path / "c")


def test_a_report_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.parquet").write_bytes(b"x")
    with files.new_folder(tmp_path / "c") as folder:
        files.write_json(folder / "corpus.json", {"format": 1, "splits": {"train": {"documents": 1, "files": ["../secret.parquet"]}}})
    with pytest.raises(DataError, match="not in the corpus"):
        Corpus.open(tmp_path / "c")


def test_metadata_may_not_take_the_names_of_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="metadata"):
        CorpusWriter(tmp_path, ["text"])


def test_a_spill_gives_documents_in_order_and_by_place(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill", ["title", "group"])
    wanted = [Document(f"d{i}", "x" * 50_000 + str(i), (), "s", {"title": "t"} if i % 2 else {}) for i in range(70)]
    for number, each in enumerate(wanted):
        spill.add(each, number % 3)
    spill.seal()
    found = [(d, e) for _, documents, entries in spill.batches() for d, e in zip(documents, entries, strict=True)]
    assert found == [(each, number % 3) for number, each in enumerate(wanted)]
    assert [start for start, _, _ in spill.batches()][:2] == [0, 21]
    assert all(spill.value(i, "text") == wanted[i].text and spill.value(i, "entry") == i % 3 for i in (0, 20, 21, 69))


# Documents out of rows and texts


def made(rows: list[dict[str, Any]], dated: bool = False, **columns: Any) -> tuple[list[Document], Quarantine]:
    bad = Quarantine()
    placed = (Placed(row, "f", number) for number, row in enumerate(rows, 1))
    return list(documents_of(placed, ColumnsConfig.read(columns), bad=bad, dated=dated)), bad


def test_columns_are_mapped() -> None:
    row = {"body": "text", "key": 7, "name": "N", "who": "p1", "when": datetime.date(2020, 1, 2), "extra": 1.5, "other": "x"}
    columns = {"text": "body", "id": "key", "title": "name", "group": "who", "date": "when", "keep": ["extra"]}
    found, _ = made([row], **columns)
    assert found == [Document("7", "text", (), "f", {"title": "N", "group": "p1", "date": "2020-01-02", "extra": "1.5"})]


def test_several_columns_of_text_are_a_document_each() -> None:
    found, bad = made([{"de": "Haus", "en": "house", "id": 4}, {"de": "Maus", "en": "mouse"}, {"de": "Laus", "en": 3}], text=["de", "en"])
    assert [(d.id, d.text) for d in found] == [("4#de", "Haus"), ("4#en", "house"), ("f:2#de", "Maus"), ("f:2#en", "mouse")]
    assert bad.total == 1 and "'en' is not text" in next(iter(bad.reasons))


def test_id_and_title_are_taken_where_they_are_and_places_stand_in() -> None:
    found, bad = made([{"text": "a", "id": "x", "title": "T"}, {"text": "b"}, {"text": "c", "id": None, "title": ""}])
    assert [(d.id, d.metadata) for d in found] == [("x", {"title": "T"}), ("f:2", {}), ("f:3", {})]
    assert bad.total == 0


def test_values_of_wrong_types_are_bad_rows() -> None:
    rows = [
        {"text": 5, "id": "a"},
        {"text": None, "id": "a"},
        {"text": "x", "id": None},
        {"text": "x", "id": ["l"]},
        {"text": "x", "id": True},
    ]
    found, bad = made([*rows, {"text": "good", "id": "g"}], id="id")
    assert [d.id for d in found] == ["g"]
    assert [row.line for row in bad.first] == [1, 2, 3, 4, 5]
    assert bad.reasons == {"column 'text' is not text": 2, "column 'id' is empty": 1, "column 'id' is not a text or a number": 2}
    found, bad = made([{"text": "a", "d": "2020-01-01"}, {"text": "b", "d": "soon"}, {"text": "c", "d": None}], dated=True, date="d")
    assert (len(found), bad.reasons) == (1, {"column 'd' is not a date": 2})


def test_units_of_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_bytes(b"Para one\r\nline two.\r\n\r\n \r\nPara two.\r\n")
    source = survey(path, "b.txt")

    def units(unit: Any) -> list[tuple[str, str]]:
        return [(d.id, d.text) for d in read_documents(source, ColumnsConfig(), bad=Quarantine(), unit=unit)]

    assert units("file") == [("b.txt", "Para one\nline two.\n\n \nPara two.")]
    assert units("line") == [("b.txt:1", "Para one"), ("b.txt:2", "line two."), ("b.txt:5", "Para two.")]
    assert units("blank-line") == [("b.txt:1", "Para one\nline two."), ("b.txt:5", "Para two.")]


def test_a_long_file_is_cut_at_empty_lines_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    paragraphs = [f"Paragraph {i}\n" + "word " * 40 for i in range(100)]
    path.write_text("\n\n".join(paragraphs))
    found = list(read_documents(survey(path, "long.txt"), ColumnsConfig(), bad=Quarantine(), max_line_bytes=3000))
    assert [d.id for d in found[:2]] == ["long.txt#1", "long.txt#2"]
    assert all(len(d.text) <= 3000 for d in found)
    assert "".join("".join(d.text for d in found).split()) == "".join("".join(paragraphs).split())
    assert all(d.text.strip().startswith("Paragraph") for d in found)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2020-01-31", 20200131000000),
        ("2020-01-31T12:30:05", 20200131123005),
        ("2020-01-31T01:00:00+02:00", 20200130230000),
        ("2020/1/3", 20200103000000),
        ("2020年1月3日", 20200103000000),
        ("2020-02", 20200200000000),
        ("2020", 20200000000000),
        ("soon", None),
        ("", None),
        ("2020-13-01", None),
        ("12", None),
    ],
)
def test_dates_become_numbers_in_order_of_time(text: str, number: int | None) -> None:
    assert date_number(text) == number


# Splits


def test_shares_are_met_and_nothing_depends_on_order() -> None:
    names = hashed(f"document {i}" for i in range(20_000))
    config = SplitConfig(validation=0.05, test=0.1)
    marks = by_key(names, config, seed=1)
    counts = np.bincount(marks, minlength=3)
    assert abs(counts[VALIDATION] - 1000) < 4 * 31  # four standard deviations
    assert abs(counts[TEST] - 2000) < 4 * 42
    order = np.random.default_rng(0).permutation(len(names))
    assert (by_key(names[order], config, seed=1) == marks[order]).all()
    assert (by_key(names[:5000], config, seed=1) == marks[:5000]).all()
    assert (by_key(names, config, seed=2) != marks).any()


@example(groups=1, seed=0, validation=0.390625, test=0.390625)  # the only group was once held out, and nothing was left to train on
@given(st.integers(1, 12), st.integers(0, 5), st.floats(0, 0.4), st.floats(0, 0.4))
def test_groups_stay_together_and_small_sets_are_split_as_far_as_they_can(groups: int, seed: int, validation: float, test: float) -> None:
    names = hashed(f"g{i % groups}" for i in range(30))
    marks = by_key(names, SplitConfig(validation=validation, test=test), seed)
    assert all(len(set(marks[names == name].tolist())) == 1 for name in names)
    assert (marks == TRAIN).any()
    asked = [mark for mark, share in ((VALIDATION, validation), (TEST, test)) if share > 0]
    if groups > len(asked):
        assert all((marks == mark).any() for mark in asked)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40))
def test_by_date_the_newest_are_held_out_and_no_date_is_divided(days: list[int]) -> None:
    dates = np.array(days, dtype=np.int64)
    marks = by_date(dates, SplitConfig(validation=0.2, test=0.2))
    rank = {TRAIN: 0, VALIDATION: 1, TEST: 2}
    by_day = [rank[int(mark)] for _, mark in sorted(zip(days, marks, strict=True))]
    assert by_day == sorted(by_day)
    assert all(len(set(marks[dates == day].tolist())) == 1 for day in days)
    assert (marks == TRAIN).any()
    assert len(set(days)) < 3 or set(marks.tolist()) == {TRAIN, VALIDATION, TEST}
