from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from lexloom import keys
from lexloom.errors import ConfigError, DataError, FormatError, LexloomError
from lexloom.runs.origin import pieces
from lexloom.text import pairs
from lexloom.text.pack import Packing, PackingConfig, ensure_packing, open_packing
from lexloom.text.shards import Split, write_shards
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer


@dataclass
class Text:
    id: str
    text: str
    borders: tuple[int, ...]


WORDS = 8


def word(document: int, place: int) -> str:
    """Documents have words of their own, so that a row shows where it comes from."""
    return f"d{document}w{place % WORDS}"


def document(number: int, sentences: list[int]) -> Text:
    texts, place = [], 0
    for size in sentences:
        texts.append(" ".join(word(number, place + i) for i in range(size)))
        place += size
    ends = np.cumsum([len(text) + 1 for text in texts]) - 1
    return Text(str(number), "\n".join(texts), tuple(int(end) for end in ends))


def documents(count: int, seed: int, *, sentences: int = 60, words: int = 40) -> list[Text]:
    draws = keys.uniform(keys.key("texts", seed, np.arange(count)), sentences + 1)
    return [document(i, [1 + int(u * words) for u in row[1 : 2 + int(row[0] * sentences)]]) for i, row in enumerate(draws)]


@cache
def tokenizer(kind: str = "word", template: str | None = None) -> Tokenizer:
    texts = [" ".join(word(i, j) for j in range(WORDS)) for i in range(400)]
    return train_tokenizer(texts * 2, TokenizerConfig(kind=kind, vocab_size=4000, template=template))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return made(documents(400, 1), tmp_path_factory.mktemp("shards"))


def made(texts: list[Text], folder: Path, words: Tokenizer | None = None) -> Split:
    return write_shards({"train": texts}, words or tokenizer(), folder / "shards").split("train")


def all_rows(packing: Packing) -> Iterator[dict[str, Any]]:
    for start in range(0, len(packing), 500):
        yield from packing.rows(range(start, min(start + 500, len(packing))))


def owner(words: Tokenizer, ids: np.ndarray) -> set[str]:
    return {words.token(int(i)).split("w")[0] for i in ids}


def config(**more: Any) -> PackingConfig:
    return PackingConfig.read(more)


# --- blocks -----------------------------------------------------------------------------------------------------------------------


