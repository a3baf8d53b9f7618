"""Prepare: sources of raw text to a corpus, in three passes of bounded memory.

read     files -> documents -> the cleaning steps that look at one text alone -> a scratch file; lines are counted for boilerplate
select   boilerplate out, filters, hashes; then duplicates are found over all documents and splits are drawn
write    sentence borders -> the corpus folder, and a line for each document that was left out
"""

from __future__ import annotations

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from lexloom import files
from lexloom.config import Config, Count
from lexloom.errors import ConfigError, DataError
from lexloom.runs.passes import Passes, Report
from lexloom.text import split as splitting
from lexloom.text.clean import Boilerplate, CleanConfig, Cleaner
from lexloom.text.corpus import REPORT as CORPUS_REPORT
from lexloom.text.corpus import SPLITS, Corpus, CorpusWriter, Document
from lexloom.text.dedup import DedupConfig, Deduplicator
from lexloom.text.documents import ColumnsConfig, Unit, date_number, documents_of, read_documents
from lexloom.text.lines import LIMIT, MAX_LINE_BYTES, check_encoding
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, SourceFile, files_of, survey
from lexloom.text.segment import guess_language, sentences
from lexloom.text.spill import Spill
from lexloom.text.split import SplitConfig

BAD_ROWS, DROPPED = "bad-rows.jsonl", "dropped.jsonl"
SCRATCH = ".scratch"
BOILERPLATE_SHOWN = 50


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class PrepareConfig(Config):
    """From raw text to a corpus."""

    sources: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)
    """Files and folders: txt, jsonl, json, csv, tsv, Parquet; the text ones also packed as gz or zst."""
    language: Literal["en", "zh", "auto", "other"] = "auto"
    """Whose rules find sentences; `auto` asks each document."""
    encoding: str = "auto"
    """A codec, or `auto`: UTF-8 strictly first, then GB18030, decided file by file."""
    documents: Unit = "file"
    """What a document is in txt files: the file, each line, or each paragraph between empty lines."""
    columns: ColumnsConfig = ColumnsConfig()
    clean: CleanConfig = CleanConfig()
    dedup: DedupConfig = DedupConfig()
    split: SplitConfig = SplitConfig()
    max_bad_rows: Count | None = None
    """Stop when more rows than this are bad; null allows any number, as long as one is good."""
    strict: bool = False
    """Stop at the first bad row."""
    max_line_bytes: Annotated[Count, Field(ge=1024, le=LIMIT)] = MAX_LINE_BYTES
    """A longer line is a bad row; a longer txt file becomes several documents."""


def prepare(
    config: PrepareConfig,
    out: Path | str,
    *,
    base: Path | str = ".",
    seed: int = 1,
    report: Report | None = None,
    rows: Iterable[Mapping[str, Any]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Corpus:
    """Reads, cleans, de-duplicates and splits texts into a corpus folder, which appears when it is whole.

    Memory does not grow with the text but for some 250 bytes a document; the scratch file beside the corpus needs as much disk as
    the text itself.

    Args:
        base: what the paths in `config.sources` are relative to.
        report: told now and then `step` (read, select, write), `documents`, `done_bytes` and `total_bytes`, which count the bytes of
            the sources once for each of the three passes.
        rows: documents from memory, taken after those of the sources.
        about: goes into the manifest.

    Raises:
        ConfigError: a source does not exist, or settings contradict each other; nothing was written.
        DataError: nothing is left, or more rows are bad than allowed; they are listed in `<out>.bad-rows.jsonl`.
    """
    out = Path(out)
    config = _settled(config)
    _check_out(out, [Path(base) / Path(name).expanduser() for name in config.sources])
    sources = find_sources(config, Path(base), out, anything_else=rows is not None)
    aside = out.with_name(f"{out.name}.{BAD_ROWS}")
    with (
        Quarantine(aside, max_bad_rows=config.max_bad_rows, strict=config.strict) as bad,
        files.new_folder(out, kind="corpus", **(about or {})) as folder,
    ):
        work = _Preparation(config, sources, folder, bad, seed, report)
        with work:
            work.read(rows)
            work.select()
            work.write()
        bad.close()
        if bad.total:
            shutil.move(aside, folder / BAD_ROWS)
        else:
            aside.unlink(missing_ok=True)  # of an earlier attempt that failed
    return Corpus.open(out)


def _settled(config: PrepareConfig) -> PrepareConfig:
    """Joins what may be said in two places, and checks it.

    Raises:
        ConfigError: the two places contradict each other, or a column is missing.
    """
    columns, split = config.columns, config.split
    for name in ("group", "date"):
        here, there = getattr(columns, name), getattr(split, name)
        if here and there and here != there:
            raise ConfigError(f"columns.{name} and split.{name} name different columns", got=f"{here!r} and {there!r}")
        columns = columns.model_copy(update={name: here or there})
    by = split.by or ("group" if split.group else "date" if split.date else "document")
    if by in ("group", "date") and getattr(columns, by) is None:
        raise ConfigError(f"split.by is {by}, but no column says the {by}", hint=f"name one in split.{by}")
    if split.validation + split.test >= 1:
        raise ConfigError("split leaves nothing to train on", expected="validation + test below 1")
    if config.encoding != "auto":
        check_encoding(config.encoding)
    return config.model_copy(update={"columns": columns, "split": split.model_copy(update={"by": by})})


def _check_out(out: Path, sources: list[Path]) -> None:
    """Refuses to put a corpus in the place of something else: the folder that was there goes."""
    if any(out.resolve() in (source.resolve(), *source.resolve().parents) for source in sources):
        raise ConfigError("the corpus would replace its own source", where=str(out), hint="choose another folder for it")
    taken = out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / CORPUS_REPORT).is_file()))
    if taken:
        raise ConfigError("something else than a corpus is here", where=str(out), hint="choose a new folder, or remove this one")


