"""Saving beside training: what is saved is what was there when it was asked for; one save at a time; errors are told, and late ones too."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lexloom import compute, files
from lexloom.errors import DiskFullError
from lexloom.train import checkpoint, saving
from lexloom.train.optim import AdamW, OptimizerConfig
from lexloom.train.saving import Saver, Snapshot


def optimizer(seed: int = 0) -> AdamW:
    torch.manual_seed(seed)
    found = AdamW(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)).named_parameters(), OptimizerConfig())
    advance(found)
    return found


def advance(found: AdamW) -> None:
    """One step more, which changes every number in place."""
    for gradient in found.gradients.values():
        gradient.normal_()
    found.step(0.1)


class Slow(Mapping[str, Tensor]):
    """Weights that are not there before `go` is set: whoever writes them waits."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors, self.go, self.asked = tensors, threading.Event(), threading.Event()

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __len__(self) -> int:
        return len(self.tensors)

    def __iter__(self) -> Iterator[str]:
        self.asked.set()
        assert self.go.wait(60)
        return iter(self.tensors)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_files_are_those_of_a_save_that_training_waits_for(tmp_path: Path) -> None:
    one, weights = optimizer(), dict(optimizer(1).masters)
    state: dict[str, Any] = {"best": {"value": 0.5, "record": {"loss": 0.5}}, "tokens": 12}
    checkpoint.save(tmp_path / "before", 7, one, state, best=checkpoint.Best(5, weights))
    with Saver(tmp_path / "beside") as saver:
        saver.save(7, one, state, best=(best := checkpoint.Best(5, weights)))
    with Saver(tmp_path / "at once") as saver:
        saver.save(7, one, state, best=checkpoint.Best(5, weights), beside=False)
    assert content(tmp_path / "before") == content(tmp_path / "beside") == content(tmp_path / "at once")
    assert best.weights is None, "they are not held any longer"


def test_training_goes_on_while_it_is_written_and_changes_nothing_of_it(tmp_path: Path) -> None:
    one, state = optimizer(), {"best": {"record": {"loss": 1.0}}, "tokens": 1}
    checkpoint.save(tmp_path / "expected", 1, one, json.loads(json.dumps(state)), best=checkpoint.Best(1, dict(optimizer(1).masters)))
    slow = Slow(optimizer(1).masters)
    with Saver(tmp_path / "found") as saver:
        saver.save(1, one, state, best=checkpoint.Best(1, slow))
        assert slow.asked.wait(60) and not (tmp_path / "found" / "step-000000001").exists()
        advance(one)
        state["tokens"], state["best"]["record"]["loss"] = 2, 2.0  # type: ignore[index]
        saver.check()  # neither waits nor complains
        slow.go.set()
        saver.wait()
        assert content(tmp_path / "found") == content(tmp_path / "expected")


def test_the_next_save_waits_for_the_one_before(tmp_path: Path) -> None:
    one, slow = optimizer(), Slow(optimizer(1).masters)
    expected = []
    with Saver(tmp_path, keep=5) as saver:
        saver.save(1, one, {}, best=checkpoint.Best(1, slow))
        assert slow.asked.wait(60)
        timer = threading.Timer(0.2, slow.go.set)
        timer.start()
        for step in (2, 3, 4):
            advance(one)
            expected.append({name: master.clone() for name, master in one.masters.items()})
            saver.save(step, one, {})
            assert (tmp_path / f"step-{step - 1:09d}" / files.MANIFEST).is_file()
    for step, masters in zip((2, 3, 4), expected, strict=True):
        found = checkpoint.load(tmp_path / f"step-{step:09d}")
        assert all(torch.equal(found.masters[name], master) for name, master in masters.items())
        assert found.state["optimizer_steps"] == step


def vast(best: Mapping[str, Tensor]) -> checkpoint.Best:
    """Best weights that no disk has room for."""
    return checkpoint.Best(1, {**best, "vast": torch.empty(1 << 50, device="meta")})


def test_a_full_disk_is_told_once_and_the_next_save_goes_on(tmp_path: Path) -> None:
    one = optimizer()
    with Saver(tmp_path) as saver:
        saver.save(1, one, {})
        saver.save(2, one, {}, best=vast({}))
        with pytest.raises(DiskFullError, match=r"the checkpoint of step 2[\s\S]*bytes are missing"):
            saver.wait()
        saver.wait()
        saver.check()
        saver.save(3, one, {}, best=vast({}))
        assert saver._thread is not None
        saver._thread.join()
        with pytest.raises(DiskFullError, match="the checkpoint of step 3"):
            saver.check()
        saver.save(4, one, {})
    assert [step for step, _ in checkpoint.whole(tmp_path)] == [1, 4]


def test_what_goes_wrong_at_the_end_is_told_unless_something_else_went_wrong_first(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError), Saver(tmp_path) as saver:
        saver.save(1, optimizer(), {}, best=vast({}))
    with pytest.raises(ZeroDivisionError), Saver(tmp_path) as saver:
        saver.save(1, optimizer(), {}, best=vast({}))
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), Saver(tmp_path) as saver:
        saver.save(2, optimizer(), {})
        raise ZeroDivisionError
    assert [step for step, _ in checkpoint.whole(tmp_path)] == [2], "a save that was begun is ended"


def test_errors_that_are_not_of_the_disk_are_raised_too(tmp_path: Path) -> None:
    (tmp_path / "step-000000001").mkdir()
    (tmp_path / "step-000000001" / "of somebody else").touch()
    with Saver(tmp_path) as saver:
        saver.save(1, optimizer(), {})
        with pytest.raises(files.LexloomError, match="did not write"):
            saver.wait()


def test_where_memory_is_short_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < compute.memory()[1] < 1 << 60
    one, slow = optimizer(), Slow(optimizer(1).masters)
    slow.go.set()
    monkeypatch.setattr(saving, "ROOM", 1 << 60)
    with Saver(tmp_path) as saver:
        saver.save(1, one, {}, best=checkpoint.Best(1, slow))
        assert (tmp_path / "step-000000001" / files.MANIFEST).is_file() and saver._copy is None
        with pytest.raises(DiskFullError):
            saver.save(2, one, {}, best=vast({}))
        monkeypatch.setattr(saving, "ROOM", 2)
        saver.save(3, one, {})
        assert saver._copy is not None
        saver.shrink()
        assert saver._copy is None
    assert [step for step, _ in checkpoint.whole(tmp_path)] == [1, 3]


def test_a_snapshot_uses_its_memory_again(tmp_path: Path) -> None:
    one = optimizer()
    snapshot = Snapshot(one)
    snapshot.take(one)
    places = [tensor.data_ptr() for tensor in (*snapshot.masters.values(), *snapshot.state().values())]
    assert not set(places) & {tensor.data_ptr() for tensor in (*one.masters.values(), *one.state().values())}
    advance(one)
    assert snapshot.steps == 1 and not torch.equal(snapshot.masters["0.weight"], one.masters["0.weight"])
    snapshot.take(one)
    assert snapshot.steps == 2 and torch.equal(snapshot.masters["0.weight"], one.masters["0.weight"])
    assert [tensor.data_ptr() for tensor in (*snapshot.masters.values(), *snapshot.state().values())] == places
