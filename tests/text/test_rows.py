from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexloom.errors import ConfigError, DataError
from lexloom.text import tables, values
from lexloom.text.lines import byte_lines, find_encoding
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, files_of, read_rows, survey

CHINESE = "我们在这里说的是中文，今天天气很好。"
TRADITIONAL = "這是一個測試文件，我們在這裡說中文。"


def read(path: Path, **settings: Any) -> tuple[list[tuple[int, dict[str, Any]]], Quarantine]:
    bad = Quarantine()
    return [(placed.line, placed.row) for placed in read_rows(path, bad=bad, **settings)], bad


def reasons(bad: Quarantine) -> dict[int, str]:
    return {row.line: row.reason for row in bad.first}


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


ROWS = [{"text": "one", "label": "a"}, {"text": "两个\nlines", "label": "b"}, {"text": 'quoted "it", 😀', "label": "a"}]
CONTENT = {
    "jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "json": json.dumps(ROWS, ensure_ascii=False, indent=2),
    "csv": 'text,label\none,a\n"两个\nlines",b\n"quoted ""it"", 😀",a\n',
}


@pytest.mark.parametrize("kind", CONTENT)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gz", "zst"])
def test_each_format_packed_or_not_gives_the_same_rows(tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / f"rows.{kind}", pack(CONTENT[kind].encode()))
    rows, bad = read(path)
    assert [row for _, row in rows] == ROWS
    assert bad.total == 0


def test_parquet_and_tsv_give_rows(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert [row for _, row in read(tmp_path / "rows.parquet")[0]] == ROWS
    assert read(tmp_path / "rows.parquet", columns=["label"])[0][0] == (1, {"label": "a"})
    path = write(tmp_path / "rows.tsv", 'text\tlabel\n"He said," she said\ta\n"whole ""it"""\tb\n')
    assert [row["text"] for _, row in read(path)[0]] == ['"He said," she said', 'whole "it"']


def test_a_txt_file_has_a_row_for_each_line_that_is_not_blank(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeffone\r\n\r\ntwo\rthree\nfour")
    assert read(path)[0] == [(1, {"text": "one"}), (3, {"text": "two"}), (4, {"text": "three"}), (5, {"text": "four"})]


def test_a_folder_is_read_in_the_order_of_names_and_the_rest_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "b.txt", "b")
    write(tmp_path / "a.jsonl", '{"text": "a"}\n')
    write(tmp_path / "sub" / "c.txt.gz", gzip.compress(b"c"))
    write(tmp_path / "picture.png", b"\x89PNG")
    write(tmp_path / ".hidden.txt", "h")
    assert [row["text"] for _, row in read(tmp_path)[0]] == ["a", "b", "c"]
    assert [path.name for path in files_of(tmp_path)[1]] == ["picture.png"]


def test_missing_paths_and_unknown_formats_are_named_with_what_was_probably_meant(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "{}")
    with pytest.raises(ConfigError, match=r"did you mean .*train\.jsonl"):
        read(tmp_path / "trian.jsonl")
    with pytest.raises(ConfigError, match="no format"):
        read(write(tmp_path / "rows.xls", b"x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no readable file"):
        read(tmp_path / "empty")


# Encodings


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (f"{CHINESE}\n{TRADITIONAL}\n".encode(), "utf-8"),
        (f"{CHINESE}\n{CHINESE}\nabc\n".encode("gb18030"), "gb18030"),
        (f"{TRADITIONAL}\n".encode("gb18030") * 40, "gb18030"),
        ((b"plain\n" * 300_000) + f"{CHINESE}\n".encode("gb18030") * 4000, "gb18030"),
        (CHINESE.encode("utf-16"), "utf-16"),
        ((CHINESE.encode() + b"\n") * 300 + b"\xff\xfe broken\n" * 2, "utf-8"),
        ("café crème\n".encode("latin-1") * 50, "utf-8"),
        ("résumé naïve été\n".encode("latin-1") * 50, "utf-8"),
        (f"{TRADITIONAL}\n".encode("big5") * 40, "utf-8"),
        (b"", "utf-8"),
    ],
    ids=["utf-8", "gbk", "gbk-traditional", "late-gbk", "utf-16", "utf-8-damaged", "latin-1", "latin-1-pairs", "big5", "empty"],
)
def test_the_encoding_is_found_by_the_whole_file(tmp_path: Path, content: bytes, encoding: str) -> None:
    assert find_encoding(write(tmp_path / "a.txt", content)).name == encoding


