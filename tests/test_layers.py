"""The floors of the house: a room imports from lower floors only, never from neighbours. Read from the source, also inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lexloom"
ROOMS = [
    "config registry errors batch console files keys lock compute svg",
    "text nn",
    "models vectors",
    "objectives",
    "tasks",
    "train hub",
    "compress rl explain audit plan",
    "runs serve",
    "cli sklearn",
    "__main__",
]
FLOOR = {room: height for height, rooms in enumerate(ROOMS) for room in rooms.split()}
BASES_ONLY = {("train", room) for room in ("models", "objectives", "tasks")}


def imports(file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name, below lexloom, of everything a file imports from lexloom; the root itself is ''."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            here = ["lexloom", *file.relative_to(package).parent.parts]
            base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])]) if node.level else str(node.module)
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
        yield from ((node.lineno, name.partition(".")[2]) for name in names if name.split(".")[0] == "lexloom")


def root_uses(file: Path) -> set[str]:
    """What a file takes from `lexloom.` itself."""
    nodes = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "lexloom"}


def wrong_arrows(package: Path) -> list[str]:
    found = []
    for file in sorted(package.rglob("*.py")):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        if room == "__init__":  # the root names things for users; nothing inside may import them back from there
            continue
        if room not in FLOOR:
            found.append(f"{file.relative_to(package)}: this room stands on no floor")
            continue
        for line, name in imports(file, package):
            if name == "__version__" or (not name and root_uses(file) <= {"__version__"}):
                continue
            other, _, inside = name.partition(".")
            same_floor = other != room and FLOOR.get(other) == FLOOR[room] != 0
            not_its_base = (room, other) in BASES_ONLY and inside.split(".")[0] != "base"
            if other not in FLOOR or FLOOR[other] > FLOOR[room] or same_floor or not_its_base:
                found.append(f"{file.relative_to(package)}:{line}: {room} may not import lexloom.{name}")
    return found


def test_every_import_points_down() -> None:
    assert len(list(PACKAGE.rglob("*.py"))) > 5
    assert wrong_arrows(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("text/corpus.py", "from lexloom.nn import block", True),
        ("text/corpus.py", "import lexloom.runs.recipe", True),
        ("text/corpus.py", "def f():\n    from lexloom.cli import main", True),
        ("text/corpus.py", "from ..nn import block", True),
        ("text/corpus.py", "from . import clean", False),
        ("text/corpus.py", "from .clean import Cleaner", False),
        ("text/deep/corpus.py", "from ..clean import Cleaner", False),
        ("text/corpus.py", "from lexloom import run", True),
        ("text/corpus.py", "from lexloom import __version__", False),
        ("text/corpus.py", "import lexloom\nprint(lexloom.__version__)", False),
        ("text/corpus.py", "import lexloom\nlexloom.run('x')", True),
        ("text/corpus.py", "importlib.import_module('lexloom.runs.recipe')", True),
        ("text/corpus.py", "from lexloom import files", False),
        ("text/corpus.py", "import numpy, os.path", False),
        ("text/corpus.py", "import lexloomery", False),
        ("files.py", "from lexloom.text import corpus", True),
        ("files.py", "from lexloom.errors import LexloomError", False),
        ("train/loop.py", "from lexloom.models.bert import Bert", True),
        ("train/loop.py", "from lexloom.models import base, bert", True),
        ("train/loop.py", "from lexloom.tasks.base import Task", False),
        ("hub/bundle.py", "from lexloom.models.bert import Bert", False),
        ("hub/bundle.py", "from lexloom.train import step", True),
        ("tasks/base.py", "from lexloom.objectives.base import Objective", False),
        ("objectives/base.py", "from lexloom.tasks.base import Task", True),
        ("attic/old.py", "import os", True),
    ],
)
def test_a_planted_arrow_is_judged(tmp_path: Path, file: str, line: str, wrong: bool) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line + "\n", encoding="utf-8")
    assert bool(wrong_arrows(tmp_path)) is wrong
