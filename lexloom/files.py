"""Atomic files and folders, manifests and digests: the only code that writes.

A file appears whole or not at all (temporary name, fsync, rename, fsync of the folder). A folder with a manifest exists only
once its `manifest.json`, written last, lists every file with size and SHA-256.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lexloom.errors import CheckpointError, DiskFullError, FormatError, LexloomError

MANIFEST = "manifest.json"
FORMAT = 1
_writing: set[Path] = set()  # the temporary files and folders that this process is at work on


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": digest(path)}


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


def make_folder(folder: Path | str) -> None:
    """Makes a folder, and those above it, so that they survive a power cut."""
    folder = Path(folder)
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    if missing:
        with telling(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in missing:
                sync_folder(path.parent)


def free(folder: Path | str) -> int:
    """Bytes that may still be written to the disk of a folder, which need not be there yet."""
    folder = Path(folder).absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def check_room(folder: Path | str, needed: int, what: str) -> None:
    """Refuses to begin what cannot end.

    Raises:
        DiskFullError: fewer than `needed` bytes are free for `what`.
    """
    there = free(folder)
    if there < needed:
        raise DiskFullError(what, free=there, needed=needed, where=str(folder))


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Says in words that the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(path.name, free=free(path.parent), where=str(path)) from error
        raise


@contextmanager
def _working(*temporary: Path) -> Iterator[None]:
    """Marks temporary paths as this process's own, so that no sweep takes them away."""
    own = {path.absolute() for path in temporary}
    _writing.update(own)
    try:
        yield
    finally:
        _writing.difference_update(own)


