"""Word vectors beside the programs they were first published with: word2vec.c, fastText and GloVe, each from a folder the user has built.

    python benchmarks/vectors_beside_c.py TEXT [--word2vec FOLDER --fasttext FOLDER --glove FOLDER] [--workers 2 --rounds 5 --dim 100
        --data FOLDER --epochs 15 --seeds 3]

TEXT has a sentence a line, its words apart. A folder holds what the project's own makefile builds (`word2vec`, `fasttext`,
`build/cooccur` and so on), with -O3 -march=native. Seconds are of an epoch: what a training of two takes longer than one of one, so that
the pass for the vocabulary, the start and the writing of files count for nobody. Counting of co-occurrences is timed whole, with the
shuffle that theirs needs before it can learn; ours needs none. With `--data` (see `vectors_beside_gensim.py`) both sides of GloVe are
scored after `--epochs`, for each seed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from functools import partial
from pathlib import Path

from _apart import Apart
from _paired import paired, show
from vectors_beside_gensim import MIN_COUNT, SCRATCH, prepared, scores, told

from lexloom import files
from lexloom.vectors import cooccurrence
from lexloom.vectors.cooccurrence import Cooccurrences
from lexloom.vectors.glove import Glove, GloveConfig
from lexloom.vectors.idtext import IdText
from lexloom.vectors.keyed import WordVectors
from lexloom.vectors.subwords import FastText, FastTextConfig

WINDOW, GLOVE_WINDOW, X_MAX, MEMORY = 5, 10, 10, 2_000_000_000


def seconds(*command: str | Path, stdin: Path | None = None, stdout: Path | None = None) -> float:
    """Wall time of a program."""
    began = time.perf_counter()
    with Path(stdin or os.devnull).open("rb") as source, Path(stdout or os.devnull).open("wb") as target:
        subprocess.run([str(part) for part in command], stdin=source, stdout=target, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def an_epoch(command: list[str | Path], epochs: str) -> float:
    """What two epochs take longer than one; `epochs` is the name of the option."""
    one, two = (seconds(*command, epochs, str(n)) for n in (1, 2))
    return two - one


def word2vec(program: Path, text: Path, kind: str, dim: int, workers: int) -> list[str | Path]:
    sizes = ["-size", str(dim), "-window", str(WINDOW), "-negative", "5", "-sample", "1e-3", "-min-count", str(MIN_COUNT)]
    files_ = ["-train", text, "-output", SCRATCH / "word2vec.bin", "-binary", "1"]
    return [program, *files_, *sizes, "-cbow", str(int(kind == "cbow")), "-threads", str(workers)]


def fasttext(program: Path, text: Path, kind: str, dim: int, workers: int, *, grams: bool) -> list[str | Path]:
    sizes = ["-dim", str(dim), "-ws", str(WINDOW), "-neg", "5", "-t", "1e-3", "-minCount", str(MIN_COUNT)]
    files_ = ["-input", text, "-output", SCRATCH / "fasttext"]
    return [program, kind, *files_, *sizes, "-maxn", "6" if grams else "0", "-thread", str(workers)]


class OurFastText:
    """Our training of words and their n-grams."""

    def __init__(self, text: str, kind: str, dim: int, workers: int) -> None:
        self.text, self.workers = IdText.open(text), workers
        self.config = FastTextConfig.read({"model": kind, "dim": dim, "window": WINDOW, "negatives": 5, "sample": 1e-3, "epochs": 1})
        self.steps(1)

    def steps(self, n: int) -> float:
        """Seconds of `n` epochs."""
        state = FastText(self.config.model_copy(update={"epochs": n}), self.text.vocabulary)
        began = time.perf_counter()
        for _ in state.train(self.text, self.workers):
            pass
        return time.perf_counter() - began


class OurGlove:
    """An epoch of our GloVe."""

    def __init__(self, pairs: str, dim: int, workers: int, seed: int = 1) -> None:
        self.pairs, self.workers, self.seed = Cooccurrences.open(pairs), workers, seed
        self.config = GloveConfig.read({"kind": "glove", "dim": dim, "window": GLOVE_WINDOW, "x_max": X_MAX, "epochs": 1})

    def steps(self, n: int) -> float:
        """Seconds of `n` epochs."""
        state = Glove(self.config.model_copy(update={"epochs": max(1, n)}), self.pairs.vocabulary, self.seed)
        began = time.perf_counter()
        for _ in state.train(self.pairs, self.workers):
            pass
        took = time.perf_counter() - began
        self.vectors = state.vectors
        return took


class Counting:
    """Our counting of co-occurrences."""

    def __init__(self, text: str, workers: int) -> None:
        self.text, self.workers = IdText.open(text), workers

    def steps(self, n: int) -> float:
        """Seconds of `n` times, with all that the other side left for the disk written first: we wait for what we write, they do not."""
        files.remove(SCRATCH / "pairs")
        os.sync()
        began = time.perf_counter()
        for _ in range(n):
            files.remove(SCRATCH / "pairs")
            cooccurrence.write(self.text, SCRATCH / "pairs", window=GLOVE_WINDOW, memory=MEMORY, workers=self.workers)
        return time.perf_counter() - began


def beside_word2vec(options: argparse.Namespace, text: Path, ids: Path, total: int) -> None:
    """Skip-gram and CBOW beside word2vec.c, and skip-gram beside fastText without n-grams, which is the same work."""
    for kind in options.kind:
        for dim in options.dim:
            common = {"kind": kind, "dim": dim, "workers": options.workers}
            sides = {"lexloom": partial(Apart("vectors_beside_gensim", "Ours", text=str(ids), **common).steps, 1)}
            if options.word2vec:
                sides["word2vec.c"] = partial(an_epoch, word2vec(options.word2vec / "word2vec", text, **common), "-iter")
            if options.fasttext:
                command = fasttext(options.fasttext / "fasttext", text, **common, grams=False)
                sides["fastText, whole words"] = partial(an_epoch, command, "-epoch")
            times = paired(sides, rounds=options.rounds)
            show(f"{kind}, {dim} numbers a word, {options.workers} workers", times, ["lexloom"], amount=total, unit="words")


def beside_fasttext(options: argparse.Namespace, text: Path, ids: Path, total: int) -> None:
    """Words made of their n-grams of 3 to 6 characters, 2,000,000 buckets."""
    for kind in options.kind:
        for dim in options.dim:
            common = {"kind": kind, "dim": dim, "workers": options.workers}
            command = fasttext(options.fasttext / "fasttext", text, **common, grams=True)
            ours = Apart("vectors_beside_c", "OurFastText", text=str(ids), **common)
            sides = {"lexloom": partial(ours.steps, 1), "fastText": partial(an_epoch, command, "-epoch")}
            times = paired(sides, rounds=options.rounds)
            show(f"{kind} with n-grams, {dim} numbers a word, {options.workers} workers", times, ["lexloom"], amount=total, unit="words")


def beside_glove(options: argparse.Namespace, text: Path, ids: Path, total: int) -> None:
    """Counting, and an epoch of learning, beside Stanford's."""
    build, vocabulary, counted, mixed = options.glove / "build", *(SCRATCH / f"glove-{part}" for part in ("vocabulary", "counted", "mixed"))
    seconds(build / "vocab_count", "-min-count", str(MIN_COUNT), stdin=text, stdout=vocabulary)
    room = ["-memory", str(MEMORY / 2**30)]

    def theirs() -> float:
        window = ["-vocab-file", vocabulary, "-window-size", str(GLOVE_WINDOW), "-overflow-file", SCRATCH / "glove-overflow"]
        os.sync()
        first = seconds(build / "cooccur", *room, *window, stdin=text, stdout=counted)
        return first + seconds(build / "shuffle", *room, "-temp-file", SCRATCH / "glove-shuffle", stdin=counted, stdout=mixed)

    counting = Apart("vectors_beside_c", "Counting", text=str(ids), workers=options.workers)
    times = paired({"lexloom": partial(counting.steps, 1), "Stanford GloVe": theirs}, rounds=options.rounds)
    show("counting co-occurrences, 10 words each side", times, ["lexloom"], amount=total, unit="words")
    for dim in options.dim:
        sizes = ["-vector-size", str(dim), "-threads", str(options.workers), "-x-max", str(X_MAX), "-vocab-file", vocabulary]
        command = [build / "glove", "-input-file", mixed, "-save-file", SCRATCH / "glove", "-binary", "1", *sizes]
        ours = Apart("vectors_beside_c", "OurGlove", pairs=str(SCRATCH / "pairs"), dim=dim, workers=options.workers)
        sides = {"lexloom": partial(ours.steps, 1), "Stanford GloVe": partial(an_epoch, command, "-iter")}
        times = paired(sides, rounds=options.rounds)
        entries = Cooccurrences.open(SCRATCH / "pairs").size
        show(f"GloVe, {dim} numbers a word, {options.workers} workers", times, ["lexloom"], amount=entries, unit="pairs")
        if options.data is not None:
            quality(command, dim, options)


