"""What the package never does: unpickle, run text as code, reach the network, write beside `files.py`, or roll dice of its own.

Read from the source, so that it holds for lines no test runs; and once at run time for what an import changes.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lexloom"

MODULES = {
    "unpickles": "pickle _pickle cPickle cloudpickle dill joblib jsonpickle marshal shelve copyreg",
    "reaches the network": "socket urllib http requests httpx httpx2 aiohttp ftplib smtplib telnetlib xmlrpc huggingface_hub",
    "loads unsafe YAML": "yaml",
    "rolls dice beside keys.py": "random secrets",
    "is an oracle or peer, for tests only": "transformers gensim peft sentence_transformers accelerate datasets openai lm_eval",
    "is for tests only": "pytest hypothesis playwright unittest",
}
CALLS = {
    "runs text as code": "eval exec compile __import__ os.system os.popen os.execv os.execve os.execvp os.spawnl os.spawnv pty.spawn",
    "unpickles": "torch.load torch.save torch.jit.load torch.package.PackageImporter np.loads pd.read_pickle",
    "rolls dice beside keys.py": "torch.manual_seed torch.seed torch.rand torch.randn torch.randint torch.randperm "
    "torch.bernoulli torch.multinomial torch.normal "
    "torch.rand_like torch.randn_like torch.randint_like torch.cuda.manual_seed torch.cuda.manual_seed_all",
    "writes beside files.py": "np.save np.savez np.savez_compressed np.savetxt",
}
FORBIDDEN_MODULES = {name: why for why, names in MODULES.items() for name in names.split()}
FORBIDDEN_CALLS = {name: why for why, names in CALLS.items() for name in names.split()}
UNPICKLER = "hub/unpickling.py"
"""The one file that may call `torch.load`, with `weights_only=True`: it runs as a process of its own that nothing imports."""
WRITERS = {"files.py", "lock.py", "train/log.py"}
ALIASES = {"numpy": "np", "pandas": "pd"}


def dangers(package: Path) -> list[str]:
    found = []
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        tree = ast.parse(file.read_bytes())
        nodes = [(node, why) for node in ast.walk(tree) for why in _wrong(node, may_write=name in WRITERS)]
        nodes = [(node, why) for node, why in nodes if not (name == UNPICKLER and _keeps_to_weights(node))]
        nodes += [(node, "changes the environment at import") for node in _at_import(tree) if _changes_environment(node)]
        found += [f"{name}:{node.lineno}: {why}: {ast.unparse(node)[:80]}" for node, why in nodes]  # type: ignore[attr-defined]
    return found


def _keeps_to_weights(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "torch.load":
        return False
    return {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}.get("weights_only") == "True"


def _wrong(node: ast.AST, *, may_write: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from filter(None, (_forbidden(alias.name) for alias in node.names))
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield from filter(None, [_forbidden(str(node.module))])
        yield from filter(None, (FORBIDDEN_CALLS.get(_dotted(f"{node.module}.{alias.name}")) for alias in node.names))
    elif isinstance(node, ast.Attribute) and _dotted(ast.unparse(node)) == "np.random":
        yield "rolls dice beside keys.py"
    elif isinstance(node, ast.Call):
        yield from _wrong_call(node, _dotted(ast.unparse(node.func)), may_write)


def _wrong_call(node: ast.Call, name: str, may_write: bool) -> Iterator[str]:
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name in FORBIDDEN_CALLS:
        yield FORBIDDEN_CALLS[name]
    if name == "np.load" and keywords.get("allow_pickle") != "False":
        yield "unpickles (say allow_pickle=False)"
    if keywords.get("shell", "False") != "False":
        yield "runs text as code"
    if not may_write and _writes(node, name):
        yield "writes beside files.py"


def _writes(node: ast.Call, name: str) -> bool:
    owner, _, method = name.rpartition(".")
    if method in ("write_text", "write_bytes"):
        return owner not in ("files", "lexloom.files", "")
    if method not in ("open", "fdopen", "NamedTemporaryFile"):
        return False
    arguments = [*node.args[:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
    modes = [str(argument.value) for argument in arguments if isinstance(argument, ast.Constant)]
    return any(set(mode) <= set("rwxabtU+") and set(mode) & set("wxa+") for mode in modes)


def _forbidden(module: str) -> str | None:
    if _dotted(module).startswith("np.random"):
        return "rolls dice beside keys.py"
    return None if module == "urllib.parse" else FORBIDDEN_MODULES.get(module.split(".")[0])


def _dotted(name: str) -> str:
    first, dot, rest = name.partition(".")
    return ALIASES.get(first, first) + dot + rest


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _at_import(node)


def _changes_environment(node: ast.AST) -> bool:
    targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [node.target] if isinstance(node, ast.AugAssign) else []
    if isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        return function in ("os.putenv", "os.unsetenv") or function.startswith(
            ("os.environ.s", "os.environ.u", "os.environ.p", "environ.s")
        )
    return any(ast.unparse(target).startswith(("os.environ", "environ[")) for target in targets)


def test_the_package_does_none_of_it() -> None:
    assert len(list(PACKAGE.rglob("*.py"))) > 5
    assert dangers(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "def f():\n    import socket",
        "import urllib.request",
        "from http.server import HTTPServer",
        "import requests",
        "import yaml",
        "import random",
        "import transformers",
        "from gensim.models import KeyedVectors",
        "eval('1')",
        "exec(text)",
        "compile('1', 'x', 'eval')",
        "__import__('os')",
        "import os\nos.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
        "import numpy as np\nnp.load('x')",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "np.random.seed(1)",
        "numpy.random.default_rng(1)",
        "from numpy.random import default_rng",
        "torch.manual_seed(0)",
        "x = torch.rand(3)",
        "open('x', 'w')",
        "open('x', mode='ab')",
        "path.open('w', encoding='utf-8')",
        "with gzip.open(path, 'wt') as file: pass",
        "path.write_text('x')",
        "Path('x').write_bytes(b'')",
        "np.save('x', a)",
        "import os\nos.environ['A'] = 'b'",
        "import os\nos.environ.setdefault('A', 'b')",
        "import os\nif True:\n    os.environ.update(A='b')",
    ],
)
def test_a_planted_danger_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.py").write_text(line + "\n", encoding="utf-8")
    assert dangers(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "import re\nre.compile('a')",
        "model.eval()",
        "from urllib.parse import quote",
        "np.load('x', allow_pickle=False)",
        "open('data')",
        "open('data', 'rb')",
        "path.open(encoding='utf-8')",
        "gzip.open(path, 'rt', encoding='utf-8')",
        "files.write_text(path, 'x')",
        "write_text(path, 'w')",
        "subprocess.run(['ls'])",
        "subprocess.run(['ls'], shell=False)",
        "def f():\n    os.environ['A'] = 'b'",
        "print(os.environ['A'], os.environ.get('B'))",
        "from lexloom.keys import key",
        "from .random import things",
        "'pickle torch.load eval'",
    ],
)
def test_what_is_harmless_is_let_through(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.py").write_text(line + "\n", encoding="utf-8")
    assert dangers(tmp_path) == []


def test_only_the_writers_may_open_for_writing(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("files.py", "train/log.py", "train/loop.py"):
        (tmp_path / name).write_text("path.open('ab')\n", encoding="utf-8")
    assert dangers(tmp_path) == ["train/loop.py:1: writes beside files.py: path.open('ab')"]


def test_one_file_unpickles_weights_alone_and_nothing_imports_it(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    for line, wrong in (
        ("torch.load(path, weights_only=True)", False),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=flag)", True),
        ("import pickle", True),
    ):
        (tmp_path / UNPICKLER).write_text(line + "\n", encoding="utf-8")
        assert bool(dangers(tmp_path)) is wrong, line
    (tmp_path / UNPICKLER).rename(tmp_path / "hub/other.py")
    (tmp_path / "hub/other.py").write_text("torch.load(path, weights_only=True)\n", encoding="utf-8")
    assert dangers(tmp_path)
    importers = [file for file in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(file.read_bytes())) if _imports(node, "unpickling")]
    assert importers == []


def _imports(node: ast.AST, module: str) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
    return any(module in name.split(".") for name in [*names, str(getattr(node, "module", ""))])


IMPORT_ALL = """
import importlib, os, pkgutil, random, sys
events = []
sys.addaudithook(lambda event, _: events.append(event) if event in ("socket.connect", "subprocess.Popen", "os.system") else None)
import numpy, torch
def state():
    dice = random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()
    return dict(os.environ), dice, torch.get_num_threads(), torch.get_default_dtype()
