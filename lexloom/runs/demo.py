"""The demo: everything lexloom does, on the documentation inside the user's own Python. It needs no data and no network.

**The question it asks.** Given a docstring of the standard library: which part of the library is it from? It is what a reader of
documentation does all the time, the labels are true by construction, and hundreds of examples exist in every Python. To keep it honest:

- The name that would give the label away, that of the docstring's own module, is blanked wherever it stands, dotted names are cut to
  their last part, and what is not prose (examples, signatures, code) is gone.
- The split is by module: no module has docstrings in two of the files, so that a model cannot know a module by its turns of phrase.
  Texts that are equal or nearly equal to one of another split are left out.
- Modules of the validation and test files are left out of the text that is pre-trained on.

It is still a small and narrow set of texts, on which counting words may well beat a network of any kind. The demo prints what it measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lexloom import files, keys
from lexloom.console import Console, duration, json_line, size
from lexloom.errors import DataError
from lexloom.runs.documentation import Library, Module, read_library

# Part of the library -> the first names of its modules, over all supported versions of Python.
PARTS = {
    "networking": "cgi cgitb ftplib http ipaddress nntplib socket socketserver ssl telnetlib urllib webbrowser wsgiref xmlrpc",
    "mail": "email imaplib mailbox mailcap mimetypes poplib quopri smtpd smtplib",
    "concurrency": "_threading_local asynchat asyncio asyncore concurrent contextvars multiprocessing queue sched selectors signal "
    "subprocess threading",
    "files": "_compression _pyio bz2 compression dbm filecmp fileinput fnmatch genericpath glob gzip io linecache lzma ntpath os pathlib "
    "posixpath shelve shutil stat tarfile tempfile zipfile",
    "numbers and time": "_pydatetime _pydecimal _pylong _strptime calendar colorsys datetime decimal fractions numbers random statistics "
    "zoneinfo",
    "text and formats": "_markupbase argparse base64 codecs configparser csv difflib getopt gettext html json locale optparse plistlib "
    "pprint re reprlib sre_compile sre_parse string stringprep textwrap tokenize tomllib xml",
    "testing and debugging": "bdb cProfile cmd code codeop doctest faulthandler logging pdb profile pstats pydoc timeit trace traceback "
    "tracemalloc unittest warnings",
    "language and imports": "_collections_abc abc annotationlib ast bisect collections contextlib copy ctypes dataclasses dis enum "
    "functools graphlib heapq importlib inspect modulefinder operator pickle pickletools pkgutil pyclbr runpy symtable types typing "
    "weakref zipimport",
}
PART_OF = {name: part for part, names in PARTS.items() for name in names.split()}
BLANK = "___"
SHARES = {"test": 0.15, "validation": 0.1}
MIN_WORDS, MAX_CHARACTERS, MAX_ROWS, MIN_ROWS = 5, 1_000, 500, 20  # the latter two for each part
NEAR = 0.8  # share of words in common from which two texts count as nearly equal

RECIPE = """\
# Models of the documentation inside Python {python}; made by `lexloom demo`, and a recipe like any other.
name: demo
seed: {seed}
prepare:
  sources: [texts/]
  language: en
  columns: {{text: text, id: id, title: title}}
  split: {{validation: 0.04}}
tokenizer: {{kind: wordpiece, vocab_size: 6000, lowercase: true}}
pretrain:
  # A small network on little text. What got it off the ground in minutes: weights that do not start too small for its width, heads
  # that start at the neighbours of each word, no dropout, many small steps, and more masked words a text than the customary 15 %
  # (Wettig et al. 2022).
  model:
    kind: bert
    preset: bert-tiny
    initializer_range: 0.08
    initialization: mimetic
    hidden_dropout_prob: 0.0
    attention_probs_dropout_prob: 0.0
    classifier_dropout: 0.1
  objective:
    masked-lm: {{rate: 0.3}}
    next-sentence: {{weight: 0.3}}
  train:
    tokens: 4M
    batch_tokens: 1024
    length: 64
    learning_rate: 2e-3
    schedule: wsd
    validation_tokens: 20k
    threads: 1  # a network this small gains little from more, and loses a lot to them where another program is busy
  fills:
{fills}
finetune:
  part:
    task: text-classification
    data:
      train: docstrings/train.jsonl
      validation: docstrings/validation.jsonl
      test: docstrings/test.jsonl
    baselines: [majority, tfidf, from-scratch]
    train: {{epochs: 5, learning_rate: 5e-4, seeds: 3, threads: 1}}
