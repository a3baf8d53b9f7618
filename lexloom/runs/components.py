"""The components that a recipe names, with their settings checked: all mistakes at once, before any data is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from lexloom.config import Config, Count, Place, attempt
from lexloom.errors import ConfigError, LexloomError, unknown
from lexloom.models.base import ARCHITECTURES, Architecture, Network
from lexloom.objectives.base import OBJECTIVES, Objective, Vocabulary
from lexloom.objectives.together import Together
from lexloom.runs import embeddings, vector_stages
from lexloom.runs.recipe import FinetuneSection, Plan, PretrainSection
from lexloom.tasks.base import TASKS, Task
from lexloom.tasks.likelihoods.base import LIKELIHOODS
from lexloom.tasks.measures.base import MEASURES
from lexloom.train.settings import AMOUNTS, FinetuneConfig, PretrainConfig


class Extend(Config):
    """How many words the vocabulary gains in continued pre-training."""

    extend: Count = Field(ge=1)


class Start(Config):
    """Where continued pre-training starts."""

    from_: str = Field(alias="from")
    vocabulary: str | Extend = "keep"


@dataclass(frozen=True)
class Phase:
    """A phase of pre-training, settled. `kind` is None where the model comes from a bundle; `vectors`: see `embeddings`."""

    kind: type[Architecture] | None
    model: dict[str, Any]
    start: Start | None
    objectives: list[tuple[type[Objective], Any]]
    train: PretrainConfig
    fills: list[str]
    vectors: str | None = None

    @property
    def words(self) -> bool:
        """Whether the shards have to say where words begin."""
        return any(kind.needs_words(config) for kind, config in self.objectives)

    def objective(self, vocabulary: Vocabulary) -> Objective:
        """Its objective, several joined over one forward.

        Raises:
            ConfigError: one of them learns from labelled rows, which raw text does not have.
        """
        built = [kind(config, vocabulary) for kind, config in self.objectives]
        if labelled := [part for objective in built if objective.rows == "labelled" for part in objective.parts]:
            raise ConfigError(f"{labelled[0]} learns from pairs, and pre-training has raw text", hint="denoising makes pairs of raw text")
        return built[0] if len(built) == 1 else Together(built)


@dataclass(frozen=True)
class FineTuning:
    """A task of a recipe, settled.

    Attributes:
        model: the network that it starts with fresh weights, where it does not start from a bundle; `vectors`: see `embeddings`.
    """

    section: FinetuneSection
    kind: type[Task]
    config: Any
    train: FinetuneConfig
    model: tuple[type[Architecture], dict[str, Any]] | None = None
    vectors: str | None = None


@dataclass(frozen=True)
class Components:
    """All phases and tasks of a recipe."""

    phases: list[Phase]
    tasks: dict[str, FineTuning]


def extend(files: Iterable[Path | str]) -> None:
    """Makes the components in files outside the package known, of whatever kind they are.

    Raises:
        ConfigError: there is no such file.
    """
    for file in files:
        for registry in (ARCHITECTURES, OBJECTIVES, TASKS, MEASURES, LIKELIHOODS):
            registry.extend(file)


def settle(plan: Plan) -> Components:
    """Checks every component's settings against its Config.

    Raises:
        ConfigError: everything that is wrong, each with file:line.
    """
    extend(plan.path(name) for name in plan.recipe.extensions)
    problems: list[LexloomError] = []
    phases = [_phase(plan, section, plan.phase_place(i), problems) for i, section in enumerate(plan.recipe.phases)]
    tasks = {name: _task(plan, name, section, problems) for name, section in plan.recipe.finetune.items()}
    problems += vector_stages.problems(plan)
    if problems:
        raise ConfigError.together(problems)
    found = Components([p for p in phases if p], {name: task for name, task in tasks.items() if task})
    if problems := list(_misfits(plan, found)):
        raise ConfigError.together(problems)
    return found


def _misfits(plan: Plan, found: Components) -> Iterator[LexloomError]:
    """Objectives and tasks for which the architecture, where it is known, has no ability or no heads."""
    last: type[Architecture] | None = None
    for i, phase in enumerate(found.phases):
        before = found.phases[i - 1] if i else phase
        now, then = ((one.kind, one.model, one.vectors) for one in (phase, before))
        if phase.start is None and plan.recipe.phases[i].model and now != then:
            what = "a later phase goes on with the network of the one before it, and this is another"
            yield ConfigError(what, where=plan.document.where((*plan.phase_place(i), "model")), hint="take model: away")
        last = None if phase.start is not None else last if i else phase.kind
        kinds, place = [kind for kind, _ in phase.objectives], (*plan.phase_place(i), "objective")
        if last is not None:
            yield from misfit(last, kinds, "learn this objective", plan.document.where(place))
    for name, tuning in found.tasks.items():
        if not tuning.kind.trained:
            where, role = plan.document.where(("finetune", name, "task")), tuning.kind.role
            hint = f"it is what a {role} head answers once it is pre-trained"
            yield ConfigError(f"{tuning.section.task} is not fine-tuned", where=where, hint=hint)
            continue
        kind = tuning.model[0] if tuning.model is not None else None if tuning.section.from_ is not None else last
        if kind is not None:
            yield from misfit(kind, [tuning.kind], f"do {tuning.section.task}", plan.document.where(("finetune", name, "task")))


def misfit(kind: type[Architecture], goals: Sequence[type[Objective]], what: str, where: str | None = None) -> Iterator[ConfigError]:
    """What is wrong, if anything, with objectives that an architecture is to learn together, or with a task.

    Args:
        what: that it would be able to, in words.
    """
    needs = frozenset[str]().union(*(goal.needs for goal in goals))
    roles = frozenset(role for goal in goals for role in goal.roles)

    def can(one: type[Architecture]) -> bool:
        return needs <= one.ABILITIES and roles in one.ROLES

    if not can(kind):
        able = [name for name in ARCHITECTURES.names() if can(ARCHITECTURES.get(name))]
        expected = ", ".join(sorted(needs - kind.ABILITIES)) or f"heads {' + '.join(sorted(roles))}, which it has not"
        hint = f"{', '.join(able)} can" if able else None
        yield ConfigError(f"{kind.MODEL_TYPE} cannot {what}", expected=expected, where=where, hint=hint)


def tasks_for(kind: type[Architecture]) -> list[str]:
    """What an architecture can be fine-tuned for."""
    trained = [name for name in TASKS.names() if TASKS.get(name).trained]
    return [name for name in trained if not list(misfit(kind, [TASKS.get(name)], f"do {name}"))]


def _phase(plan: Plan, section: PretrainSection, place: Place, problems: list[LexloomError]) -> Phase | None:
    before = len(problems)
    train, found = attempt(PretrainConfig, section.train, plan.document, (*place, "train"))
    problems += found
    objectives = []
    for name, value in _objectives(section).items():
        kind = OBJECTIVES.get(name)
        config, found = attempt(kind.Config, value, plan.document, (*place, "objective", name))
        problems += found
        objectives.append((kind, config))
    start, architecture, model = _model(plan, section, (*place, "model"), problems)
    vectors = None if start is not None else section.model.get("vectors")
    if len(problems) > before:
        return None
    if all(getattr(train, name) is None for name in AMOUNTS):
        problems.append(
            ConfigError(
                "how long to pre-train is missing", expected=f"{', '.join(AMOUNTS[:-1])} or {AMOUNTS[-1]}", where=plan.document.where(place)
            )
        )
        return None
    return Phase(architecture, model, start, objectives, train, section.fills, vectors)


def _objectives(section: PretrainSection) -> dict[str, dict[str, Any]]:
    if isinstance(section.objective, dict):
        return {name: value or {} for name, value in section.objective.items()}
    names = [section.objective] if isinstance(section.objective, str) else section.objective
    return {name: {} for name in names}


def _model(plan: Plan, section: PretrainSection, place: Place, problems: list[LexloomError]) -> tuple[Any, Any, dict[str, Any]]:
    settings = dict(section.model)
    if "from" in settings:
        start, found = attempt(Start, settings, plan.document, place)
        problems += found
        return start, None, {}
    return None, *_architecture(plan, settings, place, problems)


def _architecture(
    plan: Plan, settings: dict[str, Any], place: Place, problems: list[LexloomError]
) -> tuple[type[Architecture], dict[str, Any]]:
    """An architecture by `kind`, and its settings over those of the `preset`."""
    kind = ARCHITECTURES.get(settings.pop("kind", "bert"))
    preset, vectors = settings.pop("preset", None), settings.pop("vectors", None)
    if preset is not None and preset not in kind.PRESETS:
        problems.append(unknown("preset", str(preset), kind.PRESETS, where=plan.document.where((*place, "preset"))))
        return kind, {}
    merged = {**kind.PRESETS.get(preset, {}), **settings}
    _, found = attempt(kind.Config, merged, plan.document, place)
    problems += found
    if vectors is not None and not found:
        problems += embeddings.problems(plan, kind, merged, vectors, (*place, "vectors"))
    return kind, merged


def _task(plan: Plan, name: str, section: FinetuneSection, problems: list[LexloomError]) -> FineTuning | None:
    kind = TASKS.get(section.task)
    place = ("finetune", name)
    config, found = attempt(kind.Config, section.settings, plan.document, (*place, "settings"))
    train, more = attempt(FinetuneConfig, section.train, plan.document, (*place, "train"))
    problems += [*found, *more]
    before, model = len(problems), None
    if section.model is not None:
        model = _architecture(plan, dict(section.model), (*place, "model"), problems)
    vectors = (section.model or {}).get("vectors")
    return None if found or more or len(problems) > before else FineTuning(section, kind, config, train, model, vectors)


def describe(model: Mapping[str, Any]) -> str:
    """A model's settings in one line."""
    return ", ".join(f"{name} {value}" for name, value in model.items())


def presets() -> list[dict[str, str]]:
    """Every named size of every architecture, with what it comes to under the vocabulary of its defaults, heads left out."""
    found = []
    for kind in map(ARCHITECTURES.get, ARCHITECTURES.names()):
        for name, settings in kind.PRESETS.items():
            network = Network.planned(kind, kind.Config.read(dict(settings)), frozenset())
            backbone, n = network.backbone, sum(p.numel() for p in network.parameters())
            size = f"{len(backbone.blocks)} layers × {backbone.width}, {n / 1e6:,.1f} M parameters"
            found.append({"kind": "presets", "name": name, "what": f"{kind.MODEL_TYPE}: {size}"})
    return found
