"""Parts: the finished pieces of a long prediction, so that an interrupted one goes on where it stopped.

OUTPUT.parts/about.json         what was predicted with what; parts of anything else are not used
OUTPUT.parts/part-000000.jsonl  bad rows, then a line an answered row, then a line that says that the part is whole
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lexloom import files
from lexloom.errors import BadRow, DataError, FormatError
from lexloom.runs.predict.outputs import jsonable
from lexloom.text.quarantine import EXCERPT, Quarantine

ABOUT = "about.json"
MAX_COLUMNS = 10_000
_TAIL_BYTES = 16 << 20


@dataclass
class Tally:
    """What the last line of a part says.

    Args:
        read: rows that were read, bad ones among them that could not be answered.
        rows: rows that were answered.
        columns: names of their columns, in the order in which they came.
        flat: every answer is one label and its score.
        last: the input ended with this part.
    """

    read: int = 0
    rows: int = 0
    bad: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    flat: bool = True
    last: bool = False

    def add(self, other: Tally) -> None:
        """Sums up over parts."""
        self.read, self.rows, self.bad = self.read + other.read, self.rows + other.rows, self.bad + other.bad
        self.reasons = dict(Counter(self.reasons) + Counter(other.reasons))
        self.columns = list(dict.fromkeys([*self.columns, *other.columns]))
        self.flat, self.last = self.flat and other.flat, other.last
        if len(self.columns) > MAX_COLUMNS:
            raise DataError("these rows have too many columns", expected=f"at most {MAX_COLUMNS:,}", got=", ".join(self.columns[:5]) + " …")


class Parts:
    """The folder of parts.

    Args:
        about: what the answers depend on: digests of the bundle and of the input, settings.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, json.loads(json.dumps({"format": files.FORMAT, **about}))
        self.tallies: list[Tally] = []

    def open(self, *, restart: bool = False) -> list[str]:
        """Finds the finished parts.

        Returns:
            the keys of `about` that changed since; then the parts are removed. Empty where all are of use, or there are none.
        """
        before = self._before()
        changed = sorted(key for key in {*before, *self.about} if before.get(key) != self.about.get(key)) if before else []
        found = self._whole() if before and not changed and not restart else []
        told = changed if any(self.folder.glob("part-*.jsonl")) else []
        for path in self.folder.glob("part-*.jsonl"):
            if path not in {self.path(number) for number in range(len(found))}:
                path.unlink()
        for left in self.folder.glob(".*.part"):  # of a process that was killed; this one holds the lock
            left.unlink()
        self.tallies = found
        files.write_json(self.folder / ABOUT, self.about)
        return told

    def _before(self) -> dict[str, Any]:
        try:
            found = files.read_json(self.folder / ABOUT, kind="parts of a prediction")
        except (OSError, FormatError):
            return {}
        return found if isinstance(found, dict) else {}

    def _whole(self) -> list[Tally]:
        found: list[Tally] = []
        while (tally := _tally(self.path(len(found)))) is not None:
            found.append(tally)
        return found

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:06d}.jsonl"

    @property
    def total(self) -> Tally:
        """All parts summed up."""
        found = Tally()
        for tally in self.tallies:
            found.add(tally)
        return found

    @contextmanager
    def writing(self) -> Iterator[PartWriter]:
        """The next part, which counts once the block ends well."""
        with files.replacing(self.path(len(self.tallies))) as file:
            writer = PartWriter(file)
            yield writer
            writer.line({"end": vars(writer.tally)})
        self.tallies.append(writer.tally)

    def entries(self, kind: str) -> Iterator[dict[str, Any]]:
        """All lines of one kind, `answer` or `bad`, in order."""
        for number in range(len(self.tallies)):
            with self.path(number).open(encoding="utf-8") as file:
                for line in file:
                    if line.startswith(f'{{"{kind}"'):
                        yield json.loads(line)


class PartWriter:
    """Writes one part, line by line."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.tally = file, Tally()

    def line(self, value: Mapping[str, Any]) -> None:
        """One JSON line."""
        self.file.write((json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace"))

    def bad(self, found: BadRow, text: str, rows: int) -> None:
        """A row that was put aside."""
        self.tally.bad += rows
        name = found.reason.partition(": ")[0]
        self.tally.reasons[name] = self.tally.reasons.get(name, 0) + rows
        self.line({"bad": {"file": found.file, "line": found.line, "reason": found.reason, "rows": rows, "text": text}})

    def answer(self, file: int, line: int, answer: Any) -> None:
        """The answer for the row at a line of the file of that number."""
        self.tally.rows += 1
        self.tally.flat = self.tally.flat and is_flat(answer)
        self.line({"answer": jsonable(answer), "at": [file, line]})


def is_flat(answer: Any) -> bool:
    """Whether an answer is one label and its score."""
    return isinstance(answer, Mapping) and answer.keys() == {"label", "score"}


class Aside(Quarantine):
    """Bad rows on their way into the part that is being written; where there is none, they were counted before."""

    def __init__(self, *, max_bad_rows: int | None, strict: bool) -> None:
        super().__init__(max_bad_rows=max_bad_rows, strict=strict)
        self.part: PartWriter | None = None
        self.recent: list[dict[str, Any]] = []

    def into(self, part: PartWriter | None) -> None:
        """Where bad rows go from now on."""
        self.part, self.recent = part, []

    def add(self, file: str, line: int, reason: str, *, text: str | bytes = "", rows: int = 1) -> None:
        """See `Quarantine.add`."""
        if self.part is None:
            return
        shown = text[:EXCERPT].decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text[:EXCERPT]
        self.part.bad(BadRow(file, line, reason), shown, rows)
        if len(self.recent) < self.keep:
            self.recent.append({"file": file, "line": line, "reason": reason, "rows": rows, "text": shown})
        super().add(file, line, reason, text=text, rows=rows)


def _tally(path: Path) -> Tally | None:
    """The last line of a part, or None where it is not there or not whole."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            last = file.read().splitlines()[-1]
        return Tally(**json.loads(last)["end"])
    except (OSError, ValueError, IndexError, KeyError, TypeError):
        return None
