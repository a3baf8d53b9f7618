"""The errors a user can cause: what was expected, what was got, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class LexloomError(Exception):
    """Base of every error lexloom raises on purpose; the command line prints it without a traceback.

    Args:
        problem: one sentence that says what is wrong.
        expected: what would have been right.
        got: what stood there instead.
        where: `file:line`, a path, or a dotted key of the recipe.
        hint: what to do about it.
    """

    exit_code = 1
    parts: tuple[LexloomError, ...] = ()
    """The errors that this one joins, where it joins several."""

    def __init__(
        self,
        problem: str,
        *,
        expected: str | None = None,
        got: str | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem, self.expected, self.got, self.where, self.hint = problem, expected, got, where, hint
        super().__init__(self.render())

    def render(self) -> str:
        """The message as printed: place first, so that editors can jump to it."""
        head = f"{self.where}: {self.problem}" if self.where else self.problem
        lines = [head]
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.got is not None:
            lines.append(f"  got:      {self.got}")
        if self.hint is not None:
            lines.append(f"  do:       {self.hint}")
        return "\n".join(lines)


class ConfigError(LexloomError):
    """A recipe, a setting or a command line is wrong; nothing was started."""

    exit_code = 2

    @classmethod
    def together(cls, errors: Sequence[LexloomError]) -> ConfigError:
        """One error out of many, so that a user mends them all in one go."""
        if len(errors) == 1 and isinstance(errors[0], cls):
            return errors[0]
        head = [f"{len(errors)} problems:"] if len(errors) > 1 else []
        tail = [f"… and {len(errors) - 100} more"] if len(errors) > 100 else []
        joined = cls("\n".join([*head, *(error.render() for error in errors[:100]), *tail]))
        joined.parts = tuple(part for error in errors for part in error.parts or (error,))
        return joined


class DataError(LexloomError):
    """The data cannot be used: nothing readable is left, or more rows are bad than allowed."""

    exit_code = 3


class WeightsError(LexloomError):
    """Weights do not fit the model they are loaded into."""


class TokenizerError(LexloomError):
    """A tokenizer is missing, damaged, or does not fit the model."""


class CheckpointError(LexloomError):
    """A checkpoint is missing, damaged or belongs to another run."""


class FormatError(LexloomError):
    """A file was written by a newer lexloom, or is not what its name says."""


class BusyError(LexloomError):
    """Another process works in this folder."""


class DiskFullError(LexloomError):
    """The disk, or a quota on it, has no room left. What was whole before is whole still.

    Args:
        what: what was to be written.
        free: bytes that are free there.
        needed: bytes that all of it takes, where that is known.
    """

    def __init__(self, what: str, *, free: int, needed: int | None = None, where: str | None = None, hint: str | None = None) -> None:
        self.free, self.needed = free, needed
        got = f"{free:,} bytes free"
        if needed is not None:
            got += f": {self.missing:,} bytes are missing" if self.missing else ", yet the disk refuses them: a quota may stand in the way"
        super().__init__(
            f"the disk is full: no room for {what}",
            expected=None if needed is None else f"{needed:,} bytes free",
            got=got,
            where=where,
            hint=hint or "free some space, or choose another --out",
        )

    @property
    def missing(self) -> int:
        """How many bytes more have to be free; 0 where that is not known."""
        return max(0, (self.needed or 0) - self.free)


class Interrupted(LexloomError):
    """Ctrl-C or SIGTERM; the checkpoint is saved. `exit_code` is 128 + the signal's number."""

    exit_code = 130

    def __init__(self, problem: str, *, signal_number: int = 2, hint: str | None = None) -> None:
        super().__init__(problem, hint=hint)
        self.exit_code = 128 + signal_number


@dataclass(frozen=True)
class BadRow:
    """A row that was put aside: reported as `file:line: reason` and counted."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None."""
    names = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower().replace("_", "-"), list(names), n=1, cutoff=0.6)
    found = found or difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)
    return names[found[0]] if found else None


def unknown(kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> ConfigError:
    """The error for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    guess = nearest(name, names)
    return ConfigError(
        f"there is no {kind} called {name!r}",
        expected=", ".join(names),
        where=where,
        hint=f"did you mean {guess!r}?" if guess else None,
    )
