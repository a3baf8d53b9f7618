"""Findings: what was seen before anything runs, each with its place and what to do; and the tables that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lexloom.console import Console, plain
from lexloom.errors import DataError, LexloomError

Level = Literal["error", "warning", "fact"]
Blame = Literal["config", "data"]
_ORDER = {"error": 0, "warning": 1, "fact": 2}
SHOWN_PLACES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was seen.

    Args:
        level: an `error` stops the run or makes its result worthless; a `warning` is to be looked at; a `fact` is good to know.
        cause: a short name that stays the same: `duplicates`, `encoding`, `one label`, `overlap`, …
        place: file:line, a path, or a key of the recipe.
        what: one sentence.
        do: what to do about it.
        blame: whether an error is one of the configuration (exit code 2) or of the data (3).
        places: more places of the same, the first of them.
    """

    level: Level
    cause: str
    place: str
    what: str
    do: str | None = None
    blame: Blame = "data"
    places: Sequence[str] = ()


@dataclass(frozen=True)
class Table:
    """Figures under headings: key -> heading, and a mapping a row."""

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]


@dataclass
class Findings:
    """All that a check saw.

    Args:
        subject: what was looked at.
    """

    subject: str
    found: list[Finding] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def add(
        self,
        level: Level,
        cause: str,
        place: str,
        what: str,
        do: str | None = None,
        *,
        blame: Blame = "data",
        places: Sequence[str] = (),
    ) -> None:
        """Notes a finding."""
        self.found.append(Finding(level, cause, place, what, do, blame, tuple(places[:SHOWN_PLACES])))

    def take(self, error: LexloomError, cause: str, place: str = "") -> None:
        """Notes an error that would stop the run; one that joins many is noted as many."""
        for each in error.parts or (error,):
            expected = f"; expected: {each.expected}" if each.expected else ""
            got = f": {each.got}" if each.got else ""
            blame: Blame = "data" if isinstance(each, DataError) else "config"
            self.add("error", cause, each.where or place or self.subject, f"{each.problem}{got}{expected}", each.hint, blame=blame)

    def table(self, title: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Notes a table, unless it is empty."""
        if rows:
            self.tables.append(Table(title, dict(columns), list(rows)))

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop the run."""
        return [finding for finding in self.found if finding.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings to look at."""
        return [finding for finding in self.found if finding.level == "warning"]

    @property
    def worst_first(self) -> list[Finding]:
        """All findings, errors first; among equals in the order in which they were made."""
        return sorted(self.found, key=lambda finding: _ORDER[finding.level])

    @property
    def exit_code(self) -> int:
        """0 where nothing stops the run, 2 for a fault of the configuration, 3 for one of the data."""
        blames = {finding.blame for finding in self.errors}
        return 2 if "config" in blames else 3 if blames else 0

    def of(self, cause: str) -> list[Finding]:
        """The findings of one cause."""
        return [finding for finding in self.found if finding.cause == cause]

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "subject": self.subject,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "findings": plain(self.worst_first),
            "tables": [{"title": table.title, "rows": plain(table.rows)} for table in self.tables],
        }


def show(findings: Findings, console: Console) -> None:
    """Prints tables and findings, worst first; one object under --json."""
    if console.json:
        console.result(findings.plain())
        return
    for table in findings.tables:
        console.table(table.columns, table.rows, title=table.title)
        console.result(None, "")
    for finding in findings.worst_first:
        console.result(None, _lines(finding))
    console.result(None, _closing(findings))


def _lines(finding: Finding) -> str:
    lines = [f"{finding.level}: {finding.place}: {finding.what}"]
    if finding.level == "fact":
        return lines[0]
    if more := [place for place in finding.places if place != finding.place]:
        lines.append(f"  also at:  {', '.join(more)}")
    if finding.do:
        lines.append(f"  do:       {finding.do}")
    return "\n".join(lines)


def _closing(findings: Findings) -> str:
    errors, warnings = len(findings.errors), len(findings.warnings)
    if not errors and not warnings:
        return f"{findings.subject}: nothing stands against it"
    return f"{findings.subject}: {errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
