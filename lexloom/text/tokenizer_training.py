"""Training a tokenizer from a stream of texts in bounded memory; the same texts always give the same file.

WordPiece (Schuster and Nakajima 2012, as in Devlin et al. 2018), BPE (Sennrich et al. 2016), byte-level BPE (Radford et al. 2019), unigram
(Kudo 2018), whole words and single characters. The texts are gone over twice: once to count characters, once to train.
"""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tokenizers
from pydantic import Field
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lexloom import keys
from lexloom.config import Config, Count
from lexloom.errors import ConfigError, DataError
from lexloom.text import unigram
from lexloom.text.segment import read_dictionary
from lexloom.text.tokenizer_folder import ROLES, TokenizerFolder, bert_template, own_class, roberta_template

Texts = Iterable[str] | Callable[[], Iterable[str]]
MAX_PIECE = 10_000
MAX_WORD = {"wordpiece": 100, "bpe": 100, "word": 100, "byte-bpe": 30, "unigram": 100}
"""Longest run that is counted: characters, or bytes of byte-level BPE (30 keeps characters of two and three bytes whole)."""
BUDGET = 400_000_000
"""Characters that are counted at most; an unspaced one weighs `UNSPACED`, since its runs are long and seldom the same."""
UNSPACED = 100
COVERAGE = 0.9999
SENTINEL = "<extra_id_{}>"
"""How T5 calls the token that stands for the span of a number."""
FAITHFUL = ("byte-bpe", "unigram", "char")
"""Kinds that keep capitals and white space, so that a text comes back; their special tokens and template are RoBERTa's."""
_ENCODER = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ROBERTA = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}
_HAN = ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_OTHER_UNSPACED = ((0x0E00, 0x0EFF), (0x0F00, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF))


class TokenizerConfig(Config):
    """How a tokenizer is made.

    Attributes:
        kind: `wordpiece` as in BERT, `byte-bpe` as in GPT-2 and RoBERTa (nothing is unknown, spaces are kept), `unigram` as in ALBERT and
            T5, `bpe`, `word`, or `char`. Of `unigram` and `char` every text comes back whose characters are known.
        vocab_size: entries in all, special tokens and `words` among them; `char` has fewer where the text has.
        lowercase: true but for `byte-bpe`, `unigram` and `char`. strip_accents: as `lowercase`.
        normalization: the Unicode form that texts are brought to first; by default none for `wordpiece`, so that BERT's own class
            opens it, and `char`, and NFC for the others.
        min_frequency: pairs, words, and characters of `char` that are rarer are not learned; `unigram` weighs its pieces otherwise.
        limit_alphabet: how many characters are known at most; by default those that make 99.99 % of the text, in no more than 60 %
            of the vocabulary, and of `char` all for which there is room.
        special_tokens: other names for the roles pad, unk, cls, sep, mask, bos, eos. extra_tokens: further special tokens.
        sentinels: how many special tokens `<extra_id_0>`, `<extra_id_1>`, … there are, for span corruption.
        words: a file of words, one a line, that are never cut.
        template: what stands around a text: as in BERT, as in RoBERTa (the default of `byte-bpe`, `unigram` and `char`), or nothing.
        characters: of so many symbols, its beginning and end among them, a word's spelling goes into every row, for networks that read the
            characters of words; 50 in the published ELMo.
    """

    kind: Literal["wordpiece", "bpe", "byte-bpe", "unigram", "word", "char"] = "wordpiece"
    vocab_size: Count = 16_000
    lowercase: bool | None = None
    strip_accents: bool | None = None
    normalization: Literal["none", "nfc", "nfkc"] | None = None
    min_frequency: Count = 2
    limit_alphabet: Count | None = None
    special_tokens: dict[Literal["pad", "unk", "cls", "sep", "mask", "bos", "eos"], str] = Field(default_factory=dict)
    extra_tokens: tuple[str, ...] = ()
    sentinels: int = Field(default=0, ge=0, le=1000)
    words: Path | None = None
    template: Literal["bert", "roberta", "none"] | None = None
    characters: Count | None = Field(default=None, ge=3, le=1000, exclude_if=lambda value: value is None)

    @property
    def lowercases(self) -> bool:
        """Whether capitals become small letters."""
        return self.kind not in FAITHFUL if self.lowercase is None else self.lowercase

    @property
    def extras(self) -> list[str]:
        """Special tokens without a role."""
        return [*self.extra_tokens, *(SENTINEL.format(i) for i in range(self.sentinels))]

    @property
    def form(self) -> str:
        """The Unicode form texts are brought to: none, nfc or nfkc."""
        return self.normalization or ("none" if self.kind in ("wordpiece", "char") else "nfc")

    @property
    def shape(self) -> str:
        """The template, by kind where it is not given."""
        return self.template or ("roberta" if self.kind in FAITHFUL else "bert")

    def roles(self) -> dict[str, str]:
        """Role -> special token, in the order of their ids."""
        roles = dict(_ROBERTA if self.kind in FAITHFUL else _ENCODER) | {str(role): token for role, token in self.special_tokens.items()}
        if self.shape == "none" and "bos" in roles and "bos" not in self.special_tokens:
            roles["bos"] = roles["eos"]  # a decoder's text begins after the end of another, as in GPT-2: no other token has stood there
        if (empty := [role for role, token in roles.items() if not token.strip()]) or not all(map(str.strip, self.extra_tokens)):
            raise ConfigError("a special token is empty", where="tokenizer.special_tokens", got=", ".join(empty) or "extra_tokens")
        return roles


