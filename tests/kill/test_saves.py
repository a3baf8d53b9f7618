"""A save that is killed at any of its calls, cut by a full disk, or followed by a power cut never harms what was there before."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from lexloom import files
from lexloom.errors import CheckpointError
from lexloom.lock import locked
from lexloom.train import checkpoint
from lexloom.train.log import read
from tests.kill import subjects
from tests.kill.rig import FOREVER, Disk, Rig, log_ahead

INTERVAL = 7


def prepared(folder: Path) -> Path:
    """Two checkpoints, of steps 7 and 14."""
    for step in (INTERVAL, 2 * INTERVAL):
        subjects.save(str(folder), step)
    return folder


def copied(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(folder, to)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check_whole(folder: Path) -> int:
    """The step of the newest checkpoint, after a look at every bit of it and of its best weights."""
    found, complaints = checkpoint.latest(folder)
    assert found is not None and complaints == []
    expected = subjects.optimizer(found.step)
    assert found.state["optimizer_steps"] == expected.steps and found.state["tokens"] == 100 * found.step
    for name, master in expected.masters.items():
        assert torch.equal(found.masters[name], master)
    for name, moment in expected.state().items():
        assert torch.equal(found.moments[name], moment)
    assert found.best is not None
    for name, tensor in checkpoint.load_best(folder, found.best.step).items():
        assert torch.equal(tensor, subjects.optimizer(found.best.step).masters[name])
    return found.step


def test_the_shim_sees_every_byte(faulty: Rig, tmp_path: Path) -> None:
    done = faulty.do("foreign", tmp_path, folder=str(tmp_path))
    assert done.value is None
    disk = Disk().replay(done.calls)
    sizes = {path: path.stat().st_size for path in (tmp_path / "x").iterdir()}
    assert {path: n for path, n in disk.written.items() if path in sizes} == sizes and len(sizes) == 5
    assert disk.faults == []


def test_the_model_of_the_disk_sees_a_missing_sync(faulty: Rig, tmp_path: Path) -> None:
    prepared(tmp_path / "c")
    calls = faulty.do("save", tmp_path, folder=str(tmp_path / "c"), step=21).calls
    assert Disk().replay(calls).faults == []
    synced = {final(call.path) for call in calls if call.name == "fsync"}
    assert synced == {"model.safetensors", "optimizer.safetensors", "state.json", files.MANIFEST, "best-000000021", "step-000000021", "c"}
    for name in synced:
        disk = Disk().replay([call for call in calls if call.name != "fsync" or final(call.path) != name])
        assert disk.faults or any(disk.entries.values()), f"{name} need not be synced"


def final(path: Path) -> str:
    """The name that a temporary file or folder gets."""
    return re.sub(r"^\.(.+)\.\d+\.part$", r"\1", path.name)


@pytest.mark.kill
def test_a_save_killed_at_each_call_leaves_the_old_checkpoint_or_the_new(faulty: Rig, tmp_path: Path) -> None:
    base = prepared(tmp_path / "base")
    folder = copied(base, tmp_path / "whole")
    n_calls = faulty.do("save", tmp_path, folder=str(folder), step=3 * INTERVAL).found["calls"]
    assert n_calls > 30
    found = set()
    for n in range(1, n_calls + 1):
        folder = copied(base, tmp_path / "c")
        assert faulty.do("save", tmp_path, kill=n, folder=str(folder), step=3 * INTERVAL).signal == 9, n
        step = check_whole(folder)
        found.add(step)
        subjects.save(str(folder), step + INTERVAL)
        assert check_whole(folder) == step + INTERVAL
        kept = [step, step + INTERVAL]
        assert names(folder) == [f"{kind}-{s:09d}" for kind in ("best", "step") for s in kept], n
    assert found == {2 * INTERVAL, 3 * INTERVAL}


@pytest.mark.kill
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_training_that_is_killed_at_any_call_beside_a_save_goes_on_without_gap_or_double(stride: int, faulty: Rig, tmp_path: Path) -> None:
    """The calls of the log and of the save mix in another way each time, so that the same number is another moment."""
    done = faulty.do("train", tmp_path, folder=str(tmp_path / "whole"))
    assert done.value is None and log_ahead(done.calls, tmp_path / "whole" / "metrics.jsonl") == [3, 6, 9, 12, 13]
    expected, seen = outcome(tmp_path / "whole"), set()
    assert len(expected["losses"]) == 13
    for n in range(1, done.found["calls"] + 1, stride):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        done = faulty.do("train", folder, kill=n, folder=str(folder))
        if done.signal == 9:  # else it got by with fewer calls than the first one
            found, complaints = checkpoint.latest(folder / "checkpoints")
            logged = [line["step"] for line in read(folder)]
            step = found.step if found is not None else 0
            assert complaints == [] and logged == list(range(1, len(logged) + 1)) and step <= len(logged) <= step + 6, n
            seen.add(step)
            subjects.train(str(folder))
        assert outcome(folder) == expected, n
    assert seen >= {0, 3, 6, 9, 12}


def outcome(folder: Path) -> dict[str, object]:
    """Every loss as hex, and the digest of every file of the newest checkpoint."""
    losses = [(line["step"], line["loss"].hex()) for line in read(folder)]
    newest = max((folder / "checkpoints").glob("step-*"))
    digests = {path.relative_to(folder).as_posix(): files.digest(path) for path in sorted(newest.iterdir())}
    return {"losses": losses, **digests}


@pytest.mark.parametrize(
    "times", [[1, FOREVER], pytest.param([1], marks=pytest.mark.slow), pytest.param([FOREVER], marks=pytest.mark.slow)]
)
def test_a_disk_that_is_full_at_each_call_keeps_the_last_checkpoint(times: list[int], faulty: Rig, tmp_path: Path) -> None:
    base = prepared(tmp_path / "base")
    n_calls = faulty.do("save", tmp_path, folder=str(copied(base, tmp_path / "whole")), step=3 * INTERVAL).found["calls"]
    refused = 0
    for n in range(1, n_calls + 1):
        folder = copied(base, tmp_path / "c")
        done = faulty.do("save", tmp_path, full=n, times=times[n % len(times)], folder=str(folder), step=3 * INTERVAL)
        if any(call.full for call in done.calls) and "error" in done.found:
            refused += 1
            assert done.found["error"] == "DiskFullError", done.found
            assert "no room for the checkpoint of step 21" in done.found["message"] and "bytes free" in done.found["message"]
            assert str(folder) in done.found["message"]
        step = check_whole(folder)
        assert step in (14, 21)
        assert [name for name in names(folder) if name.startswith(".")] == []
        subjects.save(str(folder), step + INTERVAL)  # room again
        assert check_whole(folder) == step + INTERVAL
    assert refused > 15


def test_what_does_not_fit_is_not_begun_and_the_missing_bytes_are_told(faulty: Rig, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "c")
    written = sum(path.stat().st_size for kind in ("step", "best") for path in (folder / f"{kind}-{14:09d}").iterdir())
    done = faulty.do("save", tmp_path, free=0, folder=str(folder), step=21)
    assert done.found["error"] == "DiskFullError" and done.calls == []
    told = re.search(r"expected: ([\d,]+) bytes free\s+got: +([\d,]+) bytes free: ([\d,]+) bytes are missing", done.found["message"])
    assert told, done.found["message"]
    needed, free, missing = (int(number.replace(",", "")) for number in told.groups())
    assert (free, missing) == (0, needed)
    assert abs(needed - written) <= 0.05 * written
    assert names(folder) == names(prepared(tmp_path / "same"))


def test_what_a_save_removes_at_its_end_goes_first_where_there_is_no_other_room(faulty: Rig, tmp_path: Path) -> None:
    folder = prepared(tmp_path / "c")
    one = sum(path.stat().st_size for path in (folder / f"step-{14:09d}").iterdir())
    assert faulty.do("save", tmp_path, free=one + 4096, folder=str(folder), step=21, best=False).value is None
    assert [step for step, _ in checkpoint.whole(folder)] == [14, 21]
    faulty.do("save", tmp_path, free=one - 4096, folder=str(folder), step=28, best=False)
    assert [step for step, _ in checkpoint.whole(folder)] == [21, 28], "the oldest made room"
    flipped = bytearray((folder / f"step-{28:09d}" / "model.safetensors").read_bytes())
    flipped[-1] ^= 1
    (folder / f"step-{28:09d}" / "model.safetensors").write_bytes(flipped)
    done = faulty.do("save", tmp_path, free=one - 4096, folder=str(folder), step=35, best=False)
    assert done.found["error"] == "DiskFullError"
    assert [step for step, _ in checkpoint.whole(folder)] == [21, 28], "nothing goes where the newest is damaged"


def test_a_file_killed_at_each_call_is_the_old_one_or_the_new(faulty: Rig, tmp_path: Path) -> None:
    path, new = tmp_path / "f" / "a.bin", b"".join(bytes([i]) * 10_000 for i in range(4))
    files.write_bytes(path, b"old")
    n_calls = faulty.do("many", tmp_path, path=str(path)).found["calls"]
    for n in range(1, n_calls + 1):
        files.write_bytes(path, b"old")
        assert faulty.do("many", tmp_path, kill=n, path=str(path)).signal == 9
        assert path.read_bytes() in (b"old", new)
        done = faulty.do("many", tmp_path, full=n, path=str(path))
        assert path.read_bytes() == new or (path.read_bytes() == b"old" and done.found["error"] == "DiskFullError")
        with locked(path.parent):
            assert names(path.parent) == [".lock", "a.bin"]


def test_a_removal_killed_at_each_call_leaves_all_or_nothing_under_the_name(faulty: Rig, tmp_path: Path) -> None:
    base = prepared(tmp_path / "base")
    n_calls = faulty.do("remove", tmp_path, path=str(copied(base, tmp_path / "c") / "step-000000014")).found["calls"]
    for n in range(1, n_calls + 1):
        folder = copied(base, tmp_path / "c")
        assert faulty.do("remove", tmp_path, kill=n, path=str(folder / "step-000000014")).signal == 9
        if (folder / "step-000000014").exists():
            files.verify(folder / "step-000000014")
        files.sweep(folder)
        assert [name for name in names(folder) if name.startswith(".")] == []


def test_every_save_reaches_the_disk_before_its_name(faulty: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "checkpoints"
    calls = []
    for step in (7, 14, 21):
        done = faulty.do("save", tmp_path, folder=str(folder), step=step)
        assert done.value is None
        calls += done.calls
    disk = Disk().replay(calls)
    assert disk.faults == []
    assert {folder: names for folder, names in disk.entries.items() if names} == {}, "names that are not on the disk"
    renamed = [call.other.name for call in calls if call.name == "rename"]
    for kind in ("step", "best"):
        place = renamed.index(f"{kind}-{21:09d}")
        assert renamed[place - 1] == files.MANIFEST


def test_damaged_checkpoints_do_not_drive_out_sound_ones(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    for step in (10, 20, 30):
        subjects.save(str(folder), step, keep=3)
    for step in (20, 30):
        (folder / f"step-{step:09d}" / "model.safetensors").write_bytes(b"")
    assert check_step(folder) == 10
    subjects.save(str(folder), 15, keep=1)
    assert [step for step, _ in checkpoint.whole(folder)] == [15]
    assert check_whole(folder) == 15


def check_step(folder: Path) -> int:
    found, _ = checkpoint.latest(folder)
    return found.step if found else 0


def test_damaged_best_weights_are_never_taken_and_never_cost_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    for step in (10, 20):
        subjects.save(str(folder), step)
    best = folder / f"best-{20:09d}"
    (best / "model.safetensors").write_bytes(b"")
    found, complaints = checkpoint.latest(folder)
    assert found is not None and found.step == 10 and "best-000000020/model.safetensors" in complaints[0]
    subjects.optimizer(1)
    (folder / f"best-{10:09d}" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"best-000000020: the weights of the best evaluation are damaged, those of step 20"):
        checkpoint.latest(folder)
    files.remove(best)
    found, complaints = checkpoint.latest(folder)
    assert found is not None and (found.step, found.best) == (20, None) and len(complaints) == 2
