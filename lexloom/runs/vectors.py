"""Vectors: from a text to a file of word vectors. What it takes on the way stands beside the file, so that a killed training goes on.

FILE.training/   text/ (words as ids), pairs/ (of GloVe: the co-occurrences), checkpoints/step-000000064/ (a state of the training each),
                 the last of which others go on from
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lexloom import compute, files
from lexloom.config import Config
from lexloom.console import Console
from lexloom.errors import CheckpointError, ConfigError, Interrupted, unknown
from lexloom.lock import locked
from lexloom.runs.interrupt import Stop, on_signal
from lexloom.vectors import cooccurrence, idtext
from lexloom.vectors.cooccurrence import Cooccurrences
from lexloom.vectors.glove import Glove, GloveConfig
from lexloom.vectors.idtext import IdText
from lexloom.vectors.keyed import WordVectors, ending_of
from lexloom.vectors.sentences import SourceSentences, WordsConfig
from lexloom.vectors.states import Progress, State
from lexloom.vectors.subwords import FastText, FastTextConfig
from lexloom.vectors.training import Word2Vec, Word2VecConfig
from lexloom.vectors.vocabulary import VocabularyConfig

SAVE_EVERY_SECONDS = 60.0
_KEEP = 2


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        losses: the mean over the predictions of each epoch; of GloVe over the entries of X.
        words: of the text, over all epochs; `seconds`: that this call trained, of which it learned `learned` of them.
    """

    path: Path
    vectors: WordVectors
    losses: tuple[float, ...]
    words: int
    learned: int
    seconds: float

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        rate = self.learned / self.seconds if self.seconds else None
        sizes = {"words": len(self.vectors), "dim": self.vectors.vectors.shape[1]}
        return {"path": str(self.path), **sizes, "losses": list(self.losses), "text_words": self.words, "words_per_second": rate}

    def text(self) -> str:
        """In a line."""
        losses = ", ".join(f"{loss:.4f}" for loss in self.losses)
        return f"{len(self.vectors):,} words of {self.vectors.vectors.shape[1]} numbers in {self.path}; loss by epoch: {losses}"


def vectors(
    source: Path | str | Iterable[Sequence[str]],
    out: Path | str,
    *,
    seed: int = 1,
    workers: int | None = None,
    start: Path | str | None = None,
    tokenizer: Path | str | None = None,
    save_every_seconds: float = SAVE_EVERY_SECONDS,
    console: Console | None = None,
    **settings: Any,
) -> Trained:
    """Trains word vectors and writes them to a file. See `verbs.vectors`.

    Raises:
        ConfigError: a setting, an ending, or a state that does not fit; nothing was started.
        DataError: the text leaves no two words.
        Interrupted: by a signal; the state is saved.
    """
    out, console = Path(out), console or Console()
    ending_of(out)
    words, counting, method, training = _configs(settings)
    work = out.with_name(f"{out.name}.training")
    with locked(work):
        before = _latest(Path(start)) if start is not None else None
        sentences = (
            SourceSentences(source, words, tokenizer=Path(tokenizer) if tokenizer else None) if isinstance(source, str | Path) else source
        )
        asked = [words.plain(), counting.plain(), _identity(source), before and files.read_manifest(before.folder)]
        text = _text(
            sentences, work / "text", counting, before, files.fingerprint(asked) if isinstance(source, str | Path) else None, console
        )
        workers = workers or compute.cores()
        data = method.data(text, work, training, workers, console)
        digest = files.fingerprint([training.plain(), seed, data.digest])
        state = _state(work / "checkpoints", digest, text, method, training, seed, before, console)
        return _train(state, data, work / "checkpoints", digest, out, workers, save_every_seconds, console)


def _configs(settings: dict[str, Any]) -> tuple[WordsConfig, VocabularyConfig, Method, Config]:
    """The settings, each to the part it belongs to; what belongs to none is refused by that of the training."""
    others = {name for part in (WordsConfig, VocabularyConfig) for name in part.model_fields}
    words, counting = (
        {name: value for name, value in settings.items() if name in part.model_fields} for part in (WordsConfig, VocabularyConfig)
    )
    training = {name: value for name, value in settings.items() if name not in others}
    if (kind := training.get("kind", "skipgram")) not in KINDS:
        raise unknown("kind of vectors", str(kind), KINDS)
    return WordsConfig.read(words), VocabularyConfig.read(counting), KINDS[kind], KINDS[kind].config.read(training)


def _identity(source: Any) -> Any:
    """What tells whether a text is the one that was read before."""
    if not isinstance(source, str | Path):
        return None
    path = Path(source)
    found = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in found if file.exists()]


@dataclass(frozen=True)
class _Before:
    folder: Path
    state: State


def _latest(training: Path) -> _Before:
    """The state that another training ended with."""
    folder = training if (training / files.MANIFEST).is_file() else _newest(training / "checkpoints")
    if folder is None:
        hint = "name the .training folder that stands beside a file of vectors, or one of its checkpoints"
        raise ConfigError("there is no saved state of word vectors here", where=str(training), hint=hint)
    return _Before(folder, _loaded(folder))


def _loaded(folder: Path) -> State:
    named = (files.read_manifest(folder) or {}).get("method")
    return next((method for method in KINDS.values() if method.name == named), KINDS["skipgram"]).state.load(folder)


