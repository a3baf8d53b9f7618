"""What every oracle does, in a process of its own, with transformers and without lexloom.

python ORACLE.py make JOBS_JSON     random models with inputs, and what they make of them
python ORACLE.py read JOBS_JSON     opens folders and runs inputs through them
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MKL_CBWR"] = "AVX2,STRICT"  # else last bits depend on where weights lie in memory, on CPUs that are not Intel's

import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys")


def named(result, names, dtype):
    """Those tensors of what a model returned that are there."""
    found = {name: getattr(result, name, None) for name in names}
    return {f"{name}.{dtype}": tensor.contiguous() for name, tensor in found.items() if tensor is not None}


def numbered(states, name, dtype):
    """The states of every layer."""
    return {f"{name}{i}.{dtype}": tensor.clone().contiguous() for i, tensor in enumerate(states)}


def keep(model, inputs, outputs, folder):
    """Saves a model with inputs, and with what it makes of them."""
    model.save_pretrained(folder)
    save_file(inputs, Path(folder) / "inputs.safetensors")
    save_file(outputs(model, inputs), Path(folder) / "outputs.safetensors")


def answer(auto, folder, inputs, outputs, out):
    """Opens a folder and saves what its model makes of the inputs, with its class and what was wrong with the folder."""
    model, info = auto.from_pretrained(folder, output_loading_info=True, dtype=torch.float64)
    problems = {name: sorted(map(str, info[name])) for name in PROBLEMS if info[name]}
    told = {"problems": json.dumps(problems), "class": type(model).__name__, "lexloom": str("lexloom" in sys.modules)}
    save_file(outputs(model, load_file(inputs)), out, metadata=told)


def main(**verbs):
    for job in json.loads(sys.argv[2]):
        verbs[sys.argv[1]](*job)
