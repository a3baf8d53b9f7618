"""The verbs as Python functions: what the command line does, with paths, lists of rows or DataFrames.

Each imports what it needs when it is called, so that a misspelt recipe is told before torch is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lexloom.console import Console

if TYPE_CHECKING:
    from lexloom.hub.bundle import Bundle
    from lexloom.hub.importing import Imported
    from lexloom.runs.check import Findings
    from lexloom.runs.evaluate import Evaluation
    from lexloom.runs.predict import Predicted
    from lexloom.runs.recipe import Plan
    from lexloom.runs.vectors import Trained
    from lexloom.text.corpus import Corpus
    from lexloom.text.tokenizer import Tokenizer
    from lexloom.vectors.evaluate import Score

Rows = Sequence[Mapping[str, Any]]


def run(
    recipe: Path | str | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    settings: Sequence[str] = (),
    dry_run: bool = False,
    rechoose: bool = False,
    console: Console | None = None,
    **overrides: Any,
) -> Path | list[dict[str, str]]:
    """Runs a recipe: all stages; finished ones are reused, an interrupted one resumes.

    Args:
        recipe: a file, or the same as a mapping (paths are then relative to the working folder).
        out: RUN; `runs/<recipe name>` where None.
        settings: `a.b=value` texts, as `--set` takes them.
        dry_run: say which stages would run and why, write nothing.
        rechoose: on another machine: device, dtype, threads and compile are chosen anew for what is left of an interrupted training.
        overrides: settings by keyword, `__` for the dot: `pretrain__train__tokens="2M"`.

    Returns:
        RUN, or for a dry run one mapping a stage.

    Example:
        >>> lexloom.run("recipe.yaml", out="runs/first", pretrain__train__tokens="2M")
    """
    from lexloom.runs.run import Run

    plan = _plan(recipe, [*settings, *(f"{name.replace('__', '.')}={value}" for name, value in overrides.items())])
    work = Run(plan, _out(plan, out), console or Console(), rechoose=rechoose)
    return work.dry() if dry_run else work.execute()


def demo(out: Path | str | None = None, *, console: Console | None = None) -> Path:
    """The recipe that needs no data: models of the documentation inside the user's own Python."""
    from lexloom.runs import demo as demonstration

    return demonstration.demo(Path(out) if out is not None else None, console=console or Console())


def prepare(sources: Sequence[Path | str], out: Path | str, *, seed: int = 1, console: Console | None = None, **settings: Any) -> Corpus:
    """Cleans, de-duplicates and splits texts into a corpus folder.

    Args:
        settings: keys of the `prepare:` block of a recipe, such as `language="zh"` or `split={"validation": 0.02}`.

    Example:
        >>> lexloom.prepare(["texts/"], "corpus", language="en")
    """
    from lexloom.runs import prepare as preparing
    from lexloom.runs.run import reporter

    config = preparing.PrepareConfig.read({"sources": [str(source) for source in sources], **settings})
    with (console or Console()).progress("preparing", None, "bytes") as progress:
        return preparing.prepare(config, Path(out), base=Path.cwd(), seed=seed, report=reporter(progress))


def tokenizer(corpus: Path | str, out: Path | str, **settings: Any) -> Tokenizer:
    """Trains a tokenizer on a corpus folder.

    Args:
        settings: keys of the `tokenizer:` block of a recipe: `kind`, `vocab_size`, …

    Example:
        >>> lexloom.train_tokenizer("corpus", "tokenizer", kind="wordpiece", vocab_size=16000)
    """
    from lexloom.runs.run import make_tokenizer
    from lexloom.text.tokenizer import TokenizerConfig

    return make_tokenizer(Path(corpus), Path(out), TokenizerConfig.read(settings))


def vectors(source: Path | str | Iterable[Sequence[str]], out: Path | str, **options: Any) -> Trained:
    """Trains word vectors and writes them to a file: `.bin`, `.txt`, `.vec` as word2vec has them, `.safetensors` to be mapped.

    What it takes on the way is kept in `OUT.training`: the same call goes on after a kill, and `start` goes on from there with other text.

    Args:
        source: a corpus folder, shards, a file or folder of texts, or lists of words.
        options: `seed`, `workers`, `start`, `tokenizer` (of shards), `console`, and settings of the words, the vocabulary and the training:
            `kind`, `dim`, `window`, `negatives`, `min_count`, `epochs`, `deterministic`, …

    Example:
        >>> lexloom.train_vectors("runs/first/corpus", "vectors.bin", kind="skipgram", dim=100, workers=2)
    """
    from lexloom.runs import vectors as making

    return making.vectors(source, out, **options)


