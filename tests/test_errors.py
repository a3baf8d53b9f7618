"""What an error says: place, expected, got, what to do; and the exit code it means."""

from __future__ import annotations

import pytest

from lexloom.errors import (
    BadRow,
    BusyError,
    CheckpointError,
    ConfigError,
    DataError,
    FormatError,
    Interrupted,
    LexloomError,
    TokenizerError,
    WeightsError,
    nearest,
    unknown,
)


def test_an_error_says_place_expected_got_and_what_to_do() -> None:
    error = DataError("no row is left", expected="one", got="none", where="a.jsonl:3", hint="look at it")
    assert str(error) == "a.jsonl:3: no row is left\n  expected: one\n  got:      none\n  do:       look at it"
    assert str(LexloomError("short")) == "short"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (LexloomError, 1),
        (ConfigError, 2),
        (DataError, 3),
        (WeightsError, 1),
        (TokenizerError, 1),
        (CheckpointError, 1),
        (FormatError, 1),
        (BusyError, 1),
    ],
)
def test_exit_codes(kind: type[LexloomError], code: int) -> None:
    assert kind("x").exit_code == code
    assert issubclass(kind, LexloomError)


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_an_interruption_has_the_code_of_its_signal(number: int, code: int) -> None:
    assert Interrupted("saved", signal_number=number).exit_code == code


def test_many_errors_become_one() -> None:
    one, other = ConfigError("first", where="r.yaml:1:1"), WeightsError("second", hint="mend it")
    assert ConfigError.together([one]) is one
    assert str(ConfigError.together([one, other])) == "2 problems:\nr.yaml:1:1: first\nsecond\n  do:       mend it"
    assert str(ConfigError.together([other])) == str(other)
    assert ConfigError.together([other]).exit_code == 2


def test_very_many_errors_are_counted() -> None:
    text = str(ConfigError.together([ConfigError(f"number {i}") for i in range(1000)]))
    assert text.startswith("1000 problems:\nnumber 0\n")
    assert text.endswith("number 99\n… and 900 more")


@pytest.mark.parametrize(
    ("name", "found"),
    [("epoch", "epochs"), ("masked_lm", "masked-lm"), ("BERT", "bert"), ("learning-rate", "learning_rate"), ("qqqq", None), ("", None)],
)
def test_the_nearest_name(name: str, found: str | None) -> None:
    assert nearest(name, ["epochs", "masked-lm", "bert", "learning_rate"]) == found


def test_an_unknown_name_lists_the_known_ones() -> None:
    error = unknown("architecture", "brt", ["gpt2", "bert"], where="r.yaml:3:10")
    assert str(error) == "r.yaml:3:10: there is no architecture called 'brt'\n  expected: bert, gpt2\n  do:       did you mean 'bert'?"
    assert unknown("task", "x", []).hint is None


def test_a_bad_row_reads_like_a_compiler_message() -> None:
    assert str(BadRow("a.jsonl", 7, "no text")) == "a.jsonl:7: no text"
