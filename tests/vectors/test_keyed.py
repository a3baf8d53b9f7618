"""Files of vectors come back as they were written, and broken ones are named with their line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lexloom import keys
from lexloom.errors import ConfigError, DataError, FormatError
from lexloom.vectors.keyed import WordVectors

WORDS = ["the", "naïve", "词语", "1,000.5", "don't"]


def made() -> WordVectors:
    return WordVectors(WORDS, (keys.normal(keys.key(1, np.arange(5)), 7) * 3).astype(np.float32))


@pytest.mark.parametrize("ending", [".bin", ".txt", ".vec", ".safetensors", ".glove", ".tsv"])
def test_every_bit_comes_back(tmp_path: Path, ending: str) -> None:
    wv = made()
    wv.save(tmp_path / f"v{ending}")
    again = WordVectors.load(tmp_path / f"v{ending}")
    assert again.index_to_key == WORDS and again.key_to_index["词语"] == 2 and "x" not in again and len(again) == 5
    assert (again.vectors == wv.vectors).all() and (again["naïve"] == wv.vectors[1]).all()
    assert isinstance(again.vectors, np.memmap) is (ending == ".safetensors")


def test_our_own_file_opens_as_safetensors_and_holds_any_word(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    wv = WordVectors(["a b", "\n", ""], made().vectors[:3])
    wv.save(tmp_path / "v.safetensors")
    assert (load_file(tmp_path / "v.safetensors")["vectors"] == wv.vectors).all()
    assert WordVectors.load(tmp_path / "v.safetensors").index_to_key == ["a b", "\n", ""]
    for ending in (".bin", ".txt", ".glove", ".tsv"):
        with pytest.raises(DataError, match="white space"):
            wv.save(tmp_path / f"v{ending}")
        assert not (tmp_path / f"v{ending}").exists()
    with pytest.raises(DataError, match="half a character"):
        WordVectors(["\udc80"], wv.vectors[:1]).save(tmp_path / "v.txt")


@pytest.mark.parametrize("ending", [".bin", ".txt"])
def test_gensim_opens_ours_and_we_open_gensims(tmp_path: Path, ending: str) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    wv, binary = made(), ending == ".bin"
    wv.save(tmp_path / f"ours{ending}")
    theirs = keyed.load_word2vec_format(str(tmp_path / f"ours{ending}"), binary=binary)
    assert theirs.index_to_key == WORDS and (theirs.vectors == wv.vectors).all()
    theirs.save_word2vec_format(str(tmp_path / f"theirs{ending}"), binary=binary)
    assert np.allclose(WordVectors.load(tmp_path / f"theirs{ending}").vectors, wv.vectors, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"", "a.txt:1: the first line"),
        ("a.txt", b"2 x\n", "a.txt:1: the first line"),
        ("a.txt", b"2 2\na 1 2\nb 1\n", "a.txt:3: this line"),
        ("a.vec", b"2 2\na 1 2\nb 1 y\n", "a.vec:3: this line"),
        ("a.txt", b"1 2\na 1 2\nb 1 2\n", "a.txt:3: this line"),
        ("a.txt", b"2 2\na 1 2\n", "cut"),
        ("a.txt", b"2 2\na 1 2\na 1 2\n", "a.txt:3: a word stands twice"),
        ("a.txt", b"1 2\n\xff 1 2\n", "a.txt:2: a word is not UTF-8"),
        ("a.txt", b"3 2\na 1 2\n\xc3( 1 2\n\xff 1 2\n", "a.txt:3: a word is not UTF-8"),
        ("a.txt", b"99999999999 99999999999\na 1 2\n", "is cut"),
        ("a.bin", b"99999999999 99999999999\na 1 2\n", "is cut"),
        ("a.txt", b"a 1 2\nb 1\n", "a.txt:2: this line"),
        ("a.glove", b"a 1 2\nb 1 2 3 x\n", "a.glove:2: this line"),
        ("a.glove", b"a 1 2\n\xff 1 2\n", "a.glove:2: a word is not UTF-8"),
        ("a.glove", b"a 1 2\nb 1 2\na 1 2\n", "(?s)a.glove:3: a word stands twice.*also line 1"),
        ("a.glove", b"", "a.glove:1: this line"),
        ("a.bin", b"2 1\na \0\0\0\0\nb \0\0", "cut"),
        ("a.bin", b"1 1\n\xff \0\0\0\0\n", "word 1"),
        ("a.safetensors", b"abc", "no file of word vectors"),
        ("a.safetensors", b"\xff" * 40, "no file of word vectors"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=problem):
        WordVectors.load(tmp_path / name)


def test_a_cut_file_of_our_own_is_refused(tmp_path: Path) -> None:
    made().save(tmp_path / "v.safetensors")
    content = (tmp_path / "v.safetensors").read_bytes()
    (tmp_path / "v.safetensors").write_bytes(content[:-1])
    with pytest.raises(FormatError, match="is cut"):
        WordVectors.load(tmp_path / "v.safetensors")


def test_an_unknown_ending_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ending"):
        made().save(tmp_path / "v.model")
    with pytest.raises(ConfigError, match="does not exist"):
        WordVectors.load(tmp_path / "none.bin")
    with pytest.raises(DataError, match="one vector a word"):
        WordVectors(["a"], made().vectors)


def test_lines_of_glove_open_under_either_ending_and_words_may_hold_spaces(tmp_path: Path) -> None:
    content = b"the 0.5 -1e-3\n. . . 1 2\n\xc2\xa0 3 4"
    for name in ("a.txt", "a.vec", "a.glove"):
        (tmp_path / name).write_bytes(content)
        wv = WordVectors.load(tmp_path / name)
        assert wv.index_to_key == ["the", ". . .", "\xa0"] and wv["\xa0"].tolist() == [3, 4] and wv["the"][0] == 0.5


def test_a_file_of_glove_opens_in_gensim(tmp_path: Path) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    made().save(tmp_path / "v.glove")
    theirs = keyed.load_word2vec_format(str(tmp_path / "v.glove"), no_header=True)
    assert theirs.index_to_key == WORDS and (theirs.vectors == made().vectors).all()


def test_the_projectors_files(tmp_path: Path) -> None:
    wv = WordVectors(["a b", "c"], made().vectors[:2])
    wv.save(tmp_path / "v.tsv")
    assert (tmp_path / "v.metadata.tsv").read_text() == "a b\nc\n"
    rows = [line.split("\t") for line in (tmp_path / "v.tsv").read_text().splitlines()]
    assert (np.array(rows, dtype=np.float32) == wv.vectors).all() and WordVectors.load(tmp_path / "v.tsv").index_to_key == ["a b", "c"]
    (tmp_path / "v.metadata.tsv").write_bytes(b"word\tcount\na b\t3\nc\t1\n")
    assert WordVectors.load(tmp_path / "v.tsv").index_to_key == ["a b", "c"]
    for words, problem in [
        (b"a\n", "v.tsv:2: this line"),
        (b"a\nb\nc\n", "v.tsv: this file of vectors is cut"),
        (b"a\na\n", "metadata.tsv:2: a word stands twice"),
        (b"a\n\xff\n", "metadata.tsv:2: a word is not UTF-8"),
    ]:
        (tmp_path / "v.metadata.tsv").write_bytes(words)
        with pytest.raises(FormatError, match=problem):
            WordVectors.load(tmp_path / "v.tsv")
    (tmp_path / "v.metadata.tsv").unlink()
    with pytest.raises(ConfigError, match="words of these vectors are missing"):
        WordVectors.load(tmp_path / "v.tsv")