def quality(command: list[str | Path], dim: int, options: argparse.Namespace) -> None:
    """Scores of whole trainings of GloVe, a line a side."""
    found: dict[str, list[dict[str, float]]] = {"lexloom": [], "Stanford GloVe": []}
    for seed in range(1, options.seeds + 1):
        ours = OurGlove(str(SCRATCH / "pairs"), dim, options.workers, seed)
        ours.steps(options.epochs)
        found["lexloom"].append(scores(ours.vectors.index_to_key, ours.vectors.vectors, options.data))
        written = [part if part != "1" or command[place - 1] != "-binary" else "0" for place, part in enumerate(command)]
        seconds(*written, "-iter", str(options.epochs), "-seed", str(seed))
        (SCRATCH / "glove.txt").replace(SCRATCH / "theirs.glove")
        theirs = WordVectors.load(SCRATCH / "theirs.glove")
        known = [place for place, word in enumerate(theirs.index_to_key) if word != "<unk>"]
        found["Stanford GloVe"].append(scores([theirs.index_to_key[place] for place in known], theirs.vectors[known], options.data))
    for name, rows in found.items():
        print(f"GloVe, {dim}, {options.epochs} epochs, {name}: {told(rows)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="?")
    for name in ("word2vec", "fasttext", "glove"):
        parser.add_argument(f"--{name}", type=lambda path: Path(path).resolve(), help="folder of the built program")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dim", type=int, nargs="+", default=[100])
    parser.add_argument("--kind", nargs="+", default=["skipgram", "cbow"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=15, help="of the trainings that are scored")
    parser.add_argument("--seeds", type=int, default=3, help="of the trainings that are scored")
    options = parser.parse_args()
    if not (options.word2vec or options.fasttext or options.glove):
        print("no program of theirs was named (--word2vec, --fasttext, --glove): nothing to compare with")
        return
    text, ids, total = prepared(options.text)
    if options.word2vec or options.fasttext:
        beside_word2vec(options, text.resolve(), ids, total)
    if options.fasttext:
        beside_fasttext(options, text.resolve(), ids, total)
    if options.glove:
        beside_glove(options, text.resolve(), ids, total)


if __name__ == "__main__":
    main()