def by_hand(split: Split, length: int, documents: str, specials: bool, minimum: int) -> list[list[int]]:
    """Blocks as one would cut them with nothing but lists; separators are -1."""
    texts = [split.tokens[slice(*split.span(i))].tolist() for i in range(len(split))]
    mark = (split.separator if documents == "joined" else None) if specials else split.end
    streams = [text + ([-1] if mark is not None else []) for text in texts]
    if documents == "joined":
        streams = [[token for stream in streams for token in stream]]
    room = length - 2 * specials
    blocks = [stream[i : i + room] for stream in streams for i in range(0, len(stream), room)]
    if specials:
        blocks = [block[block[0] == -1 : len(block) - (block[-1] == -1)] for block in blocks]
    full = [len(stream) // room for stream in streams]
    rests = {sum(full[: i + 1]) + sum(len(s) % room > 0 for s in streams[:i]) for i, s in enumerate(streams) if len(s) % room}
    return [block for i, block in enumerate(blocks) if block and (len(block) >= minimum or i not in rests)]


@pytest.mark.parametrize("documents_", ["joined", "isolated"])
@pytest.mark.parametrize("specials", [True, False])
@pytest.mark.parametrize(("length", "minimum"), [(5, 1), (16, 8), (128, 8), (1000, 30)])
def test_blocks_are_those_cut_by_hand(documents_: str, specials: bool, length: int, minimum: int, tmp_path: Path) -> None:
    words = tokenizer("byte-bpe", "bert") if not specials else tokenizer()
    texts = [*documents(40, 2, sentences=9), document(41, [1]), document(42, [2]), document(43, [3, 5])]
    split = made(texts, tmp_path, words)
    packing = ensure_packing(split, config(length=length, documents=documents_, specials=specials, minimum=minimum))
    wanted = by_hand(split, length, documents_, specials, minimum)
    assert len(packing) == len(wanted) and packing.lengths.tolist() == [len(block) + 2 * specials for block in wanted]
    mark = split.separator if specials else split.end
    for number, (row, block) in enumerate(zip(all_rows(packing), wanted, strict=True)):
        body = [mark if token == -1 else token for token in block]
        assert row["input_ids"].tolist() == ([words.cls_id, *body, words.sep_id] if specials else body)
        assert row["special"].tolist() == [True] * specials + [token == -1 for token in block] + [True] * specials
        assert row["id"] == number and ("token_type_ids" in row) == specials and ("documents" in row) == (documents_ == "joined")
    assert packing.counts["tokens"] == sum(len(block) for block in wanted)


def test_documents_of_a_joined_block_are_numbered(split: Split) -> None:
    packing = ensure_packing(split, config(length=256))
    for row in all_rows(packing):
        numbers, ids = row["documents"], row["input_ids"]
        assert numbers[0] == 0 and set(np.diff(numbers).tolist()) <= {0, 1} and len(numbers) == len(ids)
        for number in range(int(numbers[-1]) + 1):
            assert len(owner(tokenizer(), ids[(numbers == number) & ~row["special"]])) == 1
        ends = np.flatnonzero(np.diff(numbers))
        assert (ids[ends] == tokenizer().sep_id).all(), "a separator is the last of its document"


def test_joined_blocks_are_nearly_full_and_lose_nothing(split: Split) -> None:
    packing = ensure_packing(split, config(length=128))
    assert packing.padding < 0.03
    rows = list(all_rows(packing))
    kept = np.concatenate([row["input_ids"][~row["special"]] for row in rows])
    assert kept.tolist() == split.tokens[: len(kept)].tolist() and len(split.tokens) - len(kept) == packing.counts["dropped_tokens"] < 8


def test_joined_blocks_are_full_but_for_the_last_and_separators_at_their_edges(split: Split) -> None:
    """So encoders need no way of leaving padding out while they are pre-trained."""
    lengths = ensure_packing(split, config(length=128)).lengths
    assert len(lengths) > 1000 and (lengths[:-1] >= 126).all() and (lengths == 128).mean() > 0.95


def test_isolated_blocks_stay_in_one_document(split: Split) -> None:
    packing = ensure_packing(split, config(length=128, documents="isolated", minimum=16))
    for row in all_rows(packing):
        assert len(owner(tokenizer(), row["input_ids"][~row["special"]])) == 1 and len(row["input_ids"]) >= 18
    assert packing.counts["tokens"] + packing.counts["dropped_tokens"] == len(split.tokens)


def test_many_documents_at_a_time_or_few_make_the_same_blocks(split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in ("joined", "isolated"):
        whole = ensure_packing(split, config(length=100, documents=kind), folder=tmp_path / f"whole-{kind}")
        with monkeypatch.context() as patch:
            patch.setattr("lexloom.text.blocks._DOCUMENTS", 3)
            parts = ensure_packing(split, config(length=100, documents=kind), folder=tmp_path / f"parts-{kind}")
        assert all((whole.arrays[name] == parts.arrays[name]).all() for name in whole.arrays)


def whole_by_hand(split: Split, length: int, documents: str, specials: bool, minimum: int) -> list[list[int]]:
    """Rows of whole sentences, put together one by one; separators are -1."""
    mark = [-1] if (documents == "joined" and specials) or (split.end is not None and not specials) else []
    room, rows, row, place = length - 2 * specials, list[list[int]](), list[int](), 0
    for i in range(len(split)):
        stop = int(split.document_ends[i])
        while place < stop:
            begin = int(split.sentence_ends[place - 1]) if place else 0
            sentence = split.tokens[begin : int(split.sentence_ends[place])].tolist()
            place += 1
            sentence += mark if place == stop and not specials else []
            if len(row) + len(sentence) > room >= len(sentence):
                rows, row = [*rows, row], []
            while len(row) + len(sentence) > room:
                taken = room - len(row)
                rows, row, sentence = [*rows, row + sentence[:taken]], [], sentence[taken:]
            row = row + sentence
        if documents == "isolated" or (mark and specials and len(row) == room):
            rows, row = [*rows, row], []
        elif specials:
            row = row + mark
    rows = [row[:-1] if specials and row and row[-1] == -1 else row for row in [*rows, row]]
    return [row for row in rows if len(row) >= minimum]


@pytest.mark.parametrize("documents_", ["joined", "isolated"])
@pytest.mark.parametrize("specials", [True, False])
@pytest.mark.parametrize(("length", "minimum"), [(5, 1), (30, 8), (128, 8), (1000, 30)])
def test_blocks_of_whole_sentences_are_those_made_by_hand(
    documents_: str, specials: bool, length: int, minimum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tokenizer("byte-bpe", "bert") if not specials else tokenizer()
    texts = [*documents(40, 2, sentences=9), document(41, [1]), document(42, [2]), document(43, [3, 5])]
    split = made(texts, tmp_path, words)
    minimum = min(minimum, length - 2 * specials)
    settings = config(length=length, documents=documents_, specials=specials, minimum=minimum, sentences="whole")
    packing = ensure_packing(split, settings)
    wanted = whole_by_hand(split, length, documents_, specials, minimum)
    mark = split.separator if specials else split.end
    assert len(packing) == len(wanted) and packing.lengths.tolist() == [len(row) + 2 * specials for row in wanted]
    for row, block in zip(all_rows(packing), wanted, strict=True):
        body = [mark if token == -1 else token for token in block]
        assert row["input_ids"].tolist() == ([words.cls_id, *body, words.sep_id] if specials else body)
    monkeypatch.setattr("lexloom.text.full_sentences._DOCUMENTS", 3)
    parts = ensure_packing(split, settings, folder=tmp_path / "parts")
    assert all((packing.arrays[name] == parts.arrays[name]).all() for name in packing.arrays)


def test_whole_sentences_end_at_borders_and_no_token_is_lost_or_twice(split: Split) -> None:
    packing = ensure_packing(split, config(length=128, sentences="whole", minimum=1))
    used, borders = np.zeros(len(split.tokens), dtype=int), {0, *split.sentence_ends.tolist()}
    for row in range(len(packing)):
        found = [(split.span(p.document)[0] + p.start, split.span(p.document)[0] + p.end) for p in pieces(packing, row)]
        assert found[0][0] in borders and found[-1][1] in borders  # no sentence is longer than 40 tokens
        for start, end in found:
            used[start:end] += 1
    assert (used == 1).all() and packing.counts["dropped_tokens"] == 0


def test_packings_that_cut_keep_their_names(split: Split) -> None:
    """A setting that came later does not make the packings of earlier runs anew."""
    assert "sentences" not in config().plain() and config(sentences="whole").plain()["sentences"] == "whole"


# --- sentence pairs ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paired(split: Split) -> Packing:
    return ensure_packing(split, config(kind="sentence-pairs", length=64), seed=3)


def parts(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    text = ~row["special"]
    return row["input_ids"][text & (row["token_type_ids"] == 0)], row["input_ids"][text & (row["token_type_ids"] == 1)]


def test_pairs_are_half_neighbours_and_half_of_two_documents(split: Split, paired: Packing) -> None:
    labels = np.array([row["next_sentence_label"] for row in all_rows(paired)])
    assert len(labels) > 4000 and abs(labels.mean() - 0.5) < 0.01 and labels.sum() == paired.counts["negatives"] == len(labels) // 2
    arrays = {name: values.astype(np.int64) for name, values in paired.arrays.items()}
    adjacent = arrays["first"] + arrays["first_length"] == arrays["second"]
    assert adjacent[labels == 0].all()
    ends = split.token_ends(0, len(split))
    left, right = (np.searchsorted(ends, arrays[name], side="right") for name in ("first", "second"))
    assert (left[labels == 0] == right[labels == 0]).all() and (left[labels == 1] != right[labels == 1]).all()
    for row in paired.rows(range(0, len(paired), 37)):
        first, second = (owner(tokenizer(), part) for part in parts(row))
        assert len(first) == len(second) == 1 and (first == second) == (row["next_sentence_label"] == 0)


def test_lengths_tell_nothing_about_the_class(paired: Packing) -> None:
    label = np.asarray(paired.arrays["label"]) == 1
    first, second = (np.asarray(paired.arrays[f"{name}_length"]).astype(int) for name in ("first", "second"))
    for values in (first, second, first + second):
        assert ks_2samp(values[label], values[~label]).pvalue > 0.5
    assert paired.counts["truncated_tokens"] <= 0.001 * paired.counts["tokens"]


def test_b_starts_and_a_ends_at_a_sentence_border_in_both_classes(split: Split, paired: Packing) -> None:
    borders = set(split.sentence_ends.tolist())
    arrays = {name: values.astype(np.int64) for name, values in paired.arrays.items()}
    assert set((arrays["first"] + arrays["first_length"]).tolist()) <= borders and set(arrays["second"].tolist()) <= borders


def uses(split: Split, packing: Packing) -> np.ndarray:
    """How often each token of the split stands in a row."""
    used = np.zeros(len(split.tokens), dtype=int)
    for name in ("first", "second"):
        for start, length in zip(packing.arrays[name].tolist(), packing.arrays[f"{name}_length"].tolist(), strict=True):
            used[start : start + length] += 1
    return used


def test_every_token_is_used_once_but_where_the_last_row_of_a_document_reaches_back(split: Split, paired: Packing) -> None:
    used, counts, room = uses(split, paired), paired.counts, 61
    assert used.max() == 2 and (used > 0).mean() >= 0.99
    assert used.sum() == counts["tokens"] == len(split.tokens) - counts["dropped_tokens"] + counts["repeated_tokens"]
    twice = np.flatnonzero(used == 2)
    ends = split.token_ends(0, len(split))
    assert (ends[np.searchsorted(ends, twice, side="right")] - twice <= room).all(), "within the last row of the document"
    assert len(twice) <= counts["repeated_tokens"] <= len(twice) + counts["truncated_tokens"] and len(twice) < 0.07 * len(used)


def test_rows_are_full_but_for_the_short_ones_asked_for(split: Split, paired: Packing) -> None:
    assert paired.lengths.max() == 64 and paired.padding < 0.03
    assert 0.025 < np.mean(paired.lengths < 64) < 0.06 and np.mean(paired.lengths < 34) > 0.005, "of every length"
    assert [len(row["input_ids"]) for row in all_rows(paired)] == paired.lengths.tolist()


def test_without_short_ones_only_a_document_shorter_than_a_row_leaves_padding(split: Split) -> None:
    full = ensure_packing(split, config(kind="sentence-pairs", length=64, short_share=0.0), seed=3)
    ends = split.token_ends(0, len(split))
    size = np.diff(ends, prepend=0)[np.searchsorted(ends, full.arrays["first"], side="right")]
    assert (full.lengths == np.minimum(size, 61) + 3)[np.asarray(full.arrays["label"]) == 0].all() and (size < 61).any()
    assert full.counts["truncated_tokens"] == 0 and full.padding < 0.004


def test_a_row_is_cls_a_sep_b_sep(paired: Packing) -> None:
    row = paired.rows([11])[0]
    first, second = parts(row)
    words = tokenizer()
    assert row["input_ids"].tolist() == [words.cls_id, *first, words.sep_id, *second, words.sep_id] and row["id"] == 11
    assert row["token_type_ids"].tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert row["special"].tolist() == [True, *[False] * len(first), True, *[False] * len(second), True]


def test_another_template_is_followed(tmp_path: Path) -> None:
    words = tokenizer("word", "roberta")
    packing = ensure_packing(made(documents(20, 5), tmp_path, words), config(kind="sentence-pairs", length=32))
    for row in all_rows(packing):
        specials = row["input_ids"][row["special"]].tolist()
        assert specials == [words.cls_id, words.sep_id, words.sep_id, words.sep_id] and len(row["input_ids"]) <= 32


def test_a_seed_decides_all_and_another_decides_otherwise(split: Split, tmp_path: Path) -> None:
    def arrays(folder: str, seed: int) -> list[list[int]]:
        made = ensure_packing(split, config(kind="sentence-pairs", length=64), seed=seed, folder=tmp_path / folder)
        return [made.arrays[name].tolist() for name in sorted(made.arrays)]

    assert arrays("one", 3) == arrays("two", 3) != arrays("one", 4)


def test_any_share_of_text_in_memory_makes_good_pairs(split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pairs, "_CHUNKS", 300)
    monkeypatch.setattr(pairs, "_SENTENCES", 50)
    packing = ensure_packing(split, config(kind="sentence-pairs", length=64), seed=3, folder=tmp_path)
    ends, label = split.token_ends(0, len(split)), np.asarray(packing.arrays["label"])
    left, right = (np.searchsorted(ends, packing.arrays[name], side="right") for name in ("first", "second"))
    assert ((left != right) == (label == 1)).all() and abs(label.mean() - 0.5) < 0.01


@pytest.mark.parametrize(
    "shape", [[3] * 40, [200] * 3, [1, 300, 1, 300], [30, 31] * 9, [2, 2], [61, 61], [500, 2, 2], [9, 90, 20, 9, 90, 3]]
)
def test_documents_of_any_shape_are_cut_where_they_can_be(shape: list[int], tmp_path: Path) -> None:
    split = made([document(i, shape) for i in range(30)], tmp_path)
    packing = ensure_packing(split, config(kind="sentence-pairs", length=64))
    arrays = {name: values.astype(np.int64) for name, values in packing.arrays.items()}
    assert packing.lengths.max() <= 64 and arrays["first_length"].min() >= 1 and arrays["second_length"].min() >= 1
    used, counts = uses(split, packing), packing.counts
    assert used.max() <= 2 and used.sum() == counts["tokens"]
    assert counts["tokens"] + counts["dropped_tokens"] == len(split.tokens) + counts["repeated_tokens"]
    assert counts["dropped_tokens"] == sum(counts[f"dropped_{why}"] for why in ("long", "single")) + counts["truncated_tokens"]
    lost = int((used == 0).sum())
    assert lost <= counts["dropped_tokens"] <= lost + counts["truncated_tokens"]
    if max(shape) <= 31:
        assert lost <= 0.05 * len(split.tokens)
    if sum(shape) >= 61 and max(shape) <= 31:
        assert packing.padding < 0.03


def test_two_documents_are_enough_and_one_is_not(tmp_path: Path) -> None:
    two = made([document(0, [9] * 50), document(1, [8] * 60)], tmp_path / "two")
    label = np.asarray(ensure_packing(two, config(kind="sentence-pairs", length=32)).arrays["label"])
    assert abs(label.mean() - 0.5) < 0.06
    for texts in ([document(0, [9] * 50)], [document(0, [9] * 500), document(1, [9] * 20)], [document(i, [9]) for i in range(50)]):
        folder = tmp_path / f"of {len(texts)}"
        with pytest.raises(DataError, match=r"several documents(.|\n)*leave next-sentence out"):
            ensure_packing(made(texts, folder), config(kind="sentence-pairs", length=32))


def test_one_document_of_half_the_text_is_dealt_with(tmp_path: Path) -> None:
    split = made([document(0, [9] * 900), *(document(i, [9] * 30) for i in range(1, 30))], tmp_path)
    packing = ensure_packing(split, config(kind="sentence-pairs", length=32))
    label, ends = np.asarray(packing.arrays["label"]), split.token_ends(0, len(split))
    left, right = (np.searchsorted(ends, packing.arrays[name], side="right") for name in ("first", "second"))
    assert abs(label.mean() - 0.5) < 0.01 and ((left != right) == (label == 1)).all()


# --- on disk ----------------------------------------------------------------------------------------------------------------------


def test_a_packing_is_made_once_and_opened_again(split: Split, tmp_path: Path) -> None:
    first = ensure_packing(split, config(length=50), folder=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = ensure_packing(split, config(length=50), seed=9, folder=tmp_path)
    assert again.folder == first.folder and before == {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert ensure_packing(split, config(length=51), folder=tmp_path).folder != first.folder
    assert ensure_packing(split, config(length=50)).folder.parent == split.folder / "packings"
    (first.folder / "manifest.json").unlink()
    with pytest.raises(LexloomError, match="did not write"):
        ensure_packing(split, config(length=50), folder=tmp_path)


def test_packings_take_little_room(split: Split) -> None:
    for kind in ("blocks", "sentence-pairs"):
        folder = ensure_packing(split, config(kind=kind, length=128)).folder
        assert sum(path.stat().st_size for path in folder.glob("*.bin")) < 0.08 * split.tokens.nbytes


def test_damaged_and_foreign_packings_are_refused(split: Split, tmp_path: Path) -> None:
    folder = ensure_packing(split, config(length=50), folder=tmp_path / "made").folder
    other = made(documents(5, 9), tmp_path / "other")
    with pytest.raises(FormatError, match="other shards"):
        open_packing(folder, other)
    about = json.loads((folder / "packing.json").read_text())
    for wrong, message in (({"format": 9}, "unknown format"), ({"arrays": {"length": "object"}}, "damaged"), ({"counts": {}}, "damaged")):
        (folder / "packing.json").write_text(json.dumps(about | wrong))
        with pytest.raises(FormatError, match=message):
            open_packing(folder, split)
    (folder / "packing.json").write_text(json.dumps(about))
    (folder / "length.bin").write_bytes(b"\0")
    with pytest.raises(FormatError, match="another size"):
        open_packing(folder, split)
    with pytest.raises(FormatError, match="no packing"):
        open_packing(tmp_path, split)


def test_lengths_without_room_and_rows_that_are_not_there(split: Split) -> None:
    for wrong in ({"length": 2}, {"kind": "sentence-pairs", "length": 4}, {"length": 1 << 30}):
        with pytest.raises(ConfigError, match="no room"):
            ensure_packing(split, config(**wrong))
    with pytest.raises(ConfigError, match="need the special tokens"):
        ensure_packing(split, config(kind="sentence-pairs", specials=False))
    packing = ensure_packing(split, config(length=128))
    for place in (-1, len(packing)):
        with pytest.raises(IndexError, match="rows 0 to"):
            packing.rows([place])
    assert packing.rows([]) == []


def test_a_split_without_documents_packs_into_no_blocks(tmp_path: Path) -> None:
    shards = write_shards({"train": documents(3, 1), "validation": []}, tokenizer(), tmp_path / "shards")
    for kind in ("joined", "isolated"):
        assert len(ensure_packing(shards.split("validation"), config(documents=kind))) == 0
