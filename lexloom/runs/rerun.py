"""A run opened again to go through its trainings once more: rebuilt in memory from recipe and inputs, with nothing written into the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from lexloom import config, files
from lexloom.batch import Batch
from lexloom.compute import Compute
from lexloom.console import Console
from lexloom.errors import CheckpointError, ConfigError, DataError, unknown
from lexloom.models.base import Network
from lexloom.runs import finetune, machine, pretrain
from lexloom.runs.components import settle
from lexloom.runs.embeddings import Embeddings
from lexloom.runs.recipe import Plan, Recipe, registries
from lexloom.runs.run import Run
from lexloom.runs.stage import STAGE, pathless
from lexloom.runs.trained import install
from lexloom.runs.training import Training
from lexloom.text.rows import Placed
from lexloom.text.tokenizer import Tokenizer
from lexloom.train import checkpoint, log
from lexloom.train.checkpoint import Checkpoint
from lexloom.train.log import METRICS
from lexloom.train.loop import StepInfo
from lexloom.train.settings import TrainConfig
from lexloom.train.source import LabelledSource

GROUPS = ("seeds", "from-scratch")  # of a task: the runs from the bundle, and the baseline of the same network with fresh weights
HEAD = "head"


@dataclass(frozen=True)
class Place:
    """One training of a run.

    Attributes:
        name: `pretrain`, `pretrain-2`, `finetune/sst2/seeds/seed-1`, `finetune/sst2/seeds/seed-1/head` for a head that is trained first.
        stage: the stage it belongs to: `pretrain`, `finetune/sst2`.
        folder: its log and checkpoints.
        phase: the number of the phase, None for tasks.
        group: `seeds` or `from-scratch` for tasks, "" for phases.
    """

    name: str
    stage: str
    folder: Path
    seed: int
    train: TrainConfig
    phase: int | None = None
    group: str = ""

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.stage.partition("/")[2]

    @property
    def is_head(self) -> bool:
        """Whether only a new head was trained here."""
        return self.phase is None and self.folder.name == HEAD


class Rerun(Training):
    """A training once more, from the start or any checkpoint on. It computes what `Training` computed and writes nothing.

    Attributes:
        tokenizer: of its rows. labelled: the rows of a task, with their places.
        since: the step up to which it was computed otherwise, before `--rechoose`; 0 where all was computed alike.
    """

    tokenizer: Tokenizer
    labelled: Sequence[Placed] = ()
    since: int

    def _compute(self) -> Compute:
        if not (self.folder / machine.FILE).is_file():
            hint = "without it nobody can tell how the steps were computed"
            raise CheckpointError("this training has no compute.json", where=str(self.folder), hint=hint)
        chosen, before = machine.kept(self.folder)
        if chosen is None:
            raise CheckpointError("it has not gone on since --rechoose: nothing was chosen yet", where=str(self.folder))
        self.since = max((int(one["until"]) for one in before), default=0)
        machine.honour(chosen, self.folder, hint="only a machine like the one that trained gives the same bits", threads=False)
        return chosen

    def _resume(self) -> int:
        return 0

    def start_at(self, point: Checkpoint | None) -> None:
        """Puts the weights and moments of a checkpoint in place; for None those that training starts with, which must still be there.

        Raises:
            CheckpointError: it is a checkpoint of another network.
        """
        if point is None:
            assert self.optimizer.steps == 0, "the first weights are gone once a step was made"
            self.begin = 0
            return
        checkpoint.restore(self.optimizer, point)
        self.begin = point.step

    def steps(self, until: int) -> Iterator[StepInfo]:
        """Trains in memory from `begin` up to step `until`, and leaves `begin` there; micro-batches are cut as they were then."""
        while self.begin < min(until, self.source.steps):
            self._cut_for(self.begin + 1)
            stop = min([until, *(first - 1 for first, _ in self.cuts if first > self.begin + 1)])
            with closing(self._steps()) as steps:
                for info in steps:
                    self.begin = info.step
                    yield info
                    if info.step >= stop:
                        break

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step (from 1), cut as they were then."""
        self._cut_for(step)
        return self.source.batches(step - 1)

    @cached_property
    def cuts(self) -> list[tuple[int, int]]:
        """(first step, into how many each micro-batch was cut from there on for want of memory), as it was logged."""
        found = [(1, 1)]
        for line in log.lines(self.folder):
            if (cut := line.get("cut", 1)) != found[-1][1] and isinstance(cut, int) and cut > 0:
                found.append((line["step"], cut))
        return found

    def _cut_for(self, step: int) -> None:
        self.source.cut = [cut for first, cut in self.cuts if first <= step][-1]  # type: ignore[attr-defined]

    def place_of(self, row: int) -> str:
        """`file:line` of a token row of a task."""
        assert isinstance(self.source, LabelledSource)
        placed = self.labelled[self.source.rows[row]["row"]]
        return f"{placed.file}:{placed.line}"

    def weights(self) -> dict[str, Tensor]:
        """All weights as they are now, frozen ones too."""
        return self.held.masters()

    def network_of(self, masters: dict[str, Tensor]) -> Network:
        """The network with other weights in it, in fp32; this training is over then."""
        install(self.network, {**self.held.masters(), **masters})
        return self.network


