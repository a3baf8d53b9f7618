"""The report of a run: `report.html`, one plain file without script or outside request, and the same facts as text.

It reads only what the stages left, and each section is there only if its stage is. Besides `recipe.yaml` and `environment.json`
(a flat mapping):

    corpus/corpus.json      {sources: [{path, documents, bytes, encoding, sha256}], counts: {read, kept, characters, …}, warnings: [text],
                             dropped: {reason: n}, duplicates: {exact, near}, changed: {step: n}, bad_rows: {reasons: {reason: n}},
                             splits: {train: {documents, characters, …}, validation: {…}}}
    tokenizer/report.json   {vocab_size, kind, characters_per_token, unk_rate, samples: [{text, tokens: [token]}]}
    shards/shards.json      {splits: {train: {tokens, sentences, documents, files: {name: {bytes}}}, validation: {…}}}
    pretrain/               metrics.jsonl, bundle/, summary.json:
                            {model, parameters, steps, tokens, seconds, loss, validation: {loss, parts: {name: loss}},
                             compute: {device, dtype, threads, compile, reasons: {name: reason}}, settings: {…},
                             fills: [{text, answers: [{token, score}]}], answers: what it answers as it is, tasks: [task to fine-tune for]}
                            (of several phases: pretrain-1/, pretrain-2/, …)
    vectors/NAME/           summary.json: {path, words, dim, text_words, words_per_second, seconds, losses: [loss], settings: {…}}
    word-sets/              summary.json: {scores: [{vectors, set, section, metric, value, low, high, covered, n}],
                             neighbours: [{vectors, word, found: [[word, cosine]]}],
                             maps: [{vectors, words: [word], points: [[x, y]], share}]}
    finetune/NAME/          metrics.jsonl or */seed-N/metrics.jsonl, bundle/, summary.json:
                            {task, seeds, rows: {train, validation, test}, seconds, verdict, encoding: [remark], compute, settings,
                             scores: [{model, metric, value, low, high, n, seeds, note}],
                             differences: [{a, b, metric, value, low, high, n, seeds}],
                             confusion: {labels: [name], counts: [[n]]}, examples: [{text, gold, predicted, score}]}

`low` and `high` are the ends of the 95 % interval; a difference is a − b on the same rows; `counts` has a row a label and a column an
answer. The model called "fine-tuned" stands out. The folder of a single stage is a run of that stage alone.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lexloom import files, svg
from lexloom.console import count, neutral, size
from lexloom.runs.report.facts import Confusion, Difference, Facts, Score, Task, WordMap, WordScore
from lexloom.runs.report.gather import gather
from lexloom.runs.report.loose import Pairs
from lexloom.tasks.naming import written
from lexloom.train import log

PAGE, MAX_LABELS, MAX_LINES, SHOWN_EXAMPLES = "report.html", 20, 40, 6
_FOLDER = Path(__file__).parent / "page"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z“\"‘(])|(?<=[。！？])")


def write_report(run: Path | str) -> Path:
    """Writes `RUN/report.html` from what the stages left, and returns its path.

    Raises:
        LexloomError: there is no such run.
    """
    facts = gather(run)
    path = facts.run / PAGE
    files.write_text(path, html(facts))
    return path


def html(facts: Facts) -> str:
    """The page."""
    style, template = _page()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = template.render(
        facts=facts,
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        steps=next_steps(facts),
        sections=_sections(facts),
        maps=[(one, _map(one)) for one in facts.vectors.maps] if facts.vectors is not None else [],
        curves={folder: _curve(folder) for folder in _trained(facts)},
    )
    return str(page).lstrip()


def text_report(run: Path | str) -> str:
    """The same facts for a terminal, in at most 40 lines.

    Raises:
        LexloomError: there is no such run.
    """
    facts = gather(run)
    lines = [neutral(line).replace("\n", " ") for line in _text(facts)]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"… the rest is in {neutral((facts.run / PAGE).as_posix())}"]
    return "\n".join(lines).rstrip() + "\n"


def next_steps(facts: Facts) -> Pairs:
    """(why, command): what can be done with what this run made."""
    return list(_next_steps(facts))


def first_sentence(text: str) -> tuple[str, str]:
    """A verdict cut into its first sentence and the rest."""
    parts = _SENTENCE_END.split(text.strip(), maxsplit=1)
    return parts[0], parts[1].strip() if len(parts) > 1 else ""


def decimals(values: Sequence[float | None]) -> int:
    """How many decimals a column of figures needs."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return 3 if largest < 2 else 2 if largest < 1000 else 0


