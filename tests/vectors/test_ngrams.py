"""N-grams are fastText's, and words that were never read have vectors by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lexloom import keys
from lexloom.errors import FormatError
from lexloom.vectors import formats, plain
from lexloom.vectors.keyed import UnknownWordError, WordVectors
from lexloom.vectors.ngrams import NGrams, buckets_of

WORDS = ["king", "naïve", "词语", "a", "", "x" * 50, "don't", "日本語テスト", "🙂z", "</s>"]
LENGTHS = [(3, 6, 2_000_000), (1, 2, 1000), (2, 3, 77), (1, 1, 5), (5, 6, (1 << 31) - 1)]


def made(words: list[str] = WORDS, *, min_n: int = 2, max_n: int = 4, buckets: int = 300) -> WordVectors:
    """With a row for each bucket that a word falls into."""
    held = np.unique(buckets_of(words, min_n, max_n, buckets)[1])[::-1].copy()
    own, rows = (keys.normal(keys.key(n, np.arange(size)), 7).astype(np.float32) for n, size in ((1, len(words)), (2, len(held))))
    ngrams = NGrams(min_n, max_n, buckets, own, rows, held, np.arange(len(words), 0, -1))
    return WordVectors(words, ngrams.vectors(words), ngrams)


@pytest.mark.parametrize(("min_n", "max_n", "buckets"), LENGTHS)
def test_buckets_are_those_of_the_plain_hash(min_n: int, max_n: int, buckets: int) -> None:
    starts, found = buckets_of(WORDS, min_n, max_n, buckets)
    for word, a, b in zip(WORDS, starts, starts[1:], strict=False):
        assert found[a:b].tolist() == ([] if word == "</s>" else plain.ngram_buckets(word, min_n, max_n, buckets))
    assert buckets_of([], 3, 6, 10)[0].tolist() == [0] and len(buckets_of(["</s>"], 1, 6, 10)[1]) == 0


@pytest.mark.parametrize(("min_n", "max_n", "buckets"), LENGTHS)
def test_buckets_are_gensims(min_n: int, max_n: int, buckets: int) -> None:
    hashed = pytest.importorskip("gensim.models.fasttext").ft_ngram_hashes
    for word in WORDS[:-1]:
        assert buckets_of([word], min_n, max_n, buckets)[1].tolist() == hashed(word, min_n, max_n, buckets)


def test_a_hash_takes_bytes_as_signed_numbers() -> None:
    """Golden values by the loop of fastText's dictionary.cc in C: `h = h ^ (uint32_t)(int8_t)s[i]; h = h * 16777619`."""
    golden = {
        ("a", 2, 0): 1761008750,
        ("a", 2, 1): 287614806,
        ("é", 2, 0): 672036627,
        ("词语", 2, 1): 3687344121,
        ("king", 4, 1): 3658736598,
    }
    for (word, n, place), hashed in golden.items():
        assert plain.ngram_buckets(word, n, n, 1 << 32)[place] == hashed
        assert buckets_of([word], n, n, 2_000_000)[1][place] == hashed % 2_000_000


def test_known_words_have_the_mean_of_their_rows_and_others_that_of_their_ngrams() -> None:
    wv = made()
    assert wv.ngrams is not None
    row = {int(bucket): wv.ngrams.rows[place] for place, bucket in enumerate(wv.ngrams.held)}
    for place, word in enumerate(WORDS[:-1]):
        rows = [wv.ngrams.own[place], *(row[bucket] for bucket in plain.ngram_buckets(word, 2, 4, 300))]
        assert wv[word] == pytest.approx(np.mean(rows, axis=0), abs=1e-6)
    assert wv["</s>"] == pytest.approx(wv.ngrams.own[-1])
    zero = np.zeros(7, dtype=np.float32)
    for word in ("kings", "语", "dont"):
        rows = [row.get(bucket, zero) for bucket in plain.ngram_buckets(word, 2, 4, 300)]
        assert word in wv and word not in wv.key_to_index
        assert wv[word] == pytest.approx(np.mean(rows, axis=0), abs=1e-6)
    assert (wv[["king", "kings"]] == np.stack([wv["king"], wv["kings"]])).all()


def test_a_word_without_any_known_ngram_has_no_vector() -> None:
    wv = made(["king", "kong"], buckets=2_000_000)
    assert "zzzz" not in wv and "" not in wv and 3 not in wv
    with pytest.raises(UnknownWordError, match="zzzz"):
        wv["zzzz"]
    with pytest.raises(KeyError):
        wv.most_similar("zzzz")
    alone = WordVectors(wv.index_to_key, wv.vectors)
    assert "kings" in wv and "kings" not in alone


def test_unread_words_are_asked_like_others() -> None:
    wv = made()
    assert wv.similarity("kings", "king") == pytest.approx(float(wv.unit("kings") @ wv.unit("king")))
    found = wv.most_similar(["kings", "king"], "dont", topn=20)
    assert len(found) == len(WORDS) - 1 and "king" not in dict(found)
    assert len(wv.analogy("king", "kings", "don't", method="multiplicative", topn=20)) == len(WORDS) - 2
    assert wv.doesnt_match(["king", "kings", "日本語テスト"]) == "日本語テスト"
    assert wv.texts([["king", "kings"], ["kings"], ["ΩΩΩ"]])[:2] == pytest.approx(
        np.stack([(wv["king"] + wv["kings"]) / 2, wv["kings"]]), abs=1e-6
    )
    assert wv.texts([["king", "kings"], ["naïve"]], method="sif").shape == (2, 7)


def test_our_own_file_keeps_every_bit(tmp_path: Path) -> None:
    wv = made([*WORDS, "a b", "\udcff\udc80", "\ud800"])
    wv.save(tmp_path / "v.safetensors")
    again = WordVectors.load(tmp_path / "v.safetensors")
    assert again.index_to_key == wv.index_to_key and (again.vectors == wv.vectors).all() and isinstance(again.vectors, np.memmap)
    assert again.ngrams is not None and wv.ngrams is not None
    for name in ("own", "rows", "held", "counts", "min_n", "max_n", "buckets"):
        assert np.array_equal(getattr(again.ngrams, name), getattr(wv.ngrams, name))
    assert (again["kings"] == wv["kings"]).all()


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("own", {"shape": [9, 7]}, "do not fit"),
        ("rows", {"shape": [10**12, 7]}, "do not fit"),
        ("held", {"shape": [3]}, "do not fit"),
        ("vectors", {"shape": [-1, 7]}, "do not fit"),
        ("vectors", {"shape": [10]}, "do not fit"),
        ("words", {"shape": [10**12]}, "is cut"),
        ("words", {"shape": [3]}, "damaged"),
        ("counts", {"data_offsets": [-(10**9), 0]}, "is cut"),
        ("__metadata__", {"min_n": "0"}, "no such n-grams"),
        ("__metadata__", {"buckets": "-5"}, "no such n-grams"),
        ("__metadata__", {"max_n": "x"}, "no file of word vectors"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, name: str, change: dict[str, Any], problem: str) -> None:
    path = tmp_path / "v.safetensors"
    made().save(path)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header[name] |= change
    told = json.dumps(header).encode()
    rest = content[8 + size :]
    path.write_bytes(len(told).to_bytes(8, "little") + told + rest)
    with pytest.raises(FormatError, match=problem):
        formats.read(path)
