"""The documentation inside the user's own Python, as plain English: docstrings of the standard library and the reference topics.

Everything is read from source by `ast`; no module of the library is imported. Python's documentation is under the PSF licence.
"""

from __future__ import annotations

import ast
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lexloom.errors import DataError

# What is not of the library itself, and the tests, whose docstrings are about the tests.
SKIPPED_FOLDERS = {
    "dist-packages",
    "ensurepip",
    "idle_test",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}
MAX_FILES, MAX_FILE_BYTES = 5_000, 4 << 20

_ROLE = re.compile(r":[a-z][\w:+.-]*:`~?([^`]*)`")
_MARKUP = re.compile(r"``?([^`\n]+)``?'?|\*\*(\w[^*\n]*)\*\*|(?<!\w)\*([A-Za-z_]\w*)\*(?!\w)")
_CALL = r"[\w.]+\([^()]*(?:\([^()]*\)[^()]*)*\)"
_SIGNATURE = re.compile(rf"(?:[A-Za-z] ?)?{_CALL}\s*(?:->\s*[\w.\[\], |()]+)?(?:$|\s+--?\s+|:\s+)")
_DIRECTIVE = re.compile(r"\.\. |:[a-z]\w*( \w+)?:( |$)")
_RULE = re.compile(r"[\s=\-~^*+#_.|`:]*")
_STATEMENT = re.compile(
    r"(from [\w.]+ import|import \w+|def \w+\(|class \w+[(:]|return \S+$|raise \w+\(|@\w|[$%#>] ?\w|>>|\.\.\. |print\(|\w+ ?::?= "
    r"|(if|for|while|with|try|else|except)\b.*:$|[\w.\[\], ]+ [-+*/|&]?= \S|[\w.]+\([^()]*\)$)"
)


@dataclass(frozen=True)
class Module:
    """A module of the library: its cleaned docstrings in the order they stand in the source.

    Args:
        path: below the library, with `/`.
    """

    path: str
    docstrings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The dotted name, as it is imported."""
        return ".".join(Path(self.path).with_suffix("").parts).removesuffix(".__init__")

    @property
    def top(self) -> str:
        """The first part of the name."""
        return self.name.split(".")[0]


@dataclass
class Library:
    """What was read, and how much could not be."""

    modules: list[Module]
    topics: dict[str, str]
    unreadable: int


def read_library(root: Path | None = None) -> Library:
    """Reads the library in `root`, the running Python's own where None.

    Raises:
        DataError: there is no source to read, as in a Python that comes as one compiled file.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    modules, unreadable = [], 0
    for path in source_files(root):
        try:
            found = tuple(filter(None, map(clean, docstrings(path))))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            unreadable += 1
            continue
        if found:
            modules.append(Module(path.relative_to(root).as_posix(), found))
    if not modules:
        hint = "this Python keeps no source of its library: take another one, or give lexloom texts of your own"
        raise DataError("there are no docstrings to read", where=str(root), hint=hint)
    return Library(modules, read_topics(root), unreadable)


def source_files(root: Path) -> list[Path]:
    """The source files of the library, in a fixed order."""
    found = (path for path in root.rglob("*.py") if not SKIPPED_FOLDERS & set(path.relative_to(root).parts[:-1]))
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())[:MAX_FILES]


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a file in the order they stand there."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in _statements(_parsed(path)):
        text = ast.get_docstring(node, clean=False) if isinstance(node, kinds) else None
        if text is not None:
            yield text


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and all inside it; expressions, which hold no docstrings, are not walked through."""
    yield node
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for inner in getattr(node, name, ()):
            yield from _statements(inner)


def _parsed(path: Path) -> ast.Module:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError("too large to be source")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(path.read_bytes())


def read_topics(root: Path) -> dict[str, str]:
    """The language reference behind `help()`, cleaned, by topic; empty where this Python comes without it."""
    path = root / "pydoc_data" / "topics.py"
    try:
        assigned = next(node.value for node in _parsed(path).body if isinstance(node, ast.Assign))
        found = ast.literal_eval(assigned)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, StopIteration):
        return {}
    cleaned = {str(name): clean(str(text)) for name, text in sorted(found.items())} if isinstance(found, dict) else {}
    return {name: text for name, text in cleaned.items() if text}


def clean(docstring: str) -> str:
    """The prose of a docstring: paragraphs of one line each, with an empty line between; "" where there is none.

    Left out: interactive examples with their output, code, grammar, signatures, tables, underlines, and marks of markup.
    """
    text = inspect.cleandoc(docstring.replace("\r\n", "\n").replace("\f", "\n"))
    paragraphs = [_paragraph(lines) for lines in _blocks(text.expandtabs().split("\n"))]
    return "\n\n".join(filter(None, paragraphs))


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines between empty ones; an item of a list begins one of its own."""
    block: list[str] = []
    for line in lines:
        item = re.match(r"\s*([-*+•]|\d+[.)]|[a-z]\))\s+\S", line)
        if block and (not line.strip() or item):
            yield block
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield block


def _paragraph(lines: list[str]) -> str:
    if lines[0].lstrip().startswith((">>>", "... ")):
        return ""  # an example and its output, to the next empty line
    example = next((i for i, line in enumerate(lines) if line.lstrip().startswith(">>>")), len(lines))
    lines = [line for line in lines[:example] if not _RULE.fullmatch(line.strip())]
    if not lines or 2 * sum(map(_is_code, lines)) > len(lines):
        return ""
    first = len(lines[0]) - len(lines[0].lstrip())
    lines = [line for line in lines if not (_is_code(line) and len(line) - len(line.lstrip()) > first + 1)]
    lines[0] = _SIGNATURE.sub("", lines[0].strip(), count=1) if _SIGNATURE.match(lines[0].strip()) else lines[0]
    text = _ROLE.sub(r"\1", " ".join(" ".join(lines).split()))
    text = _MARKUP.sub(lambda match: str(next(filter(None, match.groups()))), text)
    text = re.sub(r"::$", ":", re.sub(r"^([-*+•]|\d+[.)]|[a-z]\))\s+", "", text))
    return text if _is_prose(text) else ""


def _is_code(line: str) -> bool:
    text = line.strip()
    if _DIRECTIVE.match(text) or _STATEMENT.match(text):
        return True
    letters = sum(map(str.isalpha, text)) + text.count(" ")
    return letters < 0.7 * len(text) or bool(re.search(r"[^.:!?]   ?", text))


def _is_prose(text: str) -> bool:
    words = re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text)
    return len(words) >= 3 and len(text) >= 12 and any(word.islower() for word in words)
