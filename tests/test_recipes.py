"""Every recipe that is shipped is read and settled: structure, names, presets and settings of components."""

from __future__ import annotations

from pathlib import Path

import pytest

from lexloom.config import load
from lexloom.runs import recipe
from lexloom.runs.components import settle

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_right(path: Path, tmp_path: Path) -> None:
    document = load(path)
    for name in _paths(document.data):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    plan = recipe.check(document, tmp_path)
    assert plan.recipe.name == path.stem
    settled = settle(plan)
    assert len(settled.phases) == len(plan.recipe.phases) and set(settled.tasks) == set(plan.recipe.finetune)


def test_there_are_recipes() -> None:
    assert RECIPES


def _paths(value: object) -> list[str]:
    if isinstance(value, dict):
        return [path for inner in value.values() for path in _paths(inner)]
    if isinstance(value, list):
        return [path for inner in value for path in _paths(inner)]
    return [value] if isinstance(value, str) and value.startswith("data/") else []
