"""Predict: a bundle's answers for texts, or for every row of files, in bounded memory, resumed where it was interrupted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import lexloom
from lexloom import compute, files
from lexloom.console import Console, count
from lexloom.errors import ConfigError, DataError, Interrupted, LexloomError
from lexloom.hub.bundle import Bundle, load
from lexloom.lock import locked
from lexloom.runs.interrupt import on_signal
from lexloom.runs.predict.inputs import Input, Model, Reader, Refused
from lexloom.runs.predict.outputs import output_format, schema_of, writing
from lexloom.runs.predict.parts import Aside, Parts, Tally
from lexloom.tasks.columns import ColumnsConfig
from lexloom.tasks.simple import SimpleClassifier
from lexloom.text.quarantine import Quarantine
from lexloom.text.rows import Placed, Row, SourceFile, files_of, survey

BATCH_ROWS = 4096
ANSWER, SCORE, ANSWERS = "prediction", "score", "answers"


@dataclass(frozen=True)
class Predicted:
    """What was predicted.

    Args:
        rows: that were answered and written.
        bad: that were put aside.
        resumed_from: rows that an earlier, interrupted run had done; 0 for a fresh one.
        aside: the file of bad rows, None where there are none.
    """

    rows: int
    bad: int
    seconds: float
    resumed_from: int
    output: Path
    aside: Path | None = None


def predict_texts(
    bundle: Model | Path | str, texts: Any, pairs: Sequence[str] | None = None, *, dtype: str | None = None, **options: Any
) -> list[Any]:
    """Answers, one a text and in order, shaped like those of the `transformers` pipeline for the task.

    Args:
        bundle: opened, or its folder.
        texts: a list of texts or of rows, or a DataFrame.
        pairs: the second text of each, for tasks on pairs.
        dtype: `float32`, `bfloat16`, `int8` for decoders, `auto`; what the bundle says if None.
        options: what the task takes, such as `top_k`.

    Raises:
        LexloomError: the bundle has no task, or a text is none.
    """
    model = load(bundle) if isinstance(bundle, str | Path) else bundle
    if dtype is not None and isinstance(model, Bundle):
        model.to(dtype=dtype)
    return model.predict(texts.to_dict("records") if hasattr(texts, "to_dict") else texts, pairs, **options)


def predict_file(
    bundle: Model | Path | str,
    source: Path | str,
    output: Path | str,
    *,
    columns: ColumnsConfig | Mapping[str, str] | None = None,
    encoding: str = "auto",
    batch_rows: int = BATCH_ROWS,
    max_bad_rows: int | None = None,
    strict: bool = False,
    restart: bool = False,
    device: str = "auto",
    dtype: str | None = None,
    console: Console | None = None,
    **options: Any,
) -> Predicted:
    """Answers every row of a file, or of all files in a folder, into one file with the same columns in the same order.

    Added are `prediction` and `score`; for nested answers `answers` (JSON). Bad rows go to `OUTPUT.bad-rows.jsonl`. Finished parts lie
    in `OUTPUT.parts/` until the end: the same call goes on from them, and ends with the same bytes as one that was never interrupted.
    In csv and tsv, a cell that a spreadsheet would take for a formula gets an apostrophe before it.

    Args:
        source: txt, jsonl, json, csv, tsv or Parquet; the text ones also as gz or zst.
        output: one of these but txt, by its ending.
        columns: where `text` and `pair` stand; else where they stood in training, or their usual names.
        batch_rows: rows of a part, which is what a kill can cost.
        restart: do not use the parts of an earlier run.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        dtype: `float32`, `bfloat16`, `int8` for decoders, `auto`; what the bundle says if None.
        options: what the task takes, such as `top_k`.

    Raises:
        ConfigError: a path or format is wrong.
        DataError: no row could be answered, more than `max_bad_rows` could not, or the input changed meanwhile.
        Interrupted: a signal came; the finished parts are kept.
    """
    source, output, console = Path(source), Path(output), console or Console()
    _check_paths(source, output)
    model = load(bundle) if isinstance(bundle, str | Path) else bundle
    if isinstance(model, Bundle):
        if model.task is None:
            raise LexloomError("this bundle has no task to answer", hint="fine-tune it: lexloom finetune")
        model.to(device, dtype=dtype)
        compute.keep_memory()
    sources = [survey(file, encoding=encoding, digest=True) for file in files_of(source)[0]]
    given = columns if isinstance(columns, ColumnsConfig | None) else ColumnsConfig.read(dict(columns))
    work = _Prediction(model, sources, output, given, max(1, batch_rows), options, console)
    return work.run(Aside(max_bad_rows=max_bad_rows, strict=strict), restart=restart)


def _check_paths(source: Path, output: Path) -> None:
    output_format(output)
    files_of(source)
    if output.is_dir():
        raise ConfigError("the output is a folder", expected="the name of a file", where=str(output))
    if source.resolve() == output.resolve():
        raise ConfigError("the output would take the place of the input", where=str(output), hint="choose another name")
    if source.is_dir() and source.resolve() in output.resolve().parents:
        raise ConfigError("the output lies in the folder of the input, and would be read with it", where=str(output))


class _Prediction:
    """One model over one input: parts of answers first, then the input again with its answers beside it."""

    def __init__(
        self,
        model: Model,
        sources: list[SourceFile],
        output: Path,
        given: ColumnsConfig | None,
        batch_rows: int,
        options: dict[str, Any],
        console: Console,
    ) -> None:
        self.model, self.sources, self.output, self.given = model, sources, output, given
        self.batch_rows, self.options, self.console = batch_rows, options, console
        self.reader = Reader(model, given)
        self.aside = output.with_name(f"{output.name}.bad-rows.jsonl")
        self.parts = Parts(output.with_name(f"{output.name}.parts"), self._about())

    def _about(self) -> dict[str, Any]:
        device = f"{next(self.model.network.parameters()).device}, {self.model.dtype}" if isinstance(self.model, Bundle) else "cpu"
        return {
            "bundle": identity(self.model),
            "input": [[source.path.name, source.sha256, source.encoding] for source in self.sources],
            "columns": None if self.given is None else self.given.plain(),
            "options": self.options,
            "batch_rows": self.batch_rows,
            "device": device,
            "lexloom": lexloom.__version__,
        }

    def run(self, aside: Aside, *, restart: bool) -> Predicted:
        """Predicts what is missing, joins the parts, and removes them."""
        began = time.perf_counter()
        with locked(self.parts.folder):
            if changed := self.parts.open(restart=restart):
                self.console.warn(f"{', '.join(changed)} changed since {self.parts.folder} was written: its parts are not used")
            done = self.parts.total
            if done.read:
                self.console.say(f"predicting: going on after {count(done.read)} rows")
            try:
                self._predict(aside)
            except DataError:
                self._write_aside(aside)
                raise
            total = self.parts.total
            self._write_aside()
            if not total.rows:
                raise self._nothing(total)
            self._join(total)
            files.remove(self.parts.folder)
        seconds = time.perf_counter() - began
        return Predicted(total.rows, total.bad, seconds, done.read, self.output, self.aside if total.bad else None)

    def _nothing(self, total: Tally) -> DataError:
        files.remove(self.parts.folder)
        got = ", ".join(f"{reason} ({n})" for reason, n in total.reasons.items()) or "no rows"
        hint = f"they are listed in {self.aside}" if total.bad else None
        return DataError("no row could be answered", got=got, where=self.sources[0].name, hint=hint)

    # answers

    def _predict(self, aside: Aside) -> None:
        finished = len(self.parts.tallies)
        if finished and self.parts.total.last:
            return
        aside.total, aside.reasons = self.parts.total.bad, type(aside.reasons)(self.parts.total.reasons)
        whole = sum(source.bytes for source in self.sources)
        with self.console.progress("predicting", whole, "bytes") as progress, on_signal(self._stopping) as stop:
            rows = Input(self.sources, aside, progress.update)
            for _ in range(finished):
                self.reader.find(rows.take(self.batch_rows))
            while not self.parts.tallies or not self.parts.tallies[-1].last:
                self._part(rows, aside)
                progress.update(rows.bytes, rows=self.parts.total.rows)
                if stop.number is not None:
                    raise Interrupted(
                        f"stopped after {count(self.parts.total.read)} rows; their answers are kept in {self.parts.folder}",
                        signal_number=stop.number,
                        hint="the same command goes on from here",
                    )

    def _stopping(self, _: str) -> None:
        self.console.say("finishing this part; once more stops at once")

    def _part(self, rows: Input, aside: Aside) -> None:
        with self.parts.writing() as part:
            aside.into(part)
            taken = rows.take(self.batch_rows)
            part.tally.read, part.tally.last = len(taken), rows.ended
            part.tally.columns = list(dict.fromkeys(name for _, placed in taken for name in placed.row))
            self.reader.find(taken)
            for (file, placed), answer in zip(taken, self._answers([placed for _, placed in taken]), strict=True):
                if isinstance(answer, Refused):
                    aside.add(placed.file, placed.line, answer.reason, text=answer.text)
                else:
                    part.answer(file, placed.line, answer)

    def _answers(self, taken: Sequence[Placed]) -> list[Any]:
        """An answer, or a `Refused`, for each row."""
        inputs = [self.reader.input(placed) for placed in taken]
        good = [row for row in inputs if not isinstance(row, Refused)]
        answers = iter(self._predicted(good))
        return [row if isinstance(row, Refused) else next(answers) for row in inputs]

    def _predicted(self, rows: list[Row]) -> list[Any]:
        """Answers; where a row makes the task refuse all of them, it is found by halving."""
        if not rows:
            return []
        try:
            return self.model.predict(rows, **self.options)
        except DataError as error:
            if len(rows) == 1:
                return [Refused.of(error, rows[0])]
            half = len(rows) // 2
            return [*self._predicted(rows[:half]), *self._predicted(rows[half:])]

    # the file

    def _write_aside(self, running: Aside | None = None) -> None:
        """The file of bad rows: those of finished parts, and those of the part that `running` was busy with."""
        self.aside.unlink(missing_ok=True)
        with Quarantine(self.aside) as bad:
            for entry in self.parts.entries("bad"):
                bad.add(**entry["bad"])
            for found in running.recent if running is not None else []:
                bad.add(**found)

    def _join(self, total: Tally) -> None:
        names, answers = total.columns, [ANSWER, SCORE] if total.flat else [ANSWERS]
        added = [free(name, names) for name in answers]
        if added != answers:
            self.console.warn(f"the input has a column {', '.join(answers)} already: the new ones are called {', '.join(added)}")
        with writing(self.output, self._schema(names, added)) as writer:
            for row, answer in self._answered():
                values = (answer["label"], answer["score"]) if total.flat else (answer,)
                writer.write({**row, **dict(zip(added, values, strict=True))})

    def _schema(self, names: Sequence[str], added: Sequence[str]) -> pa.Schema:
        if output_format(self.output) == "parquet":
            schema = schema_of(self.sources, names, lambda: (row for row, _ in self._answered()))
        else:
            schema = pa.schema([(name, pa.string()) for name in names])
        types = [pa.string(), pa.float64()]
        for name, kind in zip(added, types, strict=False):
            schema = schema.append(pa.field(name, kind))
        return schema

    def _answered(self) -> Iterator[tuple[Row, Any]]:
        """The rows that were answered, each with its answer."""
        entries = self.parts.entries("answer")
        entry = next(entries, None)
        for file, placed in Input(self.sources, Aside(max_bad_rows=None, strict=False)):
            if entry is None:
                return
            if entry["at"] == [file, placed.line]:
                yield placed.row, entry["answer"]
                entry = next(entries, None)
        if entry is not None:
            raise DataError("the input changed while it was read", where=self.sources[entry["at"][0]].name, hint="run it again")


def free(name: str, taken: Sequence[str]) -> str:
    """`name`, with a number where a column is called so already."""
    number, found = 2, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def identity(model: Model) -> str:
    """SHA-256 of all that decides what a model answers."""
    if isinstance(model, SimpleClassifier):
        terms, tensors = model.parts()
        return files.fingerprint([model.config.plain(), terms, *(hashlib.sha256(one.tobytes()).hexdigest() for one in tensors.values())])
    weights = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    task = None if model.task is None else [type(model.task).__name__, model.task.config.plain(), model.labels]
    return files.fingerprint([model.settings(), task, model.tokenizer.digest, model.max_length, weights.hexdigest()])
