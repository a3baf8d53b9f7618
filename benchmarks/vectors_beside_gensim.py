"""Word vectors beside gensim's `corpus_file` mode: words a second of training, the vocabulary pass apart, and what both have learned.

    python benchmarks/vectors_beside_gensim.py [TEXT] [--workers 2 --rounds 3 --epochs 3 --dim 100 300 --data FOLDER]

TEXT has a sentence a line, its words apart; without it one is made of this Python's documentation. With `--data`, a folder that holds
`word_similarity/*.tsv` and `word_analogies/google_questions-words.en.txt.gz`, the vectors of both sides are scored. Each round trains each
side for one epoch, in a process of its own; the scores are of whole trainings after that. Without gensim the sides are ours alone.
"""

from __future__ import annotations

import argparse
import gzip
import os
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from _apart import Apart
from _paired import paired, show
from scipy.stats import spearmanr

from lexloom.runs.demo import write_demo_sources
from lexloom.vectors import idtext
from lexloom.vectors.sentences import SourceSentences, WordsConfig
from lexloom.vectors.training import Word2Vec, Word2VecConfig
from lexloom.vectors.vocabulary import VocabularyConfig

SETTINGS = {"window": 5, "negatives": 5, "sample": 1e-3, "learning_rate": 0.025}
SCRATCH = Path("runs/bench/vectors")
MIN_COUNT, RESTRICTED = 5, 30_000


class Ours:
    """Our training."""

    def __init__(self, text: str, kind: str, dim: int, workers: int, seed: int = 1, deterministic: bool = False) -> None:
        self.text, self.workers, self.seed = idtext.IdText.open(text), workers, seed
        self.settings = {**SETTINGS, "kind": kind, "dim": dim, "deterministic": deterministic}
        self.steps(0)

    def steps(self, n: int) -> float:
        """Seconds of training for `n` epochs; of 0, which compiles, for the first thousands of words."""
        state = Word2Vec(Word2VecConfig.read({**self.settings, "epochs": max(1, n)}), self.text.vocabulary, self.seed)
        began = time.perf_counter()
        for _ in state.train(self.text, self.workers):
            if n == 0:
                break
        took = time.perf_counter() - began
        self.words, self.vectors = self.text.vocabulary.words, state.vectors.vectors
        return took


class Gensim:
    """gensim's, from the same file."""

    def __init__(self, text: str, kind: str, dim: int, workers: int, seed: int = 1) -> None:
        from gensim.models import Word2Vec as Model

        self.text, sizes = text, {"vector_size": dim, "window": 5, "negative": 5, "min_count": MIN_COUNT, "sample": 1e-3}
        self.make = partial(Model, sg=int(kind == "skipgram"), workers=workers, seed=seed, **sizes)
        with Path(text).open(encoding="utf-8") as lines:
            self.total = sum(len(line.split()) for line in lines)

    def steps(self, n: int) -> float:
        """Seconds of training for `n` epochs."""
        model = self.make(epochs=n)
        model.build_vocab(corpus_file=self.text)
        began = time.perf_counter()
        model.train(corpus_file=self.text, total_words=self.total, epochs=n)
        took = time.perf_counter() - began
        self.words, self.vectors = model.wv.index_to_key, model.wv.vectors
        return took


