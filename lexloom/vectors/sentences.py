"""The words of a text, a list a sentence: of a corpus, of shards, or of any file that `lexloom prepare` reads. Each can be read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lexloom.errors import ConfigError
from lexloom.text.corpus import REPORT, Corpus
from lexloom.text.documents import ColumnsConfig, read_documents
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import files_of, survey
from lexloom.text.segment import split_sentences
from lexloom.text.shards import Shards
from lexloom.text.tokenizer import Tokenizer
from lexloom.text.words import WordBorders
from lexloom.vectors.phrases import Again, Phrased, PhrasesConfig

_SHARDS = "shards.json"
_CHARACTERS = 1 << 20


class WordsConfig(PhrasesConfig):
    """What counts as a word."""

    words: Literal["text", "spaces"] = "text"
    """`text`: runs of letters and digits, Chinese as the segmenter cuts it, signs left out. `spaces`: whatever stands between spaces, a
    line a sentence."""
    lowercase: bool = True
    columns: ColumnsConfig = ColumnsConfig()
    """Where the text stands in jsonl, csv, tsv and Parquet files."""


class SourceSentences:
    """The sentences of a source; read from the start at every iteration.

    Args:
        source: a corpus folder, a folder of shards (its tokens are the words), a file, or a folder of files.
        tokenizer: of the shards; the folder `tokenizer` beside them where None.

    Raises:
        ConfigError: it does not exist, or is of no known format.
    """

    def __init__(self, source: Path | str, config: WordsConfig | None = None, *, tokenizer: Path | None = None) -> None:
        self.source, self.config = Path(source), config or WordsConfig()
        self.tokenizer = tokenizer or self.source.parent / "tokenizer"
        self.bad = Quarantine()
        self._phrased = Phrased(Again(self._words), self.config)
        if not (self.source / REPORT).is_file() and not (self.source / _SHARDS).is_file():
            files_of(self.source)

    def __iter__(self) -> Iterator[Sequence[str]]:
        return iter(self._phrased)

    def _words(self) -> Iterator[Sequence[str]]:
        if (self.source / _SHARDS).is_file():
            yield from self._of_shards()
            return
        sentences = self._of_corpus() if (self.source / REPORT).is_file() else self._of_files()
        if self.config.words == "spaces":
            yield from (self._cased(sentence).split() for sentence in sentences)
            return
        cutter = WordCutter()
        for batch in _batches(sentences):
            yield from cutter([self._cased(sentence) for sentence in batch])

    def _cased(self, sentence: str) -> str:
        return sentence.lower() if self.config.lowercase else sentence

    def _of_corpus(self) -> Iterator[str]:
        for document in Corpus.open(self.source).documents("train"):
            yield from document.sentences

    def _of_files(self) -> Iterator[str]:
        self.bad = Quarantine()
        for path in files_of(self.source)[0]:
            for document in read_documents(survey(path), self.config.columns, bad=self.bad, unit="line"):
                if self.config.words == "spaces":
                    yield from document.text.split("\n")
                else:
                    yield from split_sentences(document.text)

    def _of_shards(self) -> Iterator[Sequence[str]]:
        shards, tokenizer = Shards.open(self.source), Tokenizer.load(self.tokenizer)
        if shards.tokenizer_digest != tokenizer.digest:
            hint = "name the tokenizer that made them with --tokenizer"
            raise ConfigError("these shards were made by another tokenizer", where=str(self.tokenizer), hint=hint)
        split = shards.split("train")
        names = np.array([tokenizer.token(number) for number in range(len(tokenizer))], dtype=object)
        start = 0
        for end in map(int, split.sentence_ends):
            yield names[split.tokens[start:end]].tolist()
            start = end


class WordCutter:
    """Sentences to words: what has a letter or a digit, cut as `text.words` cuts."""

    def __init__(self) -> None:
        self._borders = WordBorders()

    def __call__(self, sentences: Sequence[str]) -> list[list[str]]:
        """The words of each sentence."""
        whole, numbers = "".join(sentences), self._borders.numbers(sentences)
        firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
        words = [whole[a:b] for a, b in zip(firsts.tolist(), [*firsts[1:].tolist(), len(whole)], strict=True)]
        found, at = list[list[str]](), 0
        for end in np.searchsorted(firsts, np.cumsum([len(sentence) for sentence in sentences])).tolist():
            found.append([word.strip() for word in words[at:end] if any(map(str.isalnum, word))])
            at = end
        return found


def _batches(sentences: Iterable[str]) -> Iterator[list[str]]:
    batch, size = list[str](), 0
    for sentence in sentences:
        batch.append(sentence)
        size += len(sentence)
        if size > _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
