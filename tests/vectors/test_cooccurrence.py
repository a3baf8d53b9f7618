"""Co-occurrences are those of a dictionary of exact fractions, whatever the memory and the workers, in no more memory than allowed."""

from __future__ import annotations

import math
import tracemalloc
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lexloom import files
from lexloom.errors import CheckpointError, ConfigError, DataError
from lexloom.vectors import cooccurrence, idtext
from lexloom.vectors.cooccurrence import BLOCKS, LEAST_MEMORY, PARTS, Cooccurrences
from lexloom.vectors.idtext import IdText
from lexloom.vectors.vocabulary import VocabularyConfig
from tests.vectors.texts import zipf

MiB = 1 << 20


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> IdText:
    """Far more pairs than a table of a mebibyte holds."""
    return idtext.write(
        zipf(words=4000, sentences=7000, length=30), tmp_path_factory.mktemp("text") / "text", VocabularyConfig(min_count=1)
    )


def brute(text: IdText, window: int) -> dict[tuple[int, int], Fraction]:
    found: dict[tuple[int, int], int] = defaultdict(int)
    ids, common = text.ids.tolist(), math.lcm(*range(1, window + 1))
    for place, word in enumerate(ids):
        for d in range(1, window + 1):
            if word < 0 or place < d or ids[place - d] < 0:
                break
            found[ids[place - d], word] += common // d
            found[word, ids[place - d]] += common // d
    return {pair: Fraction(n, common) for pair, n in found.items()}


def whole(found: Cooccurrences) -> dict[tuple[int, int], float]:
    pairs = dict(zip(zip(found.pairs["a"].tolist(), found.pairs["b"].tolist(), strict=True), found.pairs["x"].tolist(), strict=True))
    return pairs | {(b, a): x for (a, b), x in pairs.items()}


def test_spilled_counts_are_those_of_a_dictionary_of_fractions(tmp_path: Path, text: IdText) -> None:
    found = cooccurrence.write(text, tmp_path / "pairs", window=4, memory=LEAST_MEMORY)
    assert found.about["runs"] >= 5  # three of a full table, what was left, and the cells
    right = {pair: float(x) for pair, x in brute(text, 4).items()}
    assert whole(found) == right and found.size == len(right) > 100_000
    assert (found.words, found.window) == (text.words, 4)
    assert sorted(path.name for path in found.folder.iterdir()) == ["manifest.json", "pairs.bin", "pairs.json", "vocabulary.json"]


def test_the_same_bytes_for_any_memory_and_workers(tmp_path: Path, text: IdText, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "PIECE", 1000)
    seen = set()
    for number, (memory, workers) in enumerate([(MiB, 1), (2 * MiB, 2), (40 * MiB, 1), (70 * MiB, 3)]):
        found = cooccurrence.write(text, tmp_path / str(number), window=5, memory=memory, workers=workers)
        seen.add(files.digest(found.folder / "pairs.bin"))
    assert len(seen) == 1


def test_blocks_hold_the_pairs_of_their_parts_in_order(tmp_path: Path, text: IdText) -> None:
    found = cooccurrence.write(text, tmp_path / "pairs", window=3, memory=3 * MiB)
    assert len(found.borders) == BLOCKS + 1 and found.borders[-1] == len(found.pairs)
    n = 0
    for i in range(PARTS):
        for j in range(i, PARTS):
            block = found.block(i, j)
            parts = np.sort(np.stack([block["a"] % PARTS, block["b"] % PARTS]), axis=0)
            assert (parts == np.array([[i], [j]])).all() and (block["a"] <= block["b"]).all()
            order = block["a"].astype(np.int64) << 32 | block["b"]
            assert (np.diff(order) > 0).all()
            n += len(block)
    assert n == len(found.pairs)


@pytest.mark.parametrize("window", [1, 22, 23, 40])
def test_wide_windows_are_exact_or_within_two_to_the_minus_33_a_pair(tmp_path: Path, window: int) -> None:
    small = idtext.write(zipf(words=30, sentences=40, length=60), tmp_path / "text", VocabularyConfig(min_count=1))
    found, right = whole(cooccurrence.write(small, tmp_path / "pairs", window=window, memory=MiB)), brute(small, window)
    assert found.keys() == right.keys()
    error = max(abs(Fraction(found[pair]) - x) / x for pair, x in right.items())
    assert error <= (Fraction(1, 2**53) if window < 23 else Fraction(window, 2**33))


@pytest.mark.parametrize("memory", [MiB, 4 * MiB])
def test_no_more_memory_is_taken_than_allowed(tmp_path: Path, text: IdText, memory: int) -> None:
    cooccurrence.write(text, tmp_path / "compiled", window=5, memory=memory)
    tracemalloc.start()
    try:
        cooccurrence.write(text, tmp_path / "pairs", window=5, memory=memory)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    others = 700_000  # words, the list of borders, and what the interpreter holds
    assert 0.5 * memory < peak < memory + others


def test_merging_goes_in_small_pieces(tmp_path: Path, text: IdText, monkeypatch: pytest.MonkeyPatch) -> None:
    right = cooccurrence.write(text, tmp_path / "right", window=4, memory=LEAST_MEMORY)
    monkeypatch.setattr(cooccurrence, "_MERGED", LEAST_MEMORY // 400)
    found = cooccurrence.write(text, tmp_path / "pairs", window=4, memory=LEAST_MEMORY)
    assert (found.pairs == right.pairs).all()


def test_what_cannot_be_counted_or_opened_is_refused(tmp_path: Path, text: IdText) -> None:
    with pytest.raises(ConfigError, match="too little memory"):
        cooccurrence.write(text, tmp_path / "pairs", window=4, memory=LEAST_MEMORY, workers=2)
    alone = idtext.write([["a"], ["b"]] * 3, tmp_path / "alone", VocabularyConfig(min_count=1))
    with pytest.raises(DataError, match="no two words"):
        cooccurrence.write(alone, tmp_path / "pairs", window=4, memory=LEAST_MEMORY)
    assert not (tmp_path / "pairs").exists()
    folder = cooccurrence.write(text, tmp_path / "pairs", window=1, memory=LEAST_MEMORY).folder
    (folder / "pairs.bin").write_bytes((folder / "pairs.bin").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="another size"):
        Cooccurrences.open(folder)
