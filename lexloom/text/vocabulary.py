"""More words for a tokenizer: a user's dictionary kept whole, and new words for a model that goes on learning."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken

from lexloom.errors import TokenizerError
from lexloom.text.segment import Words
from lexloom.text.tokenizer_folder import TokenizerFolder

if TYPE_CHECKING:
    from lexloom.text.tokenizer import Tokenizer

MAX_LETTERS = 100
_CANDIDATES, _HELD = 50_000, 1_000_000
# Scripts that put no space between words: there a word is looked for anywhere, not only between spaces.
_UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_RUN = re.compile(r"[^\W\d_][^\W_]*")


def extend(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[Tokenizer, dict[int, list[int]]]:
    """A tokenizer that keeps `words` whole, and for each new id the ids of its pieces before.

    A new row of an embedding starts as the mean of its pieces' rows. Old ids stay; words that are one token already are left out.

    Raises:
        TokenizerError: a word cannot be a token.
    """
    folder = add_words(tokenizer.folder, words)
    extended = type(tokenizer)(folder)
    new = range(len(tokenizer), len(extended))
    contents = {place: token.content for place, token in folder.backend.get_added_tokens_decoder().items() if place in new}
    # most words stand after a space, and byte-level tokenizers count it as part of the word
    spaced = [content if _UNSPACED.search(content) else f" {content}" for content in contents.values()]
    lone = set(map(int, tokenizer.plain([" "]).values))
    pieces = [[int(n) for n in ids if int(n) not in lone or len(ids) == 1] for ids in tokenizer.encode_plain(spaced)]
    return extended, dict(zip(contents, pieces, strict=True))


def add_words(folder: TokenizerFolder, words: Iterable[str]) -> TokenizerFolder:
    """The files of a tokenizer with further whole words, in the order given.

    Raises:
        TokenizerError: a word is too long, or cannot be written back by a byte-level tokenizer.
    """
    backend = tokenizers.Tokenizer.from_str(folder.backend.to_str())
    fresh = _fresh(backend, words)
    backend.add_tokens([_whole(backend, word) for word in fresh])
    for word in fresh:
        if type(backend.decoder).__name__ == "ByteLevel" and backend.decode([backend.token_to_id(word) or 0]) != word:
            raise TokenizerError(
                f"a byte-level tokenizer cannot write {word!r} back as a whole",
                hint="leave it out of the words: byte-level BPE never loses it, only splits it",
            )
    settings = copy.deepcopy(folder.settings)
    if isinstance(settings.get("added_tokens_decoder"), dict):  # where it stands, transformers goes by it
        settings["added_tokens_decoder"].update(
            {str(place): _state(token) for place, token in backend.get_added_tokens_decoder().items() if token.content in set(fresh)}
        )
    raw = {name: content for name, content in folder.raw.items() if name in ("special_tokens_map.json", "chat_template.jinja")}
    return TokenizerFolder(backend, settings, folder.roles, raw)


def _fresh(backend: tokenizers.Tokenizer, words: Iterable[str]) -> list[str]:
    """Words as the tokenizer sees them (small letters where it makes them), without doubles and those that are one token."""
    found: dict[str, None] = {}
    for word in words:
        if not word.strip():
            continue
        if len(word) > MAX_LETTERS or "\n" in word:
            raise TokenizerError("this is no word", expected=f"at most {MAX_LETTERS} characters on one line", got=repr(word[:60]))
        plain = canonical(backend, word)
        ids = backend.encode(plain, add_special_tokens=False).ids
        if plain and (len(ids) != 1 or backend.id_to_token(ids[0]) != plain):
            found[plain] = None
    return list(found)


def canonical(backend: tokenizers.Tokenizer, word: str) -> str:
    """A word in the letters its tokens are written in, without the spaces that BERT puts around Chinese characters."""
    word = " ".join(word.split())
    if backend.normalizer is None:
        return word
    plain = " ".join(backend.normalizer.normalize_str(word).split())
    return plain.replace(" ", "") if " " not in word else plain


def _whole(backend: tokenizers.Tokenizer, word: str) -> AddedToken:
    """Looked for in the normalised text, so that capitals are found too; without capitals in the raw one, where BERT's normaliser
    has not yet put spaces around Chinese characters, which would stay in the token."""
    spaced = backend.normalizer is not None and backend.normalizer.normalize_str(word) != word
    return AddedToken(word, normalized=not spaced or word.lower() != word.upper(), single_word=not _UNSPACED.search(word), special=False)


def _state(token: AddedToken) -> dict[str, Any]:
    flags = ("lstrip", "normalized", "rstrip", "single_word", "special")
    return {"content": token.content, **{flag: getattr(token, flag) for flag in flags}}


def propose_words(texts: Iterable[str], tokenizer: Tokenizer, n: int) -> list[str]:
    """The `n` words that would save most tokens if they were whole: frequency × (pieces - 1), best first.

    Chinese is cut into words by a dictionary. Memory is bounded: past a million different words the rarer half is forgotten.
    """
    counts = _words(texts, tokenizer.backend)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:_CANDIDATES]
    pieces = tokenizer.plain([word if _UNSPACED.search(word) else f" {word}" for word in ranked]).lengths.tolist()
    saved = {word: counts[word] * (size - 1) for word, size in zip(ranked, pieces, strict=True) if size > 1 and counts[word] > 1}
    return sorted(saved, key=lambda word: (-saved[word], word))[:n]


def _words(texts: Iterable[str], backend: tokenizers.Tokenizer) -> Counter[str]:
    counts: Counter[str] = Counter()
    cut: Words | None = None
    for text in texts:
        for run in _RUN.findall(text):
            if not _UNSPACED.search(run):
                counts[run[:MAX_LETTERS]] += 1
            else:
                cut = cut or Words()
                counts.update(word for start in range(0, len(run), 1000) for word in cut(run[start : start + 1000]) if len(word) > 1)
        if len(counts) > _HELD:
            counts = Counter(dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[: _HELD // 2]))
    merged: Counter[str] = Counter()
    for word, count in counts.items():
        merged[canonical(backend, word)] += count
    return merged
