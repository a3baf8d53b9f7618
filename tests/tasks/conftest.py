from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from lexloom.models.base import Network
from lexloom.models.bert import Bert, BertConfig
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.classification import TextClassification, TextClassificationConfig
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer

TEXTS = [
    "a warm and funny film with real wit, and she plays it well",
    "dull from the first scene to the last, two hours that I want back",
    "The capital of France is Paris. Two and two make four.",
    "这家酒店的房间很大，早餐也不错。",
    "one two three four five six seven eight nine ten",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, TokenizerConfig(vocab_size=400, min_frequency=1))


@pytest.fixture(scope="session")
def network(tokenizer: Tokenizer) -> Callable[..., Network]:
    """Makes tiny networks for the tokenizer."""

    def make(*roles: str, labels: int = 2, seed: int = 1) -> Network:
        config = BertConfig.read({**Bert.TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 64})
        return Network.build(Bert, config, roles, labels=labels, seed=seed)

    return make


@pytest.fixture(scope="session")
def classifier(tokenizer: Tokenizer) -> Callable[..., TextClassification]:
    """Makes classification tasks for the tokenizer."""

    def make(labels: Sequence[str] = ("bad", "good"), **settings: object) -> TextClassification:
        return TextClassification(TextClassificationConfig.read(settings), Vocabulary.of(tokenizer), labels)

    return make
