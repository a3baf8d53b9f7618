"""Runs in a process of its own, with transformers and without lexloom: makes random BERT folders, and reads ones that lexloom saved.

python oracle_bert.py make JOBS_JSON     [[class, folder, settings], …]: random models with inputs and outputs
python oracle_bert.py read JOBS_JSON     [[class, folder, inputs, out], …]: opens folders and runs the inputs
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file, save_file
from transformers.models.bert import modeling_bert
from transformers.models.bert.configuration_bert import BertConfig

torch.set_num_threads(1)


def outputs(model, inputs):
    """Every tensor that the class returns, in float64 and float32."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        with torch.no_grad():
            result = model.to(dtype).eval()(**inputs, output_hidden_states=True)
        for name in ("last_hidden_state", "pooler_output", "logits", "prediction_logits", "seq_relationship_logits", "start_logits"):
            if getattr(result, name, None) is not None:
                found[f"{name}.{dtype}"] = getattr(result, name).contiguous()
        for i, states in enumerate(result.hidden_states):
            found[f"layer{i}.{dtype}"] = states.clone().contiguous()
    return found


def make(class_name, folder, settings):
    torch.manual_seed(7)
    config = BertConfig(**settings)
    model = getattr(modeling_bert, class_name)(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    choices = class_name == "BertForMultipleChoice"
    shape = (2, 3, 11) if choices else (4, 11)
    mask = torch.ones(shape, dtype=torch.long)
    mask[0, ..., 6:] = 0
    inputs = {
        "input_ids": torch.randint(0, config.vocab_size, shape),
        "token_type_ids": torch.randint(0, config.type_vocab_size, shape),
        "attention_mask": mask,
    }
    model.save_pretrained(folder)
    save_file(inputs, Path(folder) / "inputs.safetensors")
    save_file(outputs(model, inputs), Path(folder) / "outputs.safetensors")


def read(class_name, folder, inputs, out):
    model, info = getattr(modeling_bert, class_name).from_pretrained(folder, output_loading_info=True, dtype=torch.float64)
    problems = {name: sorted(map(str, info[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]}
    tensors = outputs(model, load_file(inputs))
    save_file(tensors, out, metadata={"problems": json.dumps(problems), "lexloom": str("lexloom" in sys.modules)})


if __name__ == "__main__":
    for job in json.loads(sys.argv[2]):
        {"make": make, "read": read}[sys.argv[1]](*job)
