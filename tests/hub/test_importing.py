"""Import: other tools' names and files become bundles that answer the same; what is no folder of weights is named, nothing in it runs."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

import lexloom
from lexloom import files
from lexloom.cli import app
from lexloom.errors import FormatError, LexloomError, WeightsError
from lexloom.hub import weights
from lexloom.hub.bundle import Bundle, load
from lexloom.hub.importing import import_folder
from lexloom.models.base import ARCHITECTURES, Network
from lexloom.text.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from tests.hub.test_unpickling import HOSTILE, in_a_zip

TEXTS = ["the cat sat on the mat", "a dog!"]


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    lines = ["the cat sat on the mat", "a dog and a cat", "quotes and the mat and the dog"] * 30
    return train_tokenizer(lines, TokenizerConfig(kind="byte-bpe", vocab_size=290)).with_max_length(32)


def bundle(words: Tokenizer, kind: str = "bert", roles: tuple[str, ...] = ("masked-lm", "next-sentence")) -> Bundle:
    found = ARCHITECTURES.get(kind)
    model = {name: value for name, value in found.TINY.items() if "position" not in name}
    settings = found.fitted(
        {**model, "initializer_range": 0.3, "max_position_embeddings": 34}, length=32, vocabulary=len(words), ids=words.ids
    )
    return Bundle(Network.build(found, found.Config.read(settings), roles, seed=5), words)


def pickled(made: Bundle, folder: Path, tensors: dict[str, Tensor] | Any, name: str = "pytorch_model.bin") -> Path:
    """The bundle's folder with a PyTorch file in the place of its weights; each takes a process to open, so most tests do without."""
    made.save(folder)
    for file in ("model.safetensors", "lexloom.json", "manifest.json"):
        (folder / file).unlink()
    torch.save(tensors, folder / name)
    return folder


def spelled(made: Bundle, folder: Path, tensors: dict[str, Tensor]) -> Path:
    """The bundle's folder with its weights under other names."""
    made.save(folder)
    for file in ("lexloom.json", "manifest.json"):
        (folder / file).unlink()
    save_file(tensors, folder / "model.safetensors")
    return folder


def states(found: Any) -> np.ndarray:
    assert isinstance(found, Bundle)
    return found.embed(TEXTS)


def old(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for n, t in tensors.items()}


