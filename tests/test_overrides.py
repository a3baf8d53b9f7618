"""Settings said on the command line, and numbers as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.test_config import problem, read


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("name=y", "name", "y"),
        ("name=a=b", "name", "a=b"),
        ("name='007'", "name", "007"),
        ("name=no", "name", "no"),
        ("flag=true", "flag", True),
        ("sources=[a, b]", "sources", ["a", "b"]),
        ("sources.1=z", "sources", ["p", "z"]),
        ("pretrain=", "pretrain", None),
        ("finetune={}", "finetune", {}),
        ("finetune.new.train.tokens=2M", "finetune.new.train.tokens", 2_000_000),
        ("finetune.sst2.train.epochs=5", "finetune.sst2.train.epochs", 5),
        ("finetune.sst2.train.length.128=0.5", "finetune.sst2.train.length", {128: 0.5, 512: 0.1}),
        ("finetune.sst2.train.length.64=0.5", "finetune.sst2.train.length", {128: 0.9, 512: 0.1, 64: 0.5}),
        ("pretrain.1.from=B", "pretrain.1.start", "B"),
        (" name =y", "name", "y"),
    ],
)
def test_set_reaches_every_value(setting: str, path: str, value: Any) -> None:
    text = "sources: [p, q]\npretrain: [{from: A}, {}]\nfinetune: {sst2: {train: {length: {128: 0.9, 512: 0.1}}}}"
    found: Any = read(text, setting)
    for part in path.split("."):
        found = found[int(part)] if part.isdigit() else found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


def test_later_settings_win() -> None:
    assert read("", "name=a", "name=b").name == "b"
    assert read("", "finetune.a.train.epochs=7", "finetune.a={}").finetune["a"].train.epochs == 3


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("name", "settings are written a.b=value"),
        ("=5", "settings are written a.b=value"),
        ("a..b=5", "settings are written a.b=value"),
        ("flag.deep=5", "--set: flag has no keys"),
        ("sources.2=x", "--set: sources is a list of 2\n  expected: 0 to 1"),
        ("sources.x=1", "sources is a list of 2"),
        ("sources.-1=1", "sources is a list of 2"),
        ("sources.99999999999=1", "sources is a list of 2"),
        ("name=[", "--set name=[:1:2: this is not valid YAML"),
        ("flag=no", "--set flag=no: flag is not right\n  expected: true or false\n  got:      no"),
        ("nam=x", "--set nam=x: there is no setting 'nam'"),
        ("sources.0=5", "--set sources.0=5: sources.0 is not right\n  expected: text\n  got:      5"),
        ("finetune.a.train.lr=5", "--set finetune.a.train.lr=5: there is no setting 'finetune.a.train.lr'"),
    ],
)
def test_a_wrong_setting_names_itself(setting: str, words: str) -> None:
    assert words in problem("sources: [p, q]\nflag: true", setting)


def test_what_a_setting_replaced_is_not_blamed_on_the_file() -> None:
    text = problem("finetune:\n  a: {train: {epochs: 7}}", "finetune.a={train: {epochs: x}}")
    assert (
        text == "--set finetune.a={train: {epochs: x}}: finetune.a.train.epochs is not right\n  expected: a whole number\n  got:      'x'"
    )
    assert problem("name: 5\nflag: true", "flag=false").startswith("r.yaml:1:1: name")


# Counts and durations


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20000", 20_000),
        ("20k", 20_000),
        ("1.5M", 1_500_000),
        ("100 M", 10**8),
        ("2G", 2 * 10**9),
        ("2B", 2 * 10**9),
        ("1e6", 10**6),
        ("0", 0),
    ],
)
def test_counts(text: str, value: int) -> None:
    assert read("", f"finetune.a.train.tokens={text}").finetune["a"].train.tokens == value


@pytest.mark.parametrize("text", ["-1", "1.5", "k", "M1", "true", "[1]", "1e999", "'١k'"])
def test_what_is_no_count(text: str) -> None:
    assert "a count such as" in problem("", f"finetune.a.train.tokens={text}")


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("30m", 1800), ("5 min", 300), ("2h", 7200), ("1.5d", 129_600), ("0.5", 0.5)]
)
def test_durations(text: str, value: float) -> None:
    assert read("", f"finetune.a.train.time={text}").finetune["a"].train.time == value


@pytest.mark.parametrize("text", ["-1", "2 weeks", "h", "true", "1h30m"])
def test_what_is_no_duration(text: str) -> None:
    assert "a duration such as" in problem("", f"finetune.a.train.time={text}")
