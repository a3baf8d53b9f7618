"""The closed process that opens pickles: what calls or pretends is refused, and code that got out could do nothing."""

from __future__ import annotations

import json
import os
import pickle
import platform
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny


class Call:
    """A pickle of this calls a function when it is opened."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def in_a_zip(content: bytes, path: Path, **options: Any) -> None:
    """A file in the layout of `torch.save` whose pickle is `content`."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, part in (("data.pkl", content), ("version", b"3\n"), ("byteorder", b"little"), ("data/0", bytes(4096))):
            archive.writestr(f"archive/{name}", part)


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "a command": lambda mark: Call(os.system, f"touch {mark}"),
    "a program": lambda mark: Call(subprocess.Popen, ["touch", str(mark)]),
    "a file": lambda mark: Call(open, str(mark), "w"),
    "code": lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
    "a folder": lambda mark: Call(os.mkdir, str(mark)),
    "a command beside tensors": lambda mark: {"bert.pooler.dense.bias": torch.ones(24), "more": Call(os.system, f"touch {mark}")},
}
OPEN = """
import json, os, sys
import torch, safetensors.torch
from lexloom.hub import unpickling
found = {}
for path in sys.argv[1:]:
    from_child, to_parent = os.pipe()
    child = os.fork()  # each is as closed as if it had been started alone, and PyTorch is loaded once
    if not child:
        sys.stdout, sys.argv = os.fdopen(to_parent, "w"), ["unpickling", path, "60"]
        os._exit(unpickling.main())
    os.close(to_parent)
    with os.fdopen(from_child, "rb") as answer:
        found[path] = answer.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the process says of each hostile file."""
    root = tmp_path_factory.mktemp("hostile")
    paths = {}
    for name, make in HOSTILE.items():
        content = pickle.dumps(make(root / "mark"))
        paths[f"{name}, plain"], paths[f"{name}, zip"] = root / f"{len(paths)}.bin", root / f"{len(paths) + 1}.bin"
        paths[f"{name}, plain"].write_bytes(content)
        in_a_zip(content, paths[f"{name}, zip"])
    for make_, _ in PRETENDED:
        paths[make_.__name__] = root / f"{len(paths)}.bin"
        make_(paths[make_.__name__])
    command = [sys.executable, "-c", OPEN, *map(str, paths.values())]
    done = subprocess.run(command, capture_output=True, text=True, env=tiny.ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not (root / "mark").exists()
    told = json.loads(done.stdout)
    return {name: told[str(path)] for name, path in paths.items()}


@pytest.mark.parametrize("how", ["zip", "plain"])
@pytest.mark.parametrize("what", HOSTILE)
def test_the_process_refuses_what_calls(what: str, how: str, answers: dict[str, str]) -> None:
    assert "weights_only" in json.loads(answers[f"{what}, {how}"])["error"].lower()


def repeated(path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**12)}, path)


def aliases(path: Path) -> None:
    one = torch.zeros(1000)
    torch.save({f"name {i}": one for i in range(500)}, path)


def pretended(path: Path) -> None:
    """A storage that is said to be far larger than what is there."""
    torch.save({"a": torch.zeros(64)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"K@", b"J\xff\xff\xff\x7f"))


def bomb(path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def outside(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../../../mark", b"mark")
        archive.writestr("archive/data.pkl", pickle.dumps({}))


def meta(path: Path) -> None:
    torch.save({"a": torch.empty(10**10, device="meta")}, path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def damaged(path: Path) -> None:
    path.write_bytes(b"\x80\x02" + bytes(1000))


def a_list(path: Path) -> None:
    torch.save([torch.ones(3)], path)


def without(path: Path) -> None:
    torch.save({"a": 1}, path)


PRETENDED: list[tuple[Callable[[Path], None], str]] = [
    (repeated, "no plain tensor"),
    (aliases, "again and again"),
    (pretended, "memory|alloc|size|storage"),
    (bomb, "compressed"),
    (outside, "Error"),
    (meta, "no plain tensor|Error"),
    (empty, "Error"),
    (damaged, "Error"),
    (a_list, "a list"),
    (without, "0 tensors"),
]


@pytest.mark.parametrize(("make", "problem"), PRETENDED, ids=lambda value: getattr(value, "__name__", ""))
def test_files_that_pretend_are_refused(make: Callable[[Path], None], problem: str, answers: dict[str, str]) -> None:
    assert re.search(problem, json.loads(answers[make.__name__])["error"]), answers[make.__name__]


# The closed process itself: what code that got out of the unpickler could do

CONFINED = """
import os, sys, ctypes
import numpy
from lexloom.hub import unpickling
unpickling.confine(1 << 20, 20)
try:
    {attempt}
except BaseException as error:
    print("refused", type(error).__name__)
else:
    print("done")
"""
RAW = "ctypes.CDLL(None, use_errno=True)"


@pytest.mark.parametrize(
    "attempt",
    [
        "os.system('true')",
        "os.execv('/bin/true', ['true'])",
        "os.fork()",
        "open({mark!r}, 'w')",
        "os.open({mark!r}, os.O_CREAT | os.O_WRONLY) and sys.exit()",
        "os.mkdir({mark!r})",
        "os.remove({other!r})",
        "os.rename({other!r}, {mark!r})",
        "os.kill(os.getppid(), 0)",
        "__import__('socket').socket()",
        "numpy.ones(1 << 30)",
    ],
)
def test_the_process_can_do_nothing_else(attempt: str, tmp_path: Path) -> None:
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("there is no filter of calls for this machine")
    mark, other = tmp_path / "mark", tmp_path / "other"
    other.write_text("x")
    code = CONFINED.format(attempt=attempt.format(mark=str(mark), other=str(other)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=tiny.ENVIRONMENT, timeout=60)
    assert done.stdout.startswith("refused"), (done.stdout, done.stderr)
    assert not mark.exists() and other.exists()


@pytest.mark.parametrize(
    "call", ["socket(2, 1, 0)", "execl(b'/bin/true', b'true', None)", "fork()", "creat({mark}, 0o600)", "open({mark}, 65, 0o600)"]
)
def test_below_python_the_kernel_refuses(call: str, tmp_path: Path) -> None:
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("there is no filter of calls for this machine")
    mark = tmp_path / "mark"
    code = CONFINED.format(attempt=f"assert {RAW}.{call.format(mark=str(mark).encode())} >= 0")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=tiny.ENVIRONMENT, timeout=60)
    assert done.stdout == "refused AssertionError\n", (done.stdout, done.stderr)
    assert not mark.exists()


def test_time_is_limited() -> None:
    code = CONFINED.replace("20)", "1)").format(attempt="exec('while True: pass')")
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=tiny.ENVIRONMENT, timeout=100)
    assert done.returncode < 0 and time.monotonic() - begun < 90