def train(texts: Texts, config: TokenizerConfig) -> TokenizerFolder:
    """A tokenizer trained on texts that can be gone over twice; a mere iterator is kept in a temporary file meanwhile.

    Raises:
        ConfigError: the vocabulary has no room for special tokens, words and single characters.
        DataError: there is no text.
    """
    roles, words = config.roles(), read_dictionary(config.words) if config.words else []
    special = list(dict.fromkeys([*roles.values(), *config.extras]))
    size = config.vocab_size - len(words)
    with ExitStack() as stack:
        again = _twice(texts, stack)
        counts, cost = _count(again(), config)
        if not counts.any():
            raise DataError("there is no text to train a tokenizer on", hint="look at the counts of the corpus in corpus.json")
        raw = _bare(config, "[UNK]")
        letters, inner = _alphabet(counts, raw, config, size)
        if config.kind == "char":
            letters = sorted(letters[: max(1, size - len(special))])
        if size < len(special) + len(letters) + len(inner) + (config.kind != "char"):
            raise ConfigError(
                "vocab_size is too small",
                expected=f"more than {len(special)} special tokens, {len(words)} words and {len(letters) + len(inner)} single characters",
                got=str(config.vocab_size),
                where="tokenizer.vocab_size",
            )
        if config.kind == "char":  # which is where BPE starts from
            raw.model = models.BPE({token: place for place, token in enumerate([*special, *letters])}, [])
        else:
            trainer = _trainer(config, size, [*special, *inner], letters)
            pieces = unigram.known(again(), _normalizer(config), letters) if config.kind == "unigram" else again()
            raw.pre_tokenizer = pre_tokenizers.Sequence([raw.pre_tokenizer, pre_tokenizers.FixedLength(MAX_WORD[config.kind])])
            raw.train_from_iterator(_thinned(pieces, cost), trainer)
    return _finished(raw, config, roles, special)


