"""Atomic files and folders, manifests, digests and locks: the only code that writes.

A file appears whole or not at all (temporary name, fsync, rename, fsync of the folder). A folder with a manifest exists only
once its `manifest.json`, written last, lists every file with size and SHA-256.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lexloom.errors import BusyError, CheckpointError, FormatError, LexloomError

MANIFEST = "manifest.json"
FORMAT = 1


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON-like value, the same for equal values in any key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file that takes the place of `path` when the block ends well, and vanishes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    encoding = None if "b" in mode else "utf-8"
    try:
        with temporary.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes a file atomically."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path | str, content: str) -> None:
    """Writes a UTF-8 file atomically."""
    write_bytes(path, content.encode())


def appending(path: Path | str) -> IO[bytes]:
    """Opens a log that grows record by record: after each `write` and `flush` a kill of the process can only cut the record after it.

    For logs alone, whose readers pass over a cut end; all else goes through `replacing`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def write_json(path: Path | str, value: Any) -> None:
    """Writes JSON atomically: two spaces, UTF-8, key order kept, NaN refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # which writes a lone surrogate as JSON's own escape


def read_json(path: Path | str, *, kind: str = "file", max_bytes: int = 1 << 28) -> Any:
    """Reads JSON of bounded size.

    Raises:
        FormatError: the file is too large or not JSON.
    """
    path = Path(path)
    if path.stat().st_size > max_bytes:
        raise FormatError(f"this {kind} is too large", expected=f"at most {max_bytes} bytes", where=str(path))
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"this {kind} is not valid JSON", got=str(error), where=str(path)) from None


def check_format(found: Mapping[str, Any], path: Path | str, *, newest: int = FORMAT) -> None:
    """Refuses a file of a format that this version does not know.

    Raises:
        FormatError: `format` is missing, no integer, or newer than `newest`.
    """
    number = found.get("format") if isinstance(found, Mapping) else None
    if not isinstance(number, int) or not 1 <= number <= newest:
        raise FormatError(
            "unknown format",
            expected=f"format 1 to {newest}",
            got=repr(number),
            where=str(path),
            hint="it was written by a newer lexloom: update lexloom",
        )


@contextmanager
def new_folder(path: Path | str, **about: Any) -> Iterator[Path]:
    """A folder that exists only when whole: yields a temporary one, then writes its manifest, renames it to `path` and syncs.

    An older folder at `path` is replaced at the end, and what killed processes left half made beside it is removed.
    `about` goes into the manifest.

    Raises:
        LexloomError: there is a folder with other files at `path`; it is left alone.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise LexloomError("this folder holds files that lexloom did not write", where=str(path), hint="choose another, or empty it")
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    temporary, older = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("part", "old.part"))
    remove(temporary)
    temporary.mkdir()
    try:
        yield temporary
        write_manifest(temporary, **about)
        if path.exists():
            os.replace(path, older)  # a rename, so that for no longer than that neither of the two is there
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        if older.exists() and not path.exists():
            os.replace(older, path)
        for left in (temporary, older):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Removes what processes that are no more left half made; a folder they had just put aside comes back."""
    for left in sorted(folder.glob(".*.part")):
        match = re.fullmatch(r"\.(.+)\.([0-9]+)(\.old)?\.part", left.name)
        if match and not _alive(int(match[2])):
            if match[3] and not (folder / match[1]).exists():
                os.replace(left, folder / match[1])
            else:
                remove(left)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_manifest(folder: Path, **about: Any) -> None:
    """Lists every file under `folder` with size and SHA-256, syncs them, and writes `manifest.json` last."""
    files: dict[str, dict[str, Any]] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        files[file.relative_to(folder).as_posix()] = {"bytes": file.stat().st_size, "sha256": digest(file)}
    for inner in sorted(p for p in folder.rglob("*") if p.is_dir()):
        sync_folder(inner)
    content = json.loads(json.dumps({"format": FORMAT, **about, "files": files}))
    write_json(folder / MANIFEST, {**content, "digest": fingerprint(content)})


def read_manifest(folder: Path | str) -> dict[str, Any] | None:
    """The manifest of a folder, or None where there is no valid one: then the folder does not count as written.

    Raises:
        FormatError: the manifest is whole, and of a newer format.
    """
    path = Path(folder) / MANIFEST
    try:
        found = read_json(path, kind="manifest")
    except (OSError, FormatError):
        return None
    if not isinstance(found, dict) or found.pop("digest", None) != fingerprint(found):
        return None
    check_format(found, path)
    return found if _is_listing(found.get("files")) else None


def _is_listing(files: Any) -> bool:
    entries = files.values() if isinstance(files, dict) else [None]
    return all(isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in entries)


def verify(folder: Path | str, *, check_digests: bool = True) -> dict[str, Any]:
    """Checks a folder against its manifest before anything in it is used, and returns the manifest.

    Raises:
        CheckpointError: the manifest is missing, or a file is missing, has another size, or another digest.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise CheckpointError("no valid manifest.json", where=str(folder), hint="the folder was not written to its end")
    for name, entry in manifest["files"].items():
        file = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise CheckpointError("the manifest names a file outside its folder", got=name, where=str(folder))
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise CheckpointError("a file is missing or has another size", expected=f"{entry['bytes']} bytes", where=str(file))
        if check_digests and (found := digest(file)) != entry["sha256"]:
            raise CheckpointError("a file was changed or damaged", expected=entry["sha256"], got=found, where=str(file))
    return manifest


def remove(path: Path | str) -> None:
    """Removes a file or folder if it is there. A folder's manifest goes first, so that a kill leaves nothing that looks whole."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path | str) -> Iterator[None]:
    """Makes this process the only writer of `folder`. The kernel drops the lock when the process dies, however it dies.

    Raises:
        BusyError: another process, or another part of this one, holds it; its PID and host are named.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BusyError(
                "another process works in this folder",
                got=file.read(200) or "an unknown process",
                where=str(folder),
                hint="wait for it, or choose another --out",
            ) from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def once(path: Path | str, make: Callable[[Path], None], **about: Any) -> Path:
    """Makes the folder `path` with `make` unless a whole one is there already."""
    path = Path(path)
    if read_manifest(path) is None:
        with new_folder(path, **about) as folder:
            make(folder)
    return path
