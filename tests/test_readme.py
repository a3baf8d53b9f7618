"""What README and docs say is so: their recipes are read, their commands exist, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lexloom
from lexloom import cli
from lexloom.config import parse
from lexloom.runs import recipe
from lexloom.runs.components import settle

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def paths(value: object) -> list[str]:
    """Everything in a recipe that looks like a path."""
    if isinstance(value, dict):
        return [found for inner in value.values() for found in paths(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in paths(inner)]
    return [value] if isinstance(value, str) and re.fullmatch(r"[\w/.-]+(\.jsonl|\.py|/)", value) else []


RECIPES = [ROOT / name for name in ("README.md", "README.zh-CN.md", "docs/recipe.md", "docs/models.md")]


@pytest.mark.parametrize("page", RECIPES, ids=lambda page: page.name)
def test_recipes_are_right(page: Path, tmp_path: Path) -> None:
    found = blocks(page, "yaml")
    assert found
    for text in found:
        document = parse(text, page.name)
        for name in [*paths(document.data), "some/bundle"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).mkdir(exist_ok=True) if name.endswith(("/", "bundle")) else (tmp_path / name).touch()
        settle(recipe.check(document, tmp_path))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    verbs = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    for verb in re.findall(r"^lexloom (\w+)|`lexloom (\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert set(verb) - {""} <= verbs, verb


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_python_examples_use_what_is_there() -> None:
    code = "\n".join(blocks(ROOT / "README.md", "python"))
    names = set(re.findall(r"lexloom\.(\w+)", code))
    assert names
    for name in names:
        assert hasattr(lexloom, name), name
