"""A recipe so small that tests run all of it: two hundred documents of made-up sentences and a hundred labelled rows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lexloom import files, keys

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "lexloom"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}  # children find the package whether or not it is installed
RECIPE = """\
name: tiny
seed: 3
prepare: {sources: [texts.jsonl], language: en, dedup: {near: false}, split: {validation: 0.1}}
tokenizer: {kind: wordpiece, vocab_size: 300}
pretrain:
  model: {kind: bert, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}
  objective: [masked-lm, next-sentence]
  train:
    {steps: 60, batch_tokens: 512, micro_batch_tokens: 256, length: 32, evaluate_every: 20, save_every: 7, learning_rate: 1e-3}
  fills: ["The river [MASK] the house."]
finetune:
  topics:
    task: text-classification
    data: {train: rows.jsonl, validation: rows.jsonl, test: rows.jsonl}
    train: {epochs: 6, batch_rows: 16, save_every: 5, learning_rate: 1e-3}
    baselines: [majority]
"""
WORDS = "the a one that which river stone green walks sees under over between slowly quickly house tree bird never".split()


def sentence(number: int) -> str:
    """Nine words that are a function of a number."""
    picks = keys.integers(keys.key(9, number), 9, len(WORDS))
    return " ".join(WORDS[i] for i in picks).capitalize() + "."


def write(folder: Path, recipe: str = RECIPE) -> Path:
    """Writes the sources and the recipe; returns the recipe's path."""
    texts = [{"id": str(d), "text": " ".join(sentence(10 * d + i) for i in range(10))} for d in range(200)]
    rows = [{"text": sentence(i), "label": "high" if "river" in sentence(i).lower() else "low"} for i in range(100)]
    for name, content in (("texts", texts), ("rows", rows)):
        files.write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in content))
    files.write_text(folder / "recipe.yaml", recipe)
    return folder / "recipe.yaml"
