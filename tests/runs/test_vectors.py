"""`lexloom vectors`: a file out of a text, again after a crash, and on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import lexloom
from lexloom import cli
from lexloom.console import Console, Progress
from lexloom.errors import ConfigError, Interrupted
from lexloom.runs import vectors as making
from lexloom.vectors import training
from lexloom.vectors.keyed import WordVectors
from tests.vectors.texts import topics

SMALL: dict[str, Any] = {"dim": 12, "epochs": 2, "min_count": 1, "words": "spaces", "workers": 1}


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHUNK", 200)
    monkeypatch.setattr(training, "INTERVAL", 1)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(" ".join(sentence) + "\n" for sentence in topics(sentences=300)), encoding="utf-8")
    return path


class Crash(Exception):
    """As if the process had died."""


def crashing(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """Training dies after so many intervals, between two steps."""
    real, seen = Progress.update, [0]

    def update(self: Progress, done: float, **fields: Any) -> None:
        seen[0] += "loss" in fields
        if seen[0] > after:
            raise error
        real(self, done, **fields)

    monkeypatch.setattr(Progress, "update", update)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_crash_costs_an_interval_and_no_bit(tmp_path: Path, text: Path, deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "deterministic": deterministic, "console": Console(quiet=True), "save_every_seconds": 0.0}
    whole = lexloom.train_vectors(text, tmp_path / "whole.bin", **settings)
    for after in (1, 5, 9):
        with monkeypatch.context() as patch:
            crashing(patch, after, Crash())
            with pytest.raises(Crash):
                lexloom.train_vectors(text, tmp_path / "killed.bin", **settings)
        assert not (tmp_path / "killed.bin").exists()
        steps = [path.name for path in sorted((tmp_path / "killed.bin.training/checkpoints").glob("step-*"))]
        assert 1 <= len(steps) <= 2
    again = lexloom.train_vectors(text, tmp_path / "killed.bin", **settings)
    assert (tmp_path / "killed.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()
    assert again.losses == whole.losses and 0 < again.learned < whole.learned
    assert lexloom.train_vectors(text, tmp_path / "killed.bin", **settings).learned == 0  # done is done


def test_a_damaged_state_is_named_and_the_one_before_it_taken(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console, told = Console(quiet=True), list[str]()
    monkeypatch.setattr(console, "warn", told.append)
    settings = {**SMALL, "deterministic": True, "console": console, "save_every_seconds": 0.0}
    whole = lexloom.train_vectors(text, tmp_path / "whole.bin", **settings)
    assert not told
    last = sorted((tmp_path / "whole.bin.training/checkpoints").glob("step-*"))[-1]
    damaged = bytearray((last / "vectors.safetensors").read_bytes())
    damaged[-1] ^= 1
    (last / "vectors.safetensors").write_bytes(damaged)
    again = lexloom.train_vectors(text, tmp_path / "whole.bin", **settings)
    assert len(told) == 1 and str(last) in told[0] and "damaged" in told[0]
    assert 0 < again.learned < whole.learned and (again.vectors.vectors == whole.vectors.vectors).all()


def test_fasttext_after_a_crash_and_on_from_there(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        **SMALL,
        "kind": "fasttext",
        "buckets": 500,
        "deterministic": True,
        "console": Console(quiet=True),
        "save_every_seconds": 0.0,
    }
    whole = lexloom.train_vectors(text, tmp_path / "whole.bin", **settings)
    with monkeypatch.context() as patch:
        crashing(patch, 5, Crash())
        with pytest.raises(Crash):
            lexloom.train_vectors(text, tmp_path / "killed.bin", **settings)
    again = lexloom.train_vectors(text, tmp_path / "killed.bin", **{**settings, "workers": 2})
    assert (tmp_path / "killed.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()
    assert again.losses == whole.losses and 0 < again.learned < whole.learned
    start = tmp_path / "whole.bin.training"
    further = lexloom.train_vectors([["fresh", "t0_1"]] * 9, tmp_path / "further.safetensors", start=start, **settings)
    assert "fresh" in further.vectors.key_to_index and len(further.vectors) == len(whole.vectors) + 1
    opened = lexloom.WordVectors.load(tmp_path / "further.safetensors")
    assert (opened["t0_11x"] == further.vectors["t0_11x"]).all() and "t0_11x" not in opened.key_to_index
    with pytest.raises(ConfigError, match="another method"):
        lexloom.train_vectors(text, tmp_path / "mixed.bin", start=start, **SMALL, console=Console(quiet=True))
    trained = lexloom.WordVectors.train(text, **{name: value for name, value in settings.items() if name != "save_every_seconds"})
    assert (trained["t0_11x"] == whole.vectors["t0_11x"]).all() and type(trained) is lexloom.WordVectors


def test_the_command_line_trains_fasttext(tmp_path: Path, text: Path) -> None:
    command = ["vectors", str(text), "--out", str(tmp_path / "v.vec"), "--kind", "fasttext", "--dim", "12", "--epochs", "1", "--json"]
    done = CliRunner().invoke(cli.app, [*command, "--min-count", "1", "--set", "words=spaces", "--set", "model=cbow", "--set", "min_n=2"])
    assert done.exit_code == 0, done.output
    assert WordVectors.load(tmp_path / "v.vec").vectors.shape[1] == 12
    wrong = CliRunner().invoke(cli.app, [*command, "--set", "model=glove"])
    assert isinstance(wrong.exception, ConfigError) and "skipgram" in str(wrong.exception)


def test_glove_after_a_crash_and_on_from_there(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "kind": "glove", "memory": 1 << 21, "console": Console(quiet=True), "save_every_seconds": 0.0}
    whole = lexloom.train_vectors(text, tmp_path / "whole.bin", **settings)
    with monkeypatch.context() as patch:
        crashing(patch, 40, Crash())
        with pytest.raises(Crash):
            lexloom.train_vectors(text, tmp_path / "killed.bin", **settings)
    again = lexloom.train_vectors(text, tmp_path / "killed.bin", **{**settings, "workers": 2})
    assert (tmp_path / "killed.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()
    assert again.losses == whole.losses and 0 < again.learned < whole.learned
    start = tmp_path / "whole.bin.training"
    further = lexloom.train_vectors([["fresh", "t0_1"]] * 9, tmp_path / "further.bin", start=start, **settings)
    assert "fresh" in further.vectors and len(further.vectors) == len(whole.vectors) + 1
    for kind, path in (("skipgram", start), ("glove", tmp_path / "other.bin.training")):
        if kind == "glove":
            lexloom.train_vectors(text, tmp_path / "other.bin", **{**SMALL, "console": Console(quiet=True)})
        others = {name: value for name, value in settings.items() if name != "memory"}
        with pytest.raises(ConfigError, match="another method"):
            lexloom.train_vectors(text, tmp_path / "mixed.bin", start=path, **{**others, "kind": kind})


def test_the_command_line_trains_glove(tmp_path: Path, text: Path) -> None:
    command = ["vectors", str(text), "--out", str(tmp_path / "v.vec"), "--kind", "glove", "--dim", "12", "--epochs", "1", "--json"]
    done = CliRunner().invoke(cli.app, [*command, "--min-count", "1", "--set", "words=spaces", "--set", "x_max=10"])
    assert done.exit_code == 0, done.output
    assert WordVectors.load(tmp_path / "v.vec").vectors.shape[1] == 12
    wrong = CliRunner().invoke(cli.app, [*command, "--negatives", "3"])
    assert isinstance(wrong.exception, ConfigError) and "negatives" in str(wrong.exception)


def test_other_settings_or_text_begin_anew(tmp_path: Path, text: Path) -> None:
    settings = {**SMALL, "console": Console(quiet=True)}
    first = lexloom.train_vectors(text, tmp_path / "v.bin", **settings)
    other = lexloom.train_vectors(text, tmp_path / "v.bin", **{**settings, "dim": 13})
    assert other.learned == first.learned and other.vectors.vectors.shape[1] == 13
    text.write_text(text.read_text(encoding="utf-8") + "a new line\n", encoding="utf-8")
    assert "new" in lexloom.train_vectors(text, tmp_path / "v.bin", **settings).vectors


def test_training_goes_on_with_further_text_and_words(tmp_path: Path, text: Path) -> None:
    settings = {**SMALL, "console": Console(quiet=True)}
    first = lexloom.train_vectors(text, tmp_path / "a.bin", **settings)
    more = [["fresh", "words", "t0_1"], ["t0_1", "fresh"]] * 50
    second = lexloom.train_vectors(more, tmp_path / "b.safetensors", start=tmp_path / "a.bin.training", **settings)
    assert second.vectors.index_to_key[: len(first.vectors)] == first.vectors.index_to_key
    untouched = [word for word in first.vectors.index_to_key if word.startswith("t5")]
    assert {"fresh", "words"} <= set(second.vectors.index_to_key) and len(untouched) > 5
    assert all((second.vectors[word] == first.vectors[word]).all() for word in untouched)
    assert (second.vectors["t0_1"] != first.vectors["t0_1"]).any()
    with pytest.raises(ConfigError, match="another width"):
        lexloom.train_vectors(text, tmp_path / "c.bin", start=tmp_path / "a.bin.training", **{**settings, "dim": 13})
    with pytest.raises(ConfigError, match="no saved state"):
        lexloom.train_vectors(text, tmp_path / "c.bin", start=tmp_path, **settings)


def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SMALL, "console": Console(quiet=True)}
    from lexloom.runs.interrupt import Stop

    monkeypatch.setattr(Stop, "number", 15)
    with pytest.raises(Interrupted) as caught:
        lexloom.train_vectors(text, tmp_path / "v.bin", **settings)
    assert caught.value.exit_code == 143 and making._newest(tmp_path / "v.bin.training/checkpoints") is not None


def test_the_command_line(tmp_path: Path, text: Path) -> None:
    command = ["vectors", str(text), "--out", str(tmp_path / "v.vec"), "--dim", "12", "--min-count", "2", "--epochs", "1", "--workers", "1"]
    done = CliRunner().invoke(cli.app, [*command, "--kind", "cbow", "--set", "words=spaces", "--json", "-q"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["dim"] == 12 and told["words_per_second"] > 0 and len(told["losses"]) == 1
    assert WordVectors.load(tmp_path / "v.vec").vectors.shape == (told["words"], 12)


@pytest.mark.parametrize(("setting", "hint"), [({"vector_size": 50}, "dim"), ({"windows": 5}, "window"), ({"kind": "lsa"}, "skipgram")])
def test_a_wrong_setting_is_named(tmp_path: Path, text: Path, setting: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        lexloom.train_vectors(text, tmp_path / "v.bin", console=Console(quiet=True), **setting)


def test_vectors_are_trained_in_memory(tmp_path: Path, text: Path) -> None:
    wv = lexloom.WordVectors.train(text, **SMALL)
    filed = lexloom.train_vectors(text, tmp_path / "v.bin", console=Console(quiet=True), **SMALL).vectors
    assert wv.index_to_key == filed.index_to_key and (wv.vectors == filed.vectors).all() and isinstance(wv, WordVectors)
    wv.save(tmp_path / "w.bin")
    assert isinstance(lexloom.WordVectors.load(tmp_path / "w.bin"), lexloom.WordVectors)
    assert len(lexloom.WordVectors.train([["a", "b"], ["b", "a"]], **SMALL)) == 2


def test_a_file_of_vectors_is_evaluated(tmp_path: Path) -> None:
    WordVectors(["a", "b", "c", "d"], np.array([[1, 0], [1, 1], [2, 0.1], [2, 2.2]], dtype=np.float32)).save(tmp_path / "v.bin")
    (tmp_path / "q.txt").write_text(": s\na b c d\na b c e\n")
    done = CliRunner().invoke(cli.app, ["evaluate", str(tmp_path / "v.bin"), str(tmp_path / "q.txt"), "--json"])
    assert done.exit_code == 0, done.output
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["section"], one["value"], one["covered"], one["n"]) for one in told] == [("all", 1.0, 1, 2), ("s", 1.0, 1, 2)]
    assert lexloom.evaluate_vectors(tmp_path / "v.bin", tmp_path / "q.txt", method="multiplicative")[0].value == 1
