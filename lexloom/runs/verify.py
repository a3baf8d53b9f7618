"""Whether the weights of a run came from its text: intervals between checkpoints are trained again and compared to the bit.

An interval begins where a starting point is at hand, the beginning of the training or a checkpoint that was kept, and ends at the next
one. Its logged losses and the weights and moments at its end are functions of what it starts from and of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from lexloom import files, keys
from lexloom.console import Console, duration, plain, size
from lexloom.errors import CheckpointError, ConfigError, DataError, FormatError, LexloomError
from lexloom.hub.bundle import Bundle
from lexloom.runs.interval import UNREADABLE, Again, Difference, Interval, first_difference
from lexloom.runs.machine import other_machine, threads
from lexloom.runs.rerun import Opened, Place, Rerun, bests
from lexloom.runs.training import SAVE_SECONDS
from lexloom.train import checkpoint, log


@dataclass
class Survey:
    """What is left of a training.

    Attributes:
        last: its last logged step. missing: the first step without a sound line. seconds: how long it took, by its log.
        gap: steps between two savings, as it was set or as checkpoints tell.
        kept: its checkpoints. intervals: those that can be trained again.
    """

    place: Place
    last: int
    missing: int | None
    seconds: float
    gap: int
    kept: list[tuple[int, Path]]
    intervals: list[Interval] = field(default_factory=list)


def verify(
    run: Path | str,
    *,
    spots: int = 10,
    stage: str | None = None,
    seed: int | None = None,
    draw: int = 0,
    whole: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains up to `spots` random intervals of a run again, and compares logs, weights, rows, digests and bundles.

    Args:
        stage: `pretrain`, `finetune/sst2` or a training below it; all that was trained where None.
        seed: of a task that was fine-tuned over several.
        draw: another number draws other intervals, where there are more than `spots`.
        whole: every step, which takes as long as training did. Else what lies between the start and the first checkpoint that was
            kept is trained again for the length of one interval only.

    Returns:
        `agrees`; `differences`, the first one first; `trainings` with their intervals, what share of the steps was and could be
        trained again, and what `checkpoints` would have to be for all of them; `machine`, in what it differs from the one that trained.

    Raises:
        ConfigError: there is no such stage, or this machine cannot compute as the run did.
        CheckpointError: nothing was saved that weights could be compared with.
    """
    if spots < 1:
        raise ConfigError("spots is how many intervals to train again", expected="1 or more", got=str(spots))
    console = console or Console()
    opened = Opened(run, console)
    surveys = [survey(place, whole=whole) for place in opened.select(stage, seed)]
    if not any(found.kept for found in surveys) and not whole:
        raise CheckpointError(
            "no checkpoint is left: there are no weights to compare with",
            where=str(surveys[0].place.folder / "checkpoints"),
            hint="--whole trains all of it again and compares the bundle; lexloom replay shows single steps",
        )
    machine = other_machine(opened.folder)
    if machine:
        console.warn(f"this machine may round differently ({machine})")
    intervals = [interval for found in surveys for interval in found.intervals]
    chosen = intervals if whole else _drawn(intervals, spots, draw)
    differences = list(_files(opened, surveys))
    trainings = []
    for found in surveys:
        told, more = _training(opened, found, [interval for interval in chosen if interval.place == found.place])
        differences += more
        trainings.append(told)
    differences += _served(opened, surveys)
    return {
        "run": str(opened.folder),
        "agrees": not differences,
        "differences": [plain(one) for one in differences],
        "intervals": len(chosen),
        "steps": sum(found.last for found in surveys),
        "steps_again": sum(interval["steps"] for told in trainings for interval in told["intervals"]),
        "machine": machine,
        "trainings": trainings,
    }


