"""Checkpoints that several processes wrote: read whole, by torch's own reader, and refused by name where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed import checkpoint as torch_checkpoint

from lexloom import files
from lexloom.errors import CheckpointError
from lexloom.train import checkpoint, slices

SHAPES = {"embedding": (7, 3), "bias": (5,), "classes": (2, 4)}  # 2 rows over 3 processes: the last has none


def tensors(scale: float, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{name}": scale * torch.arange(torch.Size(shape).numel()).view(shape).float() for name, shape in SHAPES.items()}


def moments(step: int) -> dict[str, Tensor]:
    return tensors(step + 0.25, "first.") | tensors(step + 0.5, "second.")


def saved(folder: Path, step: int, size: int = 3) -> Path:
    """A checkpoint as `size` processes write it."""
    path = folder / f"step-{step:09d}"
    with files.new_folder(path, step=step, best=None) as new:
        for kind, whole in zip(slices.KINDS, (tensors(step), moments(step)), strict=True):
            for rank in range(size):
                held, starts = dict[str, Tensor](), dict[str, slices.Slice]()
                for name, tensor in whole.items():
                    starts[name], rows = slices.cut(tensor.shape, rank, size)
                    held[name] = tensor[starts[name].start : starts[name].start + rows]
                slices.write(new / slices.names(kind, size)[rank], held, starts)
        slices.write_index(new, size, {name: slices.Slice(0, shape) for name, shape in SHAPES.items()})
        files.write_json(new / checkpoint.STATE, {"format": 1, "step": step, "optimizer_steps": step})
    return path


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_it_is_read_whole(size: int, tmp_path: Path) -> None:
    found = checkpoint.load(saved(tmp_path, 4, size))
    assert found.step == 4 and same(found.masters, tensors(4)) and same(found.moments, moments(4))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_process_of_another_number_reads_its_rows(size: int, tmp_path: Path) -> None:
    path, expected = saved(tmp_path, 4), tensors(4) | moments(4)
    for rank in range(size):
        cuts = {name: slices.cut(tensor.shape, rank, size) for name, tensor in expected.items()}
        rows = {name: torch.full((n, *expected[name].shape[1:]), -1.0) for name, (_, n) in cuts.items()}
        slices.read(sorted(path.glob("*.safetensors")), {name: (rows[name], one.start) for name, (one, _) in cuts.items()})
        assert same(rows, {name: expected[name][one.start : one.start + n] for name, (one, n) in cuts.items()})


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_reads_it_too(tmp_path: Path) -> None:
    """Another implementation of the format: `torch.distributed.checkpoint` over its safetensors storage."""
    expected = tensors(4) | moments(4)
    found = {name: torch.full_like(tensor, -1.0) for name, tensor in expected.items()}
    reader = torch_checkpoint.HuggingFaceStorageReader(str(saved(tmp_path, 4)))
    torch_checkpoint.load(found, storage_reader=reader, no_dist=True)
    assert same(found, expected)


def test_rows_are_cut_as_torch_cuts_them() -> None:
    for n in range(1, 12):
        for size in range(1, 6):
            chunks = torch.arange(n).chunk(size)
            for rank in range(size):
                one, rows = slices.cut((n, 2), rank, size)
                assert one.shape == (n, 2) and rows == (len(chunks[rank]) if rank < len(chunks) else 0)
                assert rows == 0 or one.start == chunks[rank][0]


@pytest.mark.parametrize("damage", ["gone", "changed", "cut off"])
@pytest.mark.parametrize("name", [slices.names("model", 3)[1], slices.names("optimizer", 3)[2], slices.INDEX])
def test_what_is_damaged_is_named_and_the_one_before_is_taken(name: str, damage: str, tmp_path: Path) -> None:
    saved(tmp_path, 4)
    file = saved(tmp_path, 8) / name
    content = bytearray(file.read_bytes())
    if damage == "changed":
        content[-2] ^= 1
    file.unlink() if damage == "gone" else file.write_bytes(content[: -1 if damage == "cut off" else None])
    found, complaints = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 4 and same(found.masters, tensors(4))
    [line] = complaints
    assert name in line and "step-000000008" in line


def relisted(path: Path) -> Path:
    """With a manifest of what is there now."""
    files.write_manifest(path, step=4, best=None)
    return path


def test_a_file_that_no_manifest_misses_is_missed_all_the_same(tmp_path: Path) -> None:
    """torch's own reader would take the rows that are left for all there are."""
    path = saved(tmp_path, 4)
    (path / slices.names("model", 3)[2]).unlink()
    with pytest.raises(CheckpointError, match=slices.names("model", 3)[2]):
        checkpoint.load(relisted(path))


def test_a_file_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, 4)
    first, second = (path / name for name in slices.names("model", 3)[:2])
    second.write_bytes(first.read_bytes())
    with pytest.raises(CheckpointError, match="missing or there twice"):
        checkpoint.load(relisted(path))


def test_another_shape_than_the_index_says_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, 4)
    slices.write_index(path, 3, {name: slices.Slice(0, (*shape[:-1], shape[-1] + 1)) for name, shape in SHAPES.items()})
    with pytest.raises(CheckpointError, match="what the index says"):
        checkpoint.load(relisted(path))
