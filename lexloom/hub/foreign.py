"""Tensor names of other tools, brought to those of `transformers`: wrappers, TensorFlow's spelling of BERT, fairseq's of RoBERTa.

What an architecture itself knows, old endings such as `gamma` and prefixes that are missing, is in its `ALIASES` and `PREFIX`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

# What training scripts, DDP, FSDP, `torch.compile` and Lightning put before a name. A backbone's own prefix comes back by itself.
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.|_fsdp_wrapped_module\.|_forward_module\.|model\.|network\.|net\.)+")
_INSIDE = re.compile(r"(?:_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\.")

_GOOGLE = [  # after / became .
    (r"layer_(\d+)", r"layer.\1"),
    (r"(embeddings\.(?:word|position|token_type)_embeddings)$", r"\1.weight"),
    (r"^cls\.predictions\.output_bias$", "cls.predictions.bias"),
    (r"output_weights$", "weight"),
    (r"output_bias$", "bias"),
    (r"^(weight|bias)$", r"classifier.\1"),
    (r"kernel$", "weight"),
]
_L = r"^(?:en|de)coder\.sentence_encoder\."
_LAYER = _L + r"layers\.(\d+)\."
_TO = r"roberta.encoder.layer.\1."
_FAIRSEQ = [
    (_L + r"embed_tokens\.", "roberta.embeddings.word_embeddings."),
    (_L + r"embed_positions\.", "roberta.embeddings.position_embeddings."),
    (_L + r"(?:emb_layer_norm|layernorm_embedding)\.", "roberta.embeddings.LayerNorm."),
    (_LAYER + r"self_attn\.q_proj\.", _TO + "attention.self.query."),
    (_LAYER + r"self_attn\.k_proj\.", _TO + "attention.self.key."),
    (_LAYER + r"self_attn\.v_proj\.", _TO + "attention.self.value."),
    (_LAYER + r"self_attn\.out_proj\.", _TO + "attention.output.dense."),
    (_LAYER + r"self_attn_layer_norm\.", _TO + "attention.output.LayerNorm."),
    (_LAYER + r"fc1\.", _TO + "intermediate.dense."),
    (_LAYER + r"fc2\.", _TO + "output.dense."),
    (_LAYER + r"final_layer_norm\.", _TO + "output.LayerNorm."),
    (r"^(?:en|de)coder\.lm_head\.weight$", "lm_head.decoder.weight"),
    (r"^(?:en|de)coder\.lm_head\.", "lm_head."),
]
_TYPES = "roberta.embeddings.token_type_embeddings.weight"


def renamed(tensors: Mapping[str, Tensor], model_type: str, known: Collection[str]) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Tensors under the names of `transformers`, as far as these tools are known.

    Args:
        known: names that stay.

    Returns:
        the tensors; the name each had where it was another; and what was made up, in words.
    """
    google = sum("/" in name for name in tensors) > len(tensors) / 2
    fairseq = model_type == "roberta" and any(re.match(_L, _WRAPPERS.sub("", name)) for name in tensors)
    found: dict[str, Tensor] = {}
    was: dict[str, str] = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: len(item[0])):  # a wrapped copy's name is longer, and gives way
        new = name if name in known else _INSIDE.sub("", _WRAPPERS.sub("", name))
        if google:
            new, tensor = _from_google(new, tensor)
        if fairseq:
            new = _by(_FAIRSEQ, new)
        if new not in found:
            found[new] = tensor
            was |= {new: name} if new != name else {}
    made = []
    if fairseq and _TYPES not in found and (word := found.get("roberta.embeddings.word_embeddings.weight")) is not None:
        found[_TYPES] = torch.zeros(1, word.shape[1])
        made.append(f"{_TYPES}: zeros, as fairseq has no types of text")
    return found, was, made


def _from_google(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A variable of the original BERT: matrices stand the other way round, and tables of embeddings have no ending."""
    turned = tensor.T.contiguous() if name.endswith("kernel") and tensor.dim() == 2 else tensor
    return _by(_GOOGLE, name.replace("/", ".")), turned


def _by(rules: list[tuple[str, str]], name: str) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name
