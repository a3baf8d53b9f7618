"""Sentence borders for English and Chinese, Chinese words, and a guess at a text's language. Rules and word lists, no model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lexloom.errors import ConfigError
from lexloom.text.lines import byte_lines, decode, find_encoding

_STOPS = ".!?…。！？；｡।॥؟۔"
_HARD = frozenset("。！？｡।॥؟۔")
_CLOSERS = "\"'”’»)\\]}）］｝」』】〉》〕"
# A newline, or a run of stops with what closes after it. Nothing after the first character can fail, so it is linear in any text;
# and it begins with one set of characters, which `re` looks for fast.
_STOP = re.compile(rf"[\n{_STOPS}](?:(?<!\n)[{_STOPS}]*+([{_CLOSERS}]*+(?:\[\d{{1,3}}\])*+))?+")
_NEXT = re.compile(r"[ \t\xa0\u3000]*+([\"'“‘«(\[{（「『《【—–-]*+)([^\W\d_][\w'’]{0,15}|\d?)")
_LAST = re.compile(r"[^\s\"'“‘«(\[{（「『《【/—–]{0,20}\Z")
_CJK = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_SAID = re.compile(r"[\u4e00-\u9fff]{1,8}?[说說道问問喊叫答曰][，。：！？,]")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TITLES = _set(
    "mr mrs ms mx dr prof rev fr hon gen col lt maj capt cmdr sgt cpl pvt adm gov sen rep pres mme mlle messrs mt ft pt vs cf viz "
    "eg ie e.g i.e al"
)
_BEFORE_NUMBERS = _set(
    "no nos vol vols p pp fig figs eq eqs sec ch chap art arts nr pt pts op ver ed eds col cols para tab ex app ref refs lib bk c ca "
    "r b d fl approx dec jan feb mar apr jun jul aug sep sept oct nov"
)
_MAY_END = _set(
    "inc ltd co corp bros llc plc jr sr st ave blvd rd sq dept univ assn bldg hwy est approx ca esp ed eds trans rev repr abbr incl cf "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues thu thur thurs fri ph.d b.sc m.sc etc "
    "lat gr ger fr eng lit orig ala ariz calif colo conn fla mass mich minn miss okla ore penn tenn tex vt wash wis"
)
_MAY_END_SMALL = _set("etc approx ca esp est ed eds trans orig abbr incl repr lit")
_ENDINGS = frozenset(word[-3:] for word in _TITLES | _BEFORE_NUMBERS | _MAY_END | {"iii", "vii", "xii", "xvi", "xxi"})
"""How abbreviations end that have three letters or more: what ends so is looked at closely."""
STRAY = 12
_STARTERS = _set(
    "the a an in on at by for from with he she it they we you i this that these those there here his her its their our my but and or so "
    "yet if when while after before although though however since as because what who where how why not no some many most several one "
    "two three all both each every another other others such during under over between among according despite unlike until once then "
    "thus therefore moreover furthermore meanwhile also today later to of is are was were did does do can could would should will"
)


def sentences(text: str, language: str = "en") -> list[int]:
    """Where sentences end: offsets into `text`, strictly growing, the last at the end of what is not blank.

    Sentence i is `text[ends[i-1]:ends[i]]` with the space around it taken off, and is never empty. Newlines are always borders, so a
    heading on its own line is a sentence. In English text stops count before a space, unless an abbreviation, an initial or a
    small letter after them speaks against it; full-width stops, `！？；` and `……` count wherever they stand, with the quotes and
    brackets closed after them. Both sets of rules hold in both languages; `zh` only adds half-width `! ?` next to Chinese
    characters. Linear in the length of any text.
    """
    ends: list[int] = []
    last = 0
    for match in _STOP.finditer(text):
        start, end = match.span()
        if text[start] == "\n":
            end = start
        else:
            plain = end - start == 1 and _is_plain(text, start)
            if not plain and (text[end : end + 1] == "\n" or not _is_border(text, last, match, language)):
                continue  # before a newline that will be the border itself
        _add(ends, text, last, end)
        last = end
    _add(ends, text, last, len(text.rstrip()))
    return ends


def _add(ends: list[int], text: str, start: int, end: int) -> None:
    """Adds a border unless nothing stands before it; stray stops such as ` ...` go with the sentence before them on their line."""
    if _is_blank(text, start, end):
        return
    if ends and end - ends[-1] <= STRAY and not any(c.isalnum() or c == "\n" for c in text[ends[-1] : end]):
        ends[-1] = end
    else:
        ends.append(end)


def _is_plain(text: str, start: int) -> bool:
    """The most frequent case, told fast: small letters that end no abbreviation, a dot, a space and a capital."""
    if text[start] != "." or text[start + 1 : start + 2] != " " or not text[start + 2 : start + 3].isupper():
        return False
    tail = text[start - 3 : start]
    return tail.isalpha() and tail.islower() and tail not in _ENDINGS


def split_sentences(text: str, language: str = "en") -> list[str]:
    """The sentences themselves, without the space around them."""
    return cut(text, sentences(text, language))


def cut(text: str, ends: Sequence[int]) -> list[str]:
    """The pieces of a text between borders, as `sentences` gives them, without the space around them."""
    return [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]


def _is_blank(text: str, start: int, end: int) -> bool:
    while start < end:  # in steps, so that a long sentence is not copied to see that it is none
        if not text[start : start + 8].isspace():
            return text[start : min(end, start + 8)].strip() == ""
        start += 8
    return True


def _is_border(text: str, last: int, match: re.Match[str], language: str) -> bool:
    start, end = match.span()
    run, closers = text[start : match.start(1)], match.group(1)
    after = text[end : end + 1]
    if not _HARD.isdisjoint(run):
        return not (closers and _SAID.match(text, end)) and after not in _NOT_AFTER_HARD
    if run[0] == "；":
        return True
    if "……" in run or len(run) >= 6:
        return after not in _NOT_AFTER_HARD and (_CJK.match(after) is not None or after.isspace() or not after or after in _OPENERS)
    if after and not after.isspace():
        close = language != "en" and run[-1] in "!?" and (_CJK.match(after) or _CJK.match(text, start - 1))
        return bool(close) and not (closers and _SAID.match(text, end))
    following = _NEXT.match(text, end)
    word = following.group(2) if following else ""
    if word[:1].islower():
        return False
    if run == ".":
        return _is_full_stop(text, last, start, word)
    return True


_NOT_AFTER_HARD = frozenset(("，", "、", "：", "；", ",", "…", "·"))
_OPENERS = frozenset("“‘「『《（【")


def _is_full_stop(text: str, last: int, start: int, word: str) -> bool:
    """Whether one dot before a space ends a sentence. `word` is what follows, "" where that is the end or no letter or digit."""
    found = _LAST.search(text, max(last, start - 20), start)
    token = found.group() if found else ""
    lower = token.lower()
    starts_one = word.lower() in _STARTERS
    if not token:
        return True
    begin = start - len(token)
    if len(token) <= 3 and begin - last <= 40 and _is_enumerator(token) and _is_blank(text, last, begin):
        return False
    if lower in _TITLES and (token[0].isupper() or lower in ("vs", "cf", "viz", "eg", "ie", "e.g", "i.e", "al")):
        return not word
    if (len(token) == 1 and token.isalpha() and not _CJK.match(token)) or _is_acronym(token):
        return starts_one or not word
    if lower in _MAY_END and (token[0].isupper() or lower in _MAY_END_SMALL):
        return starts_one or not word or lower == "etc"
    return not (word[:1].isdigit() and lower in _BEFORE_NUMBERS)


def _is_enumerator(token: str) -> bool:
    return token.isdecimal() or (len(token) == 1 and token.isalpha() and token.isascii()) or not set(token.lower()) - set("ivx")


def _is_acronym(token: str) -> bool:
    """U.S, p.m, Ph.D: dots inside, and no part longer than two letters."""
    return "." in token and all(0 < len(part) <= 2 and part.isalpha() for part in token.split("."))


_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]+")
_KANA = re.compile(r"[\u3041-\u30ff]+")
_HANGUL = re.compile(r"[\uac00-\ud7af]+")
_WORD = re.compile(r"[a-zà-öø-ÿœ]+")
_LETTER = re.compile(r"[^\W\d_]+")
_FREQUENT = {
    "en": "the of and to in is was for that on with as by it he at from his an are were be this which or had not but have has you they i",
    "de": "der die und das den von zu mit ist des im dem nicht ein eine als auch es an er auf für sich war wird sie ich wurde bei nach",
    "fr": "de la le et les des en un une du dans est que pour qui il par au sur pas plus avec sont ce se il elle été cette aux ou je",
    "es": "de la que el en y los del se las por un para con una su al es lo como más fue pero sus entre este o no yo está son",
    "it": "di e il la che in un è per una del della sono si con da non le al dei nel i gli alla come anche più ha lo delle dalla",
    "pt": "de a o que e do da em um para com não uma os no se na por mais as dos como mas foi ao das tem seu sua ou são",
    "nl": "de van het een en in is dat op te zijn met voor die niet aan er om ook als dan maar bij door uit naar werd wordt ik",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in _FREQUENT.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)
LANGUAGES = (*_FREQUENT, "zh", "ja", "ko")


def guess_language(text: str, sample: int = 1000) -> str:
    """`en`, `zh`, another of LANGUAGES, `other` for what is clearly none of them, or `unknown` where there is too little to tell.

    Looks at the first characters only. Chinese, Japanese and Korean are told by their scripts, languages in Latin letters by the
    share of their thirty most frequent words. It is right for running text of some twenty words; a list of names, a title, or a
    language in Latin letters that is not in the list may come out as `unknown` or `other`. Simplified and traditional Chinese are
    both `zh`.
    """
    head = text[:sample]
    words = _WORD.findall(head.lower())
    latin = sum(map(len, words))
    if latin * 10 < len(head) * 7:  # else Latin letters rule, whatever the others are
        letters = sum(map(len, _LETTER.findall(head)))
        han, kana, hangul = (sum(map(len, script.findall(head))) for script in (_HAN, _KANA, _HANGUL))
        asian = han + kana + hangul
        if asian >= 2 and asian * 3 >= latin and asian * 2 >= letters - latin:  # such a character says as much as three letters
            return "ko" if hangul > han + kana else "ja" if kana * 10 > han else "zh"
        if letters < 4 or latin * 2 < letters:
            return "unknown" if letters < 4 else "other"
    hits = Counter(language for word in words if word in _LANGUAGES_OF for language in _LANGUAGES_OF[word])
    (best, most), (_, second) = (*hits.most_common(2), ("", 0), ("", 0))[:2]
    if most >= 0.12 * len(words) and most > 1.2 * second:
        return best
    return "unknown" if len(words) < 20 or most >= 0.06 * len(words) else "other"


class Words:
    """Cuts text into words: Chinese by dictionary and hidden Markov model (jieba's), the rest at spaces and signs.

    Args:
        dictionary: words that are never cut, or a file of them, one a line (what follows the word on its line, as in jieba's
            dictionaries, is passed over). Where they overlap, the likelier reading wins.
    """

    def __init__(self, dictionary: Iterable[str] | Path | str = ()) -> None:
        import rjieba  # builds its dictionary when it is imported: only for who needs it

        words = read_dictionary(dictionary) if isinstance(dictionary, Path | str) else list(dictionary)
        self._jieba = rjieba.Jieba()
        for word in words:
            self._jieba.add_word(word, 10**8, None)
        # Some words the dictionary cannot hold together, such as those with spaces or signs; longest first.
        apart = sorted({word for word in words if word and self._jieba.cut(word) != [word]}, key=lambda word: (-len(word), word))
        self._apart = re.compile("(" + "|".join(map(re.escape, apart)) + ")") if apart else None

    def __call__(self, text: str) -> list[str]:
        """The words of a text in order, without white space."""
        if self._apart is None:
            return [word for word in self._jieba.cut(text) if not word.isspace()]
        pieces = self._apart.split(text)
        return [
            word for place, piece in enumerate(pieces) for word in ([piece] if place % 2 else self._jieba.cut(piece)) if not word.isspace()
        ]


def read_dictionary(path: Path | str) -> list[str]:
    """The words of a user's dictionary: the first column of each line; lines that cannot be decoded are passed over.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError("this dictionary does not exist", where=str(path), hint="paths in a recipe are relative to the recipe")
    encoding = find_encoding(path).name
    words = []
    for _, line, problem in byte_lines(path, encoding, limit=1 << 16):
        try:
            parts = [] if problem else decode(line, encoding).split("\t") if b"\t" in line else decode(line, encoding).split()
        except ValueError:
            continue
        words += [parts[0].strip()] if parts and parts[0].strip() else []
    return list(dict.fromkeys(words))
