"""The stages of word vectors: each kind that a recipe names is trained on the corpus, then all are asked the same questions.

RUN/vectors/NAME/   vectors.bin, vectors.bin.training/ (what a killed training goes on from), summary.json
RUN/word-sets/      summary.json: scores on word sets, neighbours, places on the map; map-NAME.svg
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lexloom import files
from lexloom.config import Config, Place, attempt
from lexloom.console import Console
from lexloom.errors import ConfigError, LexloomError
from lexloom.runs import vectors as making
from lexloom.runs.recipe import Plan, VectorsSection
from lexloom.runs.run import Run, Work
from lexloom.runs.stage import Stage, content
from lexloom.vectors.evaluate import ALL, WordSetConfig, evaluate
from lexloom.vectors.keyed import WordVectors, ending_of

NEIGHBOURS = 8
"""Of each word, in the report."""
MAP_WORDS = 3
"""Fewer have no two directions."""


class How(Config):
    """What a recipe says of a training that is not a setting of it."""

    workers: Annotated[int, Field(ge=1)] | None = None
    file: str = Field("vectors.bin", pattern=r"^\w[\w.-]*$", max_length=100)


@dataclass(frozen=True)
class Kind:
    """One of the recipe's word vectors: how they are trained, and the settings of the training."""

    how: How
    settings: dict[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Kind:
        """Out of what the recipe says.

        Raises:
            ConfigError: `workers` or `file` are not right.
        """
        own, settings = _parts(given)
        return cls(How.read(own), settings)


def _parts(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    own = {name: value for name, value in given.items() if name in How.model_fields}
    return own, {name: value for name, value in given.items() if name not in own}


def problems(plan: Plan) -> list[LexloomError]:
    """Everything that is wrong with the settings of word vectors."""
    section, found = plan.recipe.vectors, list[LexloomError]()
    for name, given in section.train.items() if section is not None else ():
        found += _problems(plan, ("vectors", "train", name), given)
    if section is not None:
        found += attempt(WordSetConfig, section.settings, plan.document, ("vectors", "settings"))[1]
    return found


def _problems(plan: Plan, place: Place, given: Mapping[str, Any]) -> Iterator[LexloomError]:
    own, settings = _parts(given)
    yield from attempt(How, own, plan.document, place)[1]
    checks: list[Callable[[], object]] = [lambda: making._configs(settings)]
    if isinstance(file := own.get("file"), str):
        checks.append(lambda: ending_of(file))
    for check in checks:
        try:
            check()
        except ConfigError as error:
            yield from (_placed(part, plan.document.where(place)) for part in error.parts or (error,))


def _placed(error: LexloomError, place: str) -> ConfigError:
    return ConfigError(error.problem, expected=error.expected, got=error.got, where=place, hint=error.hint)


def works(run: Run) -> Iterator[Work]:
    """The stages in order."""
    section = run.recipe.vectors
    assert section is not None
    for name in section.train:
        yield _training(run, name)
    if len(run.vector_names()) > len(section.train):
        yield _looking(run, section)


def file_of(run: Run, name: str) -> Path:
    """The file of word vectors of a name."""
    assert run.recipe.vectors is not None
    return run.path(f"vectors/{name}") / Kind.of(run.recipe.vectors.train[name]).how.file


def dim_of(plan: Plan, name: str) -> int | None:
    """How many numbers a word of the recipe's own word vectors has; None where it has none of that name, or their settings are wrong."""
    section = plan.recipe.vectors
    if section is None or name not in section.train:
        return None
    try:
        return int(making._configs(Kind.of(section.train[name]).settings)[-1].plain()["dim"])
    except ConfigError:
        return None  # told by `problems`


def _training(run: Run, name: str) -> Work:
    assert run.recipe.vectors is not None
    kind, corpus = Kind.of(run.recipe.vectors.train[name]), run.path("corpus")
    settings = {**kind.settings, "file": kind.how.file}  # not `workers`: they are a matter of speed
    depends = {"settings": settings, "corpus": content(corpus), "seed": run.recipe.seed}
    stage = Stage(f"vectors/{name}", run.path(f"vectors/{name}"), depends, trained=True)

    def make() -> None:
        options: dict[str, Any] = {"seed": run.recipe.seed, "workers": kind.how.workers, "console": run.console}
        trained = making.vectors(corpus, file_of(run, name), **options, **kind.settings)
        run.console.say(f"{stage.name}: {trained.text()}")
        told = trained.plain()
        told["path"] = kind.how.file
        told["seconds"] = trained.seconds if trained.learned == trained.words else None  # of a training that went on, it is a part
        files.write_json(stage.folder / "summary.json", {"format": files.FORMAT, **told, "settings": kind.settings})

    return Work(stage, make)


def _looking(run: Run, section: VectorsSection) -> Work:
    paths = {name: file_of(run, name) for name in section.train}
    sets = [run.plan.path(name) for name in section.evaluate]
    depends = {
        "settings": {**section.settings, "neighbours": section.neighbours, "map": section.map},
        "vectors": {name: content(path) for name, path in paths.items()},
        "sets": [content(path) for path in sets],
        "seed": run.recipe.seed,
    }
    stage = Stage("word-sets", run.path("word-sets"), depends)

    def make() -> None:
        with files.new_folder(stage.folder, kind="word sets") as folder:
            found = [_looked_at(name, path, sets, section, folder, run.recipe.seed, run.console) for name, path in paths.items()]
            whole = {part: [row for one in found for row in one[part]] for part in ("scores", "neighbours", "maps")}
            files.write_json(folder / "summary.json", {"format": files.FORMAT, **whole})

    return Work(stage, make)


def _looked_at(
    name: str, path: Path, sets: Sequence[Path], section: VectorsSection, folder: Path, seed: int, console: Console
) -> dict[str, list[dict[str, Any]]]:
    """Scores, neighbours and map of one file; a word that it lacks is told and passed over."""
    wv = WordVectors.load(path)
    scores = [score for one in sets for score in evaluate(wv, one, seed=seed, **section.settings)]
    for score in (one for one in scores if one.section == ALL):
        value = "–" if score.value is None else f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
        console.say(f"{name}: {score.set}: {score.metric} {value}, {score.covered:,} of {score.n:,} covered")
    neighbours = [{"vectors": name, "word": word, "found": _neighbours(wv, word)} for word in section.neighbours]
    drawn = list(dict.fromkeys(one for word in section.map if (one := wv.spelt(word)) is not None))
    maps = []
    if len(drawn) >= MAP_WORDS:
        points, share = wv.plane(drawn)
        maps.append({"vectors": name, "words": drawn, "points": [list(point) for point in points], "share": share})
        files.write_text(folder / f"map-{name}.svg", wv.map(drawn, title=name))
    if missing := [word for word in dict.fromkeys([*section.neighbours, *section.map]) if wv.spelt(word) is None]:
        console.warn(f"{name}: no vector for {', '.join(missing)}")
    return {"scores": [{"vectors": name, **score.plain()} for score in scores], "neighbours": neighbours, "maps": maps}


def _neighbours(wv: WordVectors, word: str) -> list[list[Any]]:
    """[word, cosine] of each; none of a word that has no vector."""
    found = wv.spelt(word)
    return [] if found is None else [list(one) for one in wv.most_similar(found, topn=NEIGHBOURS)]