@contextmanager
def replacing(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file that takes the place of `path` when the block ends well, and vanishes when it does not.

    Raises:
        DiskFullError: the disk is full; the older file is still there.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    encoding = None if "b" in mode else "utf-8"
    with telling(path), _working(temporary):
        try:
            with temporary.open(mode, encoding=encoding) as file:
                _claim(file.fileno())
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
    make_folder(path.parent)
    new = not path.exists()
    file = path.open("ab")
    if new:
        sync_folder(path.parent)
    return file


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
def new_folder(path: Path | str, *, hashed: Mapping[str, Mapping[str, Any]] | None = None, **about: Any) -> Iterator[Path]:
    """A folder that exists only when whole: yields a temporary one, then writes its manifest, renames it to `path` and syncs.

    An older folder at `path` is replaced at the end, and what killed processes left half made beside it is removed.
    `about` goes into the manifest.

    Args:
        hashed: see `write_manifest`; read when the block ends.

    Raises:
        LexloomError: there is a folder with other files at `path`; it is left alone.
        DiskFullError: the disk is full; the older folder is still there.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST).is_file():
        raise LexloomError("this folder holds files that lexloom did not write", where=str(path), hint="choose another, or empty it")
    make_folder(path.parent)
    sweep(path.parent)
    temporary, older = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("part", "old.part"))
    remove(temporary)
    with telling(path), _working(temporary, older):
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY)
        try:
            _claim(handle)
            yield temporary
            write_manifest(temporary, hashed=hashed, **about)
            if path.exists():
                os.replace(path, older)  # a rename, so that for no longer than that neither of the two is there
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            os.close(handle)
            if older.exists() and not path.exists():
                os.replace(older, path)
            for left in (temporary, older):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def sweep(folder: Path | str) -> None:
    """Removes what processes that are no more left half made in a folder; what they had just put aside comes back."""
    folder = Path(folder)
    for left in sorted(folder.glob(".*.part")):
        match = re.fullmatch(r"\.(.+)\.([0-9]+)(\.old)?\.part", left.name)
        if match and _abandoned(left, int(match[2])):
            if match[3] and not (folder / match[1]).exists():
                os.replace(left, folder / match[1])
            else:
                remove(left)


def _abandoned(left: Path, process: int) -> bool:
    """Whether nobody writes this any more.

    The number alone does not tell: containers that share a disk do not see each other's processes, and give the same numbers again.
    """
    if left.absolute() in _writing or (process != os.getpid() and _alive(process)):
        return False
    try:
        handle = os.open(left, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    finally:
        os.close(handle)
    return True


def _claim(handle: int) -> None:
    """Holds a temporary file or folder for as long as it is open: a sweep from another container sees that it is in use."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_manifest(folder: Path, *, hashed: Mapping[str, Mapping[str, Any]] | None = None, **about: Any) -> None:
    """Lists every file under `folder` with size and SHA-256, syncs them, and writes `manifest.json` last.

    Args:
        hashed: the entries of files that other processes wrote, synced and hashed.
    """
    files: dict[str, dict[str, Any]] = {name: dict(told) for name, told in (hashed or {}).items()}
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        if (name := file.relative_to(folder).as_posix()) not in files:
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            files[name] = entry(file)
    for inner in sorted(p for p in folder.rglob("*") if p.is_dir()):
        sync_folder(inner)
    content = json.loads(json.dumps({"format": FORMAT, **about, "files": dict(sorted(files.items()))}))
    write_json(folder / MANIFEST, {**content, "digest": fingerprint(content)})


def read_manifest(folder: Path | str) -> dict[str, Any] | None:
    """The manifest of a folder, or None where there is no valid one: then the folder does not count as written.

    Raises:
        FormatError: the manifest is whole, and of a newer format.
    """
    try:
        return _opened_manifest(Path(folder))
    except CheckpointError:
        return None


def _opened_manifest(folder: Path) -> dict[str, Any]:
    path, damaged = folder / MANIFEST, "a file was changed or damaged"
    try:
        found = read_json(path, kind="manifest")
    except OSError as error:
        hint = "the folder was not written to its end"
        raise CheckpointError("no valid manifest.json", got=error.strerror, where=str(folder), hint=hint) from None
    except FormatError as error:
        raise CheckpointError(damaged, expected="JSON with a digest of itself", got=error.got, where=str(path)) from None
    told = found.pop("digest", None) if isinstance(found, dict) else None
    if told != (real := fingerprint(found)):
        raise CheckpointError(damaged, expected=str(told), got=real, where=str(path))
    check_format(found, path)
    if not _is_listing(found.get("files")):
        raise CheckpointError("the manifest does not list files with size and digest", where=str(path))
    return dict(found)


def _is_listing(files: Any) -> bool:
    entries = files.values() if isinstance(files, dict) else [None]
    return all(isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in entries)


def verify(folder: Path | str, *, check_digests: bool = True) -> dict[str, Any]:
    """Checks a folder against its manifest before anything in it is used, and returns the manifest.

    Raises:
        CheckpointError: the manifest is missing, or a file is missing, has another size, or another digest.
    """
    folder = Path(folder)
    manifest = _opened_manifest(folder)
    for name, entry in manifest["files"].items():
        file = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise CheckpointError("the manifest names a file outside its folder", got=name, where=str(folder))
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            got = "no such file" if size is None else f"{size} bytes"
            expected = f"{entry['bytes']} bytes, SHA-256 {entry['sha256']}"
            raise CheckpointError("a file is missing or has another size", expected=expected, got=got, where=str(file))
        if check_digests and (found := digest(file)) != entry["sha256"]:
            raise CheckpointError("a file was changed or damaged", expected=entry["sha256"], got=found, where=str(file))
    return manifest


def read_about(folder: Path | str, name: str, *, kind: str, check_digests: bool = False) -> dict[str, Any]:
    """The JSON file that says what a finished folder holds.

    Args:
        check_digests: whether every file of the folder is read through; else only sizes are checked.

    Raises:
        CheckpointError: the folder is not whole.
        FormatError: it is of a newer format.
    """
    verify(folder, check_digests=check_digests)
    about: dict[str, Any] = read_json(Path(folder) / name, kind=kind)
    check_format(about, Path(folder) / name)
    return about


def remove(path: Path | str) -> None:
    """Removes a file or folder if it is there. A folder is first renamed away, so that a kill leaves nothing half removed."""
    path = Path(path)
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path = path.absolute()
    gone = path if path.name.endswith(".part") else path.with_name(f".{path.name}.{os.getpid()}.part")
    with _working(gone):
        if gone != path:
            shutil.rmtree(gone, ignore_errors=True)
            try:
                os.replace(path, gone)
            except OSError:  # a mount point, or a folder above it that may not be changed
                (path / MANIFEST).unlink(missing_ok=True)
                gone = path
            with suppress(OSError):
                sync_folder(path.parent)
        shutil.rmtree(gone)


def once(path: Path | str, make: Callable[[Path], None], **about: Any) -> Path:
    """Makes the folder `path` with `make` unless a whole one is there already."""
    path = Path(path)
    if read_manifest(path) is None:
        with new_folder(path, **about) as folder:
            make(folder)
    return path
