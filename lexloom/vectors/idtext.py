"""A text as the ids of its words: one file of int32 that is mapped, the end of each sentence marked, so that training reads at full speed.

FOLDER/   ids.bin (little-endian int32; `END` behind each sentence), vocabulary.json, text.json, manifest.json
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lexloom import files
from lexloom.errors import DataError
from lexloom.vectors.vocabulary import REPORT_EVERY, Sentences, Vocabulary, VocabularyConfig, count

END = -1
LONGEST = 10_000
"""Words of a sentence; what is longer is cut, as gensim does it."""
_IDS, _WORDS, _TEXT, _SPOOL = "ids.bin", "vocabulary.json", "text.json", "sentences.jsonl"
_BLOCK = 1 << 20


class IdText:
    """A text on disk.

    Attributes:
        ids: (N,) int32, mapped. words: how many of them are words. vocabulary: what they are.
    """

    def __init__(self, folder: Path, ids: npt.NDArray[np.int32], vocabulary: Vocabulary, about: dict[str, Any]) -> None:
        self.folder, self.ids, self.vocabulary, self.about = folder, ids, vocabulary, about
        self.words = int(about["words"])
        self.digest = files.fingerprint(files.read_manifest(folder))
        self._borders: dict[int, npt.NDArray[np.int64]] = {}

    @classmethod
    def open(cls, folder: Path | str) -> IdText:
        """Opens a folder that `write` made; only sizes are checked.

        Raises:
            CheckpointError: it is not whole.
            FormatError: it is of a newer format.
        """
        folder = Path(folder)
        about = files.read_about(folder, _TEXT, kind="text")
        ids = np.memmap(folder / _IDS, dtype="<i4", mode="r")
        return cls(folder, ids, Vocabulary.load(folder / _WORDS), about)

    def borders(self, size: int) -> npt.NDArray[np.int64]:
        """Where chunks of some `size` ids end, each with a sentence: (C + 1,), from 0 to N."""
        if size in self._borders:
            return self._borders[size]
        found, last = [0], len(self.ids)
        while found[-1] < last:
            near = min(last, found[-1] + size) - 1
            ahead = np.flatnonzero(self.ids[near : near + LONGEST + 1] == END)
            found.append(near + int(ahead[0]) + 1)
        return self._borders.setdefault(size, np.array(found, dtype=np.int64))


def write(
    sentences: Sentences,
    folder: Path | str,
    config: VocabularyConfig | None = None,
    *,
    known: Vocabulary | None = None,
    report: Callable[[str, int], None] | None = None,
    **about: Any,
) -> IdText:
    """Counts the words of a text and writes it as ids. What can be read only once is kept on disk between the two.

    Args:
        sentences: words of each sentence.
        known: words that have a place already, and keep it, whether the text has them or not.
        report: called now and then with `counting` or `writing` and the number of words so far.
        about: goes into the manifest.

    Raises:
        DataError: no word is left, or only one.
    """
    folder = Path(folder)
    with files.new_folder(folder, kind="words", **about) as new:
        source = sentences if iter(sentences) is not sentences else Spooled(sentences, new / _SPOOL)
        vocabulary = count(source, new, config, report=report and (lambda n: report("counting", n)))
        for part in new.glob("*.jsonl"):
            if part.name != _SPOOL:
                files.remove(part)
        vocabulary = known.joined(vocabulary) if known is not None else vocabulary
        if len(vocabulary) < 2:
            raise DataError("one word alone has no neighbours", got=repr(vocabulary.words[0]), hint="lower min_count, or give more text")
        written, cut = _write_ids(source, vocabulary, new / _IDS, report)
        vocabulary.save(new / _WORDS)
        files.remove(new / _SPOOL)
        files.write_json(new / _TEXT, {"format": files.FORMAT, "words": written, "cut_sentences": cut})
    return IdText.open(folder)


def _write_ids(sentences: Sentences, vocabulary: Vocabulary, path: Path, report: Callable[[str, int], None] | None) -> tuple[int, int]:
    """How many words were written, and how many sentences were cut."""
    index, found = vocabulary.index, array("i")
    words = cut = 0
    with files.replacing(path) as file:
        for number, sentence in enumerate(sentences):
            known = [index[word] for word in sentence if word in index]
            cut += len(known) > LONGEST
            for start in range(0, len(known), LONGEST):
                found.extend(known[start : start + LONGEST])
                found.append(END)
            words += len(known)
            if len(found) > _BLOCK:
                file.write(np.array(found, dtype="<i4").tobytes())
                del found[:]
            if report is not None and number % REPORT_EVERY == 0:
                report("writing", words)
        file.write(np.array(found, dtype="<i4").tobytes())
    return words, cut


class Spooled:
    """A stream that is written down while it is read for the first time, and read from there afterwards."""

    def __init__(self, sentences: Sentences, path: Path) -> None:
        self.sentences, self.path = sentences, path

    def __iter__(self) -> Iterator[Sequence[str]]:
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from map(json.loads, file)
            return
        with files.replacing(self.path) as file:
            for sentence in self.sentences:
                file.write(json.dumps(list(sentence)).encode() + b"\n")
                yield sentence
