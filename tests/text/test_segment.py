from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexloom.errors import ConfigError
from lexloom.text.segment import Words, cut, guess_language, read_dictionary, sentences, split_sentences

PLAIN = Words()

# Each is a text whose sentences are divided by "|".
ENGLISH = [
    "One sentence.| Another one.",
    "No stop at the end",
    "Dr. Smith met Mrs. Jones on Main St. in Springfield.| They talked.",
    "He arrived at 5 p.m. on Monday.| She left at 6 a.m.| She never came back.",
    "The U.S. Army was there.| It was in the U.S.| He said so.",
    "J. R. R. Tolkien wrote it.| C. S. Lewis read it.",
    '"Why?" she asked.| "Go!"| He left.',
    "He said “Stop.”| Nobody stopped.",
    "Pi is 3.14 and e is 2.718.| See Fig. 3 and p. 12.",
    "It costs $5.00 (approx.) in total.| No. 5 is next.",
    "1. First item\n|2. Second item.| Still second.",
    "a. One thing\n|b. Another thing",
    "A heading\n|A paragraph that follows it.| It has two sentences.",
    "Wait... what?| I mean...| The end.",
    "It was 1990.| The wall had fallen.",
    "Is it?!| Yes!!!| (He left.)| She stayed.",
    "He works at Apple Inc. and likes it.| The firm is big.",
    "Bought by Acme Inc.| The price was high.",
    "Jan. 5 was cold.| Feb. was colder.",
    "Use tools, e.g. Hammers, i.e. what you have.",
    "Smith vs. Jones is a case.| Smith et al. wrote it up.",
    "The end was near.[12]| Then it came.[3][4]| So it went.",
    "Plan B.| The plan failed.",
    "Go to www.example.com or mail a.b@c.org.| Then wait.",
    "Version 2.0.1 is out.| Version 3 is not.",
    "She has a Ph.D. in physics.| He has none.",
    "We saw apples, pears, etc. in the shop.| We saw plums, etc.| Nice ones.",
    "It is on vol. 3, no. 4, pp. 5.| Look there.",
    "He asked: who?| Nobody knew.",
    "The shop. eBay is a firm.",
    "Prof. Lee, Jr. was late.| Gen. Grant was not.",
    "the end. small letters go on.| They do.",
    "Born c. 1500 in Rome.| Died there.",
    "Line one\r\n|Line two",
    "You have come, have you? ...| She had.",
    "He stopped. . . .| Then he went on.",
    "James Madison, Sr. (1723–1801) was a planter.| He was rich.",
    "The case is 75 U.S. 557 of 1869.| It was decided.",
    "The name (Arabic, trans. Al-Khalifa) is old.| The fire was lit.| The end.",
    "Tabs\tand spaces.   |   More of them.",
]
CHINESE = [
    "今天天气很好。|我们去公园吧。",
    "你好吗？|我很好！|谢谢。",
    "他说：“你好！”|然后就走了。",
    "她问：“是吗？”他说：“是的。”|大家都笑了。",
    "“走吧！”小明说。|他们走了。",
    "“走吧！”，他想。",
    "我想……|算了吧。",
    "真的？！|不可能！！",
    "第一点；|第二点；|第三点。",
    "价格是3.5元，网址是www.example.com。|谢谢。",
    "（完。）|下一句。",
    "《书名》是一本书。|「引號裡的話。」|下一句。",
    "标题\n|正文第一句。|正文第二句。",
    "没有句号的一行",
    "我爱你!|你呢?|好的",
    "他用Python 3.11写程序。|It works.| 真的。",
    "甲说：『真的嗎？』|乙不信。",
    "最后一句。 \n\n|　新的一段。",
    "李明（1990年生。）|是学生。",
    "省略号…也可以在句中。",
    "他唱道「一、二、三……」。|完了。",
]


@pytest.mark.parametrize("marked", ENGLISH)
def test_english_sentences(marked: str) -> None:
    text = marked.replace("|", "")
    assert split_sentences(text, "en") == [part.strip() for part in marked.split("|")]


@pytest.mark.parametrize("marked", CHINESE)
def test_chinese_sentences(marked: str) -> None:
    text = marked.replace("|", "")
    assert split_sentences(text, "zh") == [part.strip() for part in marked.split("|")]


@pytest.mark.parametrize("language", ["en", "zh"])
@given(text=st.text(st.sampled_from(list("ab A.!?…。！？；”\"')（）[1]\n\r\t ，说\u3000\u0301😀")), max_size=60) | st.text())
def test_borders_grow_and_cover_every_text(language: str, text: str) -> None:
    ends = sentences(text, language)
    assert ends == sorted(set(ends))
    assert all(cut(text, ends))
    assert "".join("".join(cut(text, ends)).split()) == "".join(text.split())
    assert (ends[-1] == len(text.rstrip())) if text.strip() else ends == []


@pytest.mark.parametrize(
    "unit", ["\n", " \n", ".", ".)", "a. ", "1. ", "。”", "…", "[1]", ".[1]", "\u0301", "“", " ", "U.S. ", "! ", "”说"]
)
def test_borders_of_adversarial_texts_stay_linear(unit: str) -> None:
    # A quadratic rule would take minutes at this length; the whole file of tests takes seconds.
    text = unit * (300_000 // len(unit))
    assert sentences(text, "en")[-1:] == ([len(text.rstrip())] if text.strip() else [])
    assert sentences(" " * 150_000 + text[:150_000], "zh")[-1:] != [0]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat sat on the mat and looked at the dog for a while.", "en"),
        ("我们今天去公园。", "zh"),
        ("這是一個測試文件。", "zh"),
        ("我们用Python写程序，然后在GitHub上发布。", "zh"),
        ("これは日本語の文です。", "ja"),
        ("안녕하세요 세계 여러분", "ko"),
        ("Das ist ein Haus und die Kinder spielen mit dem Hund im Garten.", "de"),
        ("Il est parti avec les enfants dans la maison de la ville.", "fr"),
        ("El niño fue a la casa de los abuelos con una carta para ellos.", "es"),
        ("Привет мир, как дела сегодня", "other"),
        ("Buy phones", "unknown"),
        ("123 456 !!!", "unknown"),
        ("", "unknown"),
    ],
)
def test_languages_are_guessed(text: str, language: str) -> None:
    assert guess_language(text) == language


def test_words_of_a_dictionary_are_kept_whole() -> None:
    plain, own = Words(), Words(["云计算和", "New York", "C++语言", "A/B 测试", "A/B 测试组"])
    text = "他研究云计算和C++语言 New York A/B 测试组"
    assert "云计算和" not in plain(text)
    assert own(text) == ["他", "研究", "云计算和", "C++语言", "New York", "A/B 测试组"]
    assert plain("我们去公园") == ["我们", "去", "公园"]
    assert own("") == plain(" \n ") == []
    assert "云计算和" not in Words()(text)  # one user's words are no one else's


@given(st.text(max_size=40))
def test_words_lose_nothing_but_space(text: str) -> None:
    joined = "".join(PLAIN(text))
    assert "".join(joined.split()) == "".join(text.split())


def test_a_dictionary_file_has_a_word_on_each_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("云计算 100 n\nNew York\t5\n\n云计算\n高血压\n", encoding="gb18030")
    assert read_dictionary(path) == ["云计算", "New York", "高血压"]
    assert "高血压" in Words(path)("他有高血压病史")
    with pytest.raises(ConfigError, match="does not exist"):
        Words(tmp_path / "none.txt")