"""
FILLS = (
    "Return the [MASK] of the file.",
    "Raised when the connection is [MASK] by the server.",
    "If the argument is [MASK], a default value is used.",
    "Wait until the thread [MASK].",
)
ASKED = "Send a message to the server and wait for its reply."


@dataclass(frozen=True)
class Row:
    """A labelled docstring."""

    text: str
    label: str
    module: str


def demo(out: Path | None = None, *, console: Console, settings: Sequence[str] = (), seed: int = 1) -> Path:
    """Writes the sources, runs the recipe, and prints what was measured.

    Args:
        out: RUN; `runs/demo` where None.
        settings: `a.b=value` texts over the demo's recipe, as `--set` takes them.

    Returns:
        RUN.

    Raises:
        DataError: this Python has no source of its library.
        Interrupted: a signal came during training; the same call goes on.
    """
    from lexloom.runs import recipe as recipes
    from lexloom.runs.run import Run

    out = Path("runs/demo") if out is None else out
    sources = out / "sources"
    found = write_demo_sources(sources, seed)
    console.say(_described(found))
    Run(recipes.read(sources / "recipe.yaml", overrides=settings), out, console).execute()
    tell(out, console)
    return out


def write_demo_sources(folder: Path, seed: int = 1, *, library: Library | None = None) -> dict[str, Any]:
    """Makes the folder of sources: `texts/*.jsonl`, `docstrings/{train,validation,test}.jsonl`, `recipe.yaml`.

    The same Python and seed give the same files; they are made anew each time, whole or not at all.

    Args:
        library: what to make them of; the running Python's own where None.

    Returns:
        what was made: documents and bytes of the texts, rows by label of each split, files that could not be read.

    Raises:
        DataError: this Python has no source of its library, or too little of it.
    """
    library = library or read_library()
    splits = split_rows(labelled_rows(library.modules), seed)
    held_out = {row.module for name in SHARES for row in splits[name]}
    texts = dict(_texts(library, held_out))
    if thin := [
        part for part in PARTS if _counts(splits["train"])[part] < MIN_ROWS or not all(_counts(rows)[part] for rows in splits.values())
    ]:
        raise DataError(
            "this Python has too little documentation", got=f"few docstrings about {', '.join(thin)}", hint="take a full Python"
        )
    with files.new_folder(folder, kind="demo-sources", seed=seed) as new:
        for name, documents in texts.items():
            files.write_text(new / "texts" / f"{name}.jsonl", _lines(documents))
        for name, rows in splits.items():
            files.write_text(
                new / "docstrings" / f"{name}.jsonl", _lines({"text": row.text, "label": row.label, "module": row.module} for row in rows)
            )
        files.write_text(new / "recipe.yaml", recipe_text(seed))
    return {
        "texts": {
            name: {"documents": len(documents), "bytes": sum(len(d["text"].encode()) for d in documents)}
            for name, documents in texts.items()
        },
        "docstrings": {name: dict(sorted(_counts(rows).items())) for name, rows in splits.items()},
        "unreadable_files": library.unreadable,
    }


def recipe_text(seed: int) -> str:
    """The demo's recipe, relative to the folder of sources."""
    import platform

    return RECIPE.format(python=platform.python_version(), seed=seed, fills="\n".join(f'    - "{text}"' for text in FILLS))


def _texts(library: Library, held_out: Iterable[str]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """File name -> documents: a module's docstrings in their order are one document, and so is a topic."""
    left_out = set(held_out)
    modules = [module for module in library.modules if module.name not in left_out]
    yield "library", [_document(module.path, module.name, "\n\n".join(module.docstrings)) for module in modules]
    if library.topics:
        yield "topics", [_document(f"topics/{name}", name, text) for name, text in library.topics.items()]


def _document(name: str, title: str, text: str) -> dict[str, str]:
    return {"id": name, "title": title, "text": text, "source": name}


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json_line(dict(row)) + "\n" for row in rows)


def labelled_rows(modules: Iterable[Module]) -> list[Row]:
    """The docstrings of the labelled parts that are long enough to tell, names blanked; equal ones once, or never if parts share them."""
    found: dict[str, list[Row]] = {}
    for module in modules:
        if (part := PART_OF.get(module.top)) is None:
            continue
        for docstring in module.docstrings:
            text = blanked(docstring, module.top)
            if len(re.findall(r"[A-Za-z]+", text)) >= MIN_WORDS:
                found.setdefault(" ".join(_words(text)), []).append(Row(text, part, module.name))
    return [rows[0] for rows in found.values() if len({row.label for row in rows}) == 1]


def blanked(text: str, name: str) -> str:
    """`text` as one line of bounded length, dotted names cut to their last part, and `name` blanked."""
    text = " ".join(text.split())
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS].rsplit(" ", 1)[0]
    text = re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_]\w)", "", text)
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(name.strip('_'))}(?![A-Za-z0-9])", BLANK, text, flags=re.IGNORECASE)


