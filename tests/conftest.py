"""What every test stands on: no network, steady examples, and the marks that skip themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")

# The oracles and peers must never look for a hub; they read this once, when they are imported.
os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1", TOKENIZERS_PARALLELISM="false"
)

hypothesis.settings.register_profile("steady", deadline=None, derandomize=True, database=None, print_blob=False)
hypothesis.settings.load_profile("steady")


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(address := arguments[1], tuple) and not str(address[0]).startswith(LOOPBACK):
        raise RuntimeError(f"a test tried to reach {address[0]}: tests have no network")


sys.addaudithook(_refuse_network)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("LEXLOOM_DATA"):
        _skip(items, "data", "LEXLOOM_DATA does not name the folder of data sets")
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        _skip(items, "gpu", "there is no CUDA device")


def _skip(items: list[pytest.Item], mark: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(mark):
            item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; for tests marked `data`."""
    return Path(os.environ["LEXLOOM_DATA"])


@pytest.fixture(scope="session")
def child_environment() -> dict[str, str]:
    """The environment of a child Python that can import lexloom."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def in_child(child_environment: dict[str, str]) -> Callable[..., str]:
    """Runs Python code in a fresh interpreter and gives its stdout; the test fails with its stderr when it does."""

    def run(code: str, *arguments: str | Path) -> str:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=child_environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def start(child_environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python code in a child and waits for its first line."""
    running: list[subprocess.Popen[str]] = []

    def begin(code: str, *arguments: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        child = subprocess.Popen(command, env=child_environment, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    yield begin
    for child in running:
        child.kill()
        child.communicate()
