"""Recipe: one YAML file from raw text to bundle. Structure, names and paths are checked here, before torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lexloom import config as settings
from lexloom.config import Config, Document, Place
from lexloom.errors import ConfigError, LexloomError, nearest, unknown
from lexloom.registry import Registry
from lexloom.runs.prepare import PrepareConfig
from lexloom.text.tokenizer import TokenizerConfig

# Read from source, so that a misspelt name is found without importing torch.
KINDS: dict[str, tuple[str, str]] = {
    "architecture": ("ARCHITECTURES", "lexloom.models"),
    "objective": ("OBJECTIVES", "lexloom.objectives"),
    "task": ("TASKS", "lexloom.tasks"),
}


PATHS_OF_MODELS = ("from", "vectors")


class Columns(Config):
    """Labelled files of one task."""

    train: str
    validation: str | None = None
    test: str | None = None


class PretrainSection(Config):
    """One phase of pre-training. `model` and `train` are checked by the components that they name."""

    model: dict[str, Any] = Field(default_factory=dict)
    objective: str | list[str] | dict[str, dict[str, Any]] = "masked-lm"
    train: dict[str, Any] = Field(default_factory=dict)
    fills: list[str] = Field(default_factory=list)


class VectorsSection(Config):
    """Word vectors of the corpus, and what they are looked at with.

    Attributes:
        train: name -> settings as `lexloom vectors` takes them, `workers`, and the name of the `file`.
        evaluate: sets of words, or folders of them. settings: how they are asked.
        neighbours: words whose neighbours are shown. map: words that are drawn.
    """

    train: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)], dict[str, Any]] = Field(min_length=1)
    evaluate: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    neighbours: list[str] = Field(default_factory=list)
    map: list[str] = Field(default_factory=list)


class FinetuneSection(Config):
    """One task to fine-tune for. Settings of the task stand under `settings`.

    It starts from the bundle `from`, from pre-training, or where there is a `model` from that network with fresh weights.
    """

    task: str
    data: Columns
    from_: str | None = Field(None, alias="from")
    model: dict[str, Any] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    baselines: list[str] = Field(default_factory=lambda: ["majority", "tfidf"])


class Recipe(Config):
    """A whole recipe; every stage is optional."""

    name: str = Field("run", pattern=r"^[\w.-]+$", max_length=100)
    seed: int = Field(1, ge=0)
    extensions: list[str] = Field(default_factory=list)
    prepare: PrepareConfig | None = None
    tokenizer: TokenizerConfig | None = None
    vectors: VectorsSection | None = None
    pretrain: PretrainSection | list[PretrainSection] | None = None
    finetune: dict[str, FinetuneSection] = Field(default_factory=dict)

    @property
    def phases(self) -> list[PretrainSection]:
        """The phases of pre-training, in order."""
        if self.pretrain is None:
            return []
        return self.pretrain if isinstance(self.pretrain, list) else [self.pretrain]


@dataclass
class Plan:
    """A recipe with the file it came from: paths are relative to it, errors point into it."""

    recipe: Recipe
    document: Document
    base: Path
    registries: dict[str, Registry[Any]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """A path of the recipe, relative to the recipe's folder."""
        return (self.base / Path(name).expanduser()).resolve()

    def phase_place(self, i: int) -> Place:
        """Where phase `i` of pre-training stands in the document."""
        return ("pretrain", i) if isinstance(self.recipe.pretrain, list) else ("pretrain",)

    def models(self) -> Iterator[tuple[dict[str, Any], Place]]:
        """What the recipe says of networks, and where."""
        for i, phase in enumerate(self.recipe.phases):
            yield phase.model, (*self.phase_place(i), "model")
        for name, section in self.recipe.finetune.items():
            if section.model is not None:
                yield section.model, ("finetune", name, "model")

    def is_path(self, name: str, value: Any) -> bool:
        """Whether a value of a network is a path; `vectors` may be the name of word vectors that the recipe trains."""
        own = self.recipe.vectors.train if self.recipe.vectors is not None and name == "vectors" else {}
        return name in PATHS_OF_MODELS and isinstance(value, str) and value not in own


def read(path: Path | str, *, overrides: Sequence[str] = ()) -> Plan:
    """Reads and checks a recipe file.

    Raises:
        ConfigError: everything that is wrong with its structure, names and paths, each with file:line.
    """
    path = Path(path)
    return check(settings.load(path), path.parent, overrides)


def from_mapping(value: dict[str, Any], base: Path, *, overrides: Sequence[str] = ()) -> Plan:
    """A recipe out of Python, checked as a file is."""
    return check(Document("recipe", value), base, overrides)


def check(document: Document, base: Path, overrides: Sequence[str] = ()) -> Plan:
    """Checks structure first; names and paths only of a recipe whose structure is right.

    Raises:
        ConfigError: all problems together.
    """
    if not isinstance(document.data, dict) or not document.data:
        raise ConfigError("this recipe is empty", expected="stages: prepare, tokenizer, vectors, pretrain, finetune", where=document.path)
    settings.override(document, overrides)
    recipe, problems = settings.attempt(Recipe, document.data, document)
    if problems:
        raise ConfigError.together(problems)
    plan = Plan(recipe, document, base.resolve())
    plan.registries = registries()
    for find in (_extension_problems, _name_problems, _path_problems, _joint_problems):
        problems += find(plan)
    if problems:
        raise ConfigError.together(problems)
    return plan


