"""Networks that answer in bfloat16: whose products are, whose states are too, and how far off that is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lexloom.hub.answering import answering
from lexloom.models.base import ARCHITECTURES, Network

BLOCKS = ("bert", "roberta", "modernbert")


def made(name: str, **settings: object) -> Network:
    kind = ARCHITECTURES.get(name)
    return Network.build(kind, kind.Config.read(dict(kind.TINY) | settings), [], seed=1).eval()


def states(network: Network) -> Tensor:
    rows = torch.randint(5, 90, (6, 17), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(17) < torch.tensor([17, 3, 9, 17, 1, 12])[:, None]
    with torch.inference_mode():
        return network.backbone({"input_ids": rows, "attention_mask": mask}).hidden[mask]


@pytest.mark.parametrize("name", BLOCKS)
def test_encoders_of_blocks_keep_their_states_whole(name: str) -> None:
    network = made(name, initializer_range=0.2)
    low = answering(network, "bfloat16")
    rounded = Network(copy.deepcopy(network.backbone).to(torch.bfloat16), {}, 2)
    whole, found, coarse = (states(each) for each in (network, low, rounded))
    assert found.dtype == torch.float32 and not torch.equal(found, whole)
    assert (found - whole).norm() < 0.8 * (coarse.float() - whole).norm()
    assert (found - whole).norm() < 0.02 * whole.norm()


@pytest.mark.parametrize("name", BLOCKS)
def test_only_the_products_of_blocks_are_copied(name: str) -> None:
    network = made(name)
    low = answering(network, "bfloat16")
    own = dict(network.named_parameters())
    for path, module in low.backbone.blocks.named_modules():
        assert not isinstance(module, nn.Linear) or module.weight.dtype == torch.bfloat16, path
    shared = {path for path, tensor in low.named_parameters() if tensor is own[path]}
    assert set(own) - shared == {path for path in own if ".blocks." in path and "norm" not in path}
    assert all(tensor.dtype == torch.float32 for tensor in own.values())


@pytest.mark.parametrize("name", ["gpt2", "llama", "elmo", "bilstm", "textcnn"])
def test_others_answer_in_bfloat16_throughout(name: str) -> None:
    low = answering(made(name), "bfloat16")
    assert {tensor.dtype for tensor in low.parameters()} == {torch.bfloat16}
