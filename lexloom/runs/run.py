"""A recipe run from its first stage to its last: finished stages are reused, an interrupted one goes on, a changed one runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from lexloom import files
from lexloom.console import Console
from lexloom.lock import locked
from lexloom.runs.prepare import prepare
from lexloom.runs.recipe import Plan
from lexloom.runs.stage import STAGE, Stage, content, finished
from lexloom.text.corpus import Corpus
from lexloom.text.tokenizer import Tokenizer, train_tokenizer

if TYPE_CHECKING:
    from lexloom.compute import ComputeConfig
    from lexloom.config import Place
    from lexloom.runs.components import Components
    from lexloom.train.parallel import World

SAMPLES, SAMPLE_CHARACTERS = 3, 300


@dataclass
class Work:
    """A stage with what makes it; `together`: by all processes, where there are several, not by the first alone."""

    stage: Stage
    make: Callable[[], None]
    together: bool = False


class Run:
    """One recipe in one run folder.

    Args:
        folder: RUN.
        only: the last stage to run, by name (`pretrain`); all where None.
        flat: the stage whose folder is RUN itself, for verbs of a single stage.
        rechoose: device, dtype, threads and compile are chosen anew for what is left of interrupted trainings.
    """

    def __init__(
        self, plan: Plan, folder: Path, console: Console, *, only: str | None = None, flat: str | None = None, rechoose: bool = False
    ) -> None:
        self.plan, self.recipe, self.folder, self.console = plan, plan.recipe, folder, console
        self.only, self.flat, self.rechoose = only, flat, rechoose
        self.world: World  # the processes that run this recipe, while it runs

    def path(self, name: str) -> Path:
        """The folder of a stage."""
        return self.folder if name == self.flat else self.folder / name

    def code(self) -> dict[str, Any]:
        """What a trained stage depends on besides settings and inputs: the code of the recipe's extensions, where it has any."""
        return {"extensions": [content(self.plan.path(name)) for name in self.recipe.extensions]} if self.recipe.extensions else {}

    def execute(self) -> Path:
        """Runs what is not finished, writes the report, and returns RUN.

        Raises:
            ConfigError, DataError: see the stages; nothing that is finished is lost.
            Interrupted: a signal came during training; the same command goes on.
        """
        from lexloom import compute
        from lexloom.runs.components import settle
        from lexloom.runs.report import write_report
        from lexloom.train.parallel import joined

        self._check_machine(settle(self.plan))
        with joined() as self.world:
            if not self.world.first:
                self.console = Console(quiet=True)
                self._make()
                return self.folder
            with locked(self.folder):
                self._write_recipe()
                files.write_json(self.folder / "environment.json", compute.environment())
                self._make()
                report = write_report(self.folder)
        self.console.say(f"report: {report}")
        return self.folder

    def _check_machine(self, settled: Components) -> None:
        """Whether this machine can do what the recipe asks for, in stages that are not finished; told before anything is prepared."""
        from lexloom.runs.machine import able

        phases = zip(self.phase_names(), settled.phases, strict=True)
        asked: list[tuple[Place, str, ComputeConfig]] = [(self.plan.phase_place(i), name, p.train) for i, (name, p) in enumerate(phases)]
        asked += [(("finetune", name), f"finetune/{name}", tuning.train) for name, tuning in settled.tasks.items()]
        for place, name, train in asked:
            if not self.rechoose and not finished(self.path(name)):
                able(train, self.plan.document.where((*place, "train", "device")), begun=(self.path(name) / STAGE).exists())
            if name == self.only:
                break

    def _make(self) -> None:
        """The stages in order. The first process decides what there is to do, and does what is not trained alone."""
        from lexloom.runs.machine import rechoose

        world = self.world
        world.wait()
        for work in self.works():
            if world.any(world.first and work.stage.begin(self.console)):
                if self.rechoose and world.first and work.stage.trained:
                    rechoose(work.stage.folder, self.console)
                if world.first or work.together:
                    work.make()
                if world.first:
                    work.stage.end()
            world.wait()
            if self.only is not None and work.stage.name == self.only:
                break

    def dry(self) -> list[dict[str, str]]:
        """Each stage, whether it would run, and why; nothing is written.

        Raises:
            ConfigError: a setting is not right, as `execute` would say.
        """
        from lexloom.runs.components import settle

        settle(self.plan)
        found, fresh = [], False
        for name, stage in self._dry_stages():
            why = "runs, for a stage before it does" if fresh or stage is None else stage.why()
            fresh = fresh or why.startswith("runs")
            found.append({"stage": name, "folder": str(self.path(name)), "what": why})
        return found

    def _dry_stages(self) -> Iterator[tuple[str, Stage | None]]:
        names = [work for work, there in (("corpus", self.recipe.prepare), ("tokenizer", self.recipe.tokenizer)) if there is not None]
        names += self.vector_names()
        names += ["shards"] if self.recipe.phases else []
        works = self.works()
        for name in [*names, *self.phase_names(), *(f"finetune/{task}" for task in self.recipe.finetune)]:
            try:  # what a stage depends on is only known when the stages before it are there
                stage = next(works).stage
            except (OSError, StopIteration):
                stage = None
            yield name, stage

    def works(self) -> Iterator[Work]:
        """The stages in order. Each is made when it is reached, for it depends on what the ones before it wrote."""
        if self.recipe.prepare is not None:
            yield self._corpus()
        if self.recipe.tokenizer is not None:
            yield self._tokenizer()
        if self.recipe.vectors is not None:
            yield from self._vectors()
        if self.recipe.phases:
            yield from self._pretraining()
        for name in self.recipe.finetune:
            yield self._finetune(name)

    def phase_names(self) -> list[str]:
        """`pretrain`, or `pretrain-1` … where there are several phases."""
        n = len(self.recipe.phases)
        return ["pretrain"] if n == 1 else [f"pretrain-{i + 1}" for i in range(n)]

    def vector_names(self) -> list[str]:
        """`vectors/<name>` of each, then `word-sets`, where there is anything to look at them with."""
        section = self.recipe.vectors
        if section is None:
            return []
        looked_at = section.evaluate or section.neighbours or section.map
        return [*(f"vectors/{name}" for name in section.train), *(["word-sets"] if looked_at else [])]

    def _write_recipe(self) -> None:
        with files.replacing(self.folder / "recipe.yaml", "w") as file:
            yaml = YAML(typ="safe", pure=True)
            yaml.default_flow_style = False
            yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
            yaml.dump(self._resolved(), file)

    def _resolved(self) -> dict[str, Any]:
        """The recipe with every setting written out and every path absolute, so that it runs from where it is kept."""
        found = self.recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
        found["extensions"] = [str(self.plan.path(name)) for name in found["extensions"]]
        if self.recipe.prepare is not None:
            found["prepare"]["sources"] = [str(self.plan.path(name)) for name in found["prepare"]["sources"]]
        if self.recipe.vectors is not None:
            found["vectors"]["evaluate"] = [str(self.plan.path(name)) for name in self.recipe.vectors.evaluate]
        phases = found.get("pretrain") or []
        for phase in phases if isinstance(phases, list) else [phases]:
            self._resolve(phase["model"])
        for section in found["finetune"].values():
            section["data"] = {split: str(self.plan.path(name)) for split, name in section["data"].items()}
            if "from" in section:
                section["from"] = str(self.plan.path(section["from"]))
            self._resolve(section.get("model") or {})
        return dict(found)

    def _resolve(self, model: dict[str, Any]) -> None:
        model |= {name: str(self.plan.path(value)) for name, value in model.items() if self.plan.is_path(name, value)}

    def _corpus(self) -> Work:
        config = self.recipe.prepare
        assert config is not None
        sources = [content(self.plan.path(name)) for name in config.sources]
        settings = {name: value for name, value in config.plain().items() if name != "sources"}
        stage = Stage("corpus", self.path("corpus"), {"settings": settings, "sources": sources, "seed": self.recipe.seed})

        def make() -> None:
            with self.console.progress("preparing", None, "bytes") as progress:
                corpus = prepare(config, stage.folder, base=self.plan.base, seed=self.recipe.seed, report=reporter(progress))
            self.console.say(f"corpus: {corpus}")

        return Work(stage, make)

    def _tokenizer(self) -> Work:
        config = self.recipe.tokenizer
        assert config is not None
        corpus = self.path("corpus")
        stage = Stage("tokenizer", self.path("tokenizer"), {"settings": config.plain(), "corpus": content(corpus)})

        def make() -> None:
            make_tokenizer(corpus, stage.folder, config)

        return Work(stage, make)

    def _vectors(self) -> Iterator[Work]:
        from lexloom.runs import vector_stages

        yield from vector_stages.works(self)

    def _pretraining(self) -> Iterator[Work]:
        from lexloom.runs import pretrain

        yield from pretrain.works(self)

    def _finetune(self, name: str) -> Work:
        from lexloom.runs import finetune

        return finetune.work(self, name)


