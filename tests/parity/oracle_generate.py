"""Runs in a process of its own, with transformers and without lexloom: what tiny random networks generate under many settings.

python oracle_generate.py JOBS_JSON     [[class, folder, settings, cases], …] -> folder with inputs.safetensors, generated.safetensors

A case is settings of `generate`; `allowed` is short for a constraint: after n new tokens those ids that are n modulo 3, and the ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from oracle_decoders import precisely
from oracle_seq_to_seq import random_model
from safetensors.torch import save_file
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

LENGTHS = (7, 11, 4, 9)


def inputs(reads):
    """Prompts of mixed length, padding in front; or sources, padding behind."""
    places, lengths = torch.arange(max(LENGTHS)), torch.tensor(LENGTHS)[:, None]
    mask = places < lengths if reads else places >= max(LENGTHS) - lengths
    return {"input_ids": torch.randint(1, 61, mask.shape) * mask, "attention_mask": mask.long()}


def generated(model, prompts, case):
    """The new tokens, and the scores of a beam search."""
    reads = model.config.is_encoder_decoder
    width, ends, options = 1 if reads else prompts["input_ids"].shape[1], case.get("eos_token_id"), {}
    if case.pop("allowed", False):
        ends = [ends] if isinstance(ends, int) else ends or []
        options["prefix_allowed_tokens_fn"] = lambda _, ids: [*range((len(ids) - width) % 3, 61, 3), *ends]
    if reads:
        case["decoder_start_token_id"] = model.config.decoder_start_token_id
    config = GenerationConfig(pad_token_id=60, do_sample=False, return_dict_in_generate=True, output_scores=True, **case)
    found = model.generate(**prompts, generation_config=config, **options)
    tensors = {"ids": found.sequences[:, width:].contiguous()}
    if case.get("num_beams", 1) > 1:
        tensors["scores"] = found.sequences_scores.contiguous()
    return tensors


def decoder(class_name, settings):
    """In float64."""
    kind, config = (GPT2LMHeadModel, GPT2Config) if class_name == "GPT2LMHeadModel" else (LlamaForCausalLM, LlamaConfig)
    model = kind(config(**settings, pad_token_id=0, bos_token_id=1, eos_token_id=None)).double().eval()
    for name, parameter in model.named_parameters():
        scales = name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
        torch.nn.init.normal_(parameter, mean=float(scales), std=0.3)
    return model


def translator(class_name, settings):
    """In float64; looking at what was said more than random weights do, or one token comes again and again."""
    model = random_model(class_name, settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "decoder" in name and "self_attn" in name and name.endswith("weight"):
                parameter.mul_(4)
    return model


def main(class_name, folder, settings, cases):
    torch.manual_seed(11)
    model = translator(class_name, settings) if "is_encoder_decoder" in settings else decoder(class_name, settings)
    prompts, tensors = inputs(model.config.is_encoder_decoder), {}
    with torch.no_grad(), precisely(torch.float64):
        for name, case in cases.items():
            tensors |= {f"{name}.{part}": tensor for part, tensor in generated(model, prompts, case).items()}
    model.save_pretrained(folder)
    save_file(prompts, Path(folder) / "inputs.safetensors")
    save_file(tensors, Path(folder) / "generated.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for job in json.loads(sys.argv[1]):
        main(*job)