def test_rows_of_other_encodings_come_out_as_text_and_damage_stays_a_bad_row(tmp_path: Path) -> None:
    lines = [json.dumps({"text": CHINESE}, ensure_ascii=False).encode("gb18030")] * 20
    path = write(tmp_path / "a.jsonl", b"\n".join([*lines, b'{"text": "\xff\xff"}']))
    rows, bad = read(path)
    assert [row["text"] for _, row in rows] == [CHINESE] * 20
    assert reasons(bad) == {21: "not gb18030: byte 0xff at column 11"}
    assert read(write(tmp_path / "b.csv", "text\nçà\n".encode("latin-1")), encoding="latin-1")[0] == [(2, {"text": "çà"})]
    assert read(write(tmp_path / "c.txt", f"{CHINESE}\r\nzwei".encode("utf-16")))[0] == [(1, {"text": CHINESE}), (2, {"text": "zwei"})]
    with pytest.raises(ConfigError, match="utf-8"):
        read(path, encoding="utf8x")


# Bad rows


def test_each_fault_of_a_jsonl_file_is_told_with_its_line(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "mark"}',
        b'{"text": "\xff"}',
        b'{"text": "a\0b"}',
        b'{"Text": "other name"}',
        b"[1, 2]",
        b'{"text": "open',
        b'{"text": "\\ud800"}',
        b'{"text": NaN}',
        b'{"text": "' + b"x" * 3000 + b'"}',
        b"[" * 2900,
        b"",
        b'\xef\xbb\xbf{"text": "\\ud83d\\ude00"}',
    ]
    rows, bad = read(write(tmp_path / "a.jsonl", b"\r\n".join(lines)), columns=["text"], max_line_bytes=2950)
    assert rows == [(1, {"text": "mark"}), (12, {"text": "😀"})]
    found = reasons(bad)
    assert list(found) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert found[2] == "not utf-8: byte 0xff at column 11"
    assert "NUL" in found[3]
    assert found[4] == "no column 'text': did you mean 'Text'?"
    assert "got a list" in found[5]
    assert "Unterminated" in found[6]
    assert "surrogate" in found[7]
    assert "NaN" in found[8]
    assert found[9] == "the line is longer than 2950 bytes"
    assert "nested too deeply" in found[10]


@pytest.mark.parametrize("pack", [gzip.compress, zstd], ids=["gz", "zst"])
def test_a_cut_stream_keeps_what_came_before_and_says_where(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    content = b"".join(b'{"n": %d, "x": "%s"}\n' % (i, os.urandom(8).hex().encode()) for i in range(60_000))
    packed = pack(content)
    rows, bad = read(write(tmp_path / "a.jsonl.gz", packed[: len(packed) * 2 // 3]))
    assert 10_000 < len(rows) < 60_000
    assert [row["n"] for _, row in rows] == list(range(len(rows)))
    assert bad.total == 1
    assert bad.first[0].line == len(rows) + 1
    assert "cut" in bad.first[0].reason


def test_members_of_a_gzip_file_follow_each_other(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"one\n") + gzip.compress(b"two\n") + b"\0" * 512)
    assert [row["text"] for _, row in read(path)[0]] == ["one", "two"]


def test_a_packed_line_without_end_is_one_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"\0" * (80 << 20)) + gzip.compress(b"\nafter\n"))
    rows, bad = read(path)
    assert rows == [(2, {"text": "after"})]
    assert reasons(bad) == {1: "the line is longer than 8388608 bytes"}


def test_a_stray_quote_costs_one_row_and_lines_are_counted_through_quoted_newlines(tmp_path: Path) -> None:
    text = 'id,text\n1,"a\nb"\n2,x"y\n3,"q ""z"""\n4,"open\n5,fine\n6,"x"\n7,a,b\n\n8,\n9,"end'
    rows, bad = read(write(tmp_path / "a.csv", text))
    assert [(line, row["id"], row["text"]) for line, row in rows] == [
        (2, "1", "a\nb"),
        (4, "2", 'x"y'),
        (5, "3", 'q "z"'),
        (7, "5", "fine"),
        (8, "6", "x"),
        (11, "8", ""),
    ]
    assert reasons(bad) == {6: "text after a closing quote", 9: "not 2 fields: 3", 12: tables.UNCLOSED}


def test_tables_name_their_columns(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "id;text\n1;a,b\n"))[0] == [(2, {"id": "1", "text": "a,b"})]
    with pytest.raises(DataError, match="did you mean 'review'"):
        read(write(tmp_path / "b.csv", "id,review\n1,x\n"), columns=["reviews"])
    with pytest.raises(DataError, match="stands twice"):
        read(write(tmp_path / "c.csv", "id,id\n1,x\n"))
    with pytest.raises(DataError, match="first line"):
        read(write(tmp_path / "d.csv", b"\xff\xff,x\n1,2\n"))
    assert read(write(tmp_path / "e.csv", ",text\n0,x\n"))[0] == [(2, {"unnamed 1": "0", "text": "x"})]