def survey(place: Place, *, whole: bool) -> Survey:
    """What of a training is left to start from. The log is read as a stream."""
    last, missing, seconds = 0, None, 0.0
    for line in log.lines(place.folder):
        if line["step"] != last + 1 and missing is None:
            missing = last + 1
        last, seconds = line["step"], float(line.get("seconds", seconds))
    saved = checkpoint.whole(place.folder / "checkpoints")
    if missing is None and saved and saved[-1][0] > last:
        missing = last + 1
    kept = [(step, path) for step, path in saved if step <= last]
    found = Survey(place, last, missing, seconds, _gap(place, last, seconds, kept), kept)
    points: list[tuple[int, Path | None]] = [(0, None), *kept]
    if last and (not kept or kept[-1][0] < last):
        points.append((last, None))
    for (begin, start), (end, finish) in pairwise(points):
        short = begin == 0 and not whole and end > found.gap
        found.intervals.append(Interval(place, begin, found.gap if short else end, start, None if short else finish))
    return found


def _gap(place: Place, last: int, seconds: float, kept: list[tuple[int, Path]]) -> int:
    if place.train.save_every:
        return min(place.train.save_every, max(1, last))
    steps = [after - before for (before, _), (after, _) in pairwise(kept)]
    by_time = round(SAVE_SECONDS * last / seconds) if seconds > 0 else last
    return max(1, min(last, median_low(steps) if len(steps) > 1 else by_time))


def _drawn(intervals: list[Interval], spots: int, draw: int) -> list[Interval]:
    """Some of the intervals, in order."""
    order = keys.shuffled(keys.key(draw, "spots", len(intervals)), len(intervals))[:spots]
    return [intervals[i] for i in sorted(order.tolist())]


def _files(opened: Opened, surveys: list[Survey]) -> Iterator[Difference]:
    """Every folder with a manifest that the trainings stand on or left, by its digests."""
    run, places = opened.run, [found.place for found in surveys]
    folders = [run.path(name) for name in ("corpus", "tokenizer", "shards")] if any(p.phase is not None for p in places) else []
    folders += sorted((run.path("shards") / "packings").glob("*")) if folders else []
    for found in surveys:
        folders += [*(path for _, path in found.kept), *bests(found.place.folder).values(), found.place.folder / "bundle"]
    folders += [run.path(stage) / "bundle" for stage in dict.fromkeys(place.stage for place in places)]
    for folder in dict.fromkeys(folders):
        if (folder / files.MANIFEST).is_file():
            try:
                files.verify(folder)
            except (CheckpointError, FormatError) as error:
                yield Difference("file", error.where or str(folder), None, f"{error.where or folder}: {error.problem}")


def _training(opened: Opened, found: Survey, intervals: list[Interval]) -> tuple[dict[str, Any], list[Difference]]:
    place, differences = found.place, list[Difference]()
    if found.missing is not None:
        message = f"{place.name}: the log has no sound line of step {found.missing}"
        differences.append(Difference("log", place.name, found.missing, message))
    told = _cost(found)
    try:
        opened.check_inputs(place)
        rerun = opened.rebuild(place)
    except (DataError, FormatError) as error:
        differences.append(Difference("inputs", place.name, None, f"{place.name}: {error.problem}: {error.got or error.where}"))
        return told, differences
    total = sum(interval.end - interval.begin for interval in intervals)
    with threads(rerun.compute), opened.console.progress(f"{place.name}, again", total, "steps") as progress:
        for interval in intervals:
            one = Again(rerun, interval, opened.run.path("corpus"), opened.run.path("tokenizer"))
            differences += one.run(progress)
            told["intervals"].append(one.told())
    told["bundle"], more = _bundle(rerun, found)
    return told, differences + more


def _cost(found: Survey) -> dict[str, Any]:
    at_hand = sum(interval.end - interval.begin for interval in found.intervals)
    one = sum(p.stat().st_size for p in found.kept[-1][1].rglob("*") if p.is_file()) if found.kept else 0
    needed = math.ceil(found.last / found.gap)
    return {
        "stage": found.place.name,
        "steps": found.last,
        "seconds": found.seconds,
        "checkpoints": [step for step, _ in found.kept],
        "at_hand": {
            "intervals": len(found.intervals),
            "steps": at_hand,
            "share": at_hand / max(1, found.last),
            "seconds": found.seconds * at_hand / max(1, found.last),
        },
        "for_all": {"checkpoints": needed, "bytes": needed * one, "seconds": found.seconds},
        "intervals": [],
        "bundle": "not compared",
    }


