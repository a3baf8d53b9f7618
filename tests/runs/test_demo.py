"""The demo's sources: real English out of this Python, labelled, split by module, the same every time, and nothing imported for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lexloom import files
from lexloom.console import Console
from lexloom.errors import DataError
from lexloom.runs import demo, documentation, recipe
from lexloom.runs.demo import Row

SPLITS = ("train", "validation", "test")
Made = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def own() -> documentation.Library:
    """The library of the Python that runs the tests."""
    return documentation.read_library()


@pytest.fixture(scope="module")
def made(own: documentation.Library, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("demo") / "sources"
    return folder, demo.write_demo_sources(folder, 1, library=own)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_there_is_about_a_megabyte_of_documents_and_more(made: Made) -> None:
    folder, found = made
    sizes = {path.stem: path.stat().st_size for path in (folder / "texts").iterdir()}
    assert set(sizes) == set(found["texts"])
    assert 800_000 < sum(sizes.values()) < 5_000_000
    documents = [document for name in sizes for document in rows(folder / "texts" / f"{name}.jsonl")]
    assert len(documents) > 250
    assert len({document["id"] for document in documents}) == len(documents)
    assert all(document["text"].strip() and document["source"] for document in documents)


def test_the_documents_are_english_prose(made: Made) -> None:
    text = " ".join(document["text"] for document in rows(made[0] / "texts" / "library.jsonl"))
    assert ">>>" not in text
    words = text.lower().split()
    assert sum(words.count(word) for word in ("the", "a", "of", "to", "is", "and")) > 0.1 * len(words)
    assert sum(character.isalpha() or character.isspace() for character in text) > 0.88 * len(text)


def test_every_part_is_in_every_split(made: Made) -> None:
    folder, found = made
    for name in SPLITS:
        labels = [row["label"] for row in rows(folder / "docstrings" / f"{name}.jsonl")]
        assert {label: labels.count(label) for label in set(labels)} == found["docstrings"][name]
        assert set(labels) == set(demo.PARTS)
    totals = {part: sum(found["docstrings"][name][part] for name in SPLITS) for part in demo.PARTS}
    assert min(totals.values()) >= 80
    assert max(totals.values()) <= demo.MAX_ROWS
    assert max(totals.values()) <= 3 * min(totals.values())


def test_no_text_and_no_module_is_in_two_splits(made: Made) -> None:
    found = {name: rows(made[0] / "docstrings" / f"{name}.jsonl") for name in SPLITS}
    for key in ("text", "module"):
        values = {name: {row[key].lower() for row in found[name]} for name in SPLITS}
        assert not values["train"] & values["validation"]
        assert not values["train"] & values["test"]
        assert not values["validation"] & values["test"]
    texts = [row["text"] for name in SPLITS for row in found[name]]
    assert len(set(texts)) == len(texts)


def test_nothing_held_out_is_trained_on(made: Made) -> None:
    documents = {document["title"] for document in rows(made[0] / "texts" / "library.jsonl")}
    held_out = {row["module"] for name in ("validation", "test") for row in rows(made[0] / "docstrings" / f"{name}.jsonl")}
    assert not documents & held_out
    assert documents & {row["module"] for row in rows(made[0] / "docstrings" / "train.jsonl")}


def test_the_label_is_not_given_away(made: Made) -> None:
    for name in SPLITS:
        for row in rows(made[0] / "docstrings" / f"{name}.jsonl"):
            top = row["module"].split(".")[0].strip("_")
            assert f" {top} " not in f" {row['text'].lower()} "
            assert len(row["text"]) <= demo.MAX_CHARACTERS
            assert "\n" not in row["text"]


def test_the_same_library_and_seed_give_the_same_files(own: documentation.Library, made: Made, tmp_path: Path) -> None:
    assert demo.write_demo_sources(tmp_path / "again", 1, library=own) == made[1]
    assert files.verify(tmp_path / "again") == files.verify(made[0])


def test_another_seed_splits_otherwise(own: documentation.Library) -> None:
    labelled = demo.labelled_rows(own.modules)
    one, other = (demo.split_rows(labelled, seed) for seed in (1, 2))
    assert {row.module for row in one["test"]} != {row.module for row in other["test"]}


def test_reading_imports_no_module_and_finds_the_same_each_time(own: documentation.Library, in_child: Callable[..., str]) -> None:
    """Codecs apart, which a source file may ask for in its first line."""
    code = """
