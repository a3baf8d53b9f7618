"""name -> component. A registry finds the files of its own folder, entry points of other packages, and files that a recipe names.

A component is a class under a decorator with a literal name; the name and the docstring are read from the source, so that
listing imports nothing, and only the file of the component that is asked for is imported:

    @ARCHITECTURES.register("bert")
    class Bert(Architecture):
        "BERT: post-norm encoder with learned positions (Devlin et al. 2018)."
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from lexloom.errors import ConfigError, unknown
from lexloom.files import fingerprint

T = TypeVar("T")
_EXTENSION = "lexloom_extension_"


@dataclass(frozen=True)
class Found:
    """A component seen in a source file: enough to list it, and to import it when it is asked for."""

    name: str
    summary: str
    module: str
    path: Path


class Registry(Generic[T]):
    """The components of one kind.

    Args:
        kind: what they are called in messages, "architecture".
        variable: the name of this registry in source files, by which decorators are recognised.
        package: the package whose folder holds one component a file.
    """

    def __init__(self, kind: str, variable: str, package: str) -> None:
        self.kind, self.variable, self.package = kind, variable, package
        self._loaded: dict[str, T] = {}
        self._extensions: list[Path] = []
        self._found: dict[str, Found] | None = None

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: makes a class known under `name`."""

        def keep(component: T) -> T:
            self._loaded[name] = component
            return component

        return keep

    def extend(self, path: Path | str) -> None:
        """Adds a Python file outside the package, as named under `extensions:` in a recipe.

        Raises:
            ConfigError: there is no such file.
        """
        path = Path(path).resolve()
        if not path.is_file():
            raise ConfigError("this extension does not exist", where=str(path), hint="paths in a recipe are relative to the recipe")
        if path not in self._extensions:
            self._extensions.append(path)
            self._found = None

    def found(self) -> dict[str, Found]:
        """Every component by name, read from source without importing it."""
        if self._found is None:
            found: dict[str, Found] = {}
            for path, module in self._files():
                for component in self._read(path, module):
                    if (other := found.get(component.name)) is not None:
                        problem = f"there are two of the {self.kind} {component.name!r}"
                        raise ConfigError(problem, got=f"the other is in {other.path}", where=str(path), hint="give one another name")
                    found[component.name] = component
            self._found = found
        return self._found

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*self.found(), *self._loaded, *(point.name for point in self._points())})

    def listed(self) -> dict[str, str]:
        """What there is to name, sorted, with the first line of its documentation, or with the package whose entry point it is."""
        own = {name: component.summary for name, component in self.found().items()}
        theirs = {point.name: f"of the package {point.dist.name}" if point.dist else f"in {point.value}" for point in self._points()}
        return dict(sorted({**theirs, **own}.items()))

    def get(self, name: str, *, where: str | None = None) -> T:
        """The component called `name`; imports its file if need be.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self._loaded:
            if name in self.found():
                _import(self.found()[name])
            else:
                for point in self._points():
                    if point.name == name:
                        self._loaded[name] = point.load()
        if name not in self._loaded:
            raise unknown(self.kind, name, self.names(), where=where)
        return self._loaded[name]

    def _points(self) -> list:  # type: ignore[type-arg]
        return list(entry_points(group=self.package))

    def _files(self) -> list[tuple[Path, str]]:
        spec = importlib.util.find_spec(self.package)
        folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
        own = [(path, f"{self.package}.{path.stem}") for folder in folders for path in sorted(folder.glob("*.py"))]
        return own + [(path, f"{_EXTENSION}{path.stem}_{fingerprint(str(path))[:8]}") for path in self._extensions]

    def _read(self, path: Path, module: str) -> list[Found]:
        source = path.read_bytes()
        if f"@{self.variable}.register(".encode() not in source:
            return []
        try:
            body = ast.parse(source).body
        except (SyntaxError, ValueError) as error:
            where = f"{path}:{getattr(error, 'lineno', None) or 1}"
            raise ConfigError("this extension is not valid Python", got=str(error), where=where) from None
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        return [Found(name, _summary(node), module, path) for node in classes for name in self._names_on(node)]

    def _names_on(self, node: ast.ClassDef) -> list[str]:
        names = []
        for call in node.decorator_list:
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr == "register"
                and isinstance(call.func.value, ast.Name)
                and call.func.value.id == self.variable
                and call.args
                and isinstance(call.args[0], ast.Constant)
            ):
                names.append(str(call.args[0].value))
        return names


def _summary(node: ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]


def _import(found: Found) -> None:
    if not found.module.startswith(_EXTENSION):
        importlib.import_module(found.module)
        return
    spec = importlib.util.spec_from_file_location(found.module, found.path)
    if spec is None or spec.loader is None:
        raise ConfigError("this extension cannot be imported", where=str(found.path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[found.module] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[found.module]
        raise ConfigError("this extension cannot be imported", got=f"{type(error).__name__}: {error}", where=str(found.path)) from error