def _bundle(rerun: Rerun, found: Survey) -> tuple[str, list[Difference]]:
    """Whether the bundle of a training holds the weights that it ended with; and which those were."""
    folder = found.place.folder / "bundle"
    source, kept = _ended_with(rerun, found) if folder.is_dir() else ("", {})
    if not kept:
        return "not compared", []
    try:
        held = {name: tensor.detach() for name, tensor in Bundle.load(folder).network.named_parameters() if name in kept}
        problem = first_difference({name: tensor.float() for name, tensor in kept.items()}, held)
    except (LexloomError, SafetensorError) as error:
        problem = str(error)
    return source, [Difference("bundle", str(folder), None, f"{folder}: the bundle does not hold {source}: {problem}")] if problem else []


def _ended_with(rerun: Rerun, found: Survey) -> tuple[str, dict[str, Tensor]]:
    """What was kept of the end of a training: the best weights, or those of the last step. None where it was removed."""
    try:
        if found.kept and found.kept[-1][0] == found.last:
            last = checkpoint.load(found.kept[-1][1])
            if rerun.config.keep == "last" or not last.state["best"]:
                return f"the weights of step {found.last:,}", last.masters
            step = int(last.state["best"]["step"])
            return f"the best weights, of step {step:,}", checkpoint.load_best(found.place.folder / "checkpoints", step)
    except UNREADABLE:
        return "", {}  # which was said before
    if rerun.config.keep == "last" and rerun.begin == found.last:
        return f"the weights that step {found.last:,} gives", rerun.weights()
    return "", {}


def _served(opened: Opened, surveys: list[Survey]) -> Iterator[Difference]:
    """A task's bundle is that of one of its seeds."""
    for stage in dict.fromkeys(found.place.stage for found in surveys if found.place.phase is None):
        folder = opened.run.path(stage)
        seeds = {files.digest(path) for path in sorted((folder / "seeds").glob("seed-*/bundle/*.safetensors"))}
        for served in sorted((folder / "bundle").glob("*.safetensors")) if seeds else ():
            if files.digest(served) in seeds:
                continue
            yield Difference("bundle", str(served), None, f"{served}: the weights of this bundle are those of none of its seeds")


def text(found: Mapping[str, Any]) -> str:
    """For reading."""
    lines = []
    for told in found["trainings"]:
        hand, more = told["at_hand"], told["for_all"]
        share = f"{hand['intervals']} intervals, {hand['steps']:,} of {told['steps']:,} steps ({hand['share']:.0%})"
        lines.append(f"{told['stage']}: {share}, have a starting point; all of them took {duration(hand['seconds'])}")
        lines += [f"  {_interval_text(one)}" for one in told["intervals"]]
        if told["bundle"] != "not compared":
            lines.append(f"  the bundle was compared with {told['bundle']}")
        if hand["share"] < 1:
            cost = f"{size(more['bytes'])} of checkpoints" if more["bytes"] else "one a saving"
            lines.append(f"  train: {{checkpoints: {more['checkpoints']}}} would keep a starting point for every step ({cost})")
    if found["machine"]:
        lines.append(f"this machine may round differently ({found['machine']})")
    shown = [one["message"] for one in found["differences"]]
    if shown:
        return "\n".join([*lines, f"IT DOES NOT AGREE. First: {shown[0]}", *(f"  also: {message}" for message in shown[1:20])])
    again = f"{found['steps_again']:,} of {found['steps']:,} steps in {found['intervals']} intervals"
    return "\n".join([*lines, f"All agrees: {again} were trained again and gave the logged losses and the kept weights to the bit."])


def _interval_text(one: Mapping[str, Any]) -> str:
    start = f"from the checkpoint of step {one['begin']:,}" if one["begin"] else "from the start"
    if one["skipped"]:
        return f"steps {one['begin'] + 1:,} to {one['end']:,} were not trained again: {one['skipped']}"
    losses = "log equal" if one["log"] else "LOG DIFFERS"
    ends = {None: "no weights were kept at its end", True: f"weights equal (SHA-256 {one['sha256'][:12]}…)", False: "WEIGHTS DIFFER"}
    documents = f"; {one['documents']:,} documents compared with the corpus" if one["documents"] else ""
    return f"steps {one['begin'] + 1:,} to {one['end']:,} {start}: {losses}; {ends[one['weights']]}{documents}"
