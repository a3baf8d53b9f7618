from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexloom.errors import ConfigError
from lexloom.text.clean import (
    MAX_MARKS,
    Boilerplate,
    CleanConfig,
    Cleaner,
    half_width,
    half_width_letters,
    mean_word,
    nfc,
    nfkc,
    repeated_lines,
    strip_control,
    strip_html,
    symbol_share,
    tidy_whitespace,
)


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (nfc, "cafe\u0301 ﬁ ①", "café ﬁ ①"),
        (nfkc, "ﬁ ① ＡＢ，", "fi 1 AB,"),
        (half_width, "ＡＢ１２！，　中", "AB12!, 中"),
        (half_width_letters, "ＡＢ１２！，　中", "AB12！， 中"),
        (strip_control, "a\x00b\x1bc\u200bd\ufeffe\u202ef\xadg\ud800h\U000e0041i\tj\n", "abcdefghi\tj\n"),
        (strip_control, "👩\u200d🚀 می\u200cخواهم a\u200db 中\u200d文", "👩\u200d🚀 می\u200cخواهم ab 中文"),
        (tidy_whitespace, " a\t\tb \r\n\r\r\n\n c\u2028d\xa0\u3000e\u2003 ", "a b\n\nc\nd e"),
        (strip_html, "<p>A &amp; B</p>x<br/>y<!-- no --><script>if (a<b) x()</script>z 1 < 2", "\nA & B\nx\nyz 1 < 2"),
        (strip_html, "<style>p{}</STYLE>ok <script>never closed", "ok <script>never closed"),
    ],
)
def test_each_step_does_its_work(step, before, after) -> None:  # type: ignore[no-untyped-def]
    assert step(before) == after
    assert step(after) == after


@given(st.text() | st.text(st.sampled_from("a \t\r\n\x85\u3000\u200b\u200d\u0301\ud800中Ａ")))
def test_cleaning_is_done_when_done_once_and_leaves_what_utf_8_can_hold(text: str) -> None:
    cleaner = Cleaner()
    once = cleaner.normalise(text)
    assert cleaner.normalise(once) == once
    once.encode()
    assert once == once.strip()
    assert not set(once) & set("\r\t\x00\u200b\ufeff\u3000")


@given(st.text())
def test_plain_text_keeps_its_words(text: str) -> None:
    kept = "".join(c for c in text if unicodedata.category(c)[0] in "LNP" and not unicodedata.combining(c))
    cleaned = Cleaner(CleanConfig(unicode="keep")).normalise(kept)
    assert cleaned == kept


def test_what_is_switched_off_is_not_done() -> None:
    text = "  a\u200b\r\ne\u0301  "
    off = CleanConfig(unicode="keep", control=False, whitespace=False)
    assert Cleaner(off).normalise(text) == text
    cleaner = Cleaner()
    assert cleaner(text).text == "a\né"
    assert cleaner.changed == {"unicode": 1, "control": 1, "whitespace": 1}
    assert Cleaner(CleanConfig(width="all"))("e\u200b\u0301 Ａ\u0301").text == "é Á"


def test_marks_on_one_character_are_limited() -> None:
    text = "a" + "\u0301\u0316" * 100_000 + "b"
    assert len(nfc(text)) <= MAX_MARKS + 2
    assert nfc("e" + "\u0316" * MAX_MARKS + "x") == "e" + "\u0316" * MAX_MARKS + "x"
    assert nfc("😀" * 40) == "😀" * 40


@pytest.mark.parametrize(
    "unit", ["<", "<a ", "<script>", "<!--", "&", "&amp", "\u200d", "\n \n", " \n", "\t ", "a\u0301", "\u0301\u0316", "#", "ﷺ"]
)
def test_adversarial_texts_stay_linear(unit: str) -> None:
    # A quadratic step would take minutes at this length.
    config = CleanConfig(
        html="strip", unicode="nfkc", width="all", min_mean_word=0.0, max_symbols=1.0, max_repeated_lines=1.0, languages=["en"]
    )
    cleaned = Cleaner(config)(unit * (300_000 // len(unit)))
    assert cleaned.text is None or cleaned.reason == ""


@pytest.mark.parametrize(
    ("settings", "text", "reason"),
    [
        ({}, " \n", "empty"),
        ({"min_characters": 5}, "four", "too short"),
        ({"max_characters": 3}, "four", "too long"),
        ({"languages": ["en"]}, "我们今天去公园看花，天气很好。", "language zh"),
        ({"languages": ["zh"]}, "The cat sat on the mat and looked at the dog.", "language en"),
        ({"languages": ["en"]}, "Buy phones", ""),
        ({"min_mean_word": 3.0}, "a b c d e f", "words too short"),
        ({"max_mean_word": 10.0}, "x" * 30, "words too long"),
        ({"max_mean_word": 10.0}, "我们今天去公园看花" * 10, ""),
        ({"max_symbols": 0.1}, "# one # two # three", "too many symbols"),
        ({"max_repeated_lines": 0.3}, "same\nsame\nsame\nother", "too many repeated lines"),
        ({}, "An ordinary text.", ""),
    ],
)
def test_filters_say_why(settings: dict[str, object], text: str, reason: str) -> None:
    cleaner = Cleaner(CleanConfig.read(settings))
    assert cleaner(text).reason == reason
    assert dict(cleaner.dropped) == ({reason: 1} if reason else {})


def test_measures() -> None:
    assert mean_word("ab abcd") == 3
    assert mean_word("我们今天") is None
    assert symbol_share("# a b …") == 0.5
    assert repeated_lines("a\na\n\nb") == pytest.approx(1 / 3)


def test_a_misspelt_filter_is_refused() -> None:
    with pytest.raises(ConfigError, match="min_characters"):
        CleanConfig.read({"min_character": 5})


def test_boilerplate_is_what_stands_in_many_documents() -> None:
    texts = [f"Title {i}\nSubscribe now!\nBody {i} of the text.\n{'Rare line' if i % 20 == 0 else ''}\n© Example" for i in range(200)]
    found = Boilerplate(0.3, documents=50)
    for text in texts:
        found.count(text)
    assert found.remove(texts[1]) == "Title 1\nBody 1 of the text."
    assert found.remove(texts[0]).endswith("Rare line")
    assert {str(line["line"]): line["documents"] for line in found.report()} == {"Subscribe now!": 200, "© Example": 200}


def test_boilerplate_needs_documents_not_repetitions() -> None:
    found = Boilerplate(0.3, documents=5)
    for i in range(10):
        found.count("again\n" * 100 if i == 0 else f"text {i}")
    assert not found.marks()


def test_boilerplate_is_found_in_bounded_memory() -> None:
    found = Boilerplate(0.4, documents=50, capacity=100)
    for i in range(500):
        found.count("\n".join([f"line {i} {j}" for j in range(20)] + ["footer"] * (i % 2)))
        assert len(found.counts) <= 200 + 21
    assert found.remove("footer\nrest") == "rest"
    assert "line 499 3" in found.remove("line 499 3\nfooter")