def find_sources(config: PrepareConfig, base: Path, out: Path, *, anything_else: bool = False) -> list[tuple[int, SourceFile]]:
    """Every file of the sources, looked at, with the number of the entry it belongs to. What lies in `out` itself is passed over.

    Raises:
        ConfigError: there are no sources, or one does not exist.
        DataError: a folder holds no readable file.
    """
    if not config.sources and not anything_else:
        raise ConfigError("there are no sources", where="prepare.sources", hint="sources: [texts/]")
    found: list[tuple[int, Path, str]] = []
    for entry, name in enumerate(config.sources):
        path = base / Path(name).expanduser()
        inside = [file for file in files_of(path)[0] if out.resolve() not in file.resolve().parents]
        found += [(entry, file, name if path.is_file() else str(Path(name) / file.relative_to(path))) for file in inside]
    return [
        (entry, survey(file, name, encoding=config.encoding, digest=True, max_line_bytes=config.max_line_bytes))
        for entry, file, name in found
    ]


class _Preparation:
    """The three passes and what one hands to the next."""

    def __init__(
        self, config: PrepareConfig, sources: list[tuple[int, SourceFile]], folder: Path, bad: Quarantine, seed: int, report: Report | None
    ) -> None:
        self.config, self.sources, self.folder, self.bad, self.seed = config, sources, folder, bad, seed
        self.progress = Passes(report, sum(source.bytes for _, source in sources))
        self.cleaner = Cleaner(config.clean)
        self.boilerplate: dict[int, Boilerplate] = {}
        self.metadata = list({"title": "", **config.columns.metadata()})
        self.scratch = folder / SCRATCH
        self.reasons, self.language_names = [""], list[str]()
        self.languages: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.read_from: Counter[str] = Counter()
        self.repeated_ids = 0
        self._exit = ExitStack()

    def __enter__(self) -> None:
        self.scratch.mkdir()
        self._exit.callback(shutil.rmtree, self.scratch, ignore_errors=True)
        self.spill = Spill(self.scratch / "documents", self.metadata)

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    # read

    def read(self, rows: Iterable[Mapping[str, Any]] | None) -> None:
        for entry, source in self.sources:
            self._take(entry, source.name, self._documents(source))
            self.progress.file_done(source.bytes)
        if rows is not None:
            placed = (Placed(dict(row), "rows", number) for number, row in enumerate(rows, 1))
            self._take(-1, "rows", documents_of(placed, self.config.columns, bad=self.bad, dated=self._dated()))
        self.spill.seal()
        if not len(self.spill):
            raise self._nothing()

    def _documents(self, source: SourceFile) -> Iterator[Document]:
        return read_documents(
            source,
            self.config.columns,
            bad=self.bad,
            unit=self.config.documents,
            dated=self._dated(),
            max_line_bytes=self.config.max_line_bytes,
            progress=self.progress.in_file,
        )

    def _take(self, entry: int, name: str, documents: Iterator[Document]) -> None:
        share = self.config.clean.boilerplate
        if share is not None and entry not in self.boilerplate:
            self.boilerplate[entry] = Boilerplate(share, self.config.clean.boilerplate_documents)
        for document in documents:
            text = self.cleaner.normalise(document.text)
            if share is not None:
                self.boilerplate[entry].count(text)
            self.spill.add(Document(document.id, text, (), document.source, document.metadata), entry)
            self.read_from[name] += 1
            self.progress.documents += 1

    def _dated(self) -> bool:
        return self.config.split.by == "date"

    # select

    def select(self) -> None:
        self.progress.next_pass("select")
        finder = Deduplicator(self.config.dedup, seed=self.seed, folder=self.scratch)
        kept, reasons, languages = array("q"), array("B"), array("B")
        names, dates = [], array("q")
        for start, documents, entries in self.spill.batches():
            texts = [self._text(document, entry) for document, entry in zip(documents, entries, strict=True)]
            outcomes = [self.cleaner.filter(text) for text in texts]
            reasons.extend(_number(self.reasons, outcome.reason) for outcome in outcomes)
            chosen = [i for i, outcome in enumerate(outcomes) if outcome.text is not None]
            finder.add([texts[i] for i in chosen])
            kept.extend(start + i for i in chosen)
            languages.extend(_number(self.language_names, guess_language(texts[i])) for i in chosen)
            names.append(splitting.hashed(self._split_name(documents[i]) for i in chosen))
            dates.extend(date_number(documents[i].metadata.get("date", "")) or 0 for i in chosen)
            self.progress.within(start + len(documents), len(self.spill))
        self.kept = np.frombuffer(kept, dtype=np.int64) if kept else np.zeros(0, dtype=np.int64)
        self.dropped = np.frombuffer(reasons, dtype=np.uint8)
        self.language_of = np.frombuffer(languages, dtype=np.uint8) if kept else np.zeros(0, dtype=np.uint8)
        if not len(self.kept):
            got = ", ".join(f"{reason} ({n})" for reason, n in self.cleaner.dropped.most_common(5))
            raise DataError("no document is left after cleaning", got=got, hint="loosen the filters of prepare.clean")
        self.duplicates = finder.find(lambda place: self._text_at(int(self.kept[place])))
        self._split(np.concatenate(names), np.frombuffer(dates, dtype=np.int64))

    def _split(self, names: npt.NDArray[np.uint64], dates: npt.NDArray[np.int64]) -> None:
        left = self.duplicates.of < 0
        self.marks = np.zeros(len(self.kept), dtype=np.uint8)
        config = self.config.split
        self.repeated_ids = len(names) - len(np.unique(names)) if config.by == "document" else 0
        ordered = {"date": dates, "place": np.arange(len(names))}.get(str(config.by))
        self.marks[left] = splitting.by_key(names[left], config, self.seed) if ordered is None else splitting.by_date(ordered[left], config)
        for mark, name in enumerate(SPLITS[1:], 1):
            if getattr(config, name) > 0 and not (self.marks == mark).any():
                self.warnings.append(f"too few documents, groups or dates for a {name} split")

    def _split_name(self, document: Document) -> str:
        """What is hashed for the split; a document without a group is a group of its own."""
        group = document.metadata.get("group") if self.config.split.by == "group" else None
        return document.id if group is None else f"group\0{group}"

    def _text(self, document: Document, entry: int) -> str:
        return self.boilerplate[entry].remove(document.text) if entry in self.boilerplate else document.text

    def _text_at(self, place: int) -> str:
        text, entry = self.spill.value(place, "text"), self.spill.value(place, "entry")
        return self.boilerplate[entry].remove(text) if entry in self.boilerplate else text

    # write

    def write(self) -> None:
        self.progress.next_pass("write")
        writer = CorpusWriter(self.folder, self.metadata)
        with files.replacing(self.folder / DROPPED, "w") as dropped:
            number = 0  # among the documents that the filters kept
            for start, documents, entries in self.spill.batches():
                for place, document, entry in zip(range(start, start + len(documents)), documents, entries, strict=True):
                    if self.dropped[place]:
                        _tell(dropped, document, reason=self.reasons[self.dropped[place]])
                        continue
                    if self.duplicates.of[number] >= 0:
                        _tell(dropped, document, **self._duplicate(number))
                    else:
                        writer.add(SPLITS[self.marks[number]], self._segmented(document, entry, number))
                    number += 1
                self.progress.within(start + len(documents), len(self.spill))
        self._warn()
        writer.finish(**self._report(writer.counts()))

    def _duplicate(self, number: int) -> dict[str, Any]:
        first = int(self.kept[self.duplicates.of[number]])
        kind = "exact duplicate" if self.duplicates.exact[number] else "near duplicate"
        return {"reason": kind, "of": self.spill.value(first, "id"), "similarity": round(float(self.duplicates.similarity[number]), 4)}

    def _segmented(self, document: Document, entry: int, number: int) -> Document:
        text = self._text(document, entry)
        found = self.language_names[self.language_of[number]]
        self.languages[found] += 1
        language = self.config.language if self.config.language != "auto" else found
        borders = sentences(text, "zh" if language in ("zh", "ja", "ko") else "en")
        return Document(document.id, text, borders, document.source, document.metadata)

    # tell

    def _warn(self) -> None:
        told = self.languages.total() - self.languages["unknown"]
        if self.config.language in ("en", "zh") and self.languages[self.config.language] * 2 < told:
            found = self.languages.most_common(1)[0][0]
            self.warnings.append(f"language is set to {self.config.language}, but most documents seem to be in {found}")
        if self.repeated_ids:
            self.warnings.append(f"{self.repeated_ids} documents have the id of another one")
        for _, source in self.sources:
            if not self.read_from[source.name]:
                self.warnings.append(f"no document came from {source.name}")

    def _report(self, counts: dict[str, int]) -> dict[str, Any]:
        duplicates = self.duplicates.counts()
        found = {**self.cleaner.dropped, "exact duplicate": duplicates["exact"], "near duplicate": duplicates["near"]}
        sources = [
            {
                "path": source.name,
                "format": source.format,
                "encoding": source.encoding,
                "undecodable_lines": source.undecodable,
                "bytes": source.bytes,
                "sha256": source.sha256,
                "documents": self.read_from[source.name],
            }
            for _, source in self.sources
        ]
        return {
            "language": self.config.language,
            "languages": dict(self.languages.most_common()),
            "counts": {
                "read": len(self.spill),
                "kept": counts["documents"],
                **{name: counts[name] for name in counts if name != "documents"},
            },
            "dropped": {reason: n for reason, n in sorted(found.items(), key=lambda pair: (-pair[1], pair[0])) if n},
            "duplicates": duplicates,
            "changed": dict(self.cleaner.changed.most_common()),
            "boilerplate": self._boilerplate(),
            "bad_rows": self.bad.summary(),
            "sources": sources,
            "warnings": self.warnings,
            "seed": self.seed,
            "settings": self.config.plain(),
        }

    def _boilerplate(self) -> dict[str, list[dict[str, str | int]]]:
        named = {entry: self.config.sources[entry] if entry >= 0 else "rows" for entry in self.boilerplate}
        return {named[entry]: lines[:BOILERPLATE_SHOWN] for entry, found in self.boilerplate.items() if (lines := found.report())}

    def _nothing(self) -> DataError:
        reasons = self.bad.reasons.most_common(5)
        hint = f"the bad rows are listed in {self.bad.path}" if reasons else "the sources are empty"
        if reasons and reasons[0][0] == "not utf-8":
            hint = f"say what encoding the files are in, such as encoding: latin-1; {hint}"
        elif reasons and reasons[0][0].startswith("no column"):
            hint = f"say which column holds the text, as in columns: {{text: body}}; {hint}"
        where = self.sources[0][1].name if self.sources else "rows"
        got = ", ".join(f"{reason} ({n})" for reason, n in reasons) or "nothing"
        first = f"; first {self.bad.first[0]}" if self.bad.first else ""
        return DataError("not one document could be read", got=got + first, where=where, hint=hint)


def _number(names: list[str], name: str) -> int:
    """The place of a name in a short list that grows."""
    if name not in names:
        names.append(name)
    return names.index(name)


def _tell(file: Any, document: Document, **why: Any) -> None:
    file.write(json.dumps({"id": document.id, "source": document.source, **why}, ensure_ascii=False) + "\n")
