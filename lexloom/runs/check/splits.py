"""Splits: training, validation and test data held against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lexloom.runs.check import faults
from lexloom.runs.check.findings import Findings
from lexloom.runs.check.samples import Sample

SHOWN_LABELS = 30


def look(found: Mapping[str, Sample], findings: Findings, *, of: str = "") -> None:
    """What data can have by itself: faults of each split, labels of training, overlap of training with the others."""
    for sample in found.values():
        if not sample.whole:
            findings.add("fact", "sampled", sample.where, f"there is more: the figures are about {sample.extent}")
        faults.look(sample, findings)
    train = found.get("train", found.get(""))
    if train is None or not len(train):
        return
    faults.labels(train, findings)
    faults.learnable(train, findings)
    for other in found.values():
        if other is not train and len(other):
            faults.overlap(train, other, findings)
    label_table(found, findings, of=of)


def label_table(found: Mapping[str, Sample], findings: Findings, *, of: str = "") -> None:
    """How often each label stands in each split, the most frequent first."""
    labelled = {name: sample for name, sample in found.items() if sample.labels}
    if not labelled:
        return
    first = next(iter(labelled.values()))
    counts = {name: Counter(sample.labels) for name, sample in labelled.items()}
    names = sorted({label for each in counts.values() for label in each}, key=lambda label: -counts[first.name].get(label, 0))
    rows: list[dict[str, Any]] = [
        {"label": label, **{name or "rows": each.get(label, 0) for name, each in counts.items()}} for label in names[:SHOWN_LABELS]
    ]
    for row in rows:
        row["share"] = 100 * row[first.name or "rows"] / max(1, len(first))
    if len(names) > SHOWN_LABELS:
        findings.add("fact", "labels", first.where, f"there are {len(names):,} labels; the table shows the {SHOWN_LABELS} most frequent")
    findings.table(f"labels of {of}" if of else "labels", {**{key: key for key in rows[0]}, "share": "% of rows"}, rows)


def unseen_labels(found: Mapping[str, Sample], findings: Findings) -> None:
    """Labels of other splits that training has no row of."""
    train = found.get("train")
    if train is None or not train.labels:
        return
    known = set(train.labels)
    for sample in found.values():
        for label in dict.fromkeys(label for label in sample.labels or () if label not in known):
            at = [i for i, each in enumerate(sample.labels or ()) if each == label]
            places = [sample.places[i] for i in at[:6]]
            what = f"the label {label!r} of {len(at):,} rows was never seen in training"
            findings.add("error", "unseen labels", places[0], what, "add rows of it to train, or take these out", places=places)
