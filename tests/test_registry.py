"""Components are found by reading source, imported only when asked for, and extended by files and entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lexloom.errors import ConfigError
from lexloom.registry import Registry

BASE = """
from lexloom.registry import Registry
PETS = Registry("pet", "PETS", "{package}")
"""
CAT = '''
from {package}.base import PETS
MARK = "imported"

@PETS.register("cat")
class Cat:
    """Says miaow.

    More of it.
    """

@PETS.register("lion")
@PETS.register("tiger")
class Big:
    pass

class NotRegistered:
    """Nothing."""
'''
BROKEN_IMPORT = '''
import nothing_of_this_name
from {package}.base import PETS

@PETS.register("ghost")
class Ghost:
    """Cannot be imported."""
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of its own with a registry in `base` and components beside it."""
    name = f"pets_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / name
    folder.mkdir()
    for file, text in {"__init__": "", "base": BASE, "cat": CAT, "ghost": BROKEN_IMPORT, "helper": "raise RuntimeError"}.items():
        (folder / f"{file}.py").write_text(text.format(package=name), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [module for module in sys.modules if module.startswith((name, "lexloom_extension_"))]:
        del sys.modules[module]


def pets(package: str) -> Registry[type]:
    return __import__(f"{package}.base", fromlist=["PETS"]).PETS


def extension(folder: Path, text: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_listing_reads_names_and_summaries_and_imports_nothing(package: str) -> None:
    registry = pets(package)
    assert registry.names() == ["cat", "ghost", "lion", "tiger"]
    assert {name: found.summary for name, found in registry.found().items()} == {
        "cat": "Says miaow.",
        "ghost": "Cannot be imported.",
        "lion": "",
        "tiger": "",
    }
    assert not {f"{package}.cat", f"{package}.ghost", f"{package}.helper", "nothing_of_this_name"} & set(sys.modules)


def test_asking_imports_the_one_file(package: str) -> None:
    registry = pets(package)
    assert registry.get("cat").__name__ == "Cat"
    assert registry.get("lion") is registry.get("tiger")
    assert f"{package}.cat" in sys.modules
    assert f"{package}.ghost" not in sys.modules


def test_an_unknown_name_is_told_the_nearest(package: str) -> None:
    with pytest.raises(ConfigError, match=r"r\.yaml:2:3: there is no pet called 'catt'\n  expected: cat, ghost, lion, tiger\n.*'cat'"):
        pets(package).get("catt", where="r.yaml:2:3")


def test_a_class_registered_in_a_running_program_is_known(package: str) -> None:
    registry = pets(package)

    @registry.register("mouse")
    class Mouse:
        pass

    assert registry.get("mouse") is Mouse
    assert "mouse" in registry.names()


def test_an_extension_file_adds_components(package: str, tmp_path: Path) -> None:
    registry = pets(package)
    assert "dog" not in registry.names()
    text = f'from {package}.base import PETS\n\n@PETS.register("dog")\nclass Dog:\n    """Says woof — 汪."""\n'
    registry.extend(extension(tmp_path, text))
    registry.extend(tmp_path / "mine.py")
    assert registry.found()["dog"].summary == "Says woof — 汪."
    assert registry.get("dog").__name__ == "Dog"


def test_two_extensions_of_one_file_name_live_together(package: str, tmp_path: Path) -> None:
    registry = pets(package)
    for animal in ("dog", "fox"):
        (tmp_path / animal).mkdir()
        text = f'from {package}.base import PETS\n@PETS.register("{animal}")\nclass X:\n    kind = "{animal}"\n'
        registry.extend(extension(tmp_path / animal, text))
    assert [registry.get(animal).kind for animal in ("dog", "fox")] == ["dog", "fox"]  # type: ignore[attr-defined]


def test_an_extension_may_not_take_a_name_away(package: str, tmp_path: Path) -> None:
    registry = pets(package)
    registry.extend(extension(tmp_path, f'from {package}.base import PETS\n@PETS.register("cat")\nclass Other: pass\n'))
    with pytest.raises(ConfigError, match=r"mine\.py: there are two of the pet 'cat'"):
        registry.names()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n@PETS.register('dog')", r"mine\.py:1: this extension is not valid Python"),
        ("# @PETS.register(\n\0", r"mine\.py:\d+: this extension is not valid Python"),
    ],
)
def test_an_extension_that_is_no_python_is_refused(package: str, tmp_path: Path, text: str, words: str) -> None:
    registry = pets(package)
    registry.extend(extension(tmp_path, text))
    with pytest.raises(ConfigError, match=words):
        registry.names()


def test_an_extension_that_fails_is_named_with_its_error(package: str, tmp_path: Path) -> None:
    registry = pets(package)
    registry.extend(
        extension(tmp_path, f'from {package}.base import PETS\nimport nowhere_to_be_found\n@PETS.register("dog")\nclass Dog: pass\n')
    )
    with pytest.raises(
        ConfigError, match=r"mine\.py: this extension cannot be imported\n  got: +ModuleNotFoundError: .*nowhere_to_be_found"
    ):
        registry.get("dog")
    assert not [module for module in sys.modules if module.startswith("lexloom_extension_")]


def test_a_missing_extension_is_refused(package: str, tmp_path: Path) -> None:
    for path in (tmp_path / "no.py", tmp_path):
        with pytest.raises(ConfigError, match="this extension does not exist"):
            pets(package).extend(path)


def test_decorators_without_a_literal_name_are_passed_over(package: str, tmp_path: Path) -> None:
    registry = pets(package)
    decorators = ["@PETS.register()", "@PETS.register(name)", "@PETS.register(*names)", "@other", "@cats.register('x')"]
    text = "".join(f"{decorator}\nclass A: pass\n" for decorator in decorators)
    registry.extend(extension(tmp_path, text))
    assert registry.names() == ["cat", "ghost", "lion", "tiger"]


def test_entry_points_of_other_packages_are_found(package: str, tmp_path: Path) -> None:
    info = tmp_path / "zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{package}]\nzebra = zoo_{package}:Zebra\n", encoding="utf-8")
    (tmp_path / f"zoo_{package}.py").write_text("class Zebra:\n    pass\n", encoding="utf-8")
    registry = pets(package)
    assert "zebra" in registry.names()
    assert registry.listed() == {
        "cat": "Says miaow.",
        "ghost": "Cannot be imported.",
        "lion": "",
        "tiger": "",
        "zebra": "of the package zoo",
    }
    assert f"zoo_{package}" not in sys.modules
    assert registry.get("zebra").__name__ == "Zebra"


def test_a_package_that_is_not_there_has_no_components() -> None:
    assert Registry[type]("pet", "PETS", "lexloom_no_such_package").names() == []
