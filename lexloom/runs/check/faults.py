"""Faults of texts and labels, each under the name of its cause, with places and what to do."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.naive_bayes import MultinomialNB

from lexloom import keys
from lexloom.errors import BadRow
from lexloom.runs.check.findings import Findings, Level
from lexloom.runs.check.samples import Sample
from lexloom.tasks.tfidf import unit_of
from lexloom.text.dedup import Deduplicator, exact_hash

DUPLICATES = 0.05
"""The share of rows from which on duplicates are a warning, not a fact."""
OVERLAP, COPIED = 0.01, 0.5
"""The share of test rows that training has: from the first on a warning, from the second on an error."""
WRONG_ENCODING = 0.01
EMPTY = 0.01
CONFLICTS = 0.01
IMBALANCE, FEW_ROWS = 20.0, 8
SORTED, SORTED_ROWS = 0.2, 50
LEARNABLE_ROWS, LEARNABLE_LEAST, PERMUTATIONS = 3000, 600, 200
_LOOKED_AT = 5000
_LATIN_RUN = re.compile("[\x80-\xff]{4,}")
_HAN = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]+")


def look(sample: Sample, findings: Findings) -> None:
    """All faults that texts can have by themselves."""
    bad_rows(sample, findings)
    if len(sample):
        empty_texts(sample, findings)
        wrong_encoding(sample, findings)
        duplicates(sample, findings)


def bad_rows(sample: Sample, findings: Findings) -> None:
    """Rows that cannot be read, by reason; and rows that can be read and not be used, at which a run would stop."""
    for reason, n in sample.bad.reasons.most_common(10):
        first = [row for row in sample.bad.first if row.reason.partition(": ")[0] == reason]
        places = [f"{row.file}:{row.line}" for row in first]
        what = f"{n:,} bad rows: {first[0].reason if first else reason}" if n > 1 else f"a bad row: {first[0].reason if first else reason}"
        encoding = reason.removeprefix("not ") in sample.encodings
        do = "name the file's encoding, such as encoding: cp1252" if encoding else "mend them; a run puts them aside and counts them"
        cause = "encoding" if encoding else "bad rows"
        findings.add("warning", cause, places[0] if places else sample.where, what, do, places=places)
    if not len(sample) and not sample.unusable:
        findings.add(
            "error", "empty", sample.where, "there is no good row", "look at the bad rows, if there are any; else the file is empty"
        )
    for reason, rows in _by_reason(sample).items():
        places = [f"{row.file}:{row.line}" for row in rows]
        what = f"{len(rows):,} rows cannot be used: {rows[0].reason}" if len(rows) > 1 else rows[0].reason
        findings.add("error", "unusable rows", places[0], what, f"give each a value, or take the rows out ({reason})", places=places)


def _by_reason(sample: Sample) -> dict[str, list[BadRow]]:
    found: dict[str, list[BadRow]] = defaultdict(list)
    for row in sample.unusable:
        found[row.reason.partition(": ")[0]].append(row)
    return found


def empty_texts(sample: Sample, findings: Findings) -> None:
    """Texts without a sign that can be seen."""
    at = [i for i, text in enumerate(sample.texts) if not text.strip()]
    if at:
        level: Level = "warning" if len(at) >= EMPTY * len(sample) else "fact"
        what = f"{len(at):,} of {sample.extent} are empty"
        _at(findings, level, "empty texts", sample, at, what, "take them out: they teach that no text means their label")


def wrong_encoding(sample: Sample, findings: Findings) -> None:
    """Texts that were decoded by the wrong codec before they came here, or lost characters on the way."""
    lost, garbled = [], []
    for i, text in enumerate(sample.texts):
        if text.isascii():
            continue
        if "\ufffd" in text:
            lost.append(i)
        if is_garbled(text[:_LOOKED_AT]):
            garbled.append(i)
    for at, what, do in (
        (
            lost,
            "hold the sign \ufffd: characters were lost when they were decoded",
            "make the file anew from its source, with the right encoding",
        ),
        (garbled, "were decoded by the wrong codec", "decode the source as what it is; most often it was UTF-8 read as cp1252 or GBK"),
    ):
        if at:
            level: Level = "warning" if len(at) >= WRONG_ENCODING * len(sample) else "fact"
            shown = sample.texts[at[0]].strip()[:40]
            _at(findings, level, "encoding", sample, at, f"{len(at):,} of {sample.extent} {what}: {shown!r}", do)


def is_garbled(text: str) -> bool:
    """Whether words of a text are UTF-8 read as another encoding, or GB18030 read as Latin-1."""
    for word in text.split():
        if not word.isascii() and any(_reread(word, wrong) for wrong in ("cp1252", "latin-1", "gb18030")):
            return True
    return any(_is_chinese_in_latin(run) for run in _LATIN_RUN.findall(text))


def _reread(word: str, wrong: str) -> bool:
    """Whether the bytes of a word in the wrong encoding are UTF-8. By chance that is so for short words alone."""
    beyond = sum(not character.isascii() for character in word)
    if wrong == "gb18030" and beyond < 6:
        return False
    try:
        return word.encode(wrong).decode("utf-8") != word
    except UnicodeError:
        return False


def _is_chinese_in_latin(run: str) -> bool:
    try:
        return _HAN.fullmatch(run.encode("latin-1").decode("gb18030")) is not None
    except UnicodeError:
        return False


def duplicates(sample: Sample, findings: Findings) -> None:
    """Texts that equal, or nearly equal, an earlier one."""
    finder = Deduplicator()
    _feed(finder, sample.texts)
    found = finder.find(sample.texts.__getitem__)
    exact, again = np.flatnonzero(found.exact), np.flatnonzero(found.of >= 0)
    near = len(again) - len(exact)
    sample_size = len(sample)
    for at, n, word in ((exact, len(exact), "equal"), (again[~found.exact[again]], near, "nearly equal")):
        if n:
            level: Level = "warning" if n >= DUPLICATES * sample_size else "fact"
            like = sample.places[found.of[at[0]]]
            what = f"{n:,} of {sample.extent} ({n / sample_size:.1%}) {word} an earlier one; the first is like {like}"
            _at(findings, level, "duplicates", sample, at, what, "keep one of each, unless the repetition is meant")


def overlap(train: Sample, other: Sample, findings: Findings) -> None:
    """Texts of a test that training has too, exactly or nearly; and groups that stand in both."""
    finder, border = Deduplicator(), len(train)
    texts = [*train.texts, *other.texts]
    _feed(finder, texts)
    found = finder.find(texts.__getitem__, border=border)
    for exact in (True, False):
        at = np.flatnonzero((found.of >= 0) & (found.exact == exact))
        if len(at):
            share = len(at) / len(other)
            level: Level = "error" if share >= COPIED and exact else "warning" if share >= OVERLAP else "fact"
            word = "stand in" if exact else "are nearly in"
            there = train.places[found.of[at[0]]]
            what = f"{len(at):,} of {other.extent} of {other.name} ({share:.1%}) {word} {train.name} too; the first is {there}"
            do = f"take them out of {train.name}: a score on known texts says too much"
            _at(findings, level, "overlap", other, at - border, what, do)
    if train.groups is not None and other.groups is not None:
        known = set(train.groups) - {None}
        at = np.array([i for i, group in enumerate(other.groups) if group in known], dtype=np.int64)
        if len(at):
            n = len({other.groups[i] for i in at})
            what = f"{len(at):,} of {other.extent} of {other.name} are of {n:,} groups that {train.name} has too"
            _at(findings, "warning", "overlap of groups", other, at, what, "split by group, so that none stands on both sides")


def labels(train: Sample, findings: Findings) -> None:
    """One label alone, rare ones, one text under several, an order by label, and labels that the words say nothing about."""
    if not train.labels:
        return
    counts = Counter(train.labels)
    if len(counts) == 1:
        what = f"all of {train.extent} have the label {train.labels[0]!r}: there is nothing to tell apart"
        do = "is it the right column?" if train.whole else "is the file sorted by label?"
        findings.add("error" if train.whole else "warning", "one label", train.places[0], what, do)
        return
    _rare(train, counts, findings)
    _conflicts(train, findings)
    _order(train, counts, findings)


def _rare(train: Sample, counts: Counter[str], findings: Findings) -> None:
    (most, n_most), (least, n_least) = counts.most_common()[0], counts.most_common()[-1]
    if n_most >= IMBALANCE * n_least:
        what = f"{most!r} has {n_most:,} rows and {least!r} {n_least:,}"
        do = "settings: {class_weights: balanced} makes rare labels count; look at macro-F1, not at accuracy"
        findings.add("warning", "imbalance", train.where, what, do)
    few = [label for label, n in counts.items() if n < FEW_ROWS]
    if few and len(train) > FEW_ROWS * len(counts):
        at = [train.labels.index(label) for label in few[:5]] if train.labels else []
        what = f"{len(few):,} of {len(counts):,} labels have fewer than {FEW_ROWS} rows: {', '.join(map(repr, few[:5]))}"
        _at(findings, "warning", "rare labels", train, at, what, "join them with others, or find more rows")


def _conflicts(train: Sample, findings: Findings) -> None:
    first: dict[bytes, int] = {}
    at = []
    known = train.labels or []
    for i, text in enumerate(train.texts):
        before = first.setdefault(exact_hash(text), i)
        if known[before] != known[i]:
            at.append(i)
    if at:
        level: Level = "warning" if len(at) >= CONFLICTS * len(train) else "fact"
        before = first[exact_hash(train.texts[at[0]])]
        what = (
            f"{len(at):,} rows repeat a text under another label: first {known[at[0]]!r}, but {known[before]!r} at {train.places[before]}"
        )
        _at(findings, level, "conflicting labels", train, at, what, "decide which label is right")


def _order(train: Sample, counts: Counter[str], findings: Findings) -> None:
    """How often the label changes from row to row, against what chance would give."""
    known, n = train.labels or [], len(train)
    if n < SORTED_ROWS:
        return
    expected = (n - 1) * (1 - sum((count / n) ** 2 for count in counts.values()))
    changes = sum(a != b for a, b in itertools.pairwise(known))
    if changes < SORTED * expected:
        what = f"the rows are sorted by label: it changes {changes:,} times in {n:,} rows, where chance gives about {expected:,.0f}"
        do = "training draws an order of its own; shuffle before you cut a part off this file"
        findings.add("warning", "sorted by label", train.where, what, do)


def learnable(train: Sample, findings: Findings, *, seed: int = 1) -> None:
    """Whether words say anything about the labels: naive Bayes on a part of the rows, tried on the rest.

    Labels that were shuffled, or shifted by a row, are found so; a task that is not one of words, such as grammar, looks the same.
    """
    if not train.labels or train.pairs or len(train) < LEARNABLE_LEAST or len(set(train.labels)) < 2:
        return  # of pairs, words alone cannot say much
    chosen = keys.shuffled(keys.key(seed, "learnable"), len(train))[:LEARNABLE_ROWS]
    texts, known = [train.texts[i][:2000] for i in chosen], [train.labels[i] for i in chosen]
    border = 2 * len(chosen) // 3
    held = [i for i in range(border, len(chosen)) if known[i] in set(known[:border])]
    if len(set(known[:border])) < 2 or not held:
        return
    counted = _counted(texts)
    model = MultinomialNB(alpha=0.1).fit(counted[:border], known[:border])
    names = {label: i for i, label in enumerate(model.classes_)}
    scores, gold = model.predict_proba(counted[held]), np.array([names[known[i]] for i in held])
    if _by_chance(scores, gold, seed):
        right = float((scores.argmax(axis=1) == gold).mean())
        most = float((gold == Counter(gold.tolist()).most_common(1)[0][0]).mean())
        shares = f"{right:.1%} right on {len(gold):,} rows, the most frequent label {most:.1%}"
        what = f"words say nothing about the labels: a quick model has {shares}"
        do = "read ten rows: labels may be shuffled or shifted by a row; a task that is not one of words looks so too"
        findings.add("warning", "labels without words", train.where, what, do)


def _counted(texts: Sequence[str]) -> Any:
    """(N, F) counts of words, or of pieces of words in scripts without spaces."""
    options = {"n_features": 1 << 16, "alternate_sign": False, "norm": None, "ngram_range": (1, 2)}
    return HashingVectorizer(analyzer=unit_of(texts), **options).transform(texts)


def _by_chance(scores: npt.NDArray[np.float64], gold: npt.NDArray[np.int64], seed: int) -> bool:
    """A permutation test at about 1 %: whether shuffled labels would get such scores, (N, K) and (N,), too."""
    rows = np.arange(len(gold))
    found = scores[rows, gold].mean()
    by_chance = [scores[rows, gold[keys.shuffled(keys.key(seed, "by chance", i), len(gold))]].mean() for i in range(PERMUTATIONS)]
    return bool(found < np.mean(by_chance) + 2.33 * np.std(by_chance))


def _feed(finder: Deduplicator, texts: Sequence[str]) -> None:
    for start in range(0, len(texts), 1000):
        finder.add(texts[start : start + 1000])


def _at(
    findings: Findings, level: Level, cause: str, sample: Sample, at: Iterable[int] | npt.NDArray[np.int64], what: str, do: str
) -> None:
    places = [sample.places[int(i)] for i in list(at)[:6]]
    findings.add(level, cause, places[0] if places else sample.where, what, do, places=places)
