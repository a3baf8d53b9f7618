"""A run folder that no run made: what every stage writes, with figures as of a real one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lexloom import files
from lexloom.train.log import MetricsLog

RECIPE = """name: bert-mini-notes
seed: 1
prepare: {sources: [notes/], language: en, split: {validation: 0.01, group: patient_id}}
tokenizer: {kind: wordpiece, vocab_size: 16000}
pretrain:
  model: {kind: bert, preset: bert-mini}
  objective: [masked-lm, next-sentence]
  train: {tokens: 40M, batch_tokens: 16384, length: {128: 0.9, 512: 0.1}, learning_rate: 1e-3, schedule: wsd}
finetune:
  mood: {task: text-classification, data: {train: mood/train.jsonl, validation: mood/dev.jsonl, test: mood/test.jsonl}}
"""
CORPUS = {
    "format": 1,
    "sources": [
        {"path": "notes/2024.jsonl.gz", "documents": 118_204, "bytes": 91_482_113, "encoding": "utf-8", "sha256": "3f" * 32},
        {"path": "notes/2025.jsonl.gz", "documents": 64_871, "bytes": 50_113_870, "encoding": "utf-8", "sha256": "a9" * 32},
        {"path": "notes/old/病历.txt", "documents": 812, "bytes": 731_204, "encoding": "gb18030", "sha256": "07" * 32},
    ],
    "counts": {"read": 183_887, "kept": 171_030, "characters": 208_114_902, "bytes": 231_004_117},
    "bad_rows": {"total": 14, "reasons": {"not utf-8": 12, "not JSON": 2}, "first": ["notes/2024.jsonl.gz:17: not JSON"]},
    "changed": {"normal form": 1_204, "white space": 40_771},
    "warnings": ["212 documents have the id of another one"],
    "dropped": {"too short": 6_120, "exact duplicate": 4_410, "near duplicate": 1_442, "other language": 871, "no letters": 14},
    "duplicates": {"exact": 4_410, "near": 1_442},
    "splits": {"train": {"documents": 169_302, "characters": 206_021_455}, "validation": {"documents": 1_728, "bytes": 2_300_100}},
}
TOKENIZER = {
    "vocab_size": 16_000,
    "kind": "wordpiece",
    "characters_per_token": 4.318,
    "unk_rate": 0.00021,
    "samples": [
        {
            "text": "The patient tolerated the procedure well.",
            "tokens": ["the", "patient", "toler", "##ated", "the", "procedure", "well", "."],
        },
        {"text": "病人术后恢复良好。", "tokens": list("病人术后恢复良好。")},
    ],
}
SHARDS = {
    "format": 1,
    "dtype": "uint16",
    "splits": {
        "train": {
            "tokens": 48_197_331,
            "sentences": 2_301_554,
            "documents": 169_302,
            "skipped": {"empty": 2},
            "files": {
                "tokens-train.bin": {"bytes": 96_394_662, "sha256": "00"},
                "documents-train.bin": {"bytes": 1_000_000, "sha256": "11"},
            },
        }
    },
}
PRETRAIN = {
    "model": "bert-mini",
    "parameters": 7_406_336,
    "steps": 2_442,
    "tokens": 40_009_728,
    "seconds": 5_791.4,
    "loss": 3.0177,
    "validation": {"loss": 3.0642, "parts": {"masked-lm": 2.8114, "next-sentence": 0.2528}},
    "compute": {
        "device": "cpu",
        "dtype": "bfloat16",
        "threads": 2,
        "compile": True,
        "reasons": {"dtype": "the CPU has AMX for bfloat16", "compile": "2,442 steps pay for compiling"},
    },
    "fills": [
        {
            "text": "The wound was clean and [MASK].",
            "answers": [{"token": "dry", "score": 0.61}, {"token": "intact", "score": 0.17}, {"token": "closed", "score": 0.05}],
        },
        {"text": "No known drug [MASK].", "answers": [{"token": "allergies", "score": 0.93}, {"token": "use", "score": 0.02}]},
    ],
}


def scores(*values: tuple[str, float, float, float], n: int = 1821, note: str = "") -> list[dict[str, Any]]:
    return [
        {"model": m, "metric": "accuracy", "value": v, "low": a, "high": b, "n": n, "seeds": 3 if m.startswith("f") else None, "note": note}
        for m, v, a, b in values
    ]


MOOD = {
    "task": "text-classification",
    "seeds": 3,
    "rows": {"train": 67_349, "validation": 872, "test": 1_821},
    "verdict": "Pre-training pays: 0.871 accuracy against 0.823 of TF-IDF, a gain of 0.048 (95 % interval 0.029 to 0.066). "
    "Against the same network without pre-training the gain is 0.061.",
    "scores": [
        *scores(("fine-tuned", 0.8712, 0.8557, 0.8863), ("from scratch", 0.8103, 0.7919, 0.8281), note="three seeds pooled"),
        *scores(("TF-IDF + logistic regression", 0.8232, 0.8056, 0.8402), ("majority", 0.5008, 0.478, 0.5239)),
    ],
    "differences": [
        {
            "a": "fine-tuned",
            "b": "TF-IDF + logistic regression",
            "metric": "accuracy",
            "value": 0.048,
            "low": 0.0291,
            "high": 0.0664,
            "n": 1821,
        },
        {"a": "fine-tuned", "b": "from scratch", "metric": "accuracy", "value": 0.0609, "low": 0.0421, "high": 0.0792, "n": 1821},
        {"a": "from scratch", "b": "TF-IDF + logistic regression", "metric": "accuracy", "value": -0.0129, "low": -0.031, "high": 0.0052},
    ],
    "confusion": {"labels": ["negative", "positive"], "counts": [[801, 111], [124, 785]]},
    "examples": [
        {"text": "The nurse came at once and explained every step.", "gold": "positive", "predicted": "positive", "score": 0.98},
        {"text": "I waited four hours and was then sent home.", "gold": "negative", "predicted": "negative", "score": 0.96},
        {"text": "Not the disaster I had been promised.", "gold": "positive", "predicted": "negative", "score": 0.81},
        {"text": "Well, the parking was excellent.", "gold": "negative", "predicted": "positive", "score": 0.74},
    ],
    "encoding": ["67,349 training rows, 890,120 tokens, at most 128 a row"],
    "compute": {"format": 1, "device": "cpu", "dtype": "float32", "threads": 2, "compile": False, "reasons": {"dtype": "short rows"}},
    "settings": {"epochs": 3.0, "learning_rate": 5e-5, "patience": None, "batch_rows": 32},
    "seconds": 1_283.0,
}
WARDS = {
    "task": "text-classification",
    "seeds": [1, 2, 3],
    "rows": {"train": 7_600, "validation": 400, "test": 1_200},
    "verdict": "Use TF-IDF: 0.914 accuracy against 0.909 of the fine-tuned model, and no difference can be shown.",
    "scores": scores(
        ("fine-tuned", 0.909, 0.8925, 0.9242),
        ("from scratch", 0.8811, 0.8617, 0.8992),
        ("TF-IDF + logistic regression", 0.9142, 0.8983, 0.93),
        ("majority", 0.25, 0.226, 0.275),
        n=1200,
    ),
    "differences": [
        {"a": "fine-tuned", "b": "TF-IDF + logistic regression", "metric": "accuracy", "value": -0.0052, "low": -0.0183, "high": 0.0075},
    ],
    "confusion": {
        "labels": ["surgery", "心内科", "maternity", "emergency"],
        "counts": [[271, 12, 3, 14], [9, 280, 2, 9], [4, 1, 291, 4], [22, 17, 6, 255]],
    },
    "examples": [
        {"text": "患者主诉胸闷三天，夜间加重。", "gold": "心内科", "predicted": "心内科", "score": 0.97},
        {"text": "Fell from a ladder, transferred for fixation.", "gold": "surgery", "predicted": "emergency", "score": 0.55},
    ],
    "seconds": 302.0,
}
ENVIRONMENT = {
    "lexloom": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "system": "Linux x86_64",
    "cores": "2",
    "instruction sets": "avx2, amx_bf16",
}


def write_bundle(folder: Path, **settings: Any) -> None:
    found = {"model_type": "bert", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 16_000, **settings}
    with files.new_folder(folder) as new:
        files.write_json(new / "config.json", {"max_position_embeddings": 512, **found})
        files.write_bytes(new / "model.safetensors", bytes(1000))
        files.write_text(new / "vocab.txt", "[PAD]\n")


def write_log(folder: Path, n: int, every: int, low: float = 3.0, high: float = 9.7) -> None:
    with MetricsLog(folder, tensorboard=False) as log:
        for step in range(1, n + 1):
            loss = low + (high - low) * math.exp(-4 * step / n) + 0.12 * math.sin(step * 12.9898) * math.sin(step * 4.1)
            line: dict[str, Any] = {"step": step, "loss": loss, "tokens": step * 16_384}
            if step % every == 0:
                line["validation"] = {"loss": low + 0.05 + (high - low) * math.exp(-4 * step / n)}
            log.write(line)


def write_run(run: Path, *, tasks: dict[str, dict[str, Any]]) -> Path:
    files.write_text(run / "recipe.yaml", RECIPE)
    files.write_json(run / "environment.json", ENVIRONMENT)
    files.write_json(run / "corpus" / "corpus.json", CORPUS)
    files.write_json(run / "tokenizer" / "report.json", TOKENIZER)
    files.write_json(run / "shards" / "shards.json", SHARDS)
    files.write_json(run / "pretrain" / "summary.json", PRETRAIN)
    write_log(run / "pretrain", 600, 60)
    write_bundle(run / "pretrain" / "bundle", architectures=["BertForPreTraining"])
    for name, summary in tasks.items():
        files.write_json(run / "finetune" / name / "summary.json", summary)
        write_log(run / "finetune" / name, 120, 30, 0.28, 0.7)
        write_bundle(run / "finetune" / name / "bundle", architectures=["BertForSequenceClassification"], id2label={"0": "no", "1": "yes"})
    return run
