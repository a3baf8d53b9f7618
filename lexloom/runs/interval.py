"""One interval of a training once more, compared to the bit: each logged line, the weights at its end, and the text of its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lexloom.errors import CheckpointError, DataError, FormatError, LexloomError
from lexloom.runs import origin
from lexloom.runs.replay import differing, facts
from lexloom.runs.rerun import Place, Rerun, bests
from lexloom.runs.room import BATCH_TOKENS
from lexloom.runs.source_text import changed_documents
from lexloom.text.shards import Split
from lexloom.train import checkpoint, log
from lexloom.train.checkpoint import Checkpoint

UNREADABLE = (CheckpointError, FormatError, KeyError, SafetensorError)


@dataclass(frozen=True)
class Difference:
    """Something that is not what it was.

    Attributes:
        what: `file`, `inputs`, `log`, `rows`, `weights` or `bundle`.
        where: a training's name, a document, or a path.
        step: the first one concerned, None where there is none.
        message: one sentence.
    """

    what: str
    where: str
    step: int | None
    message: str


@dataclass(frozen=True)
class Interval:
    """Steps `begin + 1` to `end` of a training; `start` and `finish` are the checkpoints there, None where there is none."""

    place: Place
    begin: int
    end: int
    start: Path | None
    finish: Path | None


class Again:
    """One interval, trained again.

    Args:
        corpus, tokenizer: folders of the run, to hold the text of the rows against their tokens.
    """

    def __init__(self, rerun: Rerun, interval: Interval, corpus: Path, tokenizer: Path) -> None:
        self.rerun, self.interval, self.corpus, self.tokenizer = rerun, interval, corpus, tokenizer
        self.name = interval.place.name
        self.wrong: dict[int, dict[str, str]] = {}  # step -> what of its log is another, with both values
        self.documents: dict[int, Split] = {}  # of its rows
        self.digest = ""
        self.weights: bool | None = None  # whether they are equal at the end; None where there are none to compare with
        self.differences: list[Difference] = []
        self.skipped = ""  # why it was not trained again
        self.bests = bests(interval.place.folder) if rerun.config.keep == "best" else {}

    def run(self, progress: Any) -> list[Difference]:
        """Trains and compares; what differs, that of the earliest step first."""
        interval = self.interval
        try:
            start = checkpoint.load(interval.start) if interval.start is not None else None
            finish = checkpoint.load(interval.finish) if interval.finish is not None else None
        except UNREADABLE as error:
            problem = error.problem if isinstance(error, LexloomError) else str(error)
            self._differ("file", interval.begin, f"a checkpoint cannot be read, so nothing that hangs on it was compared: {problem}")
            return self.differences
        if interval.begin < self.rerun.since:
            self.skipped = f"up to step {self.rerun.since:,} it was computed otherwise, before --rechoose"
            return []
        self.rerun.start_at(start)
        for step in range(interval.begin, interval.end):
            self._visit(step)
        try:
            self._train(int(start.state["tokens"]) if start is not None else 0, progress)
        except LexloomError as error:  # a loss that is not finite
            self._differ("weights", self.rerun.begin + 1, f"training again fails after step {self.rerun.begin}: {error.problem}")
            return self.differences
        problem = self._end(finish)
        self._judge(problem)
        self._compare_text()
        return sorted(self.differences, key=lambda one: interval.end if one.step is None else one.step)

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {
            "begin": self.interval.begin,
            "end": self.interval.end,
            "steps": 0 if self.skipped else self.interval.end - self.interval.begin,
            "skipped": self.skipped,
            "agrees": not self.differences,
            "log": not self.wrong,
            "weights": self.weights,
            "sha256": self.digest,
            "documents": len(self.documents),
        }

    def _train(self, tokens: int, progress: Any) -> None:
        path, begin, end = self.interval.place.folder, self.interval.begin, self.interval.end
        logged = {line["step"]: line for line in log.lines(path) if begin < line["step"] <= end}
        for info in self.rerun.steps(end):
            tokens += info.tokens
            told = logged.get(info.step, {})
            computed = {**facts(info), "tokens": tokens, **self._validation(info.step, told)}
            if names := differing(computed, told):
                self.wrong[info.step] = {name: f"{name}: {told.get(name)!r} logged, {computed[name]!r} computed" for name in names}
            if info.step in self.bests:
                self._compare_best(info.step, self.bests[info.step] / "model.safetensors")
            progress.advance(1)

    def _differ(self, what: str, step: int | None, message: str) -> None:
        self.differences.append(Difference(what, self.name, step, f"{self.name}: {message}"))

    def _visit(self, step: int) -> None:
        for visit in origin.visits(self.rerun.source, step):
            if visit.packing is not None:
                self.documents |= {piece.document: visit.packing.split for piece in origin.pieces(visit.packing, visit.row)}

    def _validation(self, step: int, told: Mapping[str, Any]) -> dict[str, Any]:
        """The evaluation that was logged with a step, made again in batches of that size; none where memory was too short for it."""
        if not self.rerun.evaluates(step) or told.get("validation", {}) is None:
            return {}
        cut = told.get("evaluation_cut", 1)
        self.rerun.room.cut = cut if isinstance(cut, int) and 0 < cut <= BATCH_TOKENS else 1
        found = self.rerun.validated()
        return {} if found is None else {"validation": found.record}

    def _compare_best(self, step: int, path: Path) -> None:
        try:
            problem = first_difference(self.rerun.weights(), load_file(path))
        except (SafetensorError, OSError) as error:
            problem = str(error)
        if problem:
            self._differ("weights", step, f"the best weights, of step {step}, are not what training gives: {problem}")

    def _end(self, finish: Checkpoint | None) -> str:
        """What is wrong with the checkpoint at the end."""
        optimizer = self.rerun.optimizer
        self.digest = digest(optimizer.masters)
        if finish is None:
            return ""
        problem = first_difference(optimizer.masters, finish.masters) or first_difference(optimizer.state(), finish.moments)
        if not problem and (told := finish.state.get("optimizer_steps")) != optimizer.steps:
            problem = f"optimizer_steps: {told} kept, {optimizer.steps} computed"
        self.weights = not problem
        return problem

    def _judge(self, problem: str) -> None:
        """Says what was changed, as far as the steps tell.

        A row or a weight that was changed changes every loss after it. So a step that differs, with one after it that does not, or
        with right weights at the end, differs in the log alone.
        """
        begin, end = self.interval.begin, self.interval.end
        right = end + 1 if self.weights else max((step for step in range(begin + 1, end + 1) if step not in self.wrong), default=begin)
        for step in sorted(step for step in self.wrong if step < right):
            if list(self.wrong[step]) == ["validation"]:
                self._differ("log", step, f"the validation that was logged at step {step}, or its rows, were changed: {self._told(step)}")
            else:
                self._differ("log", step, f"the log of step {step} was changed, for what came after it agrees: {self._told(step)}")
        if first := min((step for step in self.wrong if step > right), default=None):
            self._differ(*self._cause(first))
            if problem:
                self._differ("weights", end, f"and so the weights at step {end} are others: {problem}")
        elif problem:
            self._differ("weights", end, f"the checkpoint of step {end} is not what training gives: {problem}")

    def _cause(self, first: int) -> tuple[str, int, str]:
        """What a loss that differs, and never agrees again, comes from."""
        begin, end = self.interval.begin, self.interval.end
        if first == end and self.weights is None:
            what, cause = "log", f"the log of step {first}, or a row of that step, is another than it was"
        elif first > begin + 1:
            what, cause = "rows", f"from step {first} on: a row of that step is another than it was"
        elif begin:
            what, cause = (
                "weights",
                f"from step {first} on: the checkpoint of step {begin}, or a row of step {first}, is another than it was",
            )
        else:
            what, cause = (
                "weights",
                f"from step {first} on: the weights that it starts with, or a row of that step, are others than they were",
            )
        return what, first, f"{cause}: {self._told(first)}{self._rows_of(first)}"

    def _told(self, step: int) -> str:
        return "; ".join(self.wrong[step].values())

    def _rows_of(self, step: int) -> str:
        """The rows of a step, in short."""
        named = list[str]()
        for visit in origin.visits(self.rerun.source, step - 1):
            if visit.packing is None:
                named.append(self.rerun.place_of(visit.row))
            else:
                split = visit.packing.split
                named += [f"document {split.document_id(piece.document)}" for piece in origin.pieces(visit.packing, visit.row)]
        shown = ", ".join(dict.fromkeys(named[:6]))
        return f" (rows: {shown}{', …' if len(named) > 6 else ''}; lexloom replay --step {step} shows them)" if shown else ""

    def _compare_text(self) -> None:
        """Whether the tokens of these rows are what the tokenizer makes of the corpus."""
        if not self.documents or not (self.corpus / "corpus.json").is_file():
            return
        try:
            split = next(iter(self.documents.values()))
            found = changed_documents(self.corpus, split, self.tokenizer, self.documents)
        except (DataError, FormatError) as error:
            found = [f"the corpus cannot be compared with: {error.problem}"]
        for message in found[:20]:
            self._differ("rows", None, message)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and bytes."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + b"\0")
        found.update(_bytes(tensors[name]).numpy().tobytes())
    return found.hexdigest()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def first_difference(computed: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> str:
    """The first tensor that is not the same to the bit, with its place and both values; "" where all are."""
    if odd := sorted(set(computed) ^ set(kept)):
        return f"{odd[0]} is missing" if odd[0] in computed else f"{odd[0]} does not belong there"
    for name, tensor in computed.items():
        mine, other = tensor.detach().cpu().contiguous(), kept[name].detach().cpu().contiguous()
        if mine.shape != other.shape or mine.dtype != other.dtype:
            return f"{name}: {tuple(other.shape)} {other.dtype} kept, {tuple(mine.shape)} {mine.dtype} computed"
        if not torch.equal(_bytes(mine), _bytes(other)):
            width = mine.element_size()
            unequal = (_bytes(mine) != _bytes(other)).view(-1, width).any(1)
            place = int(unequal.nonzero()[0])
            values = f"{other.reshape(-1)[place].item()!r} kept, {mine.reshape(-1)[place].item()!r} computed"
            return f"{name}, {int(unequal.sum()):,} of {mine.numel():,} values, the first at {place}: {values}"
    return ""
