"""Our own writer of safetensors: the bytes of the library's."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor

from lexloom.train import tensorfile

NAMES = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
SHAPES = st.lists(st.integers(0, 4), max_size=3)


def made(shape: list[int], dtype: torch.dtype) -> Tensor:
    n = int(torch.tensor(shape).prod()) if shape else 1
    return (torch.arange(n) % 100 - 3).to(dtype).reshape(shape)


@given(st.dictionaries(NAMES, st.builds(made, SHAPES, st.sampled_from(list(tensorfile.DTYPES))), max_size=8))
def test_the_bytes_are_those_of_the_library(tmp_path_factory: object, tensors: dict[str, Tensor]) -> None:
    path = tmp_path_factory.mktemp("t") / "t.safetensors"  # type: ignore[attr-defined]
    tensorfile.write(path, tensors)
    assert path.read_bytes() == save(tensors)
    assert path.stat().st_size == tensorfile.size(tensors)


def test_views_are_written_as_what_they_show(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {"turned": whole.T, "a part": whole[1:3, ::2], "of a network": torch.nn.Parameter(whole)}
    tensorfile.write(tmp_path / "t", tensors)
    found = load_file(tmp_path / "t")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert tensorfile.size({"none": torch.empty(1 << 40, 1 << 10, device="meta")}) > 1 << 52
