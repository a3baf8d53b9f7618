"""Settings files: YAML 1.2 values, exact places, nearest and peers' names, and hostile input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from lexloom import config
from lexloom.config import Config, Count, Duration
from lexloom.errors import ConfigError


class Train(Config):
    epochs: int = Field(3, ge=0)
    learning_rate: float = 1e-3
    length: dict[int, float] | int = 128
    schedule: Literal["wsd", "linear"] = "wsd"
    tokens: Count | None = None
    time: Duration | None = None


class Phase(Config):
    train: Train = Train()
    start: str | None = Field(None, alias="from")


class Recipe(Config):
    name: str = "x"
    flag: bool = False
    sources: list[str] = []
    pretrain: Phase | list[Phase] | None = None
    finetune: dict[str, Phase] = {}


def read(text: str, *settings: str) -> Recipe:
    document = config.parse(text, "r.yaml")
    config.override(document, settings)
    return Recipe.read(document.data, document)


def problem(text: str, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, *settings)
    return str(caught.value)


# Values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("Norway", "Norway"),
        ("true", True), ("True", True), ("FALSE", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("nULL", "nULL"),
        ("1e-3", 0.001), ("1E3", 1000.0), ("-.5e1", -5.0), ("1.", 1.0), ("+1", 1), ("007", 7), ("0o17", 15), ("0x1F", 31), ("-0", 0),
        (".inf", math.inf), ("-.INF", -math.inf),
        ("2020-01-01", "2020-01-01"), ("12:30", "12:30"), ("1.2.3", "1.2.3"), ("1e", "1e"), ("e3", "e3"), (".", "."), ("-", "-"),
        ("0b1", "0b1"),
        ("100M", "100M"), ("<<", "<<"), ("=", "="), ("你好", "你好"), ("😀", "😀"),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = config.plain_scalar(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number_is_understood(text: str) -> None:
    assert math.isnan(config.plain_scalar(text))


def test_values_through_a_whole_file() -> None:
    text = "a: no\nb: 'no'\nc: \"1e-3\"\nd: 1e-3\ne: |\n  007\nf: [007, {g: ~}]\n128: x\n1.5: y\n"
    assert config.parse(text).data == {
        "a": "no",
        "b": "no",
        "c": "1e-3",
        "d": 0.001,
        "e": "007\n",
        "f": [7, {"g": None}],
        128: "x",
        1.5: "y",
    }


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES)
def test_json_is_part_of_it(value: Any) -> None:
    assert config.parse(json.dumps({"a": value})).data == {"a": value}


@pytest.mark.parametrize("text", ["", "\n\n", "# only words\n", "---\n", "\ufeff# BOM\n"])
def test_an_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    assert Recipe.read(config.load(tmp_path / "r.yaml").data or {}) == Recipe()


def test_a_bom_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfname: a\r\nflag: x\r\n")
    document = config.load(tmp_path / "r.yaml")
    assert document.data == {"name": "a", "flag": "x"}
    assert document.where(("flag",)) == f"{tmp_path / 'r.yaml'}:2:1"


def test_an_alias_stands_for_its_value() -> None:
    assert read("name: &n deep\nsources: [*n, *n]").sources == ["deep", "deep"]


# Round trip

trains = st.builds(
    Train,
    epochs=st.integers(0, 10**6),
    learning_rate=st.floats(allow_nan=False, allow_infinity=False),
    length=st.integers() | st.dictionaries(st.integers(1, 4096), st.floats(0, 1), max_size=3),
    schedule=st.sampled_from(["wsd", "linear"]),
    tokens=st.none() | st.integers(0, 10**12),
    time=st.none() | st.floats(0, 1e9),
)
phases = st.builds(
    lambda train, start: Phase.read({"train": train.plain(), "from": start}), trains, st.none() | st.text(st.characters(codec="utf-8"))
)
recipes = st.builds(
    Recipe,
    name=st.text(st.characters(codec="utf-8")),
    flag=st.booleans(),
    sources=st.lists(st.text(st.characters(codec="utf-8"))),
    pretrain=st.none() | phases | st.lists(phases, max_size=2),
    finetune=st.dictionaries(st.text(st.characters(codec="utf-8")), phases, max_size=2),
)


@given(recipes)
def test_plain_read_plain_is_the_same(recipe: Recipe) -> None:
    assert Recipe.read(recipe.plain()) == recipe
    again = config.parse(json.dumps(recipe.plain(), indent=1))
    assert Recipe.read(again.data, again).plain() == recipe.plain()


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().name = "y"  # type: ignore[misc]


def test_an_alias_of_a_field_is_what_a_recipe_says() -> None:
    assert read("pretrain: {from: A}").plain()["pretrain"]["from"] == "A"
    assert "'pretrain.form'" in problem("pretrain: {form: A}")
    assert "did you mean 'from'?" in problem("pretrain: {form: A}")


# Mistakes


@pytest.mark.parametrize(
    ("text", "place", "problem_is", "expected", "got", "hint"),
    [
        ("flag: no", "1:1", "flag is not right", "true or false", "no", "YAML 1.2 reads no as text: write false"),
        ("flag: Yes", "1:1", "flag is not right", "true or false", "Yes", "YAML 1.2 reads Yes as text: write true"),
        ("name: 1e-3", "1:1", "name is not right", "text", "1e-3", "put it in quotes to make it text"),
        ("\n\nname: 007", "3:1", "name is not right", "text", "007", "put it in quotes to make it text"),
        ("name: [a]", "1:1", "name is not right", "text", "['a']", None),
        ("sources: a.txt", "1:1", "sources is not right", "a list", "a.txt", None),
        ("sources:\n  - a\n  - 5", "3:5", "sources.1 is not right", "text", "5", "put it in quotes to make it text"),
        ("finetune: [a]", "1:1", "finetune is not right", "a mapping (key: value lines)", "['a']", None),
        ("finetune:\n  a:\n    train: {epochs: 1e2}", "3:13", "finetune.a.train.epochs is not right", "a whole number", "1e2", None),
        (
            "finetune: {a: {train: {learning_rate: '1e-3'}}}",
            "1:24",
            "finetune.a.train.learning_rate is not right",
            "a number",
            "1e-3",
            "take the quotes away",
        ),
        (
            "finetune: {a: {train: {learning_rate: .nan}}}",
            "1:24",
            "finetune.a.train.learning_rate is not right",
            "a finite number",
            ".nan",
            None,
        ),
        (
            "finetune: {a: {train: {schedule: wds}}}",
            "1:24",
            "finetune.a.train.schedule is not right",
            "'wsd' or 'linear'",
            "wds",
            "did you mean 'wsd'?",
        ),
        (
            "finetune: {a: {train: {tokens: 20kk}}}",
            "1:24",
            "finetune.a.train.tokens is not right",
            "a count such as 20000, 20k or 100M",
            "20kk",
            None,
        ),
        (
            "finetune: {a: {train: {time: 3x}}}",
            "1:24",
            "finetune.a.train.time is not right",
            "a duration such as 90s, 30m or 2h",
            "3x",
            None,
        ),
        ("finetune: {a: {train: {epochs: -1}}}", "1:24", "finetune.a.train.epochs is not right", "greater than or equal to 0", "-1", None),
        ("names: x", "1:1", "there is no setting 'names'", "finetune, flag, name, pretrain, sources", None, "did you mean 'name'?"),
        ("5: x", "1:1", "there is no setting '5'", "finetune, flag, name, pretrain, sources", None, None),
        ("- a", "1:1", "this is not right", "a mapping (key: value lines)", "['a']", None),
        ("words", "1:1", "this is not right", "a mapping (key: value lines)", "words", None),
    ],
)
def test_a_mistake_says_where_what_and_what_to_do(
    text: str, place: str, problem_is: str, expected: str, got: str | None, hint: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    error = caught.value
    assert (error.where, error.problem, error.expected, error.got, error.hint) == (f"r.yaml:{place}", problem_is, expected, got, hint)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("num_train_epochs", "did you mean 'epochs'?"),
        ("lr", "did you mean 'learning_rate'?"),
        ("max_seq_length", "did you mean 'length'?"),
        ("lr_scheduler_type", "did you mean 'schedule'?"),
        ("vector_size", "lexloom calls this 'dim'"),
        ("epoch", "did you mean 'epochs'?"),
        ("Epochs", "did you mean 'epochs'?"),
        ("num_labels", "did you mean 'data (labels are read from it)'?"),
    ],
)
def test_names_of_other_tools_are_known(key: str, hint: str) -> None:
    text = problem(f"finetune:\n  sst2:\n    train:\n      {key}: 3\n")
    assert text.startswith(f"r.yaml:4:7: there is no setting 'finetune.sst2.train.{key}'")
    assert text.endswith(f"do:       {hint}")


def test_every_mistake_at_once() -> None:
    text = problem("name: 5\nflg: 1\nfinetune:\n  a: {train: {epochs: x, lr: 1}}\n  b: 3\n")
    assert text.startswith("5 problems:\n")
    for place in ("r.yaml:1:1: name", "r.yaml:2:1: there is no setting 'flg'", "r.yaml:4:15: ", "r.yaml:4:26: ", "r.yaml:5:3: finetune.b"):
        assert place in text


def test_one_of_several_kinds_is_complained_about_once() -> None:
    assert (
        problem("pretrain: {train: {epochs: x}}")
        == "r.yaml:1:20: pretrain.train.epochs is not right\n  expected: a whole number\n  got:      x"
    )
    assert problem("pretrain: [{train: {epochs: x}}]").startswith("r.yaml:1:21: pretrain.0.train.epochs is not right")
    assert "expected: a mapping (key: value lines) or a list\n" in problem("pretrain: 5")
    assert "expected: a mapping (key: value lines) or a whole number\n" in problem("pretrain: {train: {length: x}}")


def test_without_a_document_the_place_is_the_dotted_name() -> None:
    with pytest.raises(ConfigError, match=r"^name: name is not right"):
        Recipe.read({"name": 5})


def test_several_configs_can_be_read_before_complaining() -> None:
    document = config.parse("a: {epochs: x}\nb: {epochs: y}", "r.yaml")
    problems = [p for key in "ab" for p in config.attempt(Train, document.data[key], document, (key,))[1]]
    assert [p.where for p in problems] == ["r.yaml:1:5", "r.yaml:2:5"]
    assert [p.problem for p in problems] == ["a.epochs is not right", "b.epochs is not right"]


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: 1\nb: 2\na: 3", "r.yaml:3:1", "the key 'a' stands twice"),
        ("x:\n  5: 1\n  '5': 2", "r.yaml:3:3", "stands twice"),
        ("a: {b: 1, b: 2}", "r.yaml:1:11", "stands twice"),
        ("a: [1", "r.yaml:1:6", "not valid YAML"),
        ("a: 'x", "r.yaml:1:6", "not valid YAML"),
        ("a:\n\tb: 1", "r.yaml:2:1", "not valid YAML"),
        ("a: b: c", "r.yaml:1:5", "not valid YAML"),
        ("a: 1\n---\nb: 2", "r.yaml:2:1", "another document"),
        ("a: *b", "r.yaml:1:4", "undefined alias"),
        ("? [1]\n: 2", "r.yaml:1:3", "keys are words or numbers"),
        ("true: 1", "r.yaml:1:1", "keys are words or numbers"),
        ("a: 1\nb: x\0y", "r.yaml:2:5", r"the character '\x00'"),
        ("a: \x1b[31m", "r.yaml:1:4", r"the character '\x1b'"),
        ("a: !!python/object/apply:os.system [ls]", "r.yaml:1:4", "tags are not used here"),
        ("a: !mine x", "r.yaml:1:4", "tags are not used here"),
        ('a: "\\ud800"', "r.yaml:1:4", "half a character"),
        ("a: " + "9" * 5000, "r.yaml:1:4", "too long"),
    ],
)
def test_what_is_no_settings_file_is_refused_with_its_place(text: str, where: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "r.yaml")
    assert caught.value.where == where
    assert words in str(caught.value)


# Hostile files


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="refers to itself too often"):
        config.parse("\n".join(lines))


@pytest.mark.parametrize(
    "text", ["a: &a [*a]", "a: &a {b: *a}", "[" * 100 + "]" * 100, "[" * 100_000, "- " * 50_000 + "x", "{a: " * 20_000]
)
def test_endless_and_very_deep_files_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"too deep|not valid YAML"):
        config.parse(text)


def test_a_file_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    for name, content in {"big.yaml": b"a" * (1 << 21), "utf16.yaml": "name: x".encode("utf-16"), "latin.yaml": b"name: caf\xe9"}.items():
        (tmp_path / name).write_bytes(content)
    for name, words in {
        "big.yaml": "too large",
        "utf16.yaml": "not UTF-8",
        "latin.yaml": "not UTF-8",
        "": "folder",
        "big.yaml/x": "cannot be read",
    }.items():
        with pytest.raises(ConfigError, match=words):
            config.load(tmp_path / name)
    for path in (tmp_path / ("x" * 5000), tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            config.load(path)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"does not exist\n  do: +did you mean .*recipe\.yaml\?"):
        config.load(tmp_path / "recipes.yaml")
    with pytest.raises(ConfigError, match=r"does not exist$"):
        config.load(tmp_path / "nowhere" / "recipe.yaml")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = config.parse(text)
        config.attempt(Recipe, document.data, document)
    except ConfigError:
        pass
