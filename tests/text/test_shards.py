from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexloom import files
from lexloom.errors import DataError, FormatError
from lexloom.text.encoding import sentences_of
from lexloom.text.shards import Shards, write_shards
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer


@dataclass
class Text:
    id: str
    text: str
    borders: tuple[int, ...] = ()


def by_line(name: str, text: str) -> Text:
    return Text(name, text, tuple(place + 1 for place, letter in enumerate(text) if letter == "\n"))


TEXTS = [by_line(name, topics[name]) for name in sorted(topics)[:25]]
ODD = [
    Text("empty", ""),
    Text("blank", " \n\t "),
    Text("nothing a WordPiece keeps", "\0\u200b"),
    Text("chinese", "我们学习。机器也学习！", (5, 11)),
    Text("no borders", "one two three"),
    Text("borders beyond", "one. two.", (4, 99)),
    Text("lone \ud800 surrogate", "x \ud800 y"),
    Text("long", "word " * 9000 + "end.", (20,)),
    Text("unspaced", "x" * 45_000 + "字" * 30_000),
]


@cache
def tokenizer(kind: str = "wordpiece", size: int = 900) -> Tokenizer:
    return train_tokenizer([t.text for t in TEXTS[:10]], TokenizerConfig(kind=kind, vocab_size=size))  # type: ignore[arg-type]


def test_ids_of_a_document_are_those_of_its_sentences_and_borders_are_exact(tmp_path: Path) -> None:
    words = tokenizer()
    split = write_shards({"train": TEXTS}, words, tmp_path / "shards").split("train")
    assert len(split) == len(TEXTS) and split.tokens.dtype == np.uint16
    start = first = 0
    for place, document in enumerate(TEXTS):
        assert split.document_id(place) == document.id
        sentences = [ids for ids in words.encode_plain(sentences_of(document)) if len(ids)]
        low, high = split.span(place)
        assert low == start and split.tokens[low:high].tolist() == np.concatenate(sentences).tolist()
        ends = split.sentence_ends[first : int(split.document_ends[place])]
        assert np.diff(ends, prepend=start).tolist() == [len(ids) for ids in sentences]
        start, first = high, int(split.document_ends[place])
    assert split.token_ends(0, len(split)).tolist() == [split.span(place)[1] for place in range(len(split))]
    assert split.counts["tokens"] == len(split.tokens) == start and split.counts["sentences"] == len(split.sentence_ends)


@pytest.mark.parametrize("kind", ["wordpiece", "byte-bpe"])
def test_encoding_by_sentence_equals_encoding_the_whole(kind: str, tmp_path: Path) -> None:
    words = tokenizer(kind)
    split = write_shards({"train": TEXTS}, words, tmp_path / "shards").split("train")
    for place, document in enumerate(TEXTS):
        whole = words.encode_plain([document.text.strip()])[0].tolist()
        assert split.tokens[slice(*split.span(place))].tolist() == whole
        if kind == "byte-bpe":
            assert words.decode(whole) == document.text.strip()


def test_odd_documents_are_kept_or_skipped_and_counted(tmp_path: Path) -> None:
    words = tokenizer()
    split = write_shards({"train": ODD, "validation": ODD[3:5]}, words, tmp_path / "shards").split("train")
    assert [split.document_id(i) for i in range(len(split))] == [t.id.replace("\ud800", "?") for t in ODD[3:]]
    about = json.loads((tmp_path / "shards" / "shards.json").read_text())["splits"]["train"]
    assert about["skipped"] == {"empty": 2, "no tokens": 1} and about["long_sentences"] == 2
    assert about["bytes"] == sum(len(t.text.encode("utf-8", "replace")) for t in ODD)
    long = next(i for i in range(len(split)) if split.document_id(i) == "long")
    assert split.tokens[slice(*split.span(long))].tolist() == words.encode_plain([ODD[7].text])[0].tolist()
    assert int(split.document_ends[long]) - int(split.document_ends[long - 1]) == 2, "parts of a long sentence are one sentence"


def test_unknown_tokens_are_counted(tmp_path: Path) -> None:
    words = tokenizer()
    shards = write_shards({"a": [Text("1", "the 漢 of 字")], "b": [Text("2", "the")]}, words, tmp_path / "shards")
    assert shards.split("a").counts["unknown"] == 2 and shards.split("a").unknown_rate == 0.5 and shards.split("b").unknown_rate == 0


