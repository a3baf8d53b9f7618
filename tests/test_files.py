"""Files appear whole or not at all; damage is seen."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexloom import files
from lexloom.errors import CheckpointError, FormatError
from lexloom.lock import locked

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Single files


def test_a_file_replaces_the_older_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "one\r\n名\0")
    files.write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["a.txt"]


def test_an_error_while_writing_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), files.replacing(path, "w") as file:
        file.write("new" * 100_000)
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.kill
def test_a_kill_while_writing_leaves_the_older_file(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    code = """
import sys, time
from lexloom import files
with files.replacing(sys.argv[1]) as file:
    file.write(b"new" * 1000000); file.flush()
    print("ready", flush=True); time.sleep(60)
"""
    os.kill(start(code, path).pid, signal.SIGKILL)
    assert path.read_bytes() == b"old"


@pytest.mark.kill
def test_kills_at_random_moments_leave_one_of_two_versions(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    path = tmp_path / "a.json"
    code = """
import sys
from lexloom import files
print("ready", flush=True)
i = 0
while True:
    files.write_json(sys.argv[1], {"i": i, "filler": [i] * 2000}); i += 1
"""
    for wait in (0.01, 0.023, 0.037, 0.05):
        child = start(code, path)
        while not path.exists():
            time.sleep(0.001)
        time.sleep(wait)
        child.kill()
        child.wait()
        found = files.read_json(path)
        assert set(found["filler"]) == {found["i"]}


# JSON


@given(JSON)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert files.fingerprint(files.read_json(path)) == files.fingerprint(value)


def test_a_lone_surrogate_is_written_as_an_escape(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"text": "a\ud800b", "名": "é"})
    content = (tmp_path / "a.json").read_bytes().decode()
    assert json.loads(content) == {"text": "a\ud800b", "名": "é"}
    assert '"名": "é"' in content
    assert "\\ud800" in content


def test_not_a_number_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1}}', b"[" * 100_000])
def test_damaged_json_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.json: this recipe is not valid JSON"):
        files.read_json(tmp_path / "a.json", kind="recipe")


def test_json_beyond_the_bound_is_not_read(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", list(range(100)))
    with pytest.raises(FormatError, match="too large"):
        files.read_json(tmp_path / "a.json", max_bytes=100)


def test_a_fingerprint_knows_values_not_key_order() -> None:
    assert files.fingerprint({"a": 1, "b": [1, "2"]}) == files.fingerprint({"b": [1, "2"], "a": 1})
    found = {files.fingerprint(value) for value in ({"a": 1}, {"a": "1"}, {"a": 1.5}, {"b": 1}, {"a": [1]}, {}, [], None, "", 0)}
    assert len(found) == 10


@pytest.mark.parametrize("number", [None, 0, 2, "1", 1.0, -1])
def test_an_unknown_format_is_refused(number: object) -> None:
    with pytest.raises(FormatError, match="update lexloom"):
        files.check_format({"format": number}, "corpus.json")


def test_known_formats_are_taken() -> None:
    files.check_format({"format": 1}, "corpus.json")
    files.check_format({"format": 2}, "corpus.json", newest=3)
    with pytest.raises(FormatError):
        files.check_format([], "corpus.json")  # type: ignore[arg-type]


# Folders with a manifest


def make(path: Path, text: str = "hello") -> Path:
    with files.new_folder(path, step=100) as folder:
        files.write_text(folder / "a.txt", text)
        files.write_bytes(folder / "deep" / "b.bin", bytes(range(256)))
        files.write_json(folder / "deep" / "manifest.json", {"of": "another thing"})
    return path


def test_a_folder_appears_with_its_manifest(tmp_path: Path) -> None:
    manifest = files.verify(make(tmp_path / "x"))
    assert manifest["step"] == 100
    assert manifest["format"] == 1
    assert sorted(manifest["files"]) == ["a.txt", "deep/b.bin", "deep/manifest.json"]
    assert manifest["files"]["a.txt"] == {"bytes": 5, "sha256": files.digest(tmp_path / "x" / "a.txt")}
    assert names(tmp_path) == ["x"]


def test_a_folder_is_replaced_only_at_the_end(tmp_path: Path) -> None:
    make(tmp_path / "x", "old")
    with pytest.raises(ZeroDivisionError), files.new_folder(tmp_path / "x") as folder:
        files.write_text(folder / "a.txt", "new")
        raise ZeroDivisionError
    assert (tmp_path / "x" / "a.txt").read_text(encoding="utf-8") == "old"
    make(tmp_path / "x", "new")
    assert (tmp_path / "x" / "a.txt").read_text(encoding="utf-8") == "new"
    assert names(tmp_path) == ["x"]


def test_a_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "x", "a file")
    files.verify(make(tmp_path / "x"))
    assert names(tmp_path) == ["x"]


def test_once_makes_a_folder_once(tmp_path: Path) -> None:
    made: list[Path] = []
    for _ in range(3):
        assert files.once(tmp_path / "x", made.append, kind="test") == tmp_path / "x"
    assert len(made) == 1
    (tmp_path / "x" / files.MANIFEST).unlink()
    files.once(tmp_path / "x", made.append)
    assert len(made) == 2


def test_every_bit_flip_is_seen(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    before = files.verify(folder)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for place in range(0, len(content) * 8, 1 if len(content) < 64 else 13):
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            try:
                # White space of the manifest is the one thing that may change, and then it says the same.
                assert (path, files.verify(folder)) == (folder / files.MANIFEST, before)
            except CheckpointError as error:
                assert str(folder) in str(error)
        path.write_bytes(content)
    assert files.verify(folder) == before


def test_every_truncation_and_loss_is_seen(tmp_path: Path) -> None:
    folder = make(tmp_path / "x")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for size in {*range(0, len(content) - 1, max(1, len(content) // 20))}:
            path.write_bytes(content[:size])
            with pytest.raises(CheckpointError):
                files.verify(folder)
        path.unlink()
        with pytest.raises(CheckpointError):
            files.verify(folder)
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["../x", "/etc/hostname", "deep/../../x"])
def test_a_manifest_may_not_point_outside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "x"
    content = {"format": 1, "files": {name: {"bytes": 1, "sha256": "0"}}}
    files.write_json(folder / files.MANIFEST, {**content, "digest": files.fingerprint(content)})
    with pytest.raises(CheckpointError, match="outside"):
        files.verify(folder)


@pytest.mark.parametrize("listing", [None, [], {"a": 1}, {"a": {}}, {"a": {"bytes": 1}}])
def test_a_manifest_of_another_shape_is_none(tmp_path: Path, listing: object) -> None:
    content = {"format": 1, "files": listing}
    files.write_json(tmp_path / files.MANIFEST, {**content, "digest": files.fingerprint(content)})
    assert files.read_manifest(tmp_path) is None
    assert files.read_manifest(tmp_path / "nowhere") is None


def test_a_newer_manifest_is_refused_not_overlooked(tmp_path: Path) -> None:
    content = {"format": 2, "files": {}}
    files.write_json(tmp_path / files.MANIFEST, {**content, "digest": files.fingerprint(content)})
    with pytest.raises(FormatError, match="newer"):
        files.read_manifest(tmp_path)


@pytest.mark.kill
def test_a_folder_killed_half_way_does_not_exist_and_is_swept(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    make(tmp_path / "x", "old")
    code = """
