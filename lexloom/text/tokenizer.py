"""The tokenizer: texts to token ids and back, equal to what `transformers` gives from the same folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tokenizers

from lexloom import files
from lexloom.errors import DataError, TokenizerError
from lexloom.text import tokenizer_training
from lexloom.text.encoded import FIRST, SECOND, Encoded, Ragged, Template, room_for_pairs, rows_of, shortened
from lexloom.text.joined import Joined
from lexloom.text.segment import read_dictionary
from lexloom.text.spelling import Symbols, spelled
from lexloom.text.tokenizer_folder import ROLES, TokenizerFolder, read_folder, write_folder
from lexloom.text.tokenizer_training import SENTINEL, Texts, TokenizerConfig
from lexloom.text.vocabulary import add_words, extend, propose_words

__all__ = [
    "MAX_CHARACTERS",
    "Encoded",
    "Template",
    "Tokenizer",
    "TokenizerConfig",
    "extend",
    "propose_words",
    "train_tokenizer",
]

MAX_CHARACTERS = 1_000_000
"""Longer texts are cut there and marked `cut`: time and memory per text stay bounded. Shards cut nothing, they encode by sentence."""
_BATCH = 1 << 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_CLEAN = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def train_tokenizer(texts: Texts, config: TokenizerConfig | None = None) -> Tokenizer:
    """A tokenizer trained on texts in bounded memory; equal texts give equal files.

    Args:
        texts: something that can be gone over twice, such as a list, or a function that gives an iterator each time; a mere
            iterator is written to a temporary file first.

    Raises:
        ConfigError: the vocabulary is too small for what must be in it.
        DataError: there is no text.
    """
    config = config or TokenizerConfig()
    folder = tokenizer_training.train(texts, config)
    if config.words is not None:
        folder = add_words(folder, read_dictionary(config.words))
    return Tokenizer(folder)


class Tokenizer:
    """Token ids of texts, with the special tokens of a model around them.

    `Tokenizer.load(folder)` opens any Hugging Face folder; `train_tokenizer` makes a new one. It is not changed by use, and may be used by
    many threads; `tokenizers` brings its own threads (the variables TOKENIZERS_PARALLELISM and RAYON_NUM_THREADS are its own too).

    Attributes:
        ids: role of a special token -> its id, or None where there is no such token.
    """

    def __init__(self, folder: TokenizerFolder) -> None:
        self.folder, self.backend, self.roles = folder, folder.backend, dict(folder.roles)
        self.ids = {role: self.backend.token_to_id(self.roles[role]) if role in self.roles else None for role in ROLES}
        self.bos_id, self.eos_id, self.unk_id, self.sep_id, self.pad_id, self.cls_id, self.mask_id = (self.ids[role] for role in ROLES)

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Opens a folder with `tokenizer.json`, `vocab.txt`, or `vocab.json` and `merges.txt`.

        Raises:
            TokenizerError: something is missing or damaged.
        """
        return cls(read_folder(folder))

    def save(self, folder: Path | str) -> None:
        """Writes the files of the tokenizer; loading and saving again gives the same bytes."""
        write_folder(folder, self.folder)

    def __len__(self) -> int:
        """Rows an embedding needs: the highest id and one."""
        return self._size

    @cached_property
    def _size(self) -> int:
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def __repr__(self) -> str:
        return f"Tokenizer({type(self.backend.model).__name__}, {len(self)} tokens)"

    @property
    def model_max_length(self) -> int | None:
        """The longest row the model takes, special tokens included, where the folder says so."""
        length = self.folder.settings.get("model_max_length")
        return int(length) if isinstance(length, int | float) and 0 < length < 1e12 else None

    def with_max_length(self, length: int) -> Tokenizer:
        """The same tokenizer for a model that takes rows of `length` tokens."""
        raw = {name: content for name, content in self.folder.raw.items() if name != "tokenizer_config.json"}
        settings = {**self.folder.settings, "model_max_length": length}
        return Tokenizer(TokenizerFolder(self.backend, settings, self.roles, raw))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of every special token, those without a role too."""
        added = {place for place, token in self.backend.get_added_tokens_decoder().items() if token.special}
        return frozenset(added | {number for role in ROLES if (number := getattr(self, f"{role}_id")) is not None})

    @cached_property
    def sentinels(self) -> tuple[int, ...]:
        """Ids of `<extra_id_0>`, `<extra_id_1>`, … as far as they go: what stands for spans that are taken out (Raffel et al. 2020)."""
        found = list[int]()
        while (number := self.backend.token_to_id(SENTINEL.format(len(found)))) is not None:
            found.append(number)
        return tuple(found)

    @property
    def fills(self) -> dict[str, int]:
        """What stands at padding, for `lexloom.batch.padded`."""
        found = {"input_ids": next((n for n in (self.pad_id, self.eos_id) if n is not None), 0), "token_type_ids": 0}
        return {**found, "characters": 0} if self.characters else found

    @property
    def characters(self) -> int:
        """C, the symbols of a word as `text.spelling` has them, where rows are to have them; else 0."""
        found = self.folder.settings.get("characters_per_word", 0)
        return found if isinstance(found, int) and found >= 3 else 0

    @cached_property
    def spellings(self) -> Symbols:
        """(V, C) the symbols of every token by id."""
        words = [self.backend.id_to_token(number) or "" for number in range(len(self))]
        return spelled(words, self.characters, self.roles)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides which ids a text gets."""
        return files.fingerprint([self.backend.to_str(), self.roles])

    def require(self, role: str, why: str) -> int:
        """The id of the special token for a role.

        Raises:
            TokenizerError: there is none; says what needs it.
        """
        found = getattr(self, f"{role}_id", None) if role in ROLES else None
        if found is None:
            raise TokenizerError(
                f"this tokenizer has no {role} token",
                expected=f"a {role} token, for {why}",
                got=", ".join(f"{name}: {token}" for name, token in self.roles.items()) or "no special tokens",
                hint=f"name one as {role}_token in tokenizer_config.json, or train a tokenizer that has one",
            )
        return int(found)

    def token(self, number: int) -> str:
        """The token of an id.

        Raises:
            TokenizerError: there is none.
        """
        found = self.backend.id_to_token(number) if number >= 0 else None
        if found is None:
            raise TokenizerError("this id is not in the vocabulary", expected=f"0 to {len(self) - 1}", got=str(number))
        return str(found)

    def id(self, token: str) -> int | None:
        """The id of a token, or None."""
        return self.backend.token_to_id(token)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of ids, as `transformers` writes it."""
        text = self.backend.decode([int(number) for number in ids], skip_special_tokens=skip_special)
        if self.folder.settings.get("clean_up_tokenization_spaces") and type(self.backend.model).__name__ != "BPE":
            for spaced in _CLEAN:
                text = text.replace(spaced, spaced.strip())
        return text

    @cached_property
    def templates(self) -> tuple[Template, Template]:
        """What stands around one text, and around a pair; read off the tokenizer's own post-processor.

        Raises:
            TokenizerError: the post-processor does more than put special tokens around texts.
        """
        texts = ("a", "1", "的", ".", " ")
        sample = next((text for text in texts if self.backend.encode(text, add_special_tokens=False).ids), None)
        if sample is None:
            raise TokenizerError("this tokenizer gives no token for any text")
        return self._template(sample, None), self._template(sample, sample)

    def _template(self, first: str, second: str | None) -> Template:
        made = self.backend.encode(first, second)
        items: list[tuple[int, int]] = []
        for number, kind, special, text in zip(made.ids, made.type_ids, made.special_tokens_mask, made.sequence_ids, strict=True):
            item = (number if special or text is None else FIRST if text == 0 else SECOND, kind)
            if item[0] >= 0 or item not in items:
                items.append(item)
        if sorted(token for token, _ in items if token < 0) != ([FIRST] if second is None else [SECOND, FIRST]):
            raise TokenizerError("the post-processor of this tokenizer is not understood", got=repr(made.tokens)[:200])
        return Template(tuple(items))

    @cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        """A twin for which `[MASK]` in a text is six signs, so that a text cannot put special tokens into training."""
        twin = tokenizers.Tokenizer.from_str(self.backend.to_str())
        twin.encode_special_tokens = True
        return twin

    @cached_property
    def _joined(self) -> Joined:
        return Joined(self._literal)

    def encode_plain(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """Ids of texts alone, no special tokens, nothing cut; what looks like a special token is text. The fastest way.

        Raises:
            DataError: a text is no string.
        """
        return cast(list[npt.NDArray[np.int32]], self.plain(texts).rows())

    def plain(self, texts: Sequence[str]) -> Ragged:
        """`encode_plain` as one flat array with lengths."""
        found = [self._joined_or_alone(batch) for batch in _batches(texts)]
        return Ragged(np.concatenate([part.values for part in found]), np.concatenate([part.lengths for part in found]))

    def plain_offsets(self, texts: Sequence[str]) -> tuple[Ragged, npt.NDArray[np.int32]]:
        """`plain`, and the characters that each token covers in its text: (N, 2). Takes longer."""
        found, offsets = self._flat(self._literal, texts, offsets=True)
        return found, np.asarray(offsets)

    def _joined_or_alone(self, texts: list[str]) -> Ragged:
        try:
            joined = self._joined.encode(texts) if texts else None
        except (TypeError, UnicodeEncodeError):
            joined = None  # the other way says what is wrong with them
        return joined if joined is not None else self._flat(self._literal, texts)[0]

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int | None = None, offsets: bool = False
    ) -> list[Encoded]:
        """Rows with special tokens, one per text or per pair of texts.

        Args:
            max_length: T at most; longer rows lose tokens at their end (of a pair the longer text first) and are marked `cut`.
            offsets: adds `offsets` (T, 2) into the raw texts, which costs a third of the time again.

        Raises:
            DataError: a text is no string, or there are not as many pairs as texts.
            TokenizerError: `max_length` has no room for text.
        """
        if isinstance(texts, str) or isinstance(pairs, str) or (pairs is not None and len(pairs) != len(texts)):
            raise DataError("texts and pairs are lists of the same length", got=f"{texts!r}, {pairs!r}"[:200])
        wanted = offsets or self.characters > 0
        first, first_offsets = self._flat(self.backend, _capped(texts), wanted)
        second, second_offsets, cut = None, None, _over(texts)
        if pairs is not None:
            second, second_offsets = self._flat(self.backend, _capped(pairs), wanted)
            cut |= _over(pairs)
        template = self.templates[pairs is not None]
        if max_length is not None:
            room = _room(max_length, template)
            tail = self.folder.settings.get("truncation_side") == "left"
            keep, keep_second = np.minimum(first.lengths, room), None
            if second is not None:
                keep, keep_second = room_for_pairs(first.lengths, second.lengths, room)
                cut |= second.lengths > keep_second
                second, second_offsets = shortened(second, second_offsets, keep_second, tail)
            cut |= first.lengths > keep
            first, first_offsets = shortened(first, first_offsets, keep, tail)
        rows = rows_of(template, first, second, first_offsets, second_offsets, cut)
        return self._spelt(rows, list(zip(texts, pairs or texts, strict=True)), offsets)

    def windows(self, text: str, pair: str | None = None, *, max_length: int, stride: int, offsets: bool = False) -> list[Encoded]:
        """A long text as overlapping rows: every token is in one at least, neighbours share `stride` tokens.

        Of a pair the second text slides; the first stands whole in each row, unless it leaves the second no room: then its end is cut.

        Raises:
            TokenizerError: `stride` leaves no room to move on.
        """
        template = self.templates[pair is not None]
        room = _room(max_length, template)
        if not 0 <= stride < room:
            raise TokenizerError("windows cannot overlap by so much", expected=f"a stride of 0 to {room - 1}", got=str(stride))
        wanted = offsets or self.characters > 0
        fixed, sliding = ([], [text]) if pair is None else ([text], [pair])
        moved, moved_offsets = self._flat(self.backend, _capped(sliding), wanted)
        cut = np.asarray(_over([text, *([pair] if pair is not None else [])]).any())
        if pair is None:
            rows = self._slide(template, moved, moved_offsets, room, stride, lambda n: (None, None), cut)
            return self._spelt(rows, [(text, text)] * len(rows), offsets)
        held, held_offsets = self._flat(self.backend, _capped(fixed), wanted)
        needed = len(moved.values) if len(held.values) + len(moved.values) <= room else max(stride + 1, room // 2)
        keep = np.minimum(held.lengths, room - needed)
        cut = cut | (held.lengths > keep).any()
        held, held_offsets = shortened(held, held_offsets, keep, False)

        def again(n: int) -> tuple[Ragged, Any]:
            whole = None if held_offsets is None else np.tile(held_offsets, (n, 1))
            return Ragged(np.tile(held.values, n), np.tile(held.lengths, n)), whole

        rows = self._slide(template, moved, moved_offsets, room - int(held.lengths[0]), stride, again, cut)
        return self._spelt(rows, [(text, pair)] * len(rows), offsets)

    def _slide(
        self, template: Template, moved: Ragged, offsets: Any, room: int, stride: int, again: Callable[[int], tuple[Any, Any]], cut: Any
    ) -> list[Encoded]:
        total = len(moved.values)
        starts = np.arange(0, total - stride, room - stride) if total > room else np.zeros(1, dtype=np.int64)
        ends = np.minimum(starts + room, total)
        place = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
        sliding, sliding_offsets = Ragged(moved.values[place], ends - starts), None if offsets is None else offsets[place]
        held, held_offsets = again(len(starts))
        cuts = np.full(len(starts), bool(cut))
        if held is None:
            return rows_of(template, sliding, None, sliding_offsets, None, cuts)
        return rows_of(template, held, sliding, held_offsets, sliding_offsets, cuts)

    def _spelt(self, rows: list[Encoded], texts: Sequence[tuple[str, str | None]], offsets: bool) -> list[Encoded]:
        """The rows with the characters of their words, where there are to be any; of unknown words those that stand in the text."""
        if not self.characters:
            return rows
        for row, pair in zip(rows, texts, strict=True):
            row["characters"] = self.spellings[row["input_ids"]]
            unknown = np.flatnonzero((row["input_ids"] == self.unk_id) & ~row["special"])
            places = [(pair[int(row["sequence"][i])] or "", *row["offsets"][i].tolist()) for i in unknown]
            row["characters"][unknown] = spelled([self._normal(text[start:end]) for text, start, end in places], self.characters)
            if not offsets:
                del row["offsets"]
        return rows

    def _normal(self, word: str) -> str:
        """As the tokenizer would look for it in its vocabulary."""
        normalizer = self.backend.normalizer
        return word if normalizer is None else str(normalizer.normalize_str(_SURROGATE.sub("\ufffd", word))).strip()

    def _flat(self, backend: tokenizers.Tokenizer, texts: Sequence[str], offsets: bool = False) -> tuple[Ragged, Any]:
        ids, lengths, places = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int32)]
        for batch in _batches(texts):
            made = _encode(backend, batch, offsets)
            sizes = np.fromiter(map(len, made), dtype=np.int64, count=len(made))
            total = int(sizes.sum())
            lengths.append(sizes)
            ids.append(np.fromiter(chain.from_iterable(e.ids for e in made), dtype=np.int32, count=total))
            if offsets:
                numbers = chain.from_iterable(chain.from_iterable(e.offsets for e in made))
                places.append(np.fromiter(numbers, dtype=np.int32, count=2 * total).reshape(total, 2))
        return Ragged(np.concatenate(ids), np.concatenate(lengths)), np.concatenate(places) if offsets else None


def _encode(backend: tokenizers.Tokenizer, texts: list[str], offsets: bool) -> list[tokenizers.Encoding]:
    run = backend.encode_batch if offsets else backend.encode_batch_fast
    try:
        return run(texts, add_special_tokens=False)
    except (TypeError, UnicodeEncodeError):
        wrong = next((text for text in texts if not isinstance(text, str)), None)
        if wrong is not None or None in texts:
            raise DataError("texts are strings", got=f"{type(wrong).__name__} {wrong!r}"[:80]) from None
        return run([_SURROGATE.sub("\ufffd", text) for text in texts], add_special_tokens=False)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Lists of about a million characters: the library's own objects take a hundred bytes a token."""
    if set(map(type, texts)) <= {str} and sum(map(len, texts)) + 16 * len(texts) <= 2 * _BATCH:
        yield list(texts)
        return
    waiting: list[str] = []
    held = 0
    for text in texts:
        waiting.append(text)
        held += len(text) + 16 if isinstance(text, str) else 0
        if held >= _BATCH:
            yield waiting
            waiting, held = [], 0
    yield waiting


def _capped(texts: Sequence[str]) -> list[str]:
    return [text[:MAX_CHARACTERS] if isinstance(text, str) and len(text) > MAX_CHARACTERS else text for text in texts]


def _over(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.fromiter((len(text) > MAX_CHARACTERS for text in texts), dtype=np.bool_, count=len(texts))


def _room(max_length: int, template: Template) -> int:
    if max_length <= template.added:
        raise TokenizerError("max_length has no room for text", expected=f"more than {template.added} special tokens", got=str(max_length))
    return max_length - template.added