class Opened:
    """A run folder, opened for reading.

    Args:
        folder: RUN, with the `recipe.yaml` that it was made by.

    Raises:
        ConfigError: this is no run, or its recipe names what is not there any more.
    """

    def __init__(self, folder: Path | str, console: Console) -> None:
        self.folder, self.console = Path(folder), console
        self.quiet = Console(quiet=True)
        self.run = Run(_plan(self.folder), self.folder, self.quiet, flat=_flat(self.folder))
        self.places = [place for place in _places(self.run) if _has_begun(place.folder)]

    def select(self, stage: str | None, seed: int | None) -> list[Place]:
        """The trainings of a stage or below it (all for None), in order; heads that are trained first come after what they belong to.

        Raises:
            ConfigError: there is none.
        """
        if not self.places:
            raise ConfigError("nothing was trained in this run", where=str(self.folder), hint="run the recipe first")
        names = list(dict.fromkeys([name for place in self.places for name in (place.stage, place.name)]))
        found = [p for p in self.places if stage is None or p.name == stage.rstrip("/") or p.name.startswith(stage.rstrip("/") + "/")]
        if not found:
            raise unknown("trained stage", str(stage), names, where=str(self.folder))
        if seed is not None and not any(place.seed == seed for place in found):
            seeds = ", ".join(map(str, sorted({place.seed for place in found})))
            raise ConfigError("nothing was trained with this seed", expected=seeds, got=str(seed), where=stage or str(self.folder))
        return [place for place in found if seed is None or place.seed == seed]

    def check_inputs(self, place: Place) -> None:
        """Whether settings and inputs are those that the training had.

        Raises:
            DataError: an input is gone, or something was changed since, by the digests.
        """
        with _there(place):
            stage = (finetune.work(self.run, place.task) if place.phase is None else pretrain.phase_work(self.run, place.phase)).stage
        path = stage.folder / STAGE
        told = files.read_json(path, kind="stage").get("depends", {}) if path.is_file() else {}
        before, now = ({**depends, "settings": pathless(depends.get("settings"))} for depends in (told, stage.depends))
        changed = [name for name in now if files.fingerprint(before.get(name)) != files.fingerprint(now[name])]
        if changed:
            raise DataError(
                f"{place.stage} was trained on something else than what is here now",
                got=f"{', '.join(changed)} changed" if told else "no stage.json",
                where=str(self.folder),
                hint="put back what was there when it was trained",
            )

    def rebuild(self, place: Place) -> Rerun:
        """The training, ready to be started anywhere.

        Raises:
            CheckpointError: it cannot be known how it was computed.
            ConfigError: this machine cannot compute that way.
            DataError: an input of it is gone.
        """
        with _there(place):
            found = self._task(place) if place.phase is None else self._phase(place.phase, place)
        found.console = self.console
        return found

    def _phase(self, number: int, place: Place) -> Rerun:
        phase, inputs = pretrain.phase_inputs(self.run, number)
        found, _ = pretrain.build(place.folder, phase, inputs, self.quiet, kind=Rerun)
        assert isinstance(found, Rerun)
        found.tokenizer = inputs.tokenizer
        return found

    def _task(self, place: Place) -> Rerun:
        tuning, source, paths = finetune.inputs_of(self.run, place.task)
        data = finetune.read_data(None, paths["train"], paths.get("validation"), paths.get("test"), self.run.recipe.seed)
        bundle = finetune.opened(tuning, source, self.run.recipe.seed)
        home = self.run.path(place.stage)
        vectors = Embeddings.named(self.run, tuning.vectors, bundle.tokenizer)
        tune = finetune.FineTune(home, tuning, data, bundle, self.quiet, seed=self.run.recipe.seed, embeddings=vectors)
        start = bundle if place.group == GROUPS[0] and tuning.model is None else tune.fresh(place.seed)
        tuned, new = start.with_task(tune.task, seed=place.seed)
        folder = home / place.group / f"seed-{place.seed}"
        found: Training
        if place.is_head or tune.train.head_epochs > 0:
            found = tune.build(folder / HEAD, tuned, place.seed, tune.head_config(), frozenset(new), kind=Rerun)
            if not place.is_head:
                assert isinstance(found, Rerun)
                self._end_of(found)
        if not place.is_head:
            found = tune.build(folder, tuned, place.seed, tune.train, kind=Rerun)
        assert isinstance(found, Rerun)
        found.tokenizer, found.labelled = bundle.tokenizer, data.train
        return found

    def _end_of(self, head: Rerun) -> None:
        """Leaves the network with the weights at the end of the head's own training."""
        begin, complaints = checkpoint.latest(head.folder / "checkpoints", at_most=head.source.steps, with_best=False)
        for line in complaints:
            self.console.warn(line)
        with machine.threads(head.compute):
            head.start_at(begin)
            for _ in head.steps(head.source.steps):
                pass
        head.network_of(head.weights())


