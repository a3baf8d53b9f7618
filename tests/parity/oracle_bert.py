"""Runs in a process of its own, with transformers and without lexloom: makes random BERT folders, and reads ones that lexloom saved.

python oracle_bert.py make JOBS_JSON     [[class, folder, settings], …]: random models with inputs and outputs
python oracle_bert.py read JOBS_JSON     [[class, folder, inputs, out], …]: opens folders and runs the inputs
"""

from __future__ import annotations

import torch
from oracle import answer, keep, main, named, numbered
from transformers.models.bert import modeling_bert
from transformers.models.bert.configuration_bert import BertConfig

TENSORS = ("last_hidden_state", "pooler_output", "logits", "prediction_logits", "seq_relationship_logits", "start_logits")


def outputs(model, inputs):
    """Every tensor that the class returns, in float64 and float32."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        with torch.no_grad():
            result = model.to(dtype).eval()(**inputs, output_hidden_states=True)
        found |= named(result, TENSORS, dtype) | numbered(result.hidden_states, "layer", dtype)
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
    keep(model, inputs, outputs, folder)


def read(class_name, folder, inputs, out):
    answer(getattr(modeling_bert, class_name), folder, inputs, outputs, out)


if __name__ == "__main__":
    main(make=make, read=read)