def registries() -> dict[str, Registry[Any]]:
    """A registry for each kind of component, for names and summaries: nothing is imported."""
    return {kind: Registry(kind, *where) for kind, where in KINDS.items()}


def _extension_problems(plan: Plan) -> list[LexloomError]:
    problems: list[LexloomError] = []
    for i, name in enumerate(plan.recipe.extensions):
        if not plan.path(name).is_file():
            problems.append(_missing(plan, name, ("extensions", i)))
            continue
        for registry in plan.registries.values():
            registry.extend(plan.path(name))
    return problems


def _name_problems(plan: Plan) -> list[LexloomError]:
    asked: list[tuple[str, str, Place]] = []
    for i, phase in enumerate(plan.recipe.phases):
        asked += [("objective", name, (*plan.phase_place(i), "objective")) for name in objective_names(phase)]
    asked += [("task", section.task, ("finetune", name, "task")) for name, section in plan.recipe.finetune.items()]
    for model, place in plan.models():
        if isinstance(kind := model.get("kind"), str):
            asked.append(("architecture", kind, (*place, "kind")))
    return [
        unknown(kind, name, plan.registries[kind].names(), where=plan.document.where(place))
        for kind, name, place in asked
        if name not in plan.registries[kind].names()
    ]


def objective_names(phase: PretrainSection) -> list[str]:
    """The objectives of a phase, in order."""
    return [phase.objective] if isinstance(phase.objective, str) else list(phase.objective)


def _path_problems(plan: Plan) -> list[LexloomError]:
    asked: list[tuple[str, Place]] = []
    if plan.recipe.prepare is not None:
        asked += [(name, ("prepare", "sources", i)) for i, name in enumerate(plan.recipe.prepare.sources)]
    if plan.recipe.vectors is not None:
        asked += [(name, ("vectors", "evaluate", i)) for i, name in enumerate(plan.recipe.vectors.evaluate)]
    for model, place in plan.models():
        asked += [(model[name], (*place, name)) for name in PATHS_OF_MODELS if plan.is_path(name, model.get(name))]
    for name, section in plan.recipe.finetune.items():
        files = section.data.model_dump()
        asked += [(file, ("finetune", name, "data", split)) for split, file in files.items() if file is not None]
        if section.from_ is not None:
            asked.append((section.from_, ("finetune", name, "from")))
    return [_missing(plan, name, place) for name, place in asked if not plan.path(name).exists()]


def _missing(plan: Plan, name: str, place: Place) -> ConfigError:
    path = plan.path(name)
    around = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    guess = nearest(path.name, around)
    hint = f"did you mean {str(Path(name).with_name(guess))!r}?" if guess else f"paths are relative to the recipe, {plan.base}"
    return ConfigError(f"{'.'.join(map(str, place))}: there is no {name!r}", where=plan.document.where(place), hint=hint)


def _joint_problems(plan: Plan) -> list[LexloomError]:
    """What is right alone and wrong together."""
    recipe, where, problems = plan.recipe, plan.document.where, list[LexloomError]()
    starts = [phase.model.get("from") for phase in recipe.phases]
    if recipe.tokenizer is not None and recipe.prepare is None:
        problems.append(ConfigError("a tokenizer is trained on a corpus", where=where(("tokenizer",)), hint="add a prepare: stage"))
    if recipe.vectors is not None and recipe.prepare is None:
        problems.append(ConfigError("word vectors need a corpus", where=where(("vectors",)), hint="add a prepare: stage with sources:"))
    if recipe.phases and recipe.prepare is None:
        problems.append(ConfigError("pre-training needs a corpus", where=where(("pretrain",)), hint="add a prepare: stage with sources:"))
    if recipe.phases and recipe.tokenizer is None and not starts[0]:
        hint = "add a tokenizer: stage, or model: {from: BUNDLE}"
        problems.append(ConfigError("pre-training from scratch needs a tokenizer", where=where(("pretrain",)), hint=hint))
    if recipe.tokenizer is not None and any(starts):
        hint = "take the tokenizer: stage away; vocabulary: {extend: 500} adds words"
        problems.append(ConfigError("a model that is trained on keeps its tokenizer", where=where(("tokenizer",)), hint=hint))
    for name, section in recipe.finetune.items():
        if section.model is not None and (section.from_ is not None or recipe.tokenizer is None):
            what, hint = "is to start from a bundle and from a new network", "leave from: or model: away"
            if section.from_ is None:
                what, hint = "has a new network and no tokenizer for it", "add a tokenizer: stage"
            problems.append(ConfigError(f"finetune.{name} {what}", where=where(("finetune", name, "model")), hint=hint))
        if section.from_ is None and section.model is None and not recipe.phases:
            hint = "add from: BUNDLE, model: {kind: …}, or a pretrain: stage"
            problems.append(ConfigError(f"finetune.{name} has no model to start from", where=where(("finetune", name)), hint=hint))
        for i, baseline in enumerate(section.baselines):
            if baseline not in BASELINES:
                problems.append(unknown("baseline", baseline, BASELINES, where=where(("finetune", name, "baselines", i))))
    return problems


BASELINES = ("majority", "tfidf", "fasttext", "from-scratch")

Say = Callable[[str], None]
