"""Metrics as people write them. Apart from `metrics.py`, so that a report opens without what computes them."""

from __future__ import annotations

_WRITTEN = {"macro_f1": "macro-F1", "f1": "F1", "chrf": "chrF", "bleu": "BLEU"}


def written(metric: str) -> str:
    """A metric's name for readers: "macro-F1" for `macro_f1`."""
    return _WRITTEN.get(metric, metric.replace("_", "-"))