@settings(max_examples=100)
@given(st.text(alphabet=st.sampled_from("ab .\n\u3000。"), max_size=40), st.lists(st.integers(-3, 50), max_size=6))
def test_sentences_make_up_the_text_whatever_the_borders(text: str, borders: list[int]) -> None:
    sentences = sentences_of(Text("", text, tuple(borders)))
    assert "".join(sentences) == text.strip() and all(sentence.strip() == sentence.lstrip() != "" for sentence in sentences)


@pytest.mark.parametrize(("size", "wanted"), [(40, np.uint8), (900, np.uint16)])
def test_ids_take_as_few_bytes_as_the_vocabulary_allows(size: int, wanted: Any, tmp_path: Path) -> None:
    split = write_shards({"train": TEXTS[:3]}, tokenizer("word", size), tmp_path / "shards").split("train")
    assert split.tokens.dtype == wanted


def test_shards_are_smaller_than_the_text(tmp_path: Path) -> None:
    split = write_shards({"train": TEXTS}, tokenizer(), tmp_path / "shards").split("train")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*-train.bin")) <= 1.0 * split.counts["bytes"]


def test_equal_documents_give_equal_files_and_the_folder_has_a_manifest(tmp_path: Path) -> None:
    told: list[int] = []
    for name in ("one", "two"):
        write_shards({"train": iter(TEXTS)}, tokenizer(), tmp_path / name, report=told.append)
        files.verify(tmp_path / name)
    first, second = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [p.name for p in first] == [p.name for p in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
    assert told[-1] == len(TEXTS)


def test_a_corpus_object_is_as_good_as_a_mapping(tmp_path: Path) -> None:
    class Corpus:
        splits = ("train", "validation")

        def documents(self, split: str) -> Iterator[Text]:
            yield from TEXTS[:2] if split == "train" else TEXTS[2:3]

    shards = write_shards(Corpus(), tokenizer(), tmp_path / "shards")
    assert shards.splits == ["train", "validation"] and len(shards.split("validation")) == 1
    with pytest.raises(DataError, match="no split 'test'"):
        shards.split("test")


def test_an_empty_split_is_fine_but_no_token_at_all_is_not(tmp_path: Path) -> None:
    shards = write_shards({"train": TEXTS[:1], "validation": []}, tokenizer(), tmp_path / "shards")
    assert len(Shards.open(shards.folder, verify=True).split("validation")) == 0
    with pytest.raises(DataError, match="no token"):
        write_shards({"train": ODD[:3]}, tokenizer(), tmp_path / "none")
    assert not (tmp_path / "none").exists(), "what failed leaves nothing behind"


def test_damage_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards({"train": TEXTS[:4]}, tokenizer(), folder)
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}

    def broken(name: str, content: bytes, message: str, *, verify: bool = False) -> None:
        (folder / name).write_bytes(content)
        with pytest.raises(FormatError, match=message):
            Shards.open(folder, verify=verify)
        (folder / name).write_bytes(whole[name])
        Shards.open(folder, verify=True)

    broken("tokens-train.bin", whole["tokens-train.bin"][:-2], "another size")
    swapped = np.frombuffer(whole["sentences-train.bin"], dtype=np.uint32).copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    broken("sentences-train.bin", swapped.tobytes(), "borders of sentences are damaged")
    changed = b"\0\0" + whole["tokens-train.bin"][2:]
    broken("tokens-train.bin", changed, "changed or damaged", verify=True)
    broken("tokens-train.bin", b"\xff\xff" + changed[2:], "outside the vocabulary", verify=True)
    about = json.loads(whole["shards.json"])
    broken("shards.json", json.dumps(about | {"format": 2}).encode(), "unknown format")
    broken("shards.json", json.dumps({"format": 1}).encode(), "json is damaged")
    broken("shards.json", json.dumps(about | {"dtype": "object"}).encode(), "json is damaged")
    broken("shards.json", json.dumps(about | {"templates": {"single": [[1]], "pair": []}}).encode(), "no template")
    broken("shards.json", b"{", "not valid JSON")
    (folder / "ids-train.bin").unlink()
    with pytest.raises(FormatError, match="missing"):
        Shards.open(folder)
    with pytest.raises(FormatError, match="no shards"):
        Shards.open(tmp_path)


def test_names_of_splits_stay_inside_the_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="named with letters"):
        write_shards({"../train": TEXTS[:1]}, tokenizer(), tmp_path / "shards")
