"""Check: a recipe or data looked at before anything runs. Nothing is written, sources are sampled, and what was not seen is said."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lexloom import config as settings
from lexloom.console import Console
from lexloom.errors import ConfigError, DataError, LexloomError
from lexloom.runs.check import lengths, samples, splits
from lexloom.runs.check.findings import Findings, show
from lexloom.runs.check.lengths import Limit
from lexloom.runs.check.samples import MAX_ROWS, Read, Sample
from lexloom.tasks.columns import Columns, ColumnsConfig
from lexloom.text.rows import files_of
from lexloom.text.tokenizer import Tokenizer

__all__ = ["Findings", "check", "show"]

_RECIPE_KEYS = {"prepare", "tokenizer", "vectors", "pretrain", "finetune"}
_SPLITS = {
    "train": re.compile(r"train(ing)?([-_.].*)?"),
    "validation": re.compile(r"(dev|valid|validation|val)([-_.].*)?"),
    "test": re.compile(r"test([-_.].*)?"),
}


def check(
    path: Path | str,
    *,
    overrides: Sequence[str] = (),
    out: Path | str | None = None,
    columns: ColumnsConfig | Mapping[str, str] | None = None,
    encoding: str = "auto",
    tokenizer: Path | str | None = None,
    group: str | None = None,
    max_rows: int = MAX_ROWS,
    timed: bool = False,
    console: Console | None = None,
) -> Findings:
    """Looks at a recipe, or at a file or folder of data. Faults do not raise: they are findings.

    Of a recipe: everything that reading it would refuse, the data of every task, overlap of train and test, unknown tokens, padding,
    and what pre-training will take. Of data: bad rows, labels, lengths, duplicates; in a folder with `train` and `test` files also
    their overlap.

    Args:
        overrides: `a.b=value` settings of a recipe.
        out: RUN, whose disk counts and whose tokenizer is used where it is there; `runs/<recipe name>` where None.
        columns: of data: where `text`, `pair` and `label` stand.
        tokenizer: of data: a folder with a tokenizer, such as a bundle, to count tokens with.
        group: a column whose values must not stand on both sides of a split.
        max_rows: of each file, at most so many are looked at.
        timed: of a recipe: also time three steps of each pre-training phase.
    """
    path, console = Path(path), console or Console()
    findings = Findings(str(path))
    try:
        if is_recipe(path):
            from lexloom.runs.check.recipe import check_recipe

            check_recipe(path, findings, overrides=overrides, out=out, group=group, max_rows=max_rows, timed=timed, console=console)
        else:
            given = columns if isinstance(columns, ColumnsConfig) else ColumnsConfig.read(dict(columns or {}))
            words = Tokenizer.load(tokenizer) if tokenizer is not None else None
            _check_data(path, findings, given, encoding, words, group, max_rows, console)
    except LexloomError as error:
        findings.take(error, "config" if isinstance(error, ConfigError) else "data", str(path))
    return findings


def is_recipe(path: Path) -> bool:
    """Whether a file is a recipe: YAML, or JSON with the keys of one."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return True
    if path.suffix.lower() != ".json" or not path.is_file() or path.stat().st_size > settings.MAX_BYTES:
        return False
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and bool(_RECIPE_KEYS & found.keys())


def _check_data(
    path: Path,
    findings: Findings,
    given: ColumnsConfig,
    encoding: str,
    words: Tokenizer | None,
    group: str | None,
    max_rows: int,
    console: Console,
) -> None:
    found: dict[str, Sample] = {}
    for name, files in splits_of(path).items():
        console.say(f"looking at {name or path}")
        read = samples.read(path, files, encoding=encoding, max_rows=max_rows)
        found[name] = _sample(name, read, given, group, findings)
    splits.look(found, findings)
    splits.unseen_labels(found, findings)
    lengths.table(list(found.values()), None if words is None else Limit(words, words.model_max_length), findings)


def splits_of(path: Path) -> dict[str, list[Path]]:
    """The files of a folder by split, where their names say one: `train.jsonl`, `dev.csv`, `test-00000.parquet`; else none, for all.

    Raises:
        ConfigError, DataError: see `text.rows.files_of`.
    """
    readable, _ = files_of(path)
    found: dict[str, list[Path]] = {}
    for file in readable if path.is_dir() else []:
        for name, pattern in _SPLITS.items():
            if pattern.fullmatch(file.name.lower()):
                found.setdefault(name, []).append(file)
    return {name: found[name] for name in _SPLITS if name in found} if "train" in found else {"": []}


def _sample(name: str, read: Read, given: ColumnsConfig, group: str | None, findings: Findings) -> Sample:
    """The rows with labels where there are any, else as texts."""
    if not read.rows:
        return samples.unread(name, read)
    try:
        columns = Columns.find(given, read.rows, labelled=True, strict=True)
    except DataError:
        if given.label is not None:
            raise
        columns = Columns.find(given, read.rows, labelled=False, strict=True)
    if not any(finding.what == columns.said() for finding in findings.of("columns")):
        findings.add("fact", "columns", str(read.path), columns.said())
    return samples.labelled(name, read, columns, group=group)
