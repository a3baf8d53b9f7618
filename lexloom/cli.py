"""The command line: parse, call, print. Every verb is a function in `lexloom.runs.verbs`."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from lexloom.console import Console
from lexloom.errors import ConfigError, LexloomError

app = typer.Typer(
    name="lexloom",
    help="Weave language models from your own text: one recipe from raw text to a model in use, with nothing downloaded.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Settings = Annotated[list[str] | None, typer.Option("--set", help="One setting, a.b=value; may be given often.", metavar="A.B=VALUE")]
Extensions = Annotated[
    list[Path] | None, typer.Option("--extension", help="A Python file with components of your own; may be given often.", metavar="FILE")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors and results.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON, one object a line.")]
Devices = Annotated[str | None, typer.Option("--devices", help="Processes that pre-train together: all (one a GPU), or a number.")]
Out = Annotated[Path | None, typer.Option("--out", help="The run folder; runs/<recipe name> if not given.")]
Rechoose = Annotated[
    bool, typer.Option("--rechoose", help="On another machine: choose device, dtype, threads and compile anew for what is left.")
]
Seed = Annotated[int, typer.Option(help="Everything random is a function of it.")]
Stage = Annotated[str | None, typer.Option(help="pretrain, finetune/NAME, or a training below it.")]
TrainedSeed = Annotated[int | None, typer.Option("--seed", help="The seed of a task that was fine-tuned over several.")]


def _console(quiet: bool, verbose: bool, json: bool) -> Console:
    return Console(quiet=quiet, verbose=verbose, json=json)


def _several(devices: str | None, recipe: Path, settings: list[str] | None, out: Path | None) -> None:
    """Starts this very command in several processes, where that is asked for, and ends with their exit status."""
    if devices is None:
        return
    from lexloom.runs import verbs
    from lexloom.train.parallel import launched

    verbs.run(recipe, out=out, settings=settings or [], dry_run=True, console=Console(quiet=True))  # a mistake is told here, once
    arguments = sys.argv[1:]
    place = next(i for i, word in enumerate(arguments) if word.startswith("--devices"))
    status = launched(devices, arguments[:place] + arguments[place + (1 if "=" in arguments[place] else 2) :])
    if status is not None:
        raise typer.Exit(status)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    set_: Settings = None,
    out: Out = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which stages would run and why; write nothing.")] = False,
    rechoose: Rechoose = False,
    devices: Devices = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Run a recipe: all stages; finished ones are reused, an interrupted one resumes."""
    from lexloom.runs import verbs

    if not dry_run:
        _several(devices, recipe, set_, out)
    console = _console(quiet, verbose, json)
    found = verbs.run(recipe, out=out, settings=set_ or [], dry_run=dry_run, rechoose=rechoose, console=console)
    if isinstance(found, list):
        console.table({"stage": "stage", "what": "what happens", "folder": "folder"}, found)
    else:
        _show_run(console, found)


@app.command()
def demo(out: Out = None, quiet: Quiet = False, verbose: Verbose = False, json: Json = False) -> None:
    """Make models of the documentation inside your own Python: a few minutes, no data needed."""
    from lexloom.runs import verbs

    console = _console(quiet, verbose, json)
    found = verbs.demo(out, console=console)
    if json:
        console.result({"run": str(found)})


