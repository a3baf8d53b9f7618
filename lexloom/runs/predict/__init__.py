"""Predict: answers to texts, or to files of them in a stream."""

from lexloom.runs.predict.stream import Predicted, free, identity, predict_file, predict_texts

__all__ = ["Predicted", "free", "identity", "predict_file", "predict_texts"]
