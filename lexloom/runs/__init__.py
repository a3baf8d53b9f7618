"""Stages put together into runs: recipe, prepare, pretrain, finetune, evaluate, report."""