def google(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the original BERT's checkpoint spells it."""
    found = {}
    for name, tensor in tensors.items():
        is_matrix = tensor.dim() == 2 and name.endswith(".weight") and "embeddings" not in name and "seq_relationship" not in name
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        name = name.replace("cls.predictions.bias", "cls.predictions.output_bias").replace("encoder.layer.", "encoder.layer_")
        name = name.replace("seq_relationship.weight", "seq_relationship.output_weights").replace(
            "seq_relationship.bias", "seq_relationship.output_bias"
        )
        name = name.replace("_embeddings.weight", "_embeddings") if "embeddings" in name else name
        name = name.removesuffix("weight") + "kernel" if is_matrix else name
        found[name.replace(".", "/")] = tensor.T.contiguous() if is_matrix else tensor
    return found | {"global_step": torch.tensor(7)}


def twice(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the tied matrix under both of its names, as older files have it."""
    return {**tensors, "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"]}


NAMES: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "old endings": old,
    "no prefix": lambda ts: {n.removeprefix("bert."): t for n, t in ts.items()},
    "DDP and compile": lambda ts: {f"module._orig_mod.{n}": t for n, t in ts.items()},
    "a training script": lambda ts: {
        "epoch": 3,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
        "model": {f"model.{n}": t for n, t in twice(ts).items()},
    },
    "the original BERT": google,
    "half precision": lambda ts: {n: t.half() for n, t in ts.items()},
}


@pytest.mark.parametrize("names", NAMES)
def test_whatever_the_names_the_bundle_answers_the_same(names: str, words: Tokenizer, tmp_path: Path) -> None:
    made = bundle(words)
    tensors = weights.to_disk(made.network)
    write = pickled if names == "a training script" else spelled
    found = import_folder(write(made, tmp_path / "in", NAMES[names](tensors)), tmp_path / "out")
    opened = load(tmp_path / "out")
    tolerance = 2e-2 if names == "half precision" else 1e-6
    np.testing.assert_allclose(states(opened), states(made), atol=tolerance)
    assert opened.network.roles == made.network.roles and found.opens_as == "BertForPreTraining"
    assert (found.used, found.missing) == (len(tensors) + (names == "a training script"), [])
    assert files.verify(tmp_path / "out") and opened.about["imported"]["from"] == "in"
    told = {
        "a training script": ["epoch", "optimizer"],
        "the original BERT": ["global_step"],
    }
    assert found.left == told.get(names, [])
    assert bool(found.renamed) is (names in ("DDP and compile", "a training script", "the original BERT"))


def test_fairseq_names_of_roberta(words: Tokenizer, tmp_path: Path) -> None:
    made = bundle(words, "roberta", ("masked-lm",))
    made.network.backbone.get_parameter("segments.weight").data.zero_()
    inner = [
        ("attention.self.query", "self_attn.q_proj"),
        ("attention.self.key", "self_attn.k_proj"),
        ("attention.self.value", "self_attn.v_proj"),
    ]
    inner += [("attention.output.dense", "self_attn.out_proj"), ("attention.output.LayerNorm", "self_attn_layer_norm")]
    inner += [("intermediate.dense", "fc1"), ("output.dense", "fc2"), ("output.LayerNorm", "final_layer_norm")]
    outer = [("embeddings.word_embeddings", "embed_tokens"), ("embeddings.position_embeddings", "embed_positions")]
    outer += [("embeddings.LayerNorm", "emb_layer_norm"), ("encoder.layer", "layers")]
    tensors = {}
    for name, tensor in weights.to_disk(made.network).items():
        for theirs, own in [*inner, *outer]:
            name = name.replace(theirs, own)
        name = name.replace("roberta.", "decoder.sentence_encoder.") if name.startswith("roberta.") else f"decoder.{name}"
        if "token_type" not in name:
            tensors[name] = tensor
    found = import_folder(spelled(made, tmp_path / "in", tensors), tmp_path / "out")
    np.testing.assert_allclose(states(load(tmp_path / "out")), states(made), atol=1e-6)
    assert found.used == len(tensors) and len(found.made) == 1 and "zeros" in str(found)


def test_a_head_that_is_not_there_is_left_out_and_told(words: Tokenizer, tmp_path: Path) -> None:
    made = bundle(words)
    tensors = {n: t for n, t in weights.to_disk(made.network).items() if not n.startswith("cls.seq_relationship")}
    found = import_folder(spelled(made, tmp_path / "in", tensors), tmp_path / "out")
    assert found.opens_as == "BertForMaskedLM" and found.missing == ["cls.seq_relationship.weight", "cls.seq_relationship.bias"]
    assert found.left == ["bert.pooler.dense.bias", "bert.pooler.dense.weight"] and "a head was left out" in str(found)
    bare = {n: t for n, t in tensors.items() if n.startswith("bert.encoder.layer.0") or "embed" in n}
    with pytest.raises(WeightsError, match="weights are missing"):
        import_folder(spelled(made, tmp_path / "part", bare), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_parts_of_safetensors_and_single_files(words: Tokenizer, tmp_path: Path) -> None:
    made = bundle(words)
    tensors = weights.to_disk(made.network)
    folder = pickled(made, tmp_path / "in", {n: t for n, t in tensors.items() if "encoder" in n}, "pytorch_model-00001-of-00002.bin")
    torch.save({n: t for n, t in tensors.items() if "encoder" not in n}, folder / "pytorch_model-00002-of-00002.bin")
    places = {n: f"pytorch_model-0000{1 if 'encoder' in n else 2}-of-00002.bin" for n in tensors}
    files.write_json(folder / "pytorch_model.bin.index.json", {"weight_map": places})
    assert import_folder(folder, tmp_path / "out").used == len(tensors)
    whole = made.save(tmp_path / "safe")
    for source in (whole, whole / "model.safetensors"):
        import_folder(source, tmp_path / "again")
        assert (tmp_path / "again/model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_the_refusal_names_the_command_and_the_command_does_it(words: Tokenizer, tmp_path: Path) -> None:
    folder = pickled(bundle(words), tmp_path / "in", weights.to_disk(bundle(words).network))
    with pytest.raises(WeightsError) as caught:
        load(folder)
    assert f"lexloom import {folder} --out" in str(caught.value.hint)
    done = CliRunner().invoke(app, ["import", str(folder / "pytorch_model.bin"), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["opens_as"] == "BertForPreTraining" and isinstance(load(tmp_path / "out"), Bundle)
    assert str(lexloom.import_model(tmp_path / "out", tmp_path / "again")).startswith(f"{tmp_path / 'again'}: opens as")


def test_nothing_runs(words: Tokenizer, tmp_path: Path) -> None:
    mark, folder = tmp_path / "mark", pickled(bundle(words), tmp_path / "in", {})
    in_a_zip(pickle.dumps(HOSTILE["a command"](mark)), folder / "pytorch_model.bin")
    with pytest.raises(FormatError, match="something else than tensors, and none of it was run"):
        import_folder(folder, tmp_path / "out")
    assert not mark.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "make", "problem"),
    [
        ("pytorch_model.bin", lambda path: path.symlink_to(path.parent / "nowhere"), "cannot be opened"),
        ("pytorch_model.bin", lambda path: path.symlink_to(path), "cannot be opened"),
        ("pytorch_model.bin", lambda path: path.symlink_to("/dev/zero"), "no plain file"),
        ("pytorch_model.bin", lambda path: os.mkfifo(path), "no plain file"),
        ("pytorch_model.bin", lambda path: path.write_bytes(b"\xba\x16\x4f\x2f" + bytes(100)), "fastText"),
        (
            "pytorch_model.bin.index.json",
            lambda path: path.write_text('{"weight_map": {"a": "../../x.bin"}}'),
            "no PyTorch file of its folder",
        ),
        (
            "pytorch_model.bin.index.json",
            lambda path: path.write_text('{"weight_map": {"a": "/etc/passwd"}}'),
            "no PyTorch file of its folder",
        ),
        ("pytorch_model.bin.index.json", lambda path: path.write_text("[]"), "no PyTorch file of its folder"),
        ("training_args.bin", lambda path: path.write_bytes(b"x"), "no one file of weights"),
        ("config.json", lambda path: path.write_text('{"model_type": "reformer"}'), "does not have this architecture"),
    ],
)
def test_what_is_no_folder_of_weights_is_named(
    name: str, make: Callable[[Path], Any], problem: str, words: Tokenizer, tmp_path: Path
) -> None:
    folder = pickled(bundle(words), tmp_path / "in", {})
    (folder / "pytorch_model.bin").unlink()
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(LexloomError, match=problem):
        import_folder(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_to_a_plain_file_is_followed_and_others_folders_are_left_alone(words: Tokenizer, tmp_path: Path) -> None:
    made = bundle(words)
    folder = pickled(made, tmp_path / "in", weights.to_disk(made.network))
    (folder / "pytorch_model.bin").rename(tmp_path / "blob")
    (folder / "pytorch_model.bin").symlink_to(tmp_path / "blob")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/one.txt").write_text("dear")
    with pytest.raises(LexloomError, match="did not write"):
        import_folder(made.save(tmp_path / "safe"), tmp_path / "letters")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["one.txt"]
    np.testing.assert_allclose(states(load(Path(import_folder(folder, tmp_path / "out").bundle))), states(made), atol=1e-6)