def test_a_column_that_no_row_has_stops_the_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": "x"}\n' * 3000)
    with pytest.raises(DataError, match="expected: one of: body"):
        read(path, columns=["text"])


def test_a_json_array_goes_on_after_broken_elements(tmp_path: Path) -> None:
    text = b'[{"a": 1},\n {"a": "x\n"},\n {"a": "\\ud800"},\n {"a": NaN},\n 5, {"a": [1, {"b": 2}]}, {"a": "\xff"}\n]'
    rows, bad = read(write(tmp_path / "a.json", text))
    assert rows == [(1, {"a": 1}), (6, {"a": [1, {"b": 2}]})]
    assert [row.line for row in bad.first] == [2, 4, 5, 6, 6]
    rows, bad = read(write(tmp_path / "lines.json", b'{"a": 1}\n{"a": 2 oops}\n{"a": 3}\n{"a":'))
    assert [row["a"] for _, row in rows] == [1, 3]
    assert list(reasons(bad)) == [2, 4]


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.integers(-9, 9) | st.none(), max_size=4), max_size=8), st.integers(1, 7)
)
def test_values_of_an_array_do_not_depend_on_how_it_is_cut(rows: list[dict[str, Any]], size: int) -> None:
    text = json.dumps(rows, ensure_ascii=False, indent=1)
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    found = list(values.Values(iter(pieces), 1 << 20))
    assert [value for _, value, _, _ in found] == rows
    assert not any(problem for _, _, problem, _ in found)


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6), min_size=2, max_size=2), max_size=6))
def test_quoted_fields_come_back(rows: list[list[str]]) -> None:
    quoted = ["a,b", *(",".join('"' + field.replace('"', '""') + '"' for field in row) for row in rows)]
    lines = ((number, line, "") for number, line in enumerate("\n".join(quoted).split("\n"), 1))
    assert [fields for _, fields, _ in tables.records(lines, ",", 1 << 20)] == [["a", "b"], *rows]


def test_a_damaged_page_of_a_parquet_file_loses_its_group_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"row {i} {os.urandom(16).hex()}" for i in range(1000)]})
    pq.write_table(table, path, row_group_size=100, compression="zstd", use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(4).column(0).data_page_offset + 60
    content[at : at + 40] = bytes(40)
    path.write_bytes(bytes(content))
    rows, bad = read(path)
    lines = [line for line, _ in rows]
    assert len(rows) + bad.total == 1000
    assert set(range(1, 401)) | set(range(501, 1001)) <= set(lines)
    assert 401 <= bad.first[0].line <= 500
    assert "damaged page" in bad.first[0].reason
    assert read(write(tmp_path / "b.parquet", b"PAR1 not at all"))[1].total == 1


def test_a_text_that_is_no_utf_8_in_parquet_is_one_bad_row(tmp_path: Path) -> None:
    buffer = pa.py_buffer(b"good\xff\xffalso")
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 4, 6, 10)))
    texts = pa.Array.from_buffers(pa.string(), 3, [None, offsets, buffer])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    rows, bad = read(tmp_path / "a.parquet")
    assert [row["text"] for _, row in rows] == ["good", "also"]
    assert reasons(bad) == {2: "not utf-8"}


# Quarantine


