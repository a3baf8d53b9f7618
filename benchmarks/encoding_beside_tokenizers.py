"""Encoding a corpus for shards beside the `tokenizers` library's own `encode_batch`, with equal threads, over the same documents in memory.

    python benchmarks/encoding_beside_tokenizers.py CORPUS TOKENIZER [--megabytes 20 --rounds 5]

CORPUS and TOKENIZER are folders of a run (RUN/corpus, RUN/tokenizer). Ours ends with arrays of ids and sentence borders; theirs, with the
objects that the library returns, their ids not read. Without the two folders it makes them out of this Python's documentation.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"

from _paired import paired, seconds, show

from lexloom import compute
from lexloom.runs import verbs
from lexloom.runs.demo import write_demo_sources
from lexloom.text.corpus import Corpus, Document
from lexloom.text.encoding import encoded
from lexloom.text.tokenizer import Tokenizer

BATCH = 1000


def documents(corpus: Path, megabytes: float) -> list[Document]:
    """The first documents of the training split, up to so many megabytes."""
    found, held = [], 0
    for document in Corpus.open(corpus).documents("train"):
        found.append(document)
        held += len(document.text.encode("utf-8", "replace"))
        if held >= megabytes * 1e6:
            break
    return found


def ours(texts: list[Document], tokenizer: Tokenizer) -> int:
    """Tokens of all documents, by what `lexloom run` does for shards."""
    return sum(len(ragged.values) for _, ragged in encoded(texts, tokenizer))


def theirs(texts: list[str], tokenizer: Tokenizer) -> int:
    """The library alone, on whole documents."""
    return sum(len(tokenizer.backend.encode_batch(texts[a : a + BATCH], add_special_tokens=False)) for a in range(0, len(texts), BATCH))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("tokenizer", type=Path, nargs="?")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ.setdefault("RAYON_NUM_THREADS", str(compute.cores()))
    with tempfile.TemporaryDirectory() as scratch:
        corpus, folder = options.corpus, options.tokenizer
        if corpus is None or folder is None:
            corpus, folder = _from_documentation(Path(scratch))
        found, tokenizer = documents(corpus, options.megabytes), Tokenizer.load(folder)
    texts = [document.text for document in found]
    megabytes = sum(len(text.encode("utf-8", "replace")) for text in texts) / 1e6
    print(f"{len(texts):,} documents, {megabytes:.1f} MB, {os.environ['RAYON_NUM_THREADS']} threads")
    sides = {"lexloom": partial(ours, found, tokenizer), "tokenizers": partial(theirs, texts, tokenizer)}
    times = paired({name: partial(seconds, work) for name, work in sides.items()}, rounds=options.rounds)
    work = f"encoding for shards, {len(tokenizer):,} pieces, {os.environ['RAYON_NUM_THREADS']} threads"
    show(work, times, ["lexloom"], amount=megabytes * 1e6, unit="bytes")


def _from_documentation(scratch: Path) -> tuple[Path, Path]:
    write_demo_sources(scratch / "sources")
    verbs.prepare([scratch / "sources" / "texts"], scratch / "corpus")
    verbs.tokenizer(scratch / "corpus", scratch / "tokenizer", vocab_size=8000)
    return scratch / "corpus", scratch / "tokenizer"


if __name__ == "__main__":
    main()