def pretrain(
    recipe: Path | str | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    settings: Sequence[str] = (),
    rechoose: bool = False,
    console: Console | None = None,
) -> Path:
    """Runs a recipe up to its last phase of pre-training; RUN is that stage's folder, so the model is `RUN/bundle`. See `run`."""
    from lexloom.runs.run import Run

    plan = _plan(recipe, settings)
    last = "pretrain" if len(plan.recipe.phases) < 2 else f"pretrain-{len(plan.recipe.phases)}"
    return Run(plan, _out(plan, out), console or Console(), only=last, flat=last, rechoose=rechoose).execute()


def finetune(
    bundle: Path | str,
    *,
    task: str = "text-classification",
    train: Path | str | Rows,
    out: Path | str,
    validation: Path | str | Rows | None = None,
    test: Path | str | Rows | None = None,
    settings: Sequence[str] = (),
    seed: int = 1,
    rechoose: bool = False,
    extensions: Sequence[Path | str] = (),
    console: Console | None = None,
) -> Path:
    """Fine-tunes a bundle for a task; RUN is the stage's folder, so the model is `RUN/bundle`.

    Args:
        train, validation, test: files, lists of rows, or DataFrames.
        settings: `a.b=value` below the task: `train.epochs=5`, `settings.long_texts=windows`.
        rechoose: see `run`.
        extensions: Python files with components of your own, as a recipe names them.

    Example:
        >>> lexloom.finetune("runs/first/pretrain/bundle", train="train.jsonl", test="test.jsonl", out="runs/topics")
    """
    from lexloom.runs import recipe as recipes
    from lexloom.runs.run import Run

    out = Path(out)
    data = {
        name: _file(rows, name, out) for name, rows in (("train", train), ("validation", validation), ("test", test)) if rows is not None
    }
    section = {"task": task, "from": str(Path(bundle).resolve()), "data": data}
    value: dict[str, Any] = {"name": out.name or "finetune", "seed": seed, "finetune": {"task": section}}
    value |= {"extensions": [str(Path(file).resolve()) for file in extensions]} if extensions else {}
    plan = recipes.from_mapping(value, Path.cwd(), overrides=[f"finetune.task.{setting}" for setting in settings])
    return Run(plan, out, console or Console(), flat="finetune/task", rechoose=rechoose).execute()


def evaluate(
    bundle: Path | str,
    data: Path | str | Rows,
    *,
    against: Path | str | None = None,
    by: str | None = None,
    measure: str | None = None,
    dtype: str | None = None,
    console: Console | None = None,
    **settings: Any,
) -> Evaluation:
    """Scores a bundle on labelled rows: n, metrics with 95 % bootstrap intervals, baselines, and the difference to another bundle.

    A model that was pre-trained and not fine-tuned is measured as it is: by how well it predicts texts, or by minimal pairs.

    Args:
        measure: `language-model`, `minimal-pairs`, `cloze`; what fits the columns of the rows where None.
        dtype: `float32`, `bfloat16`, `int8` or `auto`, of the first bundle; as it says itself where None.
        settings: of the measure, such as `stride=128`.

    Example:
        >>> print(lexloom.evaluate("runs/topics/bundle", "test.jsonl"))
        >>> print(lexloom.evaluate("runs/gpt/pretrain/bundle", "blimp.jsonl", by="UID"))
    """
    from lexloom.runs import evaluate as evaluating

    other = Path(against) if against is not None else None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(_file(data, "rows", Path(folder)))
        options: dict[str, Any] = {"by": by, "measure": measure, "dtype": dtype, "settings": settings, "console": console}
        return evaluating.evaluate(Path(bundle), file, against=other, **options)


def evaluate_vectors(file: Path | str, data: Path | str, **settings: Any) -> list[Score]:
    """Scores a file of word vectors on sets of analogies or of judged word pairs: figures with 95 % intervals and coverage.

    Args:
        data: a set, or a folder of them; see `lexloom.vectors.evaluate`.
        settings: `method=multiplicative`, `max_words=30000`, `resamples`; `seed`, which draws them.

    Example:
        >>> lexloom.evaluate_vectors("vectors.bin", "questions-words.txt", max_words=30_000)[0].value
    """
    from lexloom.vectors.evaluate import evaluate as scored
    from lexloom.vectors.keyed import WordVectors

    return scored(WordVectors.load(file), data, **settings)


def predict(bundle: Path | str | Bundle, texts: Any = None, **options: Any) -> list[Any]:
    """Answers for a list of texts, rows, or a DataFrame; for files see `predict_file`.

    Args:
        options: `pairs`, the second texts; `dtype`, `float32`, `bfloat16`, `int8` or `auto`; and what the task takes, such as `top_k`.

    Example:
        >>> lexloom.predict("runs/topics/bundle", ["a text", "another"])
    """
    from lexloom.runs import predict as predicting

    return predicting.predict_texts(bundle, texts, **options)


def predict_file(bundle: Path | str, source: Path | str, output: Path | str, **options: Any) -> Predicted:
    """Answers for every row of a file, into a file with the same columns; an interrupted one goes on."""
    from lexloom.runs import predict as predicting

    return predicting.predict_file(Path(bundle), Path(source), Path(output), **options)


