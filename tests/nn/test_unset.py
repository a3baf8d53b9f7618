"""Modules are made without filling them, and without the imports that filling on the meta device costs."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from lexloom.nn.unset import Unset

BUILD = """
import sys
from lexloom.models.base import Network
from lexloom.models.bert import Bert
Network.build(Bert, Bert.Config.read(Bert.TINY), ["masked-lm"], seed=1)
print("torch._dynamo" in sys.modules)
"""


def test_nothing_is_filled_inside_and_all_outside() -> None:
    with torch.device("meta"), Unset():
        made = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    assert [tuple(p.shape) for p in made.parameters()] == [(7, 4), (3, 4), (3,), (3,), (3,)]
    before = torch.get_rng_state()
    with Unset():
        inside = nn.Linear(4, 3)
    assert (torch.get_rng_state() == before).all()
    nn.init.constant_(inside.weight, 2.0)
    assert (inside.weight == 2).all()


def test_building_a_network_does_not_load_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr[-2000:]
