"""Runs in a process of its own, with transformers and without lexloom: makes random encoders, and reads ones that lexloom saved.

python oracle_encoder.py make JOBS_JSON     [[model_type, class, folder, settings, left], …]: random models with inputs and outputs
python oracle_encoder.py read JOBS_JSON     [[auto class, folder, inputs, out], …]: opens folders and runs the inputs
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.modernbert import modeling_modernbert

torch.set_num_threads(1)
TENSORS = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits")


def rotated(q, k, cos, sin, unsqueeze_dim=1):
    """Theirs without its casts to float32, which in a model of float64 cut every layer's states to seven digits."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return tuple(x * cos + modeling_modernbert.rotate_half(x) * sin for x in (q, k))


theirs = modeling_modernbert.apply_rotary_pos_emb


def outputs(model, inputs):
    """Every tensor that the class returns, in float64 and float32."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        modeling_modernbert.apply_rotary_pos_emb = rotated if dtype is torch.float64 else theirs
        with torch.no_grad():
            result = model.to(dtype).eval()(**inputs, output_hidden_states=True)
        for name in TENSORS:
            if getattr(result, name, None) is not None:
                found[f"{name}.{dtype}"] = getattr(result, name).contiguous()
        for i, states in enumerate(result.hidden_states):
            found[f"layer{i}.{dtype}"] = states.clone().contiguous()
    return found


def make(model_type, class_name, folder, settings, left):
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(model_type, **settings)
    model = getattr(transformers, class_name)(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    shape = (2, 3, 17) if class_name.endswith("MultipleChoice") else (4, 17)
    mask = torch.ones(shape, dtype=torch.long)
    mask[0, ..., 6:] = 0
    if left:
        mask[1, ..., :7] = 0
    ids = torch.randint(0, config.vocab_size, shape)
    inputs = {"input_ids": torch.where(mask.bool(), ids, config.pad_token_id), "attention_mask": mask}
    if getattr(config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = torch.randint(0, config.type_vocab_size, shape)
    model.save_pretrained(folder)
    save_file(inputs, Path(folder) / "inputs.safetensors")
    save_file(outputs(model, inputs), Path(folder) / "outputs.safetensors")


def read(auto, folder, inputs, out):
    model, info = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True, dtype=torch.float64)
    problems = {name: sorted(map(str, info[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]}
    told = {"problems": json.dumps(problems), "class": type(model).__name__, "lexloom": str("lexloom" in sys.modules)}
    save_file(outputs(model, load_file(inputs)), out, metadata=told)


if __name__ == "__main__":
    for job in json.loads(sys.argv[2]):
        {"make": make, "read": read}[sys.argv[1]](*job)
