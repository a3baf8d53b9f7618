"""lexloom weaves language models from your own text: one recipe from raw text to a model in use, with nothing downloaded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lexloom.batch import Batch
    from lexloom.hub.bundle import load
    from lexloom.runs.verbs import (
        check,
        components,
        demo,
        evaluate,
        evaluate_vectors,
        extend,
        finetune,
        import_model,
        predict,
        prepare,
        pretrain,
        replay,
        report,
        run,
        verify,
    )
    from lexloom.runs.verbs import tokenizer as train_tokenizer
    from lexloom.runs.verbs import vectors as train_vectors
    from lexloom.runs.word_vectors import WordVectors

__version__ = "0.1.0"

# Public name -> where it lives. Nothing is imported before it is asked for, so that `import lexloom` is cheap.
_VERBS = "lexloom.runs.verbs"
_PLACES = {
    "Batch": ("lexloom.batch", "Batch"),
    "WordVectors": ("lexloom.runs.word_vectors", "WordVectors"),
    "load": ("lexloom.hub.bundle", "load"),
    "train_tokenizer": (_VERBS, "tokenizer"),
    "train_vectors": (_VERBS, "vectors"),
    **{
        verb: (_VERBS, verb)
        for verb in (
            "check components demo evaluate evaluate_vectors extend finetune import_model predict prepare pretrain replay report run verify"
        ).split()
    },
}

__all__ = [
    "Batch",
    "WordVectors",
    "__version__",
    "check",
    "components",
    "demo",
    "evaluate",
    "evaluate_vectors",
    "extend",
    "finetune",
    "import_model",
    "load",
    "predict",
    "prepare",
    "pretrain",
    "replay",
    "report",
    "run",
    "train_tokenizer",
    "train_vectors",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lexloom' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