import sklearn.linear_model, pyarrow.parquet, scipy.stats, tokenizers  # what these do at import is not ours
before, handlers = state(), [__import__("signal").getsignal(n) for n in (2, 15)]
events.clear()
import lexloom
for module in pkgutil.walk_packages(lexloom.__path__, "lexloom."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert state() == before, "an import changed the environment or a random state"
assert handlers == [__import__("signal").getsignal(n) for n in (2, 15)], "an import changed signal handlers"
assert not events, events
"""


def test_importing_everything_changes_nothing(in_child: Callable[..., str]) -> None:
    in_child(IMPORT_ALL)


def test_importing_the_root_loads_no_torch(in_child: Callable[..., str]) -> None:
    code = "import sys, lexloom; print(lexloom.__version__, sorted({'torch', 'numpy', 'pydantic', 'pyarrow', 'rich'} & set(sys.modules)))"
    assert in_child(code).split(" ", 1)[1] == "[]\n"


def test_public_names_are_there_and_others_are_not(in_child: Callable[..., str]) -> None:
    in_child("""
import lexloom
assert set(lexloom.__all__) <= set(dir(lexloom))
for name in lexloom.__all__:
    assert getattr(lexloom, name) is getattr(lexloom, name), name
assert callable(lexloom.run) and callable(lexloom.load) and isinstance(lexloom.Batch, type)
try:
    lexloom.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise SystemExit("an unknown name was found")
""")
