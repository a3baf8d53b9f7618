"""Decoders whose weights are sharded over two processes, blocks computed twice, end with the weights of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests import tiny
from tests.dist.test_ranks import finish, start
from tests.runs.test_causal import MODELS, RECIPE


@pytest.mark.parametrize("name", MODELS)
def test_a_sharded_decoder_is_that_of_one_process(name: str, tmp_path: Path) -> None:
    """Twenty steps in float64 within 1e-9: a head tied to the embedding, and one that is not."""
    tiny.write(tmp_path, RECIPE.replace("MODEL", MODELS[name]))
    settings = ["steps=20", "dtype=float64"]
    finish(start(tmp_path, "one", 1, settings))
    finish(start(tmp_path, "two", 2, [*settings, "shard=true", "recompute=true"]))
    one, two = (load_file(tmp_path / out / "bundle" / "model.safetensors") for out in ("one", "two"))
    assert one.keys() == two.keys() and ("lm_head.weight" in one) == (name == "llama")
    assert max(float((one[key] - two[key]).abs().max()) for key in one) <= 1e-9
