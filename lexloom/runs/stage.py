"""A stage of a run: reused when nothing that it depends on changed, resumed when it was interrupted, and never overwritten in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lexloom import files
from lexloom.console import Console
from lexloom.errors import FormatError

STAGE = "stage.json"
LARGE = 64 << 20  # a source beyond this is told by size and time, not by its bytes
LAYOUT = ("recompute", "shard")  # settings of `train` that say where numbers are held, not what they are
State = Literal["new", "finished", "interrupted", "changed"]


@dataclass
class Stage:
    """One folder of a run and what its result depends on.

    Attributes:
        name: its folder below the run, such as `pretrain` or `finetune/sst2`.
        folder: where that is.
        depends: settings and the digests of inputs, as JSON.
        trained: hours may lie in it: a changed one is kept aside, not replaced.
    """

    name: str
    folder: Path
    depends: Mapping[str, Any]
    trained: bool = False

    @property
    def digest(self) -> str:
        """What tells whether the result is still right."""
        return files.fingerprint({"format": files.FORMAT, **self.depends})

    def state(self) -> State:
        """Whether the folder holds this very stage, and how far it came."""
        found = self._read()
        if found is None:
            return "new"
        if found.get("digest") != self.digest:
            return "changed"
        return "finished" if found.get("finished") else "interrupted"

    def why(self) -> str:
        """One line for --dry-run."""
        state = self.state()
        if state == "changed":
            return f"runs again: {self._difference()} changed"
        return {"new": "runs", "finished": "is reused", "interrupted": "goes on from its last checkpoint"}[state]

    def begin(self, console: Console) -> bool:
        """Makes the folder ready; False where the stage is finished already."""
        state = self.state()
        if state == "finished":
            console.say(f"{self.name}: reused")
            return False
        if state == "changed":
            self._put_aside(console)
        if self.trained:
            files.make_folder(self.folder)
            self._write(finished=False)
        return True

    def end(self) -> None:
        """Marks the stage as finished."""
        self._write(finished=True)

    def _write(self, *, finished: bool) -> None:
        value = {"format": files.FORMAT, "name": self.name, "digest": self.digest, "finished": finished, "depends": self.depends}
        files.write_json(self.folder / STAGE, value)

    def _read(self) -> dict[str, Any] | None:
        return _told(self.folder)

    def _difference(self) -> str:
        before = (self._read() or {}).get("depends", {})
        names = sorted(name for name in {*before, *self.depends} if before.get(name) != self.depends.get(name))
        return ", ".join(names) or "the format"

    def _put_aside(self, console: Console) -> None:
        difference = self._difference()
        if not self.trained:
            console.say(f"{self.name}: runs again, {difference} changed")
            files.remove(self.folder)
            return
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.old-{number}")).exists():
            number += 1
        self.folder.rename(aside)
        console.warn(f"{self.name}: {difference} changed, so it runs again; what was there is kept in {aside}")


def finished(folder: Path) -> bool:
    """Whether a stage was brought to its end in a folder, be it this very one or one with other settings."""
    return bool((_told(folder) or {}).get("finished"))


def _told(folder: Path) -> dict[str, Any] | None:
    try:
        found = files.read_json(folder / STAGE, kind="stage")
    except (OSError, FormatError):
        return None
    return found if isinstance(found, dict) else None


def content(path: Path) -> Any:
    """What stands for a file or folder of input among a stage's dependencies.

    The digest of a folder that lexloom wrote, else of each file; very large files by size and time of change.
    """
    if path.is_dir():
        manifest = files.read_manifest(path)
        if manifest is not None:
            return files.fingerprint(manifest["files"])
        return {p.relative_to(path).as_posix(): content(p) for p in sorted(path.rglob("*")) if p.is_file()}
    about = path.stat()
    return f"{about.st_size} bytes, changed {about.st_mtime_ns}" if about.st_size > LARGE else files.digest(path)


def pathless(settings: Any) -> Any:
    """Settings as a stage depends on them: without the paths of inputs, whose digests tell more, what is null, and the layout.

    So a recipe that was kept in a run, where paths are absolute, finds every stage finished.
    """
    found = _solid(settings)
    if not isinstance(found, dict):
        return found
    kept = {name: inner for name, inner in found.items() if name not in ("data", "from_")}
    if "train" in kept:
        kept["train"] = {name: inner for name, inner in kept["train"].items() if name not in LAYOUT}
    if "model" in kept:
        kept["model"] = {name: inner for name, inner in kept["model"].items() if name not in ("from", "vectors")}
    return kept


def _solid(value: Any) -> Any:
    return {name: _solid(inner) for name, inner in value.items() if inner is not None} if isinstance(value, Mapping) else value