def scores(words: list[str], vectors: np.ndarray, data: Path) -> dict[str, float]:
    """Spearman's rho of each similarity set, their mean, and accuracy on analogies among the commonest words."""
    unit, index = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), {word: place for place, word in enumerate(words)}
    found = {}
    for path in sorted((data / "word_similarity").glob("*.tsv")):
        rows = [line.lower().split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        known = [(float(row[2]), unit[index[row[0]]] @ unit[index[row[1]]]) for row in rows if row[0] in index and row[1] in index]
        found[path.stem] = float(spearmanr(*zip(*known, strict=True))[0])
    found["similarity"] = float(np.mean(list(found.values())))
    found["analogies"] = accuracy(unit[:RESTRICTED], list(questions(index, data)))
    return found


def questions(index: dict[str, int], data: Path) -> Iterator[list[int]]:
    """The analogies whose four words are among the commonest."""
    with gzip.open(data / "word_analogies" / "google_questions-words.en.txt.gz", "rt", encoding="utf-8") as file:
        for line in file:
            places = [index.get(word, RESTRICTED) for word in line.lower().split()]
            if not line.startswith(":") and max(places) < RESTRICTED:
                yield places


def accuracy(unit: np.ndarray, asked: list[list[int]]) -> float:
    """The share of a : b = c : d in which d is nearest to b - a + c, of all but a, b and c."""
    right = 0
    for start in range(0, len(asked), 500):
        a, b, c, d = np.array(asked[start : start + 500]).T
        near = (unit[b] - unit[a] + unit[c]) @ unit.T
        for told in (a, b, c):
            near[np.arange(len(a)), told] = -np.inf
        right += int((near.argmax(1) == d).sum())
    return right / max(1, len(asked))


def prepared(text: Path | None) -> tuple[Path, Path, int]:
    """The text, its ids, and how many words it has."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    if text is None:
        text = SCRATCH / "documentation.txt"
        write_demo_sources(SCRATCH / "sources")
        sentences = SourceSentences(SCRATCH / "sources" / "texts", WordsConfig())
        text.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences), encoding="utf-8")
    began = time.perf_counter()
    spaced = SourceSentences(text, WordsConfig(words="spaces", lowercase=False))
    ids = idtext.write(spaced, SCRATCH / "ids", VocabularyConfig(min_count=MIN_COUNT))
    total = ids.vocabulary.text_words
    print(f"{total:,} words, {len(ids.vocabulary):,} different ones; our pass for the vocabulary: {time.perf_counter() - began:.1f} s")
    return text, ids.folder, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dim", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--kind", nargs="+", default=["skipgram", "cbow"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=3, help="of the trainings that are scored")
    parser.add_argument("--seeds", type=int, default=3, help="of the trainings that are scored")
    options = parser.parse_args()
    text, ids, total = prepared(options.text)
    peer = find_spec("gensim") is not None
    if not peer:
        print("gensim is not installed: ours alone")
    for kind in options.kind:
        for dim in options.dim:
            speed(kind, dim, options, text, ids, total, peer)
            if options.data is not None:
                quality(kind, dim, options, text, ids, peer)


def speed(kind: str, dim: int, options: argparse.Namespace, text: Path, ids: Path, total: int, peer: bool) -> None:
    """Words a second of an epoch, in turn; deterministic training beside one worker of theirs, with which alone it is so too."""
    common = {"kind": kind, "dim": dim}
    for ours, theirs, deterministic in ((options.workers, options.workers, False), (1, 1, True), (options.workers, 1, True)):
        sides = {"lexloom": Apart("vectors_beside_gensim", "Ours", text=str(ids), workers=ours, deterministic=deterministic, **common)}
        if peer:
            sides["gensim"] = Apart("vectors_beside_gensim", "Gensim", text=str(text), workers=theirs, **common)
        times = paired({name: partial(side.steps, 1) for name, side in sides.items()}, rounds=options.rounds)
        workers = f"{ours} {'workers' if ours > 1 else 'worker'}" + (f" beside {theirs}" if ours != theirs else "")
        name = f"{kind}, {dim} numbers a word, {workers}{', deterministic' if deterministic else ''}"
        show(name, times, ["lexloom"], amount=total, unit="words")


def quality(kind: str, dim: int, options: argparse.Namespace, text: Path, ids: Path, peer: bool) -> None:
    """Scores of whole trainings, a line a side: mean over the seeds, least and greatest."""
    common = {"kind": kind, "dim": dim, "workers": options.workers}
    makers = {"lexloom": partial(Ours, str(ids), **common), "lexloom, deterministic": partial(Ours, str(ids), deterministic=True, **common)}
    makers |= {"gensim": partial(Gensim, str(text), **common)} if peer else {}
    for name, make in makers.items():
        rows = []
        for seed in range(1, options.seeds + 1):
            side = make(seed=seed)
            side.steps(options.epochs)
            rows.append(scores(side.words, side.vectors, options.data))
        print(f"{kind}, {dim}, {options.epochs} epochs, {name}: {told(rows)}", flush=True)


def told(rows: list[dict[str, float]]) -> str:
    """Scores over the seeds: mean, least and greatest."""
    columns = ((key, [100 * row[key] for row in rows]) for key in ("analogies", "similarity"))
    return "; ".join(f"{key} {np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})" for key, values in columns)


if __name__ == "__main__":
    main()