@cache
def _page() -> tuple[str, Any]:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"count": count, "size": size, "decimals": decimals, "written": written}
    environment.filters |= {"by_metric": _by_metric, "first_sentence": first_sentence}
    environment.globals |= {
        "mark": _mark,
        "scale": _scale,
        "shade": _shade,
        "at_a_glance": _at_a_glance,
        "recall": _recall,
        "fixed": _fixed,
    }
    environment.globals |= {
        "MAX_LABELS": MAX_LABELS,
        "SHOWN_EXAMPLES": SHOWN_EXAMPLES,
        "pick": _pick,
        "counts": _counts,
        "columns": _columns,
    }
    style = (_FOLDER / "report.css").read_text(encoding="utf-8") + svg.STYLE + "\n"
    return style, environment.get_template("report.html.j2")


def _shown(value: Any) -> Any:
    """Every text on the page passes here: what steers a reader's eye in data becomes visible; escaping comes after it."""
    return neutral(value) if isinstance(value, str) and not isinstance(value, Markup) else "" if value is None else value


def _sections(facts: Facts) -> Pairs:
    """(anchor, name) of what is there, in the order of the page."""
    known = [
        ("scores", "Scores", len(facts.tasks) > 1),
        *((f"task-{i}", task.name, True) for i, task in enumerate(facts.tasks, 1)),
        ("pretraining", "Pre-training", facts.phases),
        ("vectors", "Word vectors", facts.vectors),
        ("tokenizer", "Tokenizer", facts.tokenizer),
        ("data", "Data", facts.corpus),
        ("models", "Model files", facts.models),
        ("provenance", "Provenance", facts.environment or facts.recipe),
        ("next", "Next", next_steps(facts)),
    ]
    return [(anchor, name) for anchor, name, there in known if there]


def _fixed(value: float, places: int, sign: bool = False) -> str:
    """A figure with a fixed number of decimals and, for differences, its sign."""
    return f"{value:+,.{places}f}".replace("-", "−") if sign else f"{value:,.{places}f}".replace("-", "−")


def _trained(facts: Facts) -> Iterator[Path]:
    yield from (phase.folder for phase in facts.phases)
    yield from (task.folder for task in facts.tasks)


