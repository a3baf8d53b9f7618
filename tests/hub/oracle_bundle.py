"""Runs in a process of its own, with transformers and without lexloom: opens bundles as a user of transformers does.

python oracle_bundle.py FOLDERS_JSON TEXTS_JSON    prints one JSON object; a folder's name ends in what it is opened as
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForPreTraining,
    pipeline,
)
from transformers.models.bart.modeling_bart import shift_tokens_right

torch.set_num_threads(1)


def opened(kind, folder):
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    return model, {name: sorted(map(str, info[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]}


def main(folders, texts):
    found = {}
    kinds = {"classifier": AutoModelForSequenceClassification, "masked": AutoModelForMaskedLM}
    kinds |= {"pretrained": BertForPreTraining, "bare": AutoModel, "causal": AutoModelForCausalLM, "target": AutoModelForSeq2SeqLM}
    for whole, folder in folders.items():
        name = whole.rpartition(" ")[2]
        model, problems = opened(kinds[name], folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        found[whole] = {"problems": problems, "class": type(model).__name__, "max_length": tokenizer.model_max_length}
        found[whole]["ids"] = tokenizer(texts)["input_ids"]
        if name == "classifier":
            answer = pipeline("text-classification", model=folder, tokenizer=tokenizer, device="cpu")
            found[whole]["answers"] = answer(texts, truncation=True)
            found[whole]["all"] = answer(texts, truncation=True, top_k=None)
            # it takes "" for no pair
            pairs = [{"text": text, "text_pair": other} for text, other in zip(texts, texts[::-1], strict=True) if other]
            found[whole]["pairs"] = answer(pairs, truncation=True)
        if name == "masked":
            fill = pipeline("fill-mask", model=folder, tokenizer=tokenizer, device="cpu")
            short = [text for text in texts if 0 < len(text) < 100]  # it does not cut
            found[whole]["answers"] = [fill(f"{text} {tokenizer.mask_token}", top_k=3) for text in short]
            inside = [
                text.replace("*", tokenizer.mask_token) for text in ("the *", "the * sat", "the*sat", "*, the cat", "* and the * sat.")
            ]
            found[whole]["inside"] = [fill(text, top_k=3) for text in inside]
            found[whole]["targets"] = fill(inside[1], targets=[" cat", " the"])
        if name == "causal":
            short = [text for text in texts if len(text) < 100]
            batch = tokenizer(short, padding=True, padding_side="left", return_tensors="pt")
            generated = model.generate(**batch, max_new_tokens=8, min_new_tokens=8, do_sample=False)
            found[whole]["generated"] = generated[:, -8:].tolist()
            write = pipeline("text-generation", model=folder, tokenizer=tokenizer, device="cpu")
            found[whole]["written"] = write(short[0], max_new_tokens=8, min_new_tokens=8, do_sample=False)[0]["generated_text"]
        if name == "target":
            batch = {key: value for key, value in tokenizer(texts, padding=True, return_tensors="pt").items() if key != "token_type_ids"}
            found[whole]["generated"] = model.generate(**batch, max_new_tokens=9, do_sample=False).tolist()
        if name in ("causal", "target"):
            with tempfile.TemporaryDirectory() as folder:
                type(model)(model.config).save_pretrained(folder)
                found[whole]["generation"] = json.loads((Path(folder) / "generation_config.json").read_text())
        if name == "bare":
            with torch.no_grad():
                batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
                if getattr(model.config, "is_encoder_decoder", False):
                    start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
                    batch["decoder_input_ids"] = shift_tokens_right(batch["input_ids"], pad, start)
                output = model.eval()(**batch, output_hidden_states=True)
            states = output.last_hidden_state
            mask = batch["attention_mask"][..., None]
            found[whole]["vectors"] = ((states * mask).sum(1) / mask.sum(1)).tolist()
            layers = output.decoder_hidden_states if model.config.is_encoder_decoder else output.hidden_states
            found[whole]["layers"] = [((layer * mask).sum(1) / mask.sum(1)).tolist() for layer in layers]
            found[whole]["states"] = [layer[0].tolist() for layer in layers]
    found["lexloom"] = "lexloom" in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