def split_rows(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """train, validation and test, in this order: whole modules of each part, in the given shares where modules allow it."""
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for part in PARTS:
        mine = _thinned([row for row in rows if row.label == part], seed)
        place = _places(Counter(row.module for row in mine), seed)
        for row in mine:
            splits[place[row.module]].append(row)
    for name in ("validation", "test"):
        others = [row for other in splits if other != name for row in splits[other]]
        splits[name] = _without_near(splits[name], others)
    return {name: [found[i] for i in keys.shuffled(keys.key(seed, "demo", name), len(found))] for name, found in splits.items()}


def _thinned(rows: Sequence[Row], seed: int) -> list[Row]:
    """At most `MAX_ROWS`, drawn by key, so that the parts are of like size."""
    order = keys.shuffled(keys.key(seed, "demo", "thin"), len(rows))
    return [rows[i] for i in order[:MAX_ROWS]]


def _places(sizes: Mapping[str, int], seed: int) -> dict[str, str]:
    """Module -> split. Modules come in a random order; one goes where it still fits, the largest always to training."""
    total = sum(sizes.values())
    room = {name: share * total for name, share in SHARES.items()}
    found = {}
    for module in sorted(sizes, key=lambda name: int(keys.key(seed, "demo", "split", name))):
        fits = [name for name in room if sizes[module] <= room[name]]
        found[module] = fits[0] if fits else "train"
        if fits:
            room[fits[0]] -= sizes[module]
    return found


def _without_near(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """The rows that share less than `NEAR` of their words with any of the others (Jaccard's index over sets of words)."""
    by_word: dict[str, list[int]] = {}
    sets = [set(_words(row.text)) for row in others]
    for i, words in enumerate(sets):
        for word in words:
            by_word.setdefault(word, []).append(i)
    kept = []
    for row in rows:
        words = set(_words(row.text))
        # Of two near texts at least one of any set of more than (1 - NEAR) of the words is in both: the rarest are looked up.
        rare = sorted(words, key=lambda word: (len(by_word.get(word, ())), word))[: int((1 - NEAR) * len(words)) + 1]
        near = {i for word in rare for i in by_word.get(word, ())}
        if not any(len(words & sets[i]) >= NEAR * len(words | sets[i]) for i in near):
            kept.append(row)
    return kept


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _counts(rows: Iterable[Row]) -> Counter[str]:
    return Counter(row.label for row in rows)


def _described(found: Mapping[str, Any]) -> str:
    texts, rows = found["texts"].values(), {name: sum(counts.values()) for name, counts in found["docstrings"].items()}
    return (
        f"from this Python's own documentation: {sum(t['documents'] for t in texts):,} documents, {size(sum(t['bytes'] for t in texts))}; "
        f"docstrings with the part of the library they belong to: {', '.join(f'{n:,} for {name}' for name, n in rows.items())}"
    )


def tell(run: Path, console: Console) -> None:
    """Prints what a finished demo measured, some masks filled, an answer, and what to do next."""
    pretrained = files.read_json(run / "pretrain" / "summary.json", kind="summary")
    tuned = files.read_json(run / "finetune" / "part" / "summary.json", kind="summary")
    columns = {"model": "which part of the library?", "metric": "metric", "value": "value", "low": "95 % from", "high": "to", "n": "n"}
    console.table(columns, [score for score in tuned["scores"] if score["metric"] == tuned["scores"][0]["metric"]])
    console.table({"text": "masked", "answers": "filled by the pre-trained model"}, list(_filled(pretrained)))
    console.table({"text": "asked", "answer": "answer of the fine-tuned model"}, [_answered(run)])
    if not console.json:
        console.result(None, "\n".join(_closing(run, pretrained, tuned)))


def _filled(pretrained: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for fill in pretrained["fills"]:
        answers = ", ".join(f"{answer['token']} {answer['score']:.2f}" for answer in fill["answers"][:4])
        yield {"text": fill["text"], "answers": answers}


def _answered(run: Path) -> dict[str, str]:
    from lexloom.hub.bundle import load

    answer = load(run / "finetune" / "part" / "bundle").predict([ASKED])[0]
    best = answer[0] if isinstance(answer, list) else answer
    return {"text": ASKED, "answer": f"{best['label']} {best['score']:.2f}"}


def _closing(run: Path, pretrained: Mapping[str, Any], tuned: Mapping[str, Any]) -> list[str]:
    took = f"{duration(pretrained['seconds'])} to pre-train, {duration(tuned['seconds'])} to fine-tune and compare"
    return [
        tuned["verdict"],
        f"It took {took}.",
        "",
        f"The report, to open in a browser:  {run / 'report.html'}",
        f'Ask the classifier:                lexloom predict {run / "finetune" / "part" / "bundle"} "{ASKED}"',
        f'Fill a mask:                       lexloom predict {run / "pretrain" / "bundle"} "{FILLS[0]}"',
        f"Your own text:                     copy {run / 'sources' / 'recipe.yaml'}, point sources: at your files, then lexloom run",
    ]