import sys, sysconfig
from lexloom.files import fingerprint
from lexloom.runs import documentation
sysconfig.get_paths()
before = set(sys.modules)
library = documentation.read_library()
print(sorted(name for name in set(sys.modules) - before if not name.startswith("encodings.")))
print(fingerprint([[module.path, module.docstrings] for module in library.modules]))
"""
    imported, found = in_child(code).splitlines()
    assert imported == "[]"
    assert found == files.fingerprint([[module.path, module.docstrings] for module in own.modules])


def test_the_recipe_is_one(made: Made) -> None:
    plan = recipe.read(made[0] / "recipe.yaml")
    assert plan.recipe.finetune["part"].task == "text-classification"
    assert plan.recipe.finetune["part"].baselines == ["majority", "tfidf", "from-scratch"]
    assert all("[MASK]" in text for phase in plan.recipe.phases for text in phase.fills)
    assert plan.recipe.seed == 1


# Reading a library


def library(root: Path, sources: dict[str, str | bytes]) -> documentation.Library:
    for name, source in sources.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return documentation.read_library(root)


GOOD = """'The module says a few words.'
class A:
    'A class of some use.'
    def f(self):
        'Does what it should do.'
"""


def test_docstrings_come_in_the_order_of_the_source(tmp_path: Path) -> None:
    source = GOOD + 'if True:\n    async def g():\n        """The last of them all."""\n'
    assert library(tmp_path, {"a": source}).modules == [
        documentation.Module(
            "a.py", ("The module says a few words.", "A class of some use.", "Does what it should do.", "The last of them all.")
        )
    ]


def test_names_of_modules(tmp_path: Path) -> None:
    found = library(tmp_path, {"email/__init__": GOOD, "email/mime/text": GOOD, "_pydecimal": GOOD}).modules
    assert [(module.name, module.top) for module in found] == [
        ("_pydecimal", "_pydecimal"),
        ("email", "email"),
        ("email.mime.text", "email"),
    ]


def test_what_cannot_be_parsed_is_counted_and_passed_over(tmp_path: Path) -> None:
    bad = {"syntax": "def f(:", "nul": b"a = 1\0", "bytes": b"\xff\xfe\x00", "codec": "# coding: no-such-codec\n", "deep": "(" * 5000}
    found = library(tmp_path, {"good": GOOD, "latin": b"# coding: latin-1\n'''Caf\xe9 of three words.'''\n", **bad})
    assert [module.name for module in found.modules] == ["good", "latin"]
    assert found.modules[1].docstrings == ("Café of three words.",)
    assert found.unreadable == len(bad)


def test_tests_and_other_packages_are_left_out(tmp_path: Path) -> None:
    inside = {f"{folder}/x": GOOD for folder in ("test", "json/tests", "site-packages", "idlelib", "lib2to3", "dist-packages/numpy")}
    assert [module.name for module in library(tmp_path, {"a": GOOD, "tests": GOOD, **inside}).modules] == ["a", "tests"]


def test_a_python_without_topics_has_none(tmp_path: Path) -> None:
    assert library(tmp_path, {"a": GOOD}).topics == {}
    for source in ("", "topics = open('x')", "topics = [1]", "topics = {"):
        assert library(tmp_path, {"pydoc_data/topics": source}).topics == {}
    source = "topics = {'if': 'The if statement\\n****\\n\\n   if_stmt ::= \"if\"\\n\\nIt is used for choices.', 'empty': ''}"
    assert library(tmp_path, {"pydoc_data/topics": source}).topics == {"if": "The if statement\n\nIt is used for choices."}


def test_a_python_without_source_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no docstrings to read"):
        documentation.read_library(tmp_path)
    with pytest.raises(DataError, match="no docstrings to read"):
        library(tmp_path, {"a": "x = 1"})


PROSE = {
    "": "",
    "x": "",
    "Return the value.": "Return the value.",
    "  Return the\n  value of it.\r\n\r\n  And then more words.\n": "Return the value of it.\n\nAnd then more words.",
    "How it is used:\n\n>>> f(1)\n1\n>>> g()\na line of output\n\nThat was the example.": "How it is used:\n\nThat was the example.",
    "Words before it.\n>>> f(1)\nthe output of it\n": "Words before it.",
    "join(a, *p) -> str\n\nJoin two paths into one.": "Join two paths into one.",
    "b64encode(s[, altchars]) -- encode a string of bytes": "encode a string of bytes",
    "S.find(sub) -> int: the lowest index of it": "the lowest index of it",
    "Raised when get() is called on an empty queue.": "Raised when get() is called on an empty queue.",
    "Title of this thing\n===================\n\nWords that say more.": "Title of this thing\n\nWords that say more.",
    "Use :class:`~queue.Queue` or ``put`` and *block* for this.": "Use queue.Queue or put and block for this.",
    "Here is an example::\n\n    x = f(1)\n    for y in x:\n        print(y)\n\nIt does this.": "Here is an example:\n\nIt does this.",
    "Here is an example:\n    x = f(1)\nand here are words\nthat go on.": "Here is an example: and here are words that go on.",
    "Two things it does:\n- the first of these\n- the other of these": "Two things it does:\n\nthe first of these\n\nthe other of these",
    ".. versionadded:: 3.4\n\nWords that stay here.": "Words that stay here.",
    "name      type      meaning\nwidth     int       of it\n\nWords that stay here.": "Words that stay here.",
    "打开一个文件。 Opens one file — quickly, 😀 yes.": "打开一个文件。 Opens one file — quickly, 😀 yes.",
    "a\0b three words here": "a\0b three words here",
}


@pytest.mark.parametrize("docstring", PROSE)
def test_prose_is_kept_and_code_is_not(docstring: str) -> None:
    assert documentation.clean(docstring) == PROSE[docstring]


# Rows and splits


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("An asyncio task.", "asyncio", "An ___ task."),
        ("Asyncio's ASYNCIO-like thing", "asyncio", "___'s ___-like thing"),
        ("asyncio.Queue and os.path.join()", "asyncio", "Queue and join()"),
        ("emails are not blanked", "email", "emails are not blanked"),
        ("see _pydecimal or pydecimal", "_pydecimal", "see ____ or ___"),
        ("two\n\nlines  here. Next one", "x", "two lines here. Next one"),
        ("version 1.5 e.g. this", "x", "version 1.5 e.g. this"),
        ("word " * 1000, "x", ("word " * 200).strip()),
    ],
)
def test_blanking(text: str, name: str, found: str) -> None:
    assert demo.blanked(text, name) == found


def test_texts_of_two_parts_belong_to_none_and_equal_ones_count_once() -> None:
    same, shared = "One text that two modules of one part share.", "One text that modules of two parts share."
    modules = [documentation.Module(path, (same, shared)) for path in ("http/client.py", "http/server.py")]
    modules.append(documentation.Module("json/decoder.py", (shared, "Too few words here", "Words of no part: these are.")))
    modules.append(documentation.Module("unlabelled.py", ("A module of no part at all has no rows.",)))
    assert demo.labelled_rows(modules) == [
        Row(same, "networking", "http.client"),
        Row("Words of no part: these are.", "text and formats", "json.decoder"),
    ]


def test_nearly_equal_texts_leave_the_held_out_splits() -> None:
    text = "open the given file and read all of its lines into a list of strings"
    far = "send the message to every server that answers in time"
    others = [Row(text, "files", "io"), Row(far, "networking", "http")]
    near = Row(text.replace("strings", "texts"), "files", "gzip")
    kept = Row("close the given file and write all lines of another list to it later on", "files", "bz2")
    assert demo._without_near([near, kept], others) == [kept]


@pytest.mark.slow
def test_the_whole_demo_runs_and_says_what_it_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "pretrain.train.tokens=40k",
        "finetune.part.train.epochs=1",
        "finetune.part.train.max_length=32",
        "finetune.part.train.seeds=1",
    ]
    run = demo.demo(tmp_path / "run", console=Console(quiet=True), settings=small)
    told = capsys.readouterr().out
    for words in ("TF-IDF", "from scratch", "majority", demo.FILLS[0], demo.ASKED, str(run / "report.html"), "lexloom predict"):
        assert words in told
    assert (run / "report.html").stat().st_size > 1000
    assert files.read_manifest(run / "finetune" / "part" / "bundle") is not None