def _curve(folder: Path) -> Markup | None:
    """The loss of a stage, drawn twice: for wide and for narrow screens; one of them is shown."""
    series, told = _series(folder)
    if not any(one.points for one in series):
        return None
    about = {"title": "Loss while training", "x_label": "step", "y_label": "loss", "description": told, "alone": False}
    wide = svg.line_chart(series, width=880, height=380, **about)  # type: ignore[arg-type]
    narrow = svg.line_chart(series, width=358, height=300, **about)  # type: ignore[arg-type]
    return Markup(f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>')


def _map(found: WordMap) -> Markup:
    """A map of words, drawn twice as a curve is."""
    words = [neutral(word) for word in found.words]
    share = "" if found.share is None else f", which hold {found.share:.0%} of their differences"
    about: dict[str, Any] = {"title": f"Map of words, {found.vectors}", "alone": False}
    about["description"] = f"{len(words)} words in the two directions in which they differ most{share}"
    wide = svg.named_points(found.points, words, width=880, height=620, **about)
    narrow = svg.named_points(found.points, words, width=358, height=420, **about)
    return Markup(f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>')


def _series(folder: Path) -> tuple[list[svg.Series], str]:
    """What a stage's chart shows, and the same in words: its own log, or a line for each of its seeds."""
    if (folder / log.METRICS).is_file():
        found = log.curve(folder)
        return found.series(), found.words()
    seeds = sorted(path.parent for path in folder.glob(f"*/seed-*/{log.METRICS}"))
    own = [path for path in seeds if path.parent.name != "from-scratch"]
    curves = [(path.name, log.curve(path)) for path in own[:4]]
    series = [svg.Series(f"{name}, smoothed", found.smooth, "line", i) for i, (name, found) in enumerate(curves, 1)]
    return series, " ".join(f"{name}: {found.words()}" for name, found in curves)


def _counts(found: Sequence[tuple[str, int]]) -> Pairs:
    return [(label, count(n)) for label, n in found]


def _columns(splits: Sequence[tuple[str, dict[str, str]]]) -> list[str]:
    return list(dict.fromkeys(label for _, figures in splits for label in figures))


def _by_metric(found: Sequence[Score] | Sequence[Difference] | Sequence[WordScore]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for one in found:
        groups.setdefault(one.metric, []).append(one)
    return groups


def _scale(found: Sequence[Score] | Sequence[Difference] | Sequence[WordScore], *, zero: bool = False) -> tuple[float, float]:
    """The range that the marks of a table share."""
    ends = [end for one in found for end in (one.value, one.low, one.high) if end is not None] + ([0.0] if zero else [])
    if not ends:
        return 0.0, 1.0
    return min(ends), max(ends)


def _mark(one: Score | Difference | WordScore, scale: tuple[float, float], *, own: bool = False, zero: bool = False) -> Markup:
    if one.value is None:
        return Markup("")
    return Markup(svg.interval_mark(one.value, one.low, one.high, scale, own=own, zero=zero))


def _shade(n: int, row: Sequence[int]) -> int:
    """0 to 10: a cell's share of its row."""
    return round(10 * n / sum(row)) if sum(row) > 0 and n > 0 else 0


def _recall(confusion: Confusion, i: int) -> str:
    total = sum(confusion.counts[i])
    return f"{confusion.counts[i][i] / total:.3f}" if total > 0 else "–"


def _at_a_glance(tasks: Sequence[Task]) -> list[tuple[str, list[Score | None]]]:
    """(model, its first metric on each task), for the table over all tasks."""
    models = list(dict.fromkeys(score.model for task in tasks for score in task.scores))

    def found(task: Task, model: str) -> Score | None:
        first = task.scores[0].metric if task.scores else None
        return next((score for score in task.scores if score.model == model and score.metric == first), None)

    return [(model, [found(task, model) for task in tasks]) for model in models]


def _pick(task: Task) -> list[tuple[str, list[Any]]]:
    """Examples that went wrong, then some that went right."""
    wrong = [example for example in task.examples if not example.right][:SHOWN_EXAMPLES]
    right = [example for example in task.examples if example.right][:SHOWN_EXAMPLES]
    return [(name, found) for name, found in (("Answered wrongly", wrong), ("Answered rightly", right)) if found]


def _next_steps(facts: Facts) -> Iterator[tuple[str, str]]:
    run = shlex.quote(facts.run.as_posix())
    if facts.recipe and not facts.phases and not facts.tasks and facts.vectors is None:
        recipe = shlex.quote((facts.run / "recipe.yaml").as_posix())
        yield "Go on with the stages that are missing; finished ones are reused", f"lexloom run {recipe} --out {run}"
    for task in facts.tasks[:3]:
        bundle = shlex.quote((task.folder / "bundle").as_posix())
        for called, place in (("TF-IDF", "tfidf"), ("fastText", "fasttext")):
            if (simple := task.folder / "baselines" / place).is_dir():
                quoted = shlex.quote(simple.as_posix())
                yield f"Ask the {called} model for {task.name}", f"lexloom predict {quoted} --input rows.jsonl --output answers.jsonl"
        yield f"Ask the fine-tuned model for {task.name}", f"lexloom predict {bundle} --input rows.jsonl --output answers.jsonl"
        yield f"Score the model for {task.name} on rows of your own", f"lexloom evaluate {bundle} rows.jsonl"
    for name, file in facts.vectors.files[:3] if facts.vectors is not None else ():
        quoted = shlex.quote((facts.run / "vectors" / name / file).as_posix())
        yield f"Score the vectors of {name} on word pairs of your own", f"lexloom evaluate {quoted} pairs.tsv"
    for phase in facts.phases[-1:]:
        bundle = shlex.quote((phase.folder / "bundle").as_posix())
        if phase.answers == "text-generation":
            yield "Let the model go on with a text", f'lexloom predict {bundle} "It was" --set max_new_tokens=50'
        if phase.answers:
            yield "Measure it on texts that it has not seen", f"lexloom evaluate {bundle} texts.jsonl"
        if phase.tasks:
            options = f"--task {shlex.quote(phase.tasks[0])} --train train.jsonl --validation dev.jsonl --out runs/mine"
            yield "Fine-tune the pre-trained model on labels of your own", f"lexloom finetune {bundle} {options}"
    if facts.phases or facts.tasks:
        yield "Look at the curves in detail", f"tensorboard --logdir {run}"


def _text(facts: Facts) -> Iterator[str]:
    for name, verdict in facts.verdicts:
        yield f"{name}: {verdict}" if name else verdict
    yield ""
    yield f"run {facts.name} ({facts.run.as_posix()})"
    phases = (("pre-training", phase) for phase in facts.phases)
    for stage, found in (("corpus", facts.corpus), ("tokenizer", facts.tokenizer), *phases):
        if found is not None:
            yield f"{stage}: " + ", ".join(f"{label} {text}" for label, text in found.figures[:8])
    if facts.corpus is not None and facts.corpus.drops:
        yield "dropped: " + ", ".join(f"{reason} {count(n)}" for reason, n in facts.corpus.drops[:6])
    if facts.vectors is not None:
        yield ""
        yield from (
            f"vectors {name}: " + ", ".join(f"{label} {text}" for label, text in told.items()) for name, told in facts.vectors.figures
        )
        yield from (_word_score_line(one) for one in facts.vectors.scores)
    for task in facts.tasks:
        yield ""
        yield f"{task.name} ({task.kind}): " + ", ".join(f"{label} {text}" for label, text in task.figures)
        yield from _score_lines(task)
    yield ""
    yield from (f"{command}   # {why}" for why, command in next_steps(facts)[:4])


def _word_score_line(one: WordScore) -> str:
    interval = f" [{one.low:.3f}, {one.high:.3f}]" if one.low is not None and one.high is not None else ""
    value = "–" if one.value is None else f"{one.value:.3f}{interval}"
    return f"  {one.vectors}  {one.set}  {one.metric} {value}  covered {count(one.covered)} of {count(one.n)}"


def _score_lines(task: Task) -> Iterator[str]:
    wide = max((len(score.model) for score in task.scores), default=0)
    for metric, scores in _by_metric(task.scores).items():
        places = decimals([score.value for score in scores])
        for one in scores:
            interval = f"  [{one.low:.{places}f}, {one.high:.{places}f}]" if one.low is not None and one.high is not None else ""
            n = f"  n {count(one.n)}" if one.n is not None else ""
            yield f"  {one.model:<{wide}}  {written(metric)} {one.value:.{places}f}{interval}{n}"
    for one in task.differences:
        interval = f" [{one.low:+.3f}, {one.high:+.3f}]" if one.low is not None and one.high is not None else ""
        yield f"  {one.a} − {one.b}: {one.value:+.3f}{interval} {written(one.metric)}: {one.reading}"