def _has_begun(folder: Path) -> bool:
    """Whether there is a step that can be looked at: one that was logged, or one that failed."""
    return (folder / METRICS).is_file() or any(folder.glob("failed-step-*"))


def bests(folder: Path) -> dict[int, Path]:
    """Step -> folder of the best weights that a training kept."""
    found = ((files.read_manifest(path), path) for path in (folder / "checkpoints").glob("best*"))
    return {int(about["step"]): path for about, path in found if about is not None and "step" in about}


@contextmanager
def _there(place: Place) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        problem = f"something that {place.stage} was trained on is not there any more"
        raise DataError(problem, where=str(error.filename), hint="put it back where it was") from None


def _plan(folder: Path) -> Plan:
    """The run's own recipe. Unlike `recipe.read` it does not ask for the raw sources: they may be gone, their corpus is here."""
    path = folder / "recipe.yaml"
    if not path.is_file() or not any((folder / name).exists() for name in ("environment.json", STAGE)):
        above = next((p for p in folder.absolute().parents if (p / "recipe.yaml").is_file() and (p / "environment.json").is_file()), None)
        hint = f"give the run: {above}" if above else "give the folder that lexloom run wrote"
        raise ConfigError("this is no run folder", expected="recipe.yaml and environment.json", where=str(folder), hint=hint)
    document = config.load(path)
    recipe, problems = config.attempt(Recipe, document.data, document)
    if problems:
        raise ConfigError.together(problems)
    return Plan(recipe, document, folder.resolve(), registries())


def _flat(folder: Path) -> str | None:
    """The stage whose folder is RUN itself, as a verb of a single stage leaves it."""
    path = folder / STAGE
    found = files.read_json(path, kind="stage") if path.is_file() else {}
    return str(found["name"]) if isinstance(found, dict) and "name" in found else None


def _places(run: Run) -> Iterator[Place]:
    settled = settle(run.plan)
    for i, name in enumerate(run.phase_names()):
        yield Place(name, name, run.path(name), run.recipe.seed, settled.phases[i].train, phase=i)
    for task, tuning in settled.tasks.items():
        stage, heads = f"finetune/{task}", list[Place]()
        for group in GROUPS:
            for seed in range(run.recipe.seed, run.recipe.seed + tuning.train.seeds):
                name = f"{stage}/{group}/seed-{seed}"
                place = Place(name, stage, run.path(stage) / group / f"seed-{seed}", seed, tuning.train, group=group)
                heads.append(Place(f"{name}/{HEAD}", stage, place.folder / HEAD, seed, tuning.train, group=group))
                yield place
        yield from heads
