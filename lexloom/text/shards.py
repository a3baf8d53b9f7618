"""Shards: the token ids of a corpus as memory-mapped files, with sentence and document borders. No padding, no special tokens.

A folder holds for each split `tokens-*.bin` (uint8, 16 or 32 by vocabulary), `sentences-*.bin` (where sentences end, in tokens),
`documents-*.bin` (where documents end, in sentences), `ids-*.bin` (document ids, UTF-8) with `id-ends-*.bin`, and `shards.json`; and
`characters.bin` (int16) where the tokenizer spells words, and where asked for `words-*.bin` (a bit a token, the lowest first: whether it
goes on with the word of the token before it).

Letters: N tokens, S sentences, D documents, V vocabulary, C symbols of a word.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lexloom import files
from lexloom.errors import DataError, FormatError
from lexloom.text.encoded import Ragged, Template
from lexloom.text.encoding import Document, DocumentBatch, Documents, encoded, encoded_words
from lexloom.text.tokenizer import Tokenizer

FORMAT = 1
_BLOCK = 1 << 20
CHARACTERS = "characters.bin"
_NAMES = ("tokens", "sentences", "documents", "ids", "id-ends")
_WORDS = "words"


def write_shards(
    corpus: Documents | Mapping[str, Iterable[Document]],
    tokenizer: Tokenizer,
    out: Path | str,
    *,
    words: bool = False,
    report: Callable[[int], None] | None = None,
) -> Shards:
    """Encodes the documents of every split, in their order, with bounded memory.

    Args:
        corpus: a Corpus, or split -> documents.
        words: mark which tokens make a word together, for objectives that hide whole words.
        report: called now and then with the number of documents done.

    Raises:
        DataError: no split has a token.
    """
    splits = corpus if isinstance(corpus, Mapping) else {split: corpus.documents(split) for split in corpus.splits}
    with files.new_folder(out, kind="shards") as folder:
        found, done = {}, 0
        for split, documents in splits.items():
            with ExitStack() as stack:
                writer = _Writer(folder, _name(split), tokenizer, stack, words=words)
                for batch, ragged, *continues in (encoded_words if words else encoded)(documents, tokenizer):
                    writer.add(batch, ragged, *continues)
                    done += len(batch.documents)
                    if report is not None:
                        report(done)
                writer.end()
            found[split] = writer.finish()
        if not any(about["tokens"] for about in found.values()):
            raise DataError("the corpus gives no token", got=f"{done} documents", hint="look at the counts of dropped texts in corpus.json")
        if tokenizer.characters:
            files.write_bytes(folder / CHARACTERS, tokenizer.spellings.astype("<i2").tobytes())
        files.write_json(folder / "shards.json", _about(tokenizer, found))
    return Shards.open(out)


def _name(split: str) -> str:
    if not split.replace("-", "").replace("_", "").isalnum():
        raise DataError("a split is named with letters, digits, - and _", got=repr(split))
    return split


def _about(tokenizer: Tokenizer, splits: Mapping[str, Any]) -> dict[str, Any]:
    single, pair = tokenizer.templates
    return {
        "format": FORMAT,
        "kind": "shards",
        "vocabulary": len(tokenizer),
        "dtype": _dtype(len(tokenizer)).name,
        "tokenizer": {"sha256": tokenizer.digest, "unk": tokenizer.unk_id, "end": tokenizer.eos_id, "separator": tokenizer.sep_id},
        "templates": {"single": single.plain(), "pair": pair.plain()},
        **({"characters": tokenizer.characters} if tokenizer.characters else {}),
        "splits": dict(splits),
    }


def _dtype(vocabulary: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if vocabulary <= 1 << 8 else np.uint16 if vocabulary <= 1 << 16 else np.uint32)


class _Writer:
    """One split on its way to disk."""

    def __init__(self, folder: Path, split: str, tokenizer: Tokenizer, stack: ExitStack, *, words: bool) -> None:
        self.folder, self.split, self.tokenizer = folder, split, tokenizer
        self.names = (*_NAMES, _WORDS) if words else _NAMES
        self.sinks: dict[str, IO[Any]] = {name: stack.enter_context(files.replacing(self.path(name))) for name in self.names}
        self.digests = {name: hashlib.sha256() for name in self.names}
        self.bits = np.zeros(0, dtype=np.bool_)  # the last marks, which do not fill a byte yet
        self.dtype = _dtype(len(tokenizer))
        self.counts: Counter[str] = Counter({"documents": 0, "sentences": 0, "tokens": 0, "unknown": 0, "characters": 0, "bytes": 0})
        self.skipped: Counter[str] = Counter()
        self.ends = {"sentences": 0, "documents": 0, "id-ends": 0}

    def path(self, name: str) -> Path:
        return self.folder / f"{name}-{self.split}.bin"

    def add(self, batch: DocumentBatch, ragged: Ragged, continues: npt.NDArray[np.bool_] | None = None) -> None:
        """Appends documents with their token ids, and where words are marked which tokens continue one."""
        if continues is not None:
            bits = np.concatenate([self.bits, continues])
            whole = len(bits) - len(bits) % 8
            self._write(_WORDS, np.packbits(bits[:whole], bitorder="little"))
            self.bits = bits[whole:]
        lengths, total = ragged.lengths, len(batch.documents)
        if batch.parts_of is not None:
            self.counts["long_sentences"] += sum(n > 1 for n in batch.parts_of)
            lengths = np.add.reduceat(lengths, np.cumsum([0, *batch.parts_of[:-1]]))
        owner = np.repeat(np.arange(total), batch.sentences)
        per_document = np.bincount(owner[lengths > 0], minlength=total)
        kept = np.flatnonzero(per_document)
        empty = batch.sentences.count(0)
        self.skipped.update({"empty": empty, "no tokens": total - len(kept) - empty})
        self._write("tokens", ragged.values.astype(self.dtype))
        self._append("sentences", lengths[lengths > 0])
        self._append("documents", per_document[kept])
        ids = [str(batch.documents[place].id).encode("utf-8", "replace") for place in kept.tolist()]
        self._append("id-ends", np.array([len(name) for name in ids], dtype=np.int64))
        self._write("ids", np.frombuffer(b"".join(ids), dtype=np.uint8))
        self._count(ragged, batch.documents, len(kept), int((lengths > 0).sum()))

    def _count(self, ragged: Ragged, batch: list[Document], documents: int, sentences: int) -> None:
        unknown = self.tokenizer.unk_id
        self.counts["tokens"] += len(ragged.values)
        self.counts["unknown"] += int((ragged.values == unknown).sum()) if unknown is not None else 0
        self.counts["documents"] += documents
        self.counts["sentences"] += sentences
        self.counts["characters"] += sum(len(document.text) for document in batch)
        self.counts["bytes"] += sum(len(document.text.encode("utf-8", "replace")) for document in batch)

    def _append(self, name: str, lengths: npt.NDArray[np.int64]) -> None:
        ends = self.ends[name] + np.cumsum(lengths)
        self.ends[name] = int(ends[-1]) if len(ends) else self.ends[name]
        self._write(name, ends.astype(np.uint64))

    def _write(self, name: str, values: npt.NDArray[Any]) -> None:
        content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        self.digests[name].update(content)
        self.sinks[name].write(content)

    def end(self) -> None:
        """Writes what waits; nothing is added afterwards."""
        if len(self.bits):
            self._write(_WORDS, np.packbits(self.bits, bitorder="little"))

    def finish(self) -> dict[str, Any]:
        """Shrinks the borders to 32 bits where they fit, and gives the entry of `shards.json`."""
        borders = np.dtype(np.uint64 if max(self.ends.values()) >= 1 << 32 else np.uint32)
        if borders.itemsize == 4:
            for name in self.ends:
                self._shrink(name)
        listed = {
            self.path(name).name: {"bytes": self.path(name).stat().st_size, "sha256": self.digests[name].hexdigest()} for name in self.names
        }
        return {**self.counts, "skipped": dict(self.skipped), "borders": borders.name, "files": listed}

    def _shrink(self, name: str) -> None:
        self.digests[name] = hashlib.sha256()
        wide = _mapped(self.path(name), np.dtype("<u8"))
        with files.replacing(self.path(name)) as file:
            for start in range(0, len(wide), _BLOCK):
                content = wide[start : start + _BLOCK].astype("<u4").tobytes()
                self.digests[name].update(content)
                file.write(content)


def unsigned(name: Any) -> np.dtype[Any]:
    """The little-endian type of a file.

    Raises:
        ValueError: it is none of uint8, uint16, uint32, uint64.
    """
    if name not in ("uint8", "uint16", "uint32", "uint64"):
        raise ValueError(f"no unsigned integer: {name!r}")
    return np.dtype(name).newbyteorder("<")


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


@dataclass(frozen=True, eq=False)
class Split:
    """The tokens of one split.

    Attributes:
        tokens: (N,) ids. sentence_ends: (S,) in tokens. document_ends: (D,) in sentences. All mapped from disk.
        counts: documents, sentences, tokens, unknown tokens, characters and bytes of the raw texts.
        words: (N / 8,) bytes of marks, see `continues`; None where words are not marked.
    """

    folder: Path
    name: str
    vocabulary: int
    tokens: npt.NDArray[Any]
    sentence_ends: npt.NDArray[Any]
    document_ends: npt.NDArray[Any]
    id_bytes: npt.NDArray[np.uint8]
    id_ends: npt.NDArray[Any]
    counts: dict[str, int]
    digest: str
    """SHA-256 over the digests of the split's files and its tokenizer."""
    templates: dict[str, Template]
    end: int | None
    separator: int | None
    characters: npt.NDArray[np.int16] | None = None
    """(V, C) the spelling of each word, mapped from disk, where the tokenizer has them."""
    words: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        """Documents."""
        return len(self.document_ends)

    @property
    def unknown_rate(self) -> float:
        """The share of unknown tokens."""
        return self.counts["unknown"] / max(1, self.counts["tokens"])

    def document_id(self, place: int) -> str:
        """The id of the document at a place."""
        start = int(self.id_ends[place - 1]) if place else 0
        return bytes(self.id_bytes[start : int(self.id_ends[place])]).decode("utf-8", "replace")

    def token_ends(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """Where documents `start` to `end` end, in tokens: (end - start,)."""
        return np.asarray(self.sentence_ends[np.asarray(self.document_ends[start:end], dtype=np.int64) - 1], dtype=np.int64)

    def continues(self, places: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_] | None:
        """Whether the tokens at these places go on with the word of the token before them; None where words are not marked."""
        return None if self.words is None else np.asarray(self.words[places >> 3] >> (places & 7) & 1, dtype=np.bool_)

    def span(self, place: int) -> tuple[int, int]:
        """The tokens of a document: start and end in `tokens`."""
        before = int(self.document_ends[place - 1]) if place else 0
        return int(self.sentence_ends[before - 1]) if before else 0, int(self.sentence_ends[int(self.document_ends[place]) - 1])


class Shards:
    """A folder of shards: `Shards.open(folder).split("train").tokens`."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.vocabulary = int(about["vocabulary"])

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self.about["splits"])

    @property
    def tokenizer_digest(self) -> str:
        """`Tokenizer.digest` of the tokenizer that made them."""
        return str(self.about["tokenizer"]["sha256"])

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool = False) -> Shards:
        """Opens a folder; `verify` also reads every file through and compares digests.

        Raises:
            FormatError: something is missing, of another size, unordered, changed, or of a newer format.
        """
        folder = Path(folder)
        path = folder / "shards.json"
        if not path.is_file():
            raise FormatError("these are no shards", expected="a folder with shards.json", where=str(folder))
        about = files.read_json(path, kind="shards.json")
        files.check_format(about, path, newest=FORMAT)
        try:
            shards = cls(folder, about)
            for name in shards.splits:
                _check(shards.split(name), verify=verify)
                for file, entry in about["splits"][name]["files"].items() if verify else ():
                    if files.digest(folder / Path(file).name) != entry["sha256"]:
                        raise FormatError("this file was changed or damaged", where=str(folder / file), hint="make the shards again")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError("shards.json is damaged", got=repr(error)[:200], where=str(path)) from None
        return shards

    def split(self, name: str) -> Split:
        """One split.

        Raises:
            DataError: there is none of that name.
            FormatError: a file is missing or has another size.
        """
        if name not in self.about["splits"]:
            raise DataError(f"these shards have no split {name!r}", expected=", ".join(self.splits), where=str(self.folder))
        entry, where = self.about["splits"][name], str(self.folder / "shards.json")
        borders = unsigned(entry["borders"])
        types = dict.fromkeys(("sentences", "documents", "id-ends"), borders)
        types |= {"tokens": unsigned(self.about["dtype"]), "ids": np.dtype(np.uint8)}
        types |= {_WORDS: np.dtype(np.uint8)} if f"{_WORDS}-{_name(name)}.bin" in entry["files"] else {}
        made = {part: self._file(f"{part}-{_name(name)}.bin", dtype, entry) for part, dtype in types.items()}
        return Split(
            folder=self.folder,
            name=name,
            vocabulary=self.vocabulary,
            tokens=made["tokens"],
            sentence_ends=made["sentences"],
            document_ends=made["documents"],
            id_bytes=made["ids"],
            id_ends=made["id-ends"],
            counts={part: int(n) for part, n in entry.items() if isinstance(n, int)},
            digest=files.fingerprint([entry["files"], self.tokenizer_digest]),
            templates={kind: Template.read(self.about["templates"][kind], pair=kind == "pair", where=where) for kind in ("single", "pair")},
            end=self.about["tokenizer"]["end"],
            separator=self.about["tokenizer"]["separator"],
            characters=self._characters(),
            words=made.get(_WORDS),
        )

    def _characters(self) -> npt.NDArray[np.int16] | None:
        if "characters" not in self.about:
            return None
        path, shape = self.folder / CHARACTERS, (self.vocabulary, int(self.about["characters"]))
        if not path.is_file() or path.stat().st_size != 2 * shape[0] * shape[1]:
            raise FormatError("the spelling of the words is missing or has another size", expected=f"{shape} numbers", where=str(path))
        return np.memmap(path, dtype="<i2", mode="r", shape=shape)

    def _file(self, name: str, dtype: np.dtype[Any], entry: Mapping[str, Any]) -> npt.NDArray[Any]:
        path, size = self.folder / name, int(entry["files"][name]["bytes"])
        if not path.is_file() or path.stat().st_size != size or size % dtype.itemsize:
            got = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
            raise FormatError("a file of the shards is missing or has another size", expected=f"{size} bytes", got=got, where=str(path))
        return _mapped(path, dtype)


def _check(split: Split, *, verify: bool) -> None:
    """Borders grow and end where the next file does; token ids are in the vocabulary (read through only where asked for)."""
    where = str(split.folder / f"tokens-{split.name}.bin")
    pairs = (
        ("sentences", split.sentence_ends, len(split.tokens)),
        ("documents", split.document_ends, len(split.sentence_ends)),
        ("id-ends", split.id_ends, len(split.id_bytes)),
    )
    for name, ends, total in pairs:
        if (int(ends[-1]) if len(ends) else 0) != total or not _grows(ends, strictly=name != "id-ends"):
            raise FormatError(f"the borders of {name} are damaged", where=where, hint="make the shards again")
    if split.words is not None and len(split.words) != -(-len(split.tokens) // 8):
        raise FormatError("there are not as many marks of words as tokens", where=where, hint="make the shards again")
    if len(split.id_ends) != len(split.document_ends):
        raise FormatError("there are not as many ids as documents", where=where, hint="make the shards again")
    for start in range(0, len(split.tokens) if verify else 0, _BLOCK):
        if int(split.tokens[start : start + _BLOCK].max()) >= split.vocabulary:
            raise FormatError("a token id is outside the vocabulary", expected=f"below {split.vocabulary}", where=where)


def _grows(ends: npt.NDArray[Any], *, strictly: bool) -> bool:
    last = 0 if strictly else -1
    for start in range(0, len(ends), _BLOCK):
        block = ends[start : start + _BLOCK].astype(np.int64)
        steps = np.diff(block, prepend=last)
        if (steps <= 0).any() if strictly else (steps[1:] < 0).any() or block[0] < max(last, 0):
            return False
        last = int(block[-1])
    return True
