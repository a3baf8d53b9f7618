"""Runs in a process of its own, with transformers and without lexloom: makes random decoder folders, and reads ones that lexloom saved.

python oracle_decoders.py make JOBS_JSON     [[class, folder, settings], …]: random models with inputs, outputs and what they generate
python oracle_decoders.py read JOBS_JSON     [[class, folder, inputs, out], …]: opens folders and runs the inputs

Llama's norm rounds to float32 whatever the model's dtype. For what is compared in float64 it is computed in float64 instead.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from oracle import answer, keep, main, named, numbered
from transformers import AutoModel, AutoModelForCausalLM, GenerationConfig, GPT2Config, LlamaConfig
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.llama import modeling_llama

NEW = 9  # tokens to generate


def norm_in_float64(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


@contextmanager
def precisely(dtype):
    kind = modeling_llama.LlamaRMSNorm
    own, kind.forward = kind.forward, norm_in_float64 if dtype == torch.float64 else kind.forward
    try:
        yield
    finally:
        kind.forward = own


def outputs(model, inputs):
    """Every tensor that the class returns, in float64 and float32, and the tokens that it generates one by one."""
    found = {}
    mask = inputs["attention_mask"]
    places = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)  # as `generate` makes them
    for dtype in (torch.float64, torch.float32):
        model = model.to(dtype).eval()
        with torch.no_grad(), precisely(dtype):
            result = model(**inputs, position_ids=places, output_hidden_states=True)
            if dtype == torch.float64 and hasattr(model, "lm_head"):
                rows = mask[:, -1] == 1  # generation wants padding in front
                settings = GenerationConfig(max_new_tokens=NEW, do_sample=False, pad_token_id=0)
                generated = model.generate(inputs["input_ids"][rows], attention_mask=mask[rows], generation_config=settings)
                found["generated"] = generated[:, -NEW:].contiguous()
        found |= named(result, ("last_hidden_state", "logits"), dtype) | numbered(result.hidden_states, "layer", dtype)
    return found


def make(class_name, folder, settings):
    torch.manual_seed(7)
    module, config = (modeling_gpt2, GPT2Config) if class_name.startswith("GPT2") else (modeling_llama, LlamaConfig)
    model = getattr(module, class_name)(config(**settings, pad_token_id=0, bos_token_id=1, eos_token_id=None)).double()
    for name, parameter in model.named_parameters():
        scales = name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))  # of GPT-2: around 1, or every token is the same
        torch.nn.init.normal_(parameter, mean=float(scales), std=0.3)
    mask = torch.ones(4, 11, dtype=torch.long)
    mask[0, 6:] = mask[1, :5] = mask[2, :1] = 0
    inputs = {"input_ids": torch.randint(0, 61, (4, 11)), "attention_mask": mask}
    keep(model, inputs, outputs, folder)


def read(class_name, folder, inputs, out):
    auto = AutoModel if class_name in ("GPT2Model", "LlamaModel") else AutoModelForCausalLM
    answer(auto, folder, inputs, outputs, out)


if __name__ == "__main__":
    main(make=make, read=read)
