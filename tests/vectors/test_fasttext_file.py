"""Files of fastText: what was written comes back, gensim reads it and writes what we read, and damaged ones are named."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lexloom import cli
from lexloom.errors import ConfigError, DataError, FormatError
from lexloom.hub import pickled
from lexloom.vectors import fasttext_file
from lexloom.vectors.keyed import WordVectors
from lexloom.vectors.subwords import FastText, FastTextConfig
from lexloom.vectors.vocabulary import Vocabulary
from tests.vectors.test_ngrams import WORDS, made

UNSEEN = ["kings", "语", "dont", "königin"]
PLAIN = [word for word in WORDS if word not in ("", "</s>")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made(PLAIN).save(tmp_path / "v.bin")
    return tmp_path / "v.bin"


def test_every_bit_comes_back(path: Path, tmp_path: Path) -> None:
    wv, again = made(PLAIN), WordVectors.load(path)
    assert again.index_to_key == PLAIN and (again.vectors == wv.vectors).all() and again.ngrams is not None and wv.ngrams is not None
    assert (again.ngrams.own == wv.ngrams.own).all() and (again.ngrams.counts == wv.ngrams.counts).all()
    assert (again.ngrams.rows[wv.ngrams.held] == wv.ngrams.rows).all() and not np.delete(again.ngrams.rows, wv.ngrams.held, axis=0).any()
    for word in ("kings", "语", "dont"):
        assert (again[word] == wv[word]).all()
    again.save(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == path.read_bytes()
    again.save(tmp_path / "own.safetensors")
    assert (WordVectors.load(tmp_path / "own.safetensors")["kings"] == wv["kings"]).all()
    WordVectors(PLAIN, wv.vectors).save(tmp_path / "words.bin")  # without n-grams, word2vec's
    assert WordVectors.load(tmp_path / "words.bin").ngrams is None


def test_words_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    wv = made(["a\udcff\udc80", "\ud800x", "b"])
    wv.save(tmp_path / "v.bin")
    assert b"a\xff\x80\0" in (tmp_path / "v.bin").read_bytes()
    again = WordVectors.load(tmp_path / "v.bin")
    assert again.index_to_key[0] == "a\udcff\udc80" and (again.vectors == wv.vectors).all()
    with pytest.raises(DataError, match="cannot stand"):
        made(["a\0b", "c"]).save(tmp_path / "w.bin")
    assert not (tmp_path / "w.bin").exists()


def test_gensim_opens_ours(tmp_path: Path) -> None:
    loaded = pytest.importorskip("gensim.models.fasttext")
    vocabulary = Vocabulary(PLAIN, [1, 5, 3, 3, 9, 2, 1, 7])  # not by frequency, as after further words came in
    state = FastText(FastTextConfig.read({"dim": 8, "min_n": 1, "max_n": 3, "buckets": 50, "window": 3, "model": "cbow"}), vocabulary)
    state.outer[:, :8] = 0.5
    state.vectors.save(tmp_path / "v.bin")
    theirs = loaded.load_facebook_vectors(str(tmp_path / "v.bin"))
    assert theirs.index_to_key == PLAIN
    for word in [*PLAIN, *UNSEEN]:
        assert theirs[word] == pytest.approx(state.vectors[word], abs=1e-6)
    whole = loaded.load_facebook_model(str(tmp_path / "v.bin"))
    assert (whole.syn1neg == 0.5).all() and (whole.window, whole.sg, whole.negative, whole.hs) == (3, 0, 5, 0)


@pytest.mark.parametrize("settings", [{"sg": 1}, {"hs": 1, "negative": 0}, {"min_n": 1, "max_n": 2, "bucket": 30}])
def test_we_open_gensims(tmp_path: Path, settings: dict[str, Any]) -> None:
    fasttext = pytest.importorskip("gensim.models.fasttext")
    sentences = [PLAIN[i:] + PLAIN[:i] for i in range(len(PLAIN))] * 3
    model = fasttext.FastText(sentences, **{"vector_size": 6, "min_count": 1, "epochs": 2, "bucket": 100, "workers": 1, **settings})
    fasttext.save_facebook_model(model, str(tmp_path / "v.bin"))
    wv = WordVectors.load(tmp_path / "v.bin")
    assert wv.index_to_key == model.wv.index_to_key and wv.ngrams is not None and wv.ngrams.outer is not None
    for word in [*PLAIN, *UNSEEN]:
        assert wv[word] == pytest.approx(model.wv[word], abs=1e-6)
    assert [word for word, _ in wv.most_similar("kings", topn=3)] == [word for word, _ in model.wv.most_similar("kings", topn=3)]


def at(content: bytes, place: int, kind: str, value: float) -> bytes:
    return content[:place] + struct.pack(kind, value) + content[place + struct.calcsize(kind) :]


VOCABULARY = 64
ENTRIES = VOCABULARY + 28
FIRST = ENTRIES + len("king") + 1
INPUT = ENTRIES + sum(len(word.encode()) + 10 for word in PLAIN)


@pytest.mark.parametrize(
    ("place", "kind", "value", "problem"),
    [
        (4, "<i", 13, "version 13"),
        (8, "<i", 0, "settings"),
        (8, "<i", -5, "settings"),
        (8, "<i", 8, "another width"),
        (36, "<i", 3, "classifier"),
        (40, "<i", 299, "not those of its words"),
        (40, "<i", -1, "settings"),
        (40, "<i", (1 << 31) - 1, "not those of its words"),
        (48, "<i", 1 << 30, "settings"),
        (VOCABULARY, "<i", (1 << 31) - 1, "vocabulary"),
        (VOCABULARY + 4, "<i", -1, "vocabulary"),
        (VOCABULARY + 8, "<i", 1, "vocabulary"),
        (VOCABULARY + 20, "<q", 3, "quantized"),
        (FIRST + 8, "<b", 1, "label"),
        (INPUT, "<b", 1, "quantized"),
        (INPUT + 1, "<q", 1 << 60, "is cut"),
        (INPUT + 1, "<q", -1, "width"),
        (INPUT + 9, "<q", 1 << 60, "width"),
    ],
)
def test_a_damaged_file_is_named(path: Path, place: int, kind: str, value: float, problem: str) -> None:
    path.write_bytes(at(path.read_bytes(), place, kind, value))
    with pytest.raises(FormatError, match=problem) as caught:
        WordVectors.load(path)
    assert str(path) in str(caught.value)


def test_every_cut_is_named(path: Path) -> None:
    content = path.read_bytes()
    ends = [*range(4, INPUT + 20), INPUT + 100, len(content) - 8 * 7 * 4 - 1, len(content) - 1]
    for end in ends:
        path.write_bytes(content[:end])
        with pytest.raises(FormatError, match=r"cut|no end|vocabulary"):
            fasttext_file.read(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(FormatError, match="behind its end"):
        WordVectors.load(path)


def test_a_word_that_stands_twice_is_named(path: Path) -> None:
    content = path.read_bytes()
    second = ENTRIES + len("king") + 10
    twice = content[:second].replace(b"king\0", "naïve\0".encode()) + content[second:]
    path.write_bytes(twice)
    with pytest.raises(FormatError, match=r"(?s)word 2: a word stands twice.*also word 1"):
        WordVectors.load(path)


def test_quantized_files_are_refused_by_their_name(path: Path, tmp_path: Path) -> None:
    path.rename(tmp_path / "v.ftz")
    with pytest.raises(FormatError, match="quantized"):
        WordVectors.load(tmp_path / "v.ftz")


def test_import_takes_a_file_of_fasttext(path: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["import", str(path), "--out", str(tmp_path / "v.safetensors"), "--json"])
    assert done.exit_code == 0, done.output
    assert (WordVectors.load(tmp_path / "v.safetensors")["kings"] == made(PLAIN)["kings"]).all()
    with pytest.raises(ConfigError, match="ending"):
        CliRunner().invoke(cli.app, ["import", str(path), "--out", str(tmp_path / "bundle")], catch_exceptions=False)
    with pytest.raises(FormatError, match="lexloom import"):
        pickled.checked(path)
