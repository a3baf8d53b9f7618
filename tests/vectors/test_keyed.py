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


@pytest.mark.parametrize("ending", [".bin", ".txt", ".vec", ".safetensors"])
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
    for ending in (".bin", ".txt"):
        with pytest.raises(DataError, match="white space"):
            wv.save(tmp_path / f"v{ending}")
        assert not (tmp_path / f"v{ending}").exists()


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
        ("a.txt", b"1 2\n\xff 1 2\n", "a.txt:2: this line"),
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