def check(path: Path | str, *, settings: Sequence[str] = (), **options: Any) -> Findings:
    """Looks at a recipe or at data before anything runs: faults of the data, memory, disk, steps."""
    from lexloom.runs import check as checking

    return checking.check(Path(path), overrides=settings, **options)


def replay(run: Path | str, *, step: int, stage: str | None = None, seed: int | None = None, **options: Any) -> dict[str, Any]:
    """Computes a past step of a trained stage again: its rows, what was masked, the loss of each predicted token, beside what was logged.

    Args:
        stage: `pretrain`, `finetune/sst2`, …; the first that was trained where None.
        seed: of a task that was fine-tuned over several.
        options: `rows`, how many of the step's rows to tell of; `console`.

    Example:
        >>> lexloom.replay("runs/first", step=1200)["agrees"]
    """
    from lexloom.runs import replay as replaying

    return replaying.replay(run, step=step, stage=stage, seed=seed, **options)


def verify(run: Path | str, *, spots: int = 10, stage: str | None = None, seed: int | None = None, **options: Any) -> dict[str, Any]:
    """Trains random intervals between checkpoints again and compares logs, weights, rows and bundles with what the run holds, to the bit.

    Args:
        spots: how many intervals.
        stage, seed: as `replay` takes them; all that was trained where None.
        options: `draw`, another number draws other intervals; `whole`, every step; `console`.

    Example:
        >>> lexloom.verify("runs/first", spots=10)["agrees"]
    """
    from lexloom.runs import verify as verifying

    return verifying.verify(run, spots=spots, stage=stage, seed=seed, **options)


def report(run: Path | str) -> Path:
    """Writes `RUN/report.html` anew and returns its path."""
    from lexloom.runs.report import write_report

    return write_report(run)


def import_model(source: Path | str, out: Path | str) -> Imported:
    """Writes a bundle out of another tool's model folder, pickled weights and other names of tensors included; and a file of word vectors
    out of fastText's `.bin`.

    A pickle is opened in a process of its own, with limits on memory and time, without network, programs or writing.

    Args:
        source: a folder with `config.json`, tokenizer files and weights, or the file of weights in it.

    Example:
        >>> print(lexloom.import_model("downloads/bert-legal", "bundles/bert-legal"))
    """
    from lexloom.hub.importing import import_folder

    return import_folder(Path(source), Path(out))


def extend(*files: Path | str) -> None:
    """Makes the components of Python files known, so that bundles can be opened that were made with them; a recipe names such files itself.

    Raises:
        ConfigError: there is no such file.

    Example:
        >>> lexloom.extend("rating.py")
        >>> lexloom.predict("runs/extended/finetune/stars/bundle", ["the soup was cold"])
    """
    from lexloom.runs import components

    components.extend(files)


def components(kind: str | None = None) -> list[dict[str, str]]:
    """What recipes and verbs can name, with the first line of its documentation; read without importing any of it, but for `presets`.

    Args:
        kind: `models`, `objectives`, `tasks`, `measures`, `presets` (named sizes of models), or all but the last where None.
    """
    from lexloom.errors import unknown
    from lexloom.registry import Registry
    from lexloom.runs.recipe import registries

    found = registries()
    named = {"models": found["architecture"], "objectives": found["objective"], "tasks": found["task"]}
    named["measures"] = Registry("measure", "MEASURES", "lexloom.tasks.measures")
    if kind == "presets":
        from lexloom.runs.components import presets

        return presets()
    if kind is not None and kind not in named:
        raise unknown("kind of component", kind, [*named, "presets"])
    return [
        {"kind": plural, "name": name, "what": summary}
        for plural, registry in named.items()
        if kind in (None, plural)
        for name, summary in registry.listed().items()
    ]


def _plan(recipe: Path | str | Mapping[str, Any], settings: Sequence[str]) -> Plan:
    from lexloom.runs import recipe as recipes

    if isinstance(recipe, Mapping):
        return recipes.from_mapping(dict(recipe), Path.cwd(), overrides=settings)
    return recipes.read(recipe, overrides=settings)


def _out(plan: Plan, out: Path | str | None) -> Path:
    return Path(out) if out is not None else Path("runs") / plan.recipe.name


def _records(texts: Any) -> Any:
    """Rows out of a DataFrame (anything with `to_dict`), else what was given."""
    return texts.to_dict("records") if hasattr(texts, "to_dict") else texts


def _file(rows: Any, name: str, folder: Path) -> str:
    """The path of a file, or of rows written to one."""
    if isinstance(rows, str | Path):
        return str(Path(rows).resolve())
    from lexloom import files
    from lexloom.console import json_line

    path = folder / f"{name}.jsonl"
    files.write_text(path, "".join(json_line(dict(row)) + "\n" for row in _records(rows)))
    return str(path.resolve())