def _text(
    sentences: Iterable[Sequence[str]], folder: Path, config: VocabularyConfig, before: _Before | None, digest: str | None, console: Console
) -> IdText:
    """The words as ids, from before where text and settings are the same."""
    manifest = files.read_manifest(folder)
    if digest is not None and manifest is not None and manifest.get("asked") == digest:
        return IdText.open(folder)
    known = before.state.vocabulary if before is not None else None
    with console.progress("reading", None, "words") as progress:

        def tell(step: str, words: int) -> None:
            progress.title = step
            progress.update(words)

        found = idtext.write(sentences, folder, config, known=known, report=tell, asked=digest)
    if isinstance(sentences, SourceSentences) and sentences.bad.total:
        console.warn(f"{sentences.bad.total:,} bad rows were passed over: {'; '.join(map(str, sentences.bad.first[:3]))}")
    dropped = found.vocabulary.text_words - found.words
    console.say(f"{found.words:,} words, {len(found.vocabulary):,} different ones; {dropped:,} too rare for a vector")
    return found


def _text_itself(text: IdText, *_: Any) -> IdText:
    return text


def _pairs(text: IdText, work: Path, config: GloveConfig, workers: int, console: Console) -> Cooccurrences:
    """The co-occurrences of a text, from before where text and window are the same."""
    folder = work / "pairs"
    asked = files.fingerprint([text.digest, config.window])
    if (files.read_manifest(folder) or {}).get("asked") == asked:
        return Cooccurrences.open(folder)
    workers = max(1, min(workers, config.memory // cooccurrence.LEAST_MEMORY))
    with console.progress("co-occurrences", text.words, "words") as progress:
        found = cooccurrence.write(
            text, folder, window=config.window, memory=config.memory, workers=workers, report=lambda _, n: progress.update(n), asked=asked
        )
    console.say(f"{found.size:,} pairs of words stand within {found.window} words of each other")
    return found


@dataclass(frozen=True)
class Method:
    """A way to learn vectors.

    Attributes:
        name: stands in the manifests of its states.
        data: makes what it learns from out of (the text as ids, the folder FILE.training, the settings, the workers, a console).
    """

    name: str
    config: type[Config]
    state: type[State]
    data: Callable[[IdText, Path, Any, int, Console], Any]


_WORD2VEC = Method("word2vec", Word2VecConfig, Word2Vec, _text_itself)
KINDS = {
    "skipgram": _WORD2VEC,
    "cbow": _WORD2VEC,
    "fasttext": Method("fasttext", FastTextConfig, FastText, _text_itself),
    "glove": Method("glove", GloveConfig, Glove, _pairs),
}
"""Every `kind` that a training may name."""


def _newest(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    found = sorted(path for path in folder.glob("step-*") if files.read_manifest(path)) if folder.is_dir() else []
    return found[-1] if found else None


def _state(
    folder: Path, digest: str, text: IdText, method: Method, config: Config, seed: int, before: _Before | None, console: Console
) -> State:
    """The state to go on from: of this very training, of another one, or none."""
    for path in reversed(sorted(folder.glob("step-*")) if folder.is_dir() else []):
        try:
            if files.verify(path, check_digests=False).get("training") == digest:
                return _loaded(path)
        except CheckpointError as error:
            console.warn(f"passed over a damaged state: {error}")
    if before is None:
        return method.state(config, text.vocabulary, seed)
    if type(before.state) is not method.state:
        asked, hint = str(config.plain()["kind"]), "go on with vectors of the same method, or begin anew"
        raise ConfigError("the saved vectors are of another method", expected=asked, got=before.state.config.kind, hint=hint)
    return before.state.grown(text.vocabulary, config, seed)


def _train(
    state: State,
    data: Any,
    folder: Path,
    digest: str,
    out: Path,
    workers: int,
    save_every_seconds: float,
    console: Console,
) -> Trained:
    begun = saved = time.monotonic()
    told: Progress | None = None
    first = state.progress(data)
    with on_signal(console.say) as stop, console.progress("training", first.total, "words", start=first.words) as progress:
        for told in state.train(data, workers):
            progress.update(told.words, loss=told.losses[-1], rate=told.learning_rate)
            if stop.number is not None or time.monotonic() - saved > save_every_seconds:
                _save(state, folder, digest)
                saved = time.monotonic()
            _check(stop)
    seconds = time.monotonic() - begun
    if told is not None:
        _save(state, folder, digest)
    last, found = told or first, state.vectors
    found.save(out)
    return Trained(out, found, last.losses, last.total, last.words - first.words, seconds)


def _check(stop: Stop) -> None:
    if stop.number is not None:
        raise Interrupted("stopped; the state is saved", signal_number=stop.number, hint="the same command goes on from there")


def _save(state: State, folder: Path, digest: str) -> None:
    """Writes a checkpoint, and removes those that are no longer needed."""
    state.save(folder / f"step-{state.steps:09d}", training=digest, method=KINDS[state.config.kind].name)
    whole = sorted(path for path in folder.glob("step-*") if (files.read_manifest(path) or {}).get("training") == digest)
    for path in folder.glob("step-*"):
        if path not in whole[-_KEEP:]:
            files.remove(path)
