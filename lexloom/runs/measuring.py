"""Language models measured as they are: which measure a file asks for, its answers, its scores by groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lexloom.config import Config
from lexloom.console import Console
from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.runs.evaluation import Evaluation, by_values
from lexloom.runs.labelled import Labelled
from lexloom.runs.scores import Comparison, System, compare
from lexloom.tasks.columns import Columns, plain
from lexloom.tasks.likelihoods.base import Likelihood
from lexloom.tasks.measures.base import MEASURES, Measure, fitting
from lexloom.text.documents import ColumnsConfig, read_documents
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, format_of, survey

_ROWS, _CHARACTERS = 1024, 1 << 20  # that are answered between two looks at the progress


def choose(name: str | None, bundle: Any, rows: Sequence[Placed]) -> type[Measure] | None:
    """The measure that is asked for, or that fits the columns of the rows; None where the bundle's own task is to be scored.

    Raises:
        ConfigError: there is no measure of that name, or it cannot be taken of such a model.
    """
    roles = bundle.network.roles if isinstance(bundle, Bundle) else frozenset()
    if name is None:
        if not roles or (bundle.task is not None and (bundle.task.classes or _labelled(bundle, rows))):
            return None
        name = fitting(plain(rows[0]), roles)
        return MEASURES.get(name) if name is not None else None
    kind = MEASURES.get(name)
    if not roles & set(kind.roles):
        got = ", ".join(sorted(roles)) or "no head"
        raise ConfigError(f"{name} cannot be measured of this model", expected=f"a head for {' or '.join(kind.roles)}", got=got)
    return kind


def whole_texts(path: Path, *, strict: bool, max_bad_rows: int | None) -> Labelled | None:
    """A plain text file as one row; None where it is another kind of file."""
    if not path.is_file() or format_of(path) != "txt":
        return None
    with Quarantine(None, max_bad_rows=max_bad_rows, strict=strict) as bad:
        found = [Placed({"text": document.text}, path.name, 1) for document in read_documents(survey(path), ColumnsConfig(), bad=bad)]
        told = bad.summary()
    if not found:
        raise DataError("there is no text in this file", where=str(path))
    return Labelled(path, found, told)


def measured(
    kind: type[Measure],
    settings: Mapping[str, Any],
    bundles: Mapping[str, Bundle],
    found: Labelled,
    *,
    by: str | None,
    seed: int,
    resamples: int,
    console: Console,
) -> Evaluation:
    """Scores bundles by a measure, the first being the one at issue.

    Args:
        settings: of the measure.
        by: a column to make a table by; where None, the first of the measure's own that the rows have.

    Raises:
        ConfigError: a setting is wrong.
        DataError: a row lacks a text.
        LexloomError: the bundles' figures cannot stand side by side.
    """
    measure, config = _made(kind, settings)
    likelihoods = {name: bundle.likelihood() for name, bundle in bundles.items()}
    _check_comparable(measure, likelihoods)
    units, notes = dict[str, list[dict[str, Any]]](), list[str]()
    guess = "" if measure.chance is None else f"a guess: {measure.chance}"
    for name, likelihood in likelihoods.items():
        answers = answered(measure, likelihood, found.rows, name, console)
        units[name] = measure.units(answers)
        notes += [f"{name}: {note}" if len(bundles) > 1 else note for note in measure.notes(answers)]
        notes += ["each token was judged with those after it in sight: a pseudo-likelihood"] * likelihood.pseudo

    def compared(places: Sequence[int]) -> Comparison:
        wanted = set(places)
        systems = [System(name, [[unit for unit in given if unit["row"] in wanted]], guess) for name, given in units.items()]
        n = len(systems[0].runs[0])
        return compare(range(n), systems, measure.statistics(), seed=seed, resamples=resamples) if n else Comparison()

    overall = compared(range(len(found.rows)))
    task, columns = _name_of(kind), ", ".join(f"{name}: {value}" for name, value in config.plain().items() if isinstance(value, str))
    first = next(iter(bundles))
    told = Evaluation(first, str(found.path), task, len(found.rows), columns, overall, notes=list(dict.fromkeys(notes)), bad=found.bad)
    by = by or next((column for column in kind.groups if column in plain(found.rows[0])), None)
    if by is not None:
        told.groups = by_values([plain(row) for row in found.rows], by, compared)
    return told


def _made(kind: type[Measure], settings: Mapping[str, Any]) -> tuple[Measure, Config]:
    config = kind.Config.read(dict(settings))
    return kind(config), config


def _name_of(kind: type[Measure]) -> str:
    return next(name for name in MEASURES.names() if MEASURES.get(name) is kind)


def _labelled(bundle: Bundle, rows: Sequence[Placed]) -> bool:
    """Whether the rows have what the bundle's own task is scored by."""
    try:
        return bool(Columns.find(bundle.task.config.columns, rows, labelled=True))  # type: ignore[union-attr]
    except (AttributeError, DataError):
        return False


def _check_comparable(measure: Measure, likelihoods: Mapping[str, Likelihood]) -> None:
    roles = {likelihood.role for likelihood in likelihoods.values()}
    if len(roles) > 1 and not measure.comparable:
        raise LexloomError("a likelihood and a pseudo-likelihood of a text are no figures of one kind", got=" and ".join(sorted(roles)))


def answered(measure: Measure, likelihood: Any, rows: Sequence[Placed], name: str, console: Console) -> list[dict[str, Any]]:
    """A measure's answers over all rows, some at a time.

    Args:
        likelihood: a `Likelihood`, or what takes texts as one does.
        name: of the model, for the log.
    """
    found: list[dict[str, Any]] = []
    done = 0
    with console.progress(f"measuring {name}", len(rows), "rows") as progress:
        for part in _parts(rows):
            found += [{**answer, "row": done + answer["row"]} for answer in measure.answers(likelihood, part)]
            done += len(part)
            progress.update(done)
    return found


def _parts(rows: Sequence[Placed]) -> Iterator[Sequence[Placed]]:
    start, held = 0, 0
    for i, row in enumerate(rows):
        held += sum(len(value) for value in plain(row).values() if isinstance(value, str))
        if i + 1 - start >= _ROWS or held >= _CHARACTERS:
            yield rows[start : i + 1]
            start, held = i + 1, 0
    if start < len(rows):
        yield rows[start:]
