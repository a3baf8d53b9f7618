"""Minimal pairs of grammar: language models beside a 5-gram model trained on the same text.

    python benchmarks/blimp_beside_5gram.py --corpus RUN/corpus --pairs blimp.jsonl [--bundle RUN/pretrain/bundle]… [--order 5] [--json]

The 5-gram has modified Kneser–Ney smoothing over words; it reads the corpus that the run was trained on, sentence by sentence. Both choose
of each pair the sentence that is likelier as a whole, ties counted half; the table by phenomenon and the differences have 95 % intervals
over the same pairs. Without --bundle it tells of the 5-gram alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from _ngram import NGram

from lexloom.console import Console, memory, size
from lexloom.hub.bundle import Bundle
from lexloom.runs import labelled
from lexloom.runs.evaluation import Evaluation, by_values, show
from lexloom.runs.measuring import answered
from lexloom.runs.scores import Comparison, System, compare
from lexloom.tasks.columns import plain
from lexloom.tasks.measures.minimal_pairs import MinimalPairs, MinimalPairsConfig
from lexloom.text.corpus import Corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, action="append", default=[])
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--by", default="term")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console, measure, begun = Console(json=options.json), MinimalPairs(MinimalPairsConfig()), time.monotonic()
    model, name = NGram(sentences(options.corpus), order=options.order), f"{options.order}-gram"
    seconds = time.monotonic() - begun
    console.say(f"{name}: {len(model.tokens):,} tokens, {model.size:,} words, {seconds:.0f} s, {size(memory())} of memory")
    rows = labelled.read(options.pairs)
    models = {str(path): Bundle.load(path).likelihood() for path in options.bundle} | {name: model}
    systems = {name: answered(measure, one, rows.rows, name, console) for name, one in models.items()}

    def compared(places: list[int]) -> Comparison:
        parts = [System(name, [[answers[i] for i in places]]) for name, answers in systems.items()]
        return compare(range(len(places)), parts, measure.statistics(), seed=1)

    overall = compared(list(range(len(rows.rows))))
    told = Evaluation(next(iter(systems)), str(options.pairs), "minimal-pairs", len(rows.rows), "", overall, bad=rows.bad)
    told.groups = by_values([plain(row) for row in rows.rows], options.by, compared)
    show(told, console)


def sentences(folder: Path) -> Iterator[str]:
    """Every sentence of the training documents of a corpus."""
    for document in Corpus.open(folder).documents("train"):
        yield from document.sentences


if __name__ == "__main__":
    main()
