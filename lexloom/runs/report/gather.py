"""Reads what a run left behind, from its JSON files alone; what is absent, damaged or of another type is left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lexloom import config, files
from lexloom.console import count, duration, size
from lexloom.errors import LexloomError
from lexloom.runs.report import loose
from lexloom.runs.report.facts import Confusion, Corpus, Difference, Example, Facts, Model, Pretraining, Score, Task, TokenizerFacts
from lexloom.runs.report.loose import Pairs
from lexloom.runs.report.words import word_vectors

MAX_EXAMPLES = 12
_COUNTS = {"read": "documents read", "kept": "documents kept", "bytes": "size"}
_ASIDE = re.compile(r"\.old-\d+$|^\.")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")


def gather(run: Path | str) -> Facts:
    """Reads a run, or the folder of a single stage.

    Raises:
        LexloomError: there is no such folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise LexloomError("there is no such run", where=str(run), hint="give the folder that `lexloom run` wrote, as in runs/NAME")
    facts = Facts(run, run.resolve().name)
    order = _recipe(facts)
    facts.environment = loose.pairs(_read(facts, run / "environment.json"))
    facts.corpus = _corpus(_read(facts, run / "corpus" / "corpus.json", run / "corpus.json"))
    facts.tokenizer = _tokenizer(_read(facts, run / "tokenizer" / "report.json"))
    trained = {folder.name: _read(facts, folder / "summary.json") for folder in _folders(run / "vectors", "*", order)}
    trained = {name: found for name, found in trained.items() if found}
    facts.vectors = word_vectors(trained, _read(facts, run / "word-sets" / "summary.json"))
    shards = loose.items(_read(facts, run / "shards" / "shards.json", run / "shards.json").get("splits"))
    facts.shards = [(loose.spoken(name), _encoded(loose.mapping(about))) for name, about in shards[:20]]
    for folder, summary in _summaries(facts, order):
        if "task" in summary or "scores" in summary:
            facts.tasks.append(_task(folder, summary))
        else:
            facts.phases.append(_pretraining(folder, summary))
        if (model := _model(facts, folder / "bundle", summary)) is not None:
            facts.models.append(model)
    return facts


def _read(facts: Facts, *paths: Path) -> dict[str, Any]:
    """The first of `paths` that is there, or nothing."""
    for path in paths:
        try:
            if path.is_file():
                found = files.read_json(path, max_bytes=1 << 26)
                return found if isinstance(found, dict) else {}
        except (LexloomError, OSError):
            facts.unreadable.append(path.relative_to(facts.run).as_posix())
    return {}


def _recipe(facts: Facts) -> list[str]:
    """Reads the recipe; gives the names of its tasks and of its word vectors in their order."""
    path = facts.run / "recipe.yaml"
    try:
        if not path.is_file():
            return []
        data = loose.mapping(config.load(path).data)
        facts.recipe = path.read_text(encoding="utf-8")
    except (LexloomError, OSError, ValueError):
        facts.unreadable.append(path.name)
        return []
    facts.name = loose.words(data.get("name"), 120) or facts.name
    language = loose.mapping(data.get("prepare")).get("language")
    facts.language = language if isinstance(language, str) and _LANGUAGE.match(language) else None
    named = (data.get("finetune"), loose.mapping(data.get("vectors")).get("train"))
    return [name for one in named for name, _ in loose.items(one)]


