"""Encoder–decoders whose weights are sharded over two processes, blocks of both sides computed twice, end with the weights of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import tiny
from tests.dist.test_ranks import finish, start
from tests.runs.test_denoising_runs import CASES, recipe


@pytest.mark.parametrize("name", ["infilling"])
def test_a_sharded_one_is_that_of_one_process(name: str, tmp_path: Path) -> None:
    """Twenty steps in float64 within 1e-9."""
    tiny.write(tmp_path, recipe(*CASES[name]))
    settings = ["steps=20", "dtype=float64", "recompute=false"]
    finish(start(tmp_path, "one", 1, settings))
    finish(start(tmp_path, "two", 2, [*settings[:2], "shard=true"]))
    one, two = (load_file(tmp_path / out / "bundle" / "model.safetensors") for out in ("one", "two"))
    assert one.keys() == two.keys() and "model.shared.weight" in one
    assert max(float((one[key] - two[key]).abs().max()) for key in one) <= 1e-9