def make_tokenizer(corpus: Path, out: Path, config: Any) -> Tokenizer:
    """Trains a tokenizer on a corpus folder and writes it with `report.json` beside its files."""
    texts = Corpus.open(corpus)
    tokenizer = train_tokenizer(lambda: texts.texts("train"), config)
    with files.new_folder(out, kind="tokenizer") as folder:
        tokenizer.save(folder)
        files.write_json(folder / "report.json", tokenizer_report(tokenizer, texts, config.kind))
    return tokenizer


def tokenizer_report(tokenizer: Tokenizer, corpus: Corpus, kind: str) -> dict[str, Any]:
    """Size, characters a token, share of unknown tokens, and a few texts in pieces, on the validation split where there is one."""
    split = "validation" if corpus.count("validation") else "train"
    characters = tokens = unknown = 0
    samples: list[dict[str, Any]] = []
    for i, document in enumerate(corpus.documents(split)):
        if i >= 200:
            break
        text = document.text[:20_000]
        ids = tokenizer.encode_plain([text])[0]
        characters, tokens, unknown = characters + len(text), tokens + len(ids), unknown + int((ids == tokenizer.unk_id).sum())
        if len(samples) < SAMPLES:
            sample = text[:SAMPLE_CHARACTERS]
            samples.append({"text": sample, "tokens": [_legible(tokenizer, int(t)) for t in tokenizer.encode_plain([sample])[0]]})
    return {
        "format": files.FORMAT,
        "kind": kind,
        "vocab_size": len(tokenizer),
        "split": split,
        "characters_per_token": characters / max(1, tokens),
        "unk_rate": unknown / max(1, tokens),
        "samples": samples,
    }


def _legible(tokenizer: Tokenizer, number: int) -> str:
    """A token as people know it; one of bytes beyond ASCII as the characters that they are, where they are whole ones."""
    token, text = tokenizer.token(number), tokenizer.decode([number])
    if type(tokenizer.backend.decoder).__name__ != "ByteLevel" or text.isascii() or "\ufffd" in text:
        return token
    return text.replace(" ", "Ġ")


def reporter(progress: Any) -> Callable[[dict[str, Any]], None]:
    """Shows the events of `prepare` as progress in bytes."""

    def report(event: dict[str, Any]) -> None:
        progress.total = event.get("total_bytes") or progress.total
        progress.update(event.get("done_bytes", progress.done))

    return report