def test_a_quarantine_counts_by_reason_and_lists_all_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    with Quarantine(path, keep=2) as bad:
        bad.add("a.csv", 1, "not 2 fields: 3", text="x,y,z\ud800")
        bad.add("a.csv", 5, "not 2 fields: 1", text=b"\xff")
        bad.add("b.csv", 9, "other", rows=7)
    assert (bad.total, dict(bad.reasons), len(bad.first)) == (9, {"not 2 fields": 2, "other": 7}, 2)
    listed = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["file"], row["line"], row["rows"]) for row in listed] == [("a.csv", 1, 1), ("a.csv", 5, 1), ("b.csv", 9, 7)]
    with Quarantine(tmp_path / "none.jsonl"):
        pass
    assert not (tmp_path / "none.jsonl").exists()


def test_strict_stops_at_the_first_and_a_limit_after_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": 1}\nx\ny\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: not JSON"):
        list(read_rows(path, bad=Quarantine(strict=True)))
    aside = tmp_path / "bad.jsonl"
    with pytest.raises(DataError, match=r"a\.jsonl:3: more bad rows"), Quarantine(aside, max_bad_rows=1) as bad:
        list(read_rows(path, bad=bad))
    assert len(aside.read_text().splitlines()) == 2


# Bounds


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@given(lines=st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"").replace(b"\r", b"")), max_size=30))
def test_lines_are_cut_alike_at_every_kind_of_end(tmp_path_factory: pytest.TempPathFactory, end: str, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("lines") / "a"
    lines = [b"plain", *lines]  # no mark of compression
    path.write_bytes(end.encode().join([*lines, b""]))
    found = list(byte_lines(path, "utf-8", limit=20))
    assert [number for number, _, _ in found] == list(range(1, len(lines) + 1))
    assert [bool(problem) for *_, problem in found] == [len(line) > 20 for line in lines]
    assert [raw for _, raw, problem in found if not problem] == [line for line in lines if len(line) <= 20]


def _anonymous() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is read from /proc")
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("RssAnon"))


def test_among_100_000_rows_1_000_of_all_bad_kinds_are_found_and_no_others(tmp_path: Path) -> None:
    kinds: list[bytes] = [
        b'{"text": "\xff\xfe"}',
        b'{"text": "a\0"}',
        b'{"txt": 1}',
        b"{text}",
        b"[]",
        b'{"text": "\\udfff"}',
        b'{"text": -Infinity}',
        b"\xc3(",
    ]
    wanted: dict[int, bytes] = {line: kinds[line // 100 % len(kinds)] for line in range(50, 99_700, 100)} | {
        99_800: b'{"text": "' + b"x" * 10_000_000 + b'"}'
    }
    wanted |= {99_801 + i: b"nope" for i in range(1000 - 1 - len(wanted))}
    ends = (b"\n", b"\r\n", b"\r")
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"\xef\xbb\xbf")
        for line in range(1, 100_001):
            file.write(wanted.get(line, b'{"text": "good row %d"}' % line) + ends[line % 3])
    packed = path.read_bytes()
    path.write_bytes(packed[:-4])  # cut inside the trailer: the last bad row
    before, most, good = _anonymous(), 0, []
    bad = Quarantine(tmp_path / "bad.jsonl")
    with bad:
        for placed in read_rows(path, bad=bad, columns=["text"]):
            good.append(placed.line)
            most = max(most, _anonymous()) if len(good) % 5000 == 1 else most
    assert good == [line for line in range(1, 100_001) if line not in wanted]
    assert bad.total == 1000
    assert [json.loads(line)["line"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()] == [*sorted(wanted), 100_001]
    assert set(bad.reasons) == {
        "not utf-8",
        "the line holds a NUL byte",
        "no column 'text'",
        "not JSON",
        "the line is longer than 8388608 bytes",
        "the gzip stream is cut",
    }
    assert most - before <= 300 << 20
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz:50"):
        list(read_rows(path, bad=Quarantine(strict=True), columns=["text"]))


def test_the_survey_of_a_file_says_how_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", (CHINESE.encode() + b"\n") * 200 + b"\xff\n")
    source = survey(path, "given/a.jsonl", digest=True)
    assert (source.name, source.format, source.encoding, source.undecodable, source.bytes) == (
        "given/a.jsonl",
        "jsonl",
        "utf-8",
        1,
        path.stat().st_size,
    )
    assert len(source.sha256) == 64
    assert isinstance(next(read_rows(survey(write(tmp_path / "b.txt", "x")), bad=Quarantine())), Placed)