def _summaries(facts: Facts, order: list[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each stage that trained a model, with its summary; the folder of a single stage is one itself."""
    run = facts.run
    for folder in [run, *_folders(run, "pretrain*", order), *_folders(run / "finetune", "*", order)][: loose.MAX_ROWS]:
        if found := _read(facts, folder / "summary.json"):
            yield folder, found


def _folders(parent: Path, pattern: str, order: list[str]) -> list[Path]:
    """Folders of stages, those of the recipe in its order; what was put aside is passed over."""
    found = [path for path in parent.glob(pattern) if path.is_dir() and not _ASIDE.search(path.name)]
    place = {name: i for i, name in enumerate(order)}
    return sorted(found, key=lambda path: (place.get(path.name, len(order)), len(path.name), path.name))[: loose.MAX_ROWS]


def _corpus(found: dict[str, Any]) -> Corpus | None:
    if not found:
        return None
    listed, splits = found.get("sources"), loose.items(found.get("splits"))
    drops = _counted(found.get("dropped"))
    figures = [(_COUNTS.get(label, label), text) for label, text in loose.pairs(found.get("counts"), only_numbers=True)]
    if not any("duplicate" in reason for reason, _ in drops):
        figures += [(f"{label} duplicates", text) for label, text in loose.pairs(found.get("duplicates"), only_numbers=True)]
    kept = dict(figures).get("documents kept")
    return Corpus(
        figures,
        [_source(row) for row in loose.rows(listed, 50)],
        len(loose.listed(listed)),
        drops,
        _counted(loose.mapping(found.get("bad_rows")).get("reasons")),
        _counted(found.get("changed")),
        [(loose.spoken(name), dict(_split(about))) for name, about in splits[:20]],
        [loose.words(line, 300) for line in loose.listed(found.get("warnings"))[:20]],
        f"The corpus is ready: {kept} documents." if kept else "The corpus is ready.",
    )


def _split(about: Any) -> Pairs:
    return loose.pairs(about, only_numbers=True) if isinstance(about, Mapping) else [("documents", loose.figure("", about))]


def _encoded(about: Mapping[str, Any]) -> dict[str, str]:
    """What a split of the shards holds, and its size on disk."""
    sizes = [loose.number(loose.mapping(file).get("bytes")) or 0.0 for _, file in loose.items(about.get("files"))]
    return dict(loose.pairs(about, only_numbers=True)) | ({"on disk": size(sum(sizes))} if sizes else {})


def _counted(value: Any) -> list[tuple[str, int]]:
    """(reason, n), most first; without those that never happened."""
    found = [(loose.spoken(reason), loose.integer(n) or 0) for reason, n in loose.items(value)]
    return sorted((pair for pair in found if pair[1] > 0), key=lambda pair: -pair[1])


def _source(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": loose.words(row.get("path"), 300),
        "documents": loose.integer(row.get("documents")),
        "bytes": loose.number(row.get("bytes")),
        "encoding": loose.words(row.get("encoding"), 40),
        "sha256": loose.words(row.get("sha256"), 64),
    }


def _tokenizer(found: dict[str, Any]) -> TokenizerFacts | None:
    if not found:
        return None
    n_tokens, kind = loose.number(found.get("vocab_size")), loose.words(found.get("kind"), 60)
    per_token, unknown = loose.number(found.get("characters_per_token")), loose.number(found.get("unk_rate"))
    figures = [("kind", kind)] if kind else []
    figures += [("vocabulary", count(n_tokens))] if n_tokens is not None else []
    figures += [("characters per token", f"{per_token:.2f}")] if per_token is not None else []
    figures += [("unknown tokens", f"{100 * unknown:.2f} %" if unknown else "none")] if unknown is not None else []
    samples = [
        (loose.words(row.get("text"), 300), [loose.words(token, 60) for token in loose.listed(row.get("tokens"))[:150]])
        for row in loose.rows(found.get("samples"), 8)
    ]
    return TokenizerFacts(figures, samples, f"The tokenizer is ready: {kind} with {count(n_tokens or 0)} tokens.")


def _pretraining(folder: Path, found: dict[str, Any]) -> Pretraining:
    validation = loose.mapping(found.get("validation"))
    loss, final = loose.number(validation.get("loss")), loose.number(found.get("loss"))
    figures: Pairs = []
    for label, key, shown in (
        ("parameters", "parameters", count),
        ("steps", "steps", count),
        ("tokens seen", "tokens", count),
        ("time", "seconds", duration),
    ):
        value = loose.number(found.get(key))
        figures += [(label, shown(value))] if value is not None else []
    seconds, tokens = loose.number(found.get("seconds")), loose.number(found.get("tokens"))
    figures += [("tokens a second", count(tokens / seconds))] if seconds and tokens else []
    embeddings = loose.mapping(found.get("embeddings"))
    covered, of = loose.number(embeddings.get("covered")), loose.number(embeddings.get("tokens"))
    figures += [("tokens that start from a vector", f"{count(covered)} of {count(of)}")] if covered and of else []
    figures += [(label, f"{value:.4f}") for label, value in (("training loss", final), ("validation loss", loss)) if value is not None]
    parts = [
        (loose.words(name, 60), f"{value:.4f}")
        for name, inner in loose.items(validation.get("parts"))
        if (value := loose.number(inner)) is not None
    ]
    described = found.get("model")
    named = described.get("class", described.get("kind")) if isinstance(described, dict) else described
    model = loose.words(named, 100) or "The model"
    tasks = [loose.words(name, 60) for name in loose.listed(found.get("tasks", ["text-classification"]))]  # once there was no other
    reached = _reached(model, figures, tasks)
    answers = loose.words(found.get("answers"), 60)
    return Pretraining(folder, model, figures, parts, _compute(found), _settings(found), list(_fills(found)), reached, answers, tasks)


def _compute(found: dict[str, Any]) -> Pairs:
    """What was chosen for this machine, and why."""
    chosen = loose.mapping(found.get("compute"))
    told = [(loose.spoken(key), loose.words(value, 300)) for key, value in loose.items(chosen) if key not in ("format", "reasons")]
    return told + [(f"why this {loose.spoken(key)}", loose.words(value, 300)) for key, value in loose.items(chosen.get("reasons"))]


def _settings(found: dict[str, Any]) -> Pairs:
    return [(label, text) for label, text in loose.pairs(found.get("settings")) if text]


def _reached(model: str, figures: Pairs, tasks: list[str]) -> str:
    """The verdict on pre-training alone: what was reached, at which cost."""
    known = dict(figures)
    text = f"{model} was pre-trained"
    text += f" to a validation loss of {known['validation loss']}" if "validation loss" in known else ""
    text += f" on {known['tokens seen']} tokens" if "tokens seen" in known else ""
    text += f" in {known['time']}" if "time" in known else ""
    return f"{text}; no task has tried it yet." if tasks else f"{text}."


def _fills(found: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, float | None]]]]:
    for row in loose.rows(found.get("fills"), MAX_EXAMPLES):
        answers = [
            (loose.words(answer.get("token"), 60), loose.number(answer.get("score"))) for answer in loose.rows(row.get("answers"), 5)
        ]
        if answers:
            yield loose.words(row.get("text"), 300), answers


def _task(folder: Path, found: dict[str, Any]) -> Task:
    figures = [
        (f"{loose.spoken(split)} rows", count(n))
        for split, value in loose.items(found.get("rows"))
        if (n := loose.number(value)) is not None
    ]
    figures += [("seeds", loose.seeds(found["seeds"]))] if found.get("seeds") else []
    seconds = loose.number(found.get("seconds"))
    figures += [("time", duration(seconds))] if seconds is not None else []
    scores = [score for row in loose.rows(found.get("scores")) if (score := _score(row)) is not None]
    differences = [difference for row in loose.rows(found.get("differences")) if (difference := _difference(row)) is not None]
    return Task(
        folder.resolve().name,
        folder,
        loose.words(found.get("task"), 80),
        loose.words(found.get("verdict"), 2000).strip(),
        figures,
        scores,
        differences,
        _confusion(found.get("confusion")),
        [_example(row) for row in loose.rows(found.get("examples"))],
        [loose.words(line, 300) for line in loose.listed(found.get("encoding"))[:20]],
        _compute(found),
        _settings(found),
    )


def _score(row: dict[str, Any]) -> Score | None:
    value = loose.number(row.get("value"))
    if value is None:
        return None
    low, high = loose.number(row.get("low")), loose.number(row.get("high"))
    model, metric = loose.words(row.get("model"), 120), loose.words(row.get("metric"), 60)
    return Score(
        model, metric, value, low, high, loose.integer(row.get("n")), loose.seeds(row.get("seeds")), loose.words(row.get("note"), 300)
    )


def _difference(row: dict[str, Any]) -> Difference | None:
    value = loose.number(row.get("value"))
    if value is None:
        return None
    low, high = loose.number(row.get("low")), loose.number(row.get("high"))
    a, b, metric = loose.words(row.get("a"), 120), loose.words(row.get("b"), 120), loose.words(row.get("metric"), 60)
    return Difference(a, b, metric, value, low, high, loose.integer(row.get("n")), loose.seeds(row.get("seeds")))


def _example(row: dict[str, Any]) -> Example:
    return Example(
        loose.words(row.get("text")),
        loose.words(row.get("gold"), 300),
        loose.words(row.get("predicted"), 300),
        loose.number(row.get("score")),
    )


def _confusion(value: Any) -> Confusion | None:
    labels = [loose.words(label, 60) for label in loose.listed(loose.mapping(value).get("labels"))]
    counts = [[loose.integer(n) or 0 for n in loose.listed(row)] for row in loose.listed(loose.mapping(value).get("counts"))]
    square = 1 < len(labels) <= 2000 and len(counts) == len(labels) and all(len(row) == len(labels) for row in counts)
    return Confusion(labels, counts) if square else None


def _model(facts: Facts, folder: Path, summary: dict[str, Any]) -> Model | None:
    settings = _read(facts, folder / "config.json")
    if not settings:
        return None
    manifest = loose.mapping(_read(facts, folder / "manifest.json").get("files"))
    about = {str(name): loose.mapping(entry) for name, entry in list(manifest.items())[: loose.MAX_ROWS]}
    digests = [
        (loose.words(name, 200), loose.number(entry.get("bytes")) or 0.0, loose.words(entry.get("sha256"), 64))
        for name, entry in about.items()
    ]
    figures = [("opens as", loose.words(settings.get("architectures"), 200)), ("type", loose.words(settings.get("model_type"), 60))]
    figures += _known(summary, (("parameters", "parameters"),), count)
    sizes = (("layers", "num_hidden_layers"), ("width", "hidden_size"), ("heads", "num_attention_heads"), ("vocabulary", "vocab_size"))
    gpt2 = (("layers", "n_layer"), ("width", "n_embd"), ("heads", "n_head"), ("longest input, tokens", "n_positions"))
    figures += _known(settings, (*sizes, *gpt2, ("longest input, tokens", "max_position_embeddings")), count)
    labels = loose.mapping(settings.get("id2label"))
    figures += [("labels", loose.words(list(labels.values()), 200))] if labels else []
    return Model(folder.relative_to(facts.run).as_posix(), [(name, text) for name, text in figures if text], digests)


def _known(found: Mapping[str, Any], names: tuple[tuple[str, str], ...], shown: Callable[[float], str]) -> Pairs:
    return [(label, shown(value)) for label, key in names if (value := loose.number(found.get(key))) is not None]