def _twice(texts: Texts, stack: ExitStack) -> Callable[[], Iterator[str]]:
    """Something that gives all pieces of all texts again and again."""
    if callable(texts):
        return lambda: _pieces(texts())
    if iter(texts) is not texts:
        return lambda: _pieces(texts)
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    for piece in _pieces(texts):
        file.write(piece.encode() + b"\n")

    def again() -> Iterator[str]:
        file.seek(0)
        return (line[:-1].decode() for line in file)

    return again


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Lines of bounded length, without line ends and lone surrogates."""
    for text in texts:
        for line in text.split("\n"):
            if not line.isascii():
                line = line.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            for start in range(0, len(line), MAX_PIECE):
                yield line[start : start + MAX_PIECE]


def _count(pieces: Iterator[str], config: TokenizerConfig) -> tuple[npt.NDArray[np.int64], float]:
    """How often each character stands in the texts, and what counting their words will cost."""
    counts = np.zeros(0x110000, dtype=np.int64)
    for block in _blocks(pieces, 1 << 20):
        text = block if config.form == "none" else unicodedata.normalize("NFC" if config.form == "nfc" else "NFKC", block)
        counts += np.bincount(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), minlength=len(counts))
    counts[ord("\n")] = 0
    counts[ord("\n")] = counts.any() and config.kind in ("unigram", "char")  # lines come without their ends, which these two keep
    unspaced = [*_OTHER_UNSPACED, *(_HAN if config.kind in ("byte-bpe", "unigram") else ())]
    return counts, float(counts.sum() + (UNSPACED - 1) * sum(counts[first : last + 1].sum() for first, last in unspaced))


def _blocks(pieces: Iterator[str], characters: int) -> Iterator[str]:
    waiting: list[str] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece) + 1
        if held >= characters:
            yield "\n".join(waiting)
            waiting, held = [], 0
    yield "\n".join(waiting)


def _thinned(pieces: Iterator[str], cost: float) -> Iterator[list[str]]:
    """All pieces in lists, or where they cost more than the budget, a fair and always equal choice of them."""
    share, place = BUDGET / max(cost, 1.0), 0
    waiting: list[str] = []
    for piece in pieces:
        waiting.append(piece)
        if len(waiting) == 256:
            yield _chosen(waiting, share, place)
            place, waiting = place + len(waiting), []
    yield _chosen(waiting, share, place)


def _chosen(pieces: list[str], share: float, place: int) -> list[str]:
    if share >= 1:
        return pieces
    drawn = keys.uniform(keys.key("tokenizer", np.arange(place, place + len(pieces))), 1)[:, 0]
    return [piece for piece, number in zip(pieces, drawn.tolist(), strict=True) if number < share]


def _normalizer(config: TokenizerConfig) -> normalizers.Normalizer | None:
    steps: list[Any] = [{"nfc": normalizers.NFC, "nfkc": normalizers.NFKC}[config.form]()] if config.form != "none" else []
    if config.kind not in FAITHFUL:
        steps.append(normalizers.BertNormalizer(lowercase=config.lowercases, strip_accents=config.strip_accents))
    else:
        accents = config.lowercases if config.strip_accents is None else config.strip_accents
        steps += [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()] if accents else []
        steps += [normalizers.Lowercase()] if config.lowercases else []
    return None if not steps else steps[0] if len(steps) == 1 else normalizers.Sequence(steps)


def _bare(config: TokenizerConfig, unk: str, model: Any = None) -> tokenizers.Tokenizer:
    """The tokenizer without special tokens and template, around an empty model or the given one."""
    empty: dict[str, Callable[[], Any]] = {
        "wordpiece": lambda: models.WordPiece({}, unk_token=unk),
        "bpe": lambda: models.BPE(unk_token=unk, continuing_subword_prefix="##"),
        "byte-bpe": models.BPE,
        "word": lambda: models.WordLevel({}, unk_token=unk),
        "unigram": models.Unigram,
        "char": models.BPE,
    }
    backend = tokenizers.Tokenizer(model if model is not None else empty[config.kind]())
    if (normalizer := _normalizer(config)) is not None:
        backend.normalizer = normalizer
    if config.kind == "byte-bpe":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    elif config.kind == "unigram":
        backend.pre_tokenizer, backend.decoder = unigram.parts()
    elif config.kind == "char":
        backend.decoder = decoders.Fuse()
    else:
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        if config.kind != "word":
            backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _alphabet(
    counts: npt.NDArray[np.int64], backend: tokenizers.Tokenizer, config: TokenizerConfig, size: int
) -> tuple[list[str], list[str]]:
    """The characters the tokenizer knows, and `##x` for those that can stand inside a word.

    Chosen here, since the library breaks ties between characters, and numbers those inside words, in another order each time.
    """
    if config.kind in ("byte-bpe", "word"):
        return sorted(pre_tokenizers.ByteLevel.alphabet()) if config.kind == "byte-bpe" else [], []
    seen: dict[str, int] = {}
    normal: Callable[[str], str] = str if backend.normalizer is None else backend.normalizer.normalize_str
    for place in np.flatnonzero(counts).tolist():
        for letter in set(normal(chr(place))) - ({" "} if config.kind != "char" else set()):
            seen[letter] = seen.get(letter, 0) + int(counts[place])
    always = {"\n"} & set(seen)  # see `_count`
    ranked = [*always, *sorted(set(seen) - always, key=lambda letter: (-seen[letter], letter))]
    if config.kind == "char":
        return [letter for letter in ranked if seen[letter] >= config.min_frequency or letter in always][: config.limit_alphabet], []
    marked = config.kind != "unigram"
    joins = {letter: marked and len(backend.pre_tokenizer.pre_tokenize_str(normal(f"a{letter}"))) == 1 for letter in ranked}
    known = config.limit_alphabet
    if known is None:
        share = np.cumsum([seen[letter] for letter in ranked]) / max(sum(seen.values()), 1)
        entries = np.cumsum([1 + joins[letter] for letter in ranked])
        room = max(size * 0.6, min(400, size * 0.9))
        known = int(min(np.searchsorted(share, COVERAGE) + 1, np.searchsorted(entries, room, side="right")))
    letters = sorted(ranked[:known])
    return letters, [f"##{letter}" for letter in letters if joins[letter]]


def _trainer(config: TokenizerConfig, size: int, first: list[str], letters: list[str]) -> Any:
    common: dict[str, Any] = {"vocab_size": size, "min_frequency": config.min_frequency, "special_tokens": first, "show_progress": False}
    if config.kind == "word":
        return trainers.WordLevelTrainer(**common)
    if config.kind == "unigram":
        del common["min_frequency"]
        return trainers.UnigramTrainer(**common, initial_alphabet=[*letters, unigram.SPACE], unk_token=config.roles()["unk"])
    common |= {"initial_alphabet": letters, "limit_alphabet": max(len(letters), 1)}
    if config.kind == "wordpiece":
        return trainers.WordPieceTrainer(**common)
    return trainers.BpeTrainer(**common | ({"continuing_subword_prefix": "##"} if config.kind == "bpe" else {}))


def _finished(raw: tokenizers.Tokenizer, config: TokenizerConfig, roles: dict[str, str], special: list[str]) -> TokenizerFolder:
    """The trained model with its own special tokens only (training needs `##x` among them) and its template."""
    model = json.loads(raw.to_str())["model"]
    merges = [tuple(pair) for pair in model.get("merges", ())]
    unk = roles["unk"]
    made: dict[str, Callable[[], Any]] = {
        "wordpiece": lambda: models.WordPiece(model["vocab"], unk_token=unk, max_input_chars_per_word=100),
        "bpe": lambda: models.BPE(model["vocab"], merges, unk_token=unk, continuing_subword_prefix="##"),
        "byte-bpe": lambda: models.BPE(model["vocab"], merges),
        "word": lambda: models.WordLevel(model["vocab"], unk_token=unk),
        "unigram": lambda: unigram.model(model["vocab"], special, unk),
        "char": lambda: models.BPE(model["vocab"], [], unk_token=unk),
    }
    backend = _bare(config, unk, made[config.kind]())
    strips = config.kind in ("byte-bpe", "unigram")  # so that " <mask>" is one token, the space before a word being part of it
    backend.add_special_tokens([AddedToken(token, special=True, lstrip=strips and token == roles["mask"]) for token in special])
    backend.post_processor = _template(backend, config, roles)
    kind = own_class(backend, roles)
    inputs = ["input_ids", *(["token_type_ids"] if config.shape == "bert" else []), "attention_mask"]
    settings = {
        **kind,
        **{f"{role}_token": roles[role] for role in ROLES if role in roles},
        **({"extra_special_tokens": config.extras} if config.extras else {}),
        "clean_up_tokenization_spaces": False,
        "model_input_names": inputs,
        **({"characters_per_word": config.characters} if config.characters else {}),
    }
    return TokenizerFolder(backend, settings, {role: roles[role] for role in ROLES if role in roles})


def _template(backend: tokenizers.Tokenizer, config: TokenizerConfig, roles: dict[str, str]) -> processors.PostProcessor:
    cls, sep = roles["cls"], roles["sep"]
    if config.shape == "bert":
        template = bert_template(backend, cls, sep)
        return processors.Sequence([processors.ByteLevel(trim_offsets=True), template]) if config.kind == "byte-bpe" else template
    if config.shape == "roberta":
        return roberta_template(backend, cls, sep, trim=config.kind == "byte-bpe")
    if config.kind == "byte-bpe":
        return processors.ByteLevel(trim_offsets=True)
    return processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
