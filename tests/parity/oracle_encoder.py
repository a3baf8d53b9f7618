"""Runs in a process of its own, with transformers and without lexloom: makes random encoders, and reads ones that lexloom saved.

python oracle_encoder.py make JOBS_JSON     [[model_type, class, folder, settings, left], …]: random models with inputs and outputs
python oracle_encoder.py read JOBS_JSON     [[auto class, folder, inputs, out], …]: opens folders and runs the inputs
"""

from __future__ import annotations

import torch
import transformers
from oracle import answer, keep, main, named, numbered
from transformers.models.modernbert import modeling_modernbert

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
        found |= named(result, TENSORS, dtype) | numbered(result.hidden_states, "layer", dtype)
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
    keep(model, inputs, outputs, folder)


def read(auto, folder, inputs, out):
    answer(getattr(transformers, auto), folder, inputs, outputs, out)


if __name__ == "__main__":
    main(make=make, read=read)