@app.command()
def prepare(
    sources: Annotated[list[Path], typer.Argument(help="Files or folders: txt, jsonl, csv, tsv, Parquet; gz and zst too.")],
    out: Annotated[Path, typer.Option("--out", help="The corpus folder to write.")],
    set_: Settings = None,
    seed: Seed = 1,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Clean, de-duplicate and split texts into a corpus. Settings: --set language=zh, --set columns.text=body, …"""
    from lexloom.runs import verbs

    console = _console(quiet, verbose, json)
    corpus = verbs.prepare(sources, out, seed=seed, console=console, **_block(set_))
    console.result(corpus.report, str(corpus))


@app.command()
def tokenizer(
    corpus: Annotated[Path, typer.Argument(help="A corpus folder.")],
    out: Annotated[Path, typer.Option("--out", help="The tokenizer folder to write.")],
    kind: Annotated[str, typer.Option(help="wordpiece, bpe, byte-bpe, unigram, word or char.")] = "wordpiece",
    vocab_size: Annotated[str, typer.Option(help="How many tokens.")] = "16000",
    set_: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Train a tokenizer on a corpus."""
    from lexloom.files import read_json
    from lexloom.runs import verbs

    console = _console(quiet, verbose, json)
    settings = _block([f"kind={kind}", f"vocab_size={vocab_size}", *(set_ or [])])
    verbs.tokenizer(corpus, out, **settings)
    report = read_json(out / "report.json")
    pieces = f"{report['characters_per_token']:.2f} characters a token, {100 * report['unk_rate']:.3f} % unknown"
    console.result(report, f"{report['vocab_size']:,} tokens, {pieces}, in {out}")


@app.command()
def vectors(
    source: Annotated[Path, typer.Argument(help="A corpus folder, shards, or a file or folder of texts.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .bin, .txt, .vec, .glove, .tsv, .safetensors.")],
    kind: Annotated[str, typer.Option(help="skipgram, cbow, fasttext or glove.")] = "skipgram",
    dim: Annotated[str, typer.Option(help="Numbers a word.")] = "100",
    window: Annotated[int | None, typer.Option(help="Words on each side, at most; 5, or 10 of glove.")] = None,
    negatives: Annotated[int | None, typer.Option(help="Words that are told apart from each word; 5.")] = None,
    min_count: Annotated[str, typer.Option("--min-count", help="Rarer words are passed over.")] = "5",
    epochs: Annotated[int | None, typer.Option(help="How often the text is read; 5, or 25 of glove.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; all cores if not given.")] = None,
    deterministic: Annotated[bool, typer.Option("--deterministic", help="The same vectors for any workers and kills.")] = False,
    start: Annotated[Path | None, typer.Option("--from", help="FILE.training of other vectors, to go on from.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Of shards; the folder beside them if not given.")] = None,
    seed: Seed = 1,
    set_: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Train word vectors; an interrupted training goes on. --set words=spaces, --set sample=1e-4, --set loss=hierarchical-softmax, …;
    of fasttext also --set model=cbow, min_n=3, max_n=6, buckets=2_000_000.
    """
    from lexloom.runs import verbs

    console = _console(quiet, verbose, json)
    named = [f"kind={kind}", f"dim={dim}", f"min_count={min_count}"]
    given = {"window": window, "negatives": negatives, "epochs": epochs, "deterministic": deterministic or None}
    settings = {**_block(named), **{name: value for name, value in given.items() if value is not None}, **_block(set_)}
    options: dict[str, Any] = {"seed": seed, "workers": workers, "start": start, "tokenizer": tokenizer, "console": console}
    found = verbs.vectors(source, out, **options, **settings)
    console.result(found.plain(), found.text())


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    set_: Settings = None,
    out: Out = None,
    rechoose: Rechoose = False,
    devices: Devices = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Run a recipe up to the end of pre-training; the model is RUN/bundle."""
    from lexloom.runs import verbs

    _several(devices, recipe, set_, out)
    console = _console(quiet, verbose, json)
    _show_run(console, verbs.pretrain(recipe, out=out, settings=set_ or [], rechoose=rechoose, console=console))


@app.command()
def finetune(
    bundle: Annotated[Path, typer.Argument(help="The bundle to start from.")],
    train: Annotated[Path, typer.Option(help="Labelled rows to learn from.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder; the model is RUN/bundle.")],
    task: Annotated[str, typer.Option(help="The task; `lexloom list tasks` shows them.")] = "text-classification",
    validation: Annotated[Path | None, typer.Option(help="Rows to choose by; a tenth of the training rows if not given.")] = None,
    test: Annotated[Path | None, typer.Option(help="Rows to score on.")] = None,
    set_: Settings = None,
    seed: Seed = 1,
    rechoose: Rechoose = False,
    extension: Extensions = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Fine-tune a bundle for a task: --set train.epochs=3, --set settings.long_texts=windows, …"""
    from lexloom.runs import verbs

    console = _console(quiet, verbose, json)
    splits: dict[str, Any] = {"train": train, "validation": validation, "test": test}
    options: dict[str, Any] = {"settings": set_ or [], "seed": seed, "rechoose": rechoose, "extensions": extension or []}
    found = verbs.finetune(bundle, task=task, out=out, console=console, **options, **splits)
    _show_run(console, found)


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a file of word vectors.")],
    data: Annotated[Path, typer.Argument(help="Labelled rows; of a language model also texts, or pairs of sentences; sets of words.")],
    against: Annotated[Path | None, typer.Option(help="Another bundle: adds the paired interval of the difference.")] = None,
    by: Annotated[str | None, typer.Option(help="A column: scores for each of its values too.")] = None,
    measure: Annotated[str | None, typer.Option(help="Of language models; `lexloom list measures` shows them.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, int8 (decoders) or auto; as the bundle says if not given.")] = None,
    set_: Settings = None,
    extension: Extensions = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Score a bundle or word vectors: n, metrics with 95 % intervals, baselines; of language models perplexity, minimal pairs, cloze."""
    from lexloom.runs import verbs
    from lexloom.runs.evaluate import show

    console = _console(quiet, verbose, json)
    if bundle.is_file():
        if against or by or measure or dtype:
            raise ConfigError("--against, --by, --measure and --dtype are for bundles", where=str(bundle))
        names = ("set", "section", "metric", "value", "low", "high", "covered", "n")
        console.table(names, [one.plain() for one in verbs.evaluate_vectors(bundle, data, **_block(set_))])
        return
    _extend(extension)
    options: dict[str, Any] = {"against": against, "by": by, "measure": measure, "dtype": dtype, **_block(set_)}
    show(verbs.evaluate(bundle, data, console=console, **options), console)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A model folder of another tool, the file of weights in one, or a .bin of fastText.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write; of fastText a file: .safetensors, .vec, …")],
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Make a bundle of pickled weights or other tensor names; a pickle is opened in a process that can do nothing else."""
    from lexloom.runs import verbs

    found = verbs.import_model(source, out)
    _console(quiet, verbose, json).result(found.plain(), str(found))


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to answer.")] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="A file of rows: jsonl, csv, tsv, Parquet, txt.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Where the rows with their answers go.")] = None,
    pair: Annotated[list[str] | None, typer.Option(help="The second text of each, for tasks on pairs.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, int8 (decoders) or auto; as the bundle says if not given.")] = None,
    set_: Settings = None,
    columns: Annotated[
        list[str] | None, typer.Option(help="Of the file: text=NAME, pair=NAME; found if not given.", metavar="A=NAME")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row of the file.")] = False,
    max_bad_rows: Annotated[int | None, typer.Option(min=0, help="More bad rows than these are an error.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin the file anew, whatever an interrupted run had done.")] = False,
    extension: Extensions = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Answer texts, or every row of a file; an interrupted file goes on where it stopped. --set top_k=3, --set max_new_tokens=50, …"""
    from lexloom.runs import verbs
    from lexloom.runs.predict.told import told

    console = _console(quiet, verbose, json)
    _extend(extension)
    if input_ is not None:
        if output is None or texts:
            raise ConfigError("--input goes with --output, and without texts", hint=f"add --output {input_.stem}-answers.jsonl")
        named = _block([f"columns.{one}" for one in columns or []]).get("columns")
        options: dict[str, Any] = {**_block(set_), "columns": named, "strict": strict, "max_bad_rows": max_bad_rows}
        options |= {"restart": restart, "dtype": dtype}
        done = verbs.predict_file(bundle, input_, output, console=console, **options)
        aside = f"; {done.bad:,} bad rows are in {done.aside}" if done.bad else ""
        console.result({"output": str(output), "rows": done.rows, "bad": done.bad}, f"{done.rows:,} answers in {output}{aside}")
        return
    if not texts:
        raise ConfigError("there is nothing to answer", hint="give a text in quotes, or --input FILE --output FILE")
    if columns or strict or restart or max_bad_rows is not None:
        raise ConfigError("--columns, --strict, --max-bad-rows and --restart are for files", hint="they go with --input and --output")
    pairs = {"pairs": pair} if pair else {}
    options = {**_block(set_), **pairs, "dtype": dtype}
    for text, answer in zip(texts, verbs.predict(bundle, list(texts), **options), strict=True):
        console.result({"text": text, "answer": answer}, told(text, answer))


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="A recipe, or a file or folder of data.")],
    set_: Settings = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Look before anything runs: faults of the data, overlap of train and test, memory, disk, steps."""
    from lexloom.runs import verbs
    from lexloom.runs.check import show

    console = _console(quiet, verbose, json)
    found = verbs.check(path, settings=set_ or [], console=console)
    show(found, console)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


@app.command()
def replay(
    run_: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    step: Annotated[int, typer.Option(help="The step, from 1, as it is logged.")],
    stage: Stage = None,
    seed: TrainedSeed = None,
    rows: Annotated[int, typer.Option(min=0, help="How many rows of the step to show.")] = 5,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Compute a past step again: its rows, masks, the loss of each token, and the logged loss to the bit."""
    from lexloom.runs import verbs
    from lexloom.runs.replay import text

    console = _console(quiet, verbose, json)
    found = verbs.replay(run_, step=step, stage=stage, seed=seed, rows=rows, console=console)
    _agreed(console, found, text(found))


@app.command()
def verify(
    run_: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    spots: Annotated[int, typer.Option(help="How many intervals between checkpoints to train again.")] = 10,
    stage: Stage = None,
    seed: TrainedSeed = None,
    draw: Annotated[int, typer.Option(help="Another number draws other intervals.")] = 0,
    whole: Annotated[bool, typer.Option("--whole", help="Train every step again; takes as long as training did.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Train parts of a run again and compare, to the bit: do these weights come from this text?"""
    from lexloom.runs import verbs
    from lexloom.runs.verify import text

    console = _console(quiet, verbose, json)
    found = verbs.verify(run_, spots=spots, stage=stage, seed=seed, draw=draw, whole=whole, console=console)
    _agreed(console, found, text(found))


@app.command()
def report(
    run_: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    text: Annotated[bool, typer.Option("--text", help="Print the facts instead.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Write RUN/report.html: data, curves, scores, examples; one plain file that opens from disk."""
    from lexloom.runs import verbs
    from lexloom.runs.report import text_report

    console = _console(quiet, verbose, json)
    path = verbs.report(run_)
    console.result({"report": str(path)}, text_report(run_) if text else str(path))


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="models, objectives, tasks, measures or presets.")] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Show what recipes can name, one line each."""
    from lexloom.runs import verbs

    _console(quiet, verbose, json).table({"kind": "kind", "name": "name", "what": "what it is"}, verbs.components(kind))


def _extend(files: list[Path] | None) -> None:
    if files:
        from lexloom.runs import verbs

        verbs.extend(*files)


def _agreed(console: Console, found: dict[str, Any], text: str) -> None:
    """Shows what a repetition found; the exit status says whether it agrees."""
    console.result(found, text)
    if not found["agrees"]:
        raise typer.Exit(1)


def _block(settings: list[str] | None) -> dict[str, Any]:
    """`a.b=value` texts as nested settings."""
    from lexloom import config

    document = config.Document("--set", {})
    config.override(document, settings or [])
    return dict(document.data)


def _show_run(console: Console, folder: Path) -> None:
    from lexloom.runs.report import text_report

    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes tells
    console.result({"run": str(folder)}, text_report(folder))


def main() -> None:
    """Runs the command line; a user's mistake is a message and an exit code, never a traceback.

    Exit 0 done, 1 failure, 2 usage or configuration, 3 bad data, 130 and 143 interrupted with the checkpoint saved.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # `tokenizers` brings a network client along; here it stays off
    # OpenMP's threads wait for each other awake, and for milliseconds: on a core that something else wants, too, each operation then costs
    # a turn of the scheduler. So they soon go to sleep. It is read when PyTorch is loaded, which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    console = Console(json="--json" in sys.argv)
    try:
        app(standalone_mode=True, prog_name="lexloom")
    except LexloomError as error:
        console.error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.error("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        console.error(LexloomError(f"{error.strerror or error}", where=str(error.filename) if error.filename else None))
        sys.exit(1)
    except Exception as error:
        if "--verbose" in sys.argv or "-v" in sys.argv:
            traceback.print_exc()
        console.error(LexloomError(f"this is a fault of lexloom: {type(error).__name__}: {error}", hint="run it again with -v for where"))
        sys.exit(1)