import sys, time
from pathlib import Path
from lexloom import files
with files.new_folder(sys.argv[1]) as folder:
    files.write_text(folder / "a.txt", "new")
    print("ready", flush=True); time.sleep(60)
"""
    child = start(code, tmp_path / "x")
    make(tmp_path / "other")
    assert len(names(tmp_path)) == 3, "the folder of a living process is left alone"
    child.kill()
    child.wait()
    assert (tmp_path / "x" / "a.txt").read_text(encoding="utf-8") == "old"
    files.verify(tmp_path / "x")
    make(tmp_path / "y")
    assert names(tmp_path) == ["other", "x", "y"]


@pytest.mark.kill
def test_a_folder_put_aside_by_a_killed_process_comes_back(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    make(tmp_path / "x", "old")
    code = """
import os, sys
from pathlib import Path
from lexloom import files
real = os.replace
def stop(source, target):
    real(source, target)
    if str(target).endswith(".old.part"):
        print("ready", flush=True); os.kill(os.getpid(), 9)
os.replace = stop
with files.new_folder(sys.argv[1]) as folder:
    files.write_text(folder / "a.txt", "new")
"""
    start(code, tmp_path / "x").wait()
    assert not (tmp_path / "x").exists()
    make(tmp_path / "y")
    assert (tmp_path / "x" / "a.txt").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["x", "y"]


def test_what_an_earlier_process_of_the_same_number_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    for name in ("gone", "held"):
        files.write_text(tmp_path / f".{name}.{os.getpid()}.part" / "a.txt", "half")
    files.write_text(tmp_path / f".file.{os.getpid()}.part", "half")
    handle = os.open(tmp_path / f".held.{os.getpid()}.part", os.O_RDONLY)  # as a process of another container does
    fcntl.flock(handle, fcntl.LOCK_EX)
    with files.new_folder(tmp_path / "x") as folder, files.replacing(tmp_path / "y") as file:
        file.write(b"y")
        files.sweep(tmp_path)
        assert folder.is_dir()
        files.write_text(folder / "a.txt", "whole")
    os.close(handle)
    assert names(tmp_path) == [f".held.{os.getpid()}.part", "x", "y"]
    with locked(tmp_path):
        assert names(tmp_path) == [".lock", "x", "y"], "who is alone in a folder clears it up"


def test_remove_takes_files_folders_and_links_not_their_targets(tmp_path: Path) -> None:
    kept = make(tmp_path / "kept")
    (tmp_path / "link").symlink_to(kept)
    files.write_text(tmp_path / "file", "x")
    for name in ("link", "file", "nothing"):
        files.remove(tmp_path / name)
    files.remove(make(tmp_path / "gone"))
    assert names(tmp_path) == ["kept"]
    files.verify(kept)
