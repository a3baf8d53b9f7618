"""Runs in a process of its own, with transformers and without lexloom: makes random encoder–decoder folders, and reads lexloom's.

python oracle_seq_to_seq.py make JOBS_JSON     [[class, folder, settings], …]: random models with inputs, outputs and what they generate
python oracle_seq_to_seq.py read JOBS_JSON     [[class, folder, inputs, out], …]: opens folders and runs the inputs
"""

from __future__ import annotations

import torch
from oracle import answer, keep, main, named, numbered
from transformers import AutoModel, AutoModelForSeq2SeqLM, BartConfig, GenerationConfig, MarianConfig
from transformers.models.bart import modeling_bart
from transformers.models.marian import modeling_marian

NEW = 9  # tokens to generate


def outputs(model, inputs):
    """Every tensor that the class returns, in float64 and float32, and the tokens that it generates one by one."""
    found = {}
    source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for dtype in (torch.float64, torch.float32):
        model = model.to(dtype).eval()
        with torch.no_grad():
            result = model(**inputs, output_hidden_states=True)
            if dtype == torch.float64 and hasattr(model, "lm_head"):
                start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
                settings = GenerationConfig(max_new_tokens=NEW, do_sample=False, decoder_start_token_id=start, pad_token_id=pad)
                found["generated"] = model.generate(**source, generation_config=settings)[:, -NEW:].contiguous()
        found |= named(result, ("last_hidden_state", "logits", "encoder_last_hidden_state"), dtype)
        found |= numbered(result.encoder_hidden_states, "encoder", dtype) | numbered(result.decoder_hidden_states, "decoder", dtype)
    return found


def random_model(class_name, settings):
    """In float64; the caller sets the seed."""
    module, config = (modeling_bart, BartConfig) if class_name.startswith("Bart") else (modeling_marian, MarianConfig)
    model = getattr(module, class_name)(config(**settings)).double()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:  # sinusoids stay what they are
            # Large biases, or much of the source in every state, say one token again and again; large scores lose digits.
            std = 0.1 if parameter.dim() == 1 else 0.2 if "attn" in name else 0.7
            torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=std)
    if hasattr(model, "final_logits_bias"):
        torch.nn.init.normal_(model.final_logits_bias, std=0.1)
    tensors = dict(model.named_parameters(remove_duplicate=False))
    for name in [name for name in tensors if name.endswith("shared.weight")]:
        with torch.no_grad():  # which nobody reads where there are embeddings of their own beside it
            tensors[name].copy_(tensors[name.replace("shared", "encoder.embed_tokens")])
    return model


def make(class_name, folder, settings):
    torch.manual_seed(7)
    model = random_model(class_name, settings)
    mask, target = torch.ones(4, 11, dtype=torch.long), torch.ones(4, 8, dtype=torch.long)
    mask[0, 6:] = mask[1, :5] = mask[2, :1] = 0
    target[0, 3:] = target[2, 7:] = 0
    inputs = {"input_ids": torch.randint(0, 53, (4, 11)), "attention_mask": mask}
    inputs |= {"decoder_input_ids": torch.randint(0, 53, (4, 8)), "decoder_attention_mask": target}
    keep(model, inputs, outputs, folder)


def read(class_name, folder, inputs, out):
    auto = AutoModel if class_name in ("BartModel", "MarianModel") else AutoModelForSeq2SeqLM
    answer(auto, folder, inputs, outputs, out)


if __name__ == "__main__":
    main(make=make, read=read)
