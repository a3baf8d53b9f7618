"""Runs in a process of its own, with lm-eval and without lexloom: minimal pairs and a long text by a bundle as it is.

python oracle_lm_eval.py FOLDER PAIRS_JSONL LONG_TEXT    prints one JSON object
"""

from __future__ import annotations

import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM


def main(folder, pairs, long):
    task = {
        "task": "pairs",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"train": pairs}},
        "output_type": "multiple_choice",
        "validation_split": "train",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    model = HFLM(pretrained=folder, device="cpu", batch_size=8, dtype="float32")
    found = lm_eval.simple_evaluate(model=model, tasks=[task], log_samples=True, bootstrap_iters=0)
    samples = sorted(found["samples"]["pairs"], key=lambda sample: sample["doc_id"])
    told = {"pairs": [[float(choice[0]) for choice in sample["filtered_resps"]] for sample in samples]}
    told["accuracy"] = found["results"]["pairs"]["acc,none"]
    told["long"] = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (long,), 0)])[0]
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
