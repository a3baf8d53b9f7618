"""Tokenizer folders in Hugging Face layout: read so that `transformers` and lexloom agree on every id, written so that both open them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from lexloom import files
from lexloom.errors import FormatError, LexloomError, TokenizerError

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
CONFIG, MAP, WHOLE = "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"
COMPANIONS = (
    *("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja"),
    *("spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
MAX_BYTES = 1 << 28

# `transformers` builds the tokenizers of these families anew from the vocabulary and tokenizer_config.json, whatever tokenizer.json says.
_CLASSES = {
    "bert": ["Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "LayoutLM", "Lxmert", "SqueezeBert", "RetriBert"],
    "gpt2": ["GPT2"],
    "roberta": ["Roberta", "Bart", "Longformer", "LED"],
}
_MODEL_TYPES = {
    "bert": ["bert", "distilbert", "electra", "mobilebert", "convbert", "layoutlm", "lxmert", "squeezebert"],
    "gpt2": ["gpt2"],
    "roberta": ["roberta", "bart", "longformer", "led"],
}
_ROLES_OF = {
    "bert": {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"},
    "gpt2": dict.fromkeys(("unk", "bos", "eos"), "<|endoftext|>"),
    "roberta": {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"},
}


@dataclass
class TokenizerFolder:
    """A tokenizer as a folder holds it.

    Args:
        backend: the `tokenizers` object, without truncation and padding.
        settings: `tokenizer_config.json`, unknown keys included.
        roles: role -> token, such as `mask` -> `[MASK]`.
        raw: files to write back as they were read.
    """

    backend: tokenizers.Tokenizer
    settings: dict[str, Any]
    roles: dict[str, str]
    raw: dict[str, bytes] = field(default_factory=dict)


def read_folder(folder: Path | str) -> TokenizerFolder:
    """Opens `tokenizer.json`, or `vocab.txt` (WordPiece), or `vocab.json` with `merges.txt` (byte-level BPE).

    Raises:
        TokenizerError: the folder or its files are missing, damaged, too large, or disagree.
    """
    folder = Path(folder)
    raw = _read_files(folder)
    settings, special = _object(raw, CONFIG, folder), _object(raw, MAP, folder)
    family = _family(settings, folder)
    backend = _backend(raw, settings, family, folder)
    roles = _roles(settings, special, family, backend)
    before = backend.to_str() if WHOLE in raw else None
    _rebuild(backend, settings, roles, family)
    _add_missing(backend, raw, settings, special, roles, folder)
    if before != backend.to_str():
        raw.pop(WHOLE, None)
    if "tokenizer_class" not in settings:
        settings = {**settings, **own_class(backend, roles)}
        raw.pop(CONFIG, None)
    return TokenizerFolder(backend, settings, roles, raw)


def _read_files(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise TokenizerError("there is no such tokenizer folder", where=str(folder), hint="name the folder that holds tokenizer.json")
    raw = {}
    for name in (WHOLE, CONFIG, MAP, *COMPANIONS):
        path = folder / name
        if path.is_file():
            if path.stat().st_size > MAX_BYTES:
                raise TokenizerError("this file is too large", expected=f"at most {MAX_BYTES} bytes", where=str(path))
            raw[name] = path.read_bytes()
    return raw


def _object(raw: Mapping[str, bytes], name: str, folder: Path) -> dict[str, Any]:
    if name not in raw:
        return {}
    try:
        found = json.loads(raw[name])
    except (ValueError, RecursionError) as error:
        raise TokenizerError("this file is not valid JSON", got=str(error), where=str(folder / name)) from None
    if not isinstance(found, dict):
        raise TokenizerError("this file should hold a JSON object", got=type(found).__name__, where=str(folder / name))
    return found


def _family(settings: Mapping[str, Any], folder: Path) -> str | None:
    """By class name, else by the model type beside it, as `AutoTokenizer` decides."""
    name = settings.get("tokenizer_class")
    model: Any = {}
    if not name and (folder / "config.json").is_file():
        try:
            model = files.read_json(folder / "config.json", kind="model configuration", max_bytes=1 << 24)
        except FormatError:
            model = {}  # the bundle, not the tokenizer, complains about it
        model = model if isinstance(model, dict) else {}
        name = model.get("tokenizer_class")
    if isinstance(name, str):
        stem = name.removesuffix("Fast").removesuffix("Tokenizer")
        return next((family for family, stems in _CLASSES.items() if stem in stems), None)
    return next((family for family, types in _MODEL_TYPES.items() if model.get("model_type") in types), None)


def _backend(raw: Mapping[str, bytes], settings: Mapping[str, Any], family: str | None, folder: Path) -> tokenizers.Tokenizer:
    name = next((name for name in (WHOLE, "vocab.txt", "vocab.json") if name in raw), None)
    if name is None or (name == "vocab.json" and "merges.txt" not in raw):
        raise TokenizerError(
            "there is no tokenizer in this folder",
            expected="tokenizer.json, or vocab.txt, or vocab.json with merges.txt",
            got=", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "an empty folder",
            where=str(folder),
        )
    try:
        if name == WHOLE:
            backend = tokenizers.Tokenizer.from_str(raw[WHOLE].decode("utf-8"))
        elif name == "vocab.txt":
            backend = wordpiece(_vocabulary(raw[name]), settings)
        else:
            backend = _byte_bpe(json.loads(raw[name]), raw["merges.txt"].decode("utf-8"), settings, family)
    except LexloomError:
        raise
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise TokenizerError("this tokenizer cannot be read", got=str(error)[:300], where=str(folder / name)) from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def _vocabulary(content: bytes) -> dict[str, int]:
    lines = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    return {token: place for place, token in enumerate(lines)}


def wordpiece(vocabulary: dict[str, int], settings: Mapping[str, Any], unk: str = "[UNK]") -> tokenizers.Tokenizer:
    """BERT's WordPiece over a vocabulary; `do_lower_case`, `strip_accents` and `tokenize_chinese_chars` come from `settings`."""
    if unk not in vocabulary:
        vocabulary = {**vocabulary, unk: len(vocabulary)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unk, max_input_chars_per_word=100))
    _as_bert(backend, settings)
    return backend


def _as_bert(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")


def _byte_bpe(vocabulary: dict[str, int], merges: str, settings: Mapping[str, Any], family: str | None) -> tokenizers.Tokenizer:
    pairs = [tuple(line.split(" ")) for line in merges.split("\n") if line.strip() and not line.startswith("#version")]
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, [(pair[0], pair[1]) for pair in pairs], continuing_subword_prefix="", end_of_word_suffix="")
    )
    _as_byte_level(backend, settings)
    if family != "roberta":
        backend.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    return backend


def _as_byte_level(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space", False)))
    backend.decoder = decoders.ByteLevel()


def _rebuild(backend: tokenizers.Tokenizer, settings: Mapping[str, Any], roles: Mapping[str, str], family: str | None) -> None:
    """Puts in what `transformers` would put in for the family."""
    kind = type(backend.model).__name__
    if family == "bert" and kind == "WordPiece":
        _as_bert(backend, settings)
        _make_special(backend, {roles[role]: {} for role in ("cls", "sep")})
        backend.post_processor = bert_template(backend, roles["cls"], roles["sep"])
    elif family in ("gpt2", "roberta") and kind == "BPE":
        _as_byte_level(backend, settings)
        if family == "roberta":
            _make_special(backend, {roles[role]: {} for role in ("cls", "sep")})
            trim, prefix = bool(settings.get("trim_offsets", True)), bool(settings.get("add_prefix_space", False))
            backend.post_processor = roberta_template(backend, roles["cls"], roles["sep"], trim=trim, prefix=prefix)


def bert_template(backend: tokenizers.Tokenizer, cls: str, sep: str) -> processors.PostProcessor:
    """`[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, the second text with type 1."""
    return processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, backend.token_to_id(cls)), (sep, backend.token_to_id(sep))],
    )


def roberta_template(backend: tokenizers.Tokenizer, cls: str, sep: str, *, trim: bool, prefix: bool = False) -> processors.PostProcessor:
    """`<s> A </s>` and `<s> A </s></s> B </s>`, all with type 0; `trim` leaves the space before a word out of its offsets."""
    ends = [(token, int(backend.token_to_id(token) or 0)) for token in (sep, cls)]
    return processors.RobertaProcessing(ends[0], ends[1], trim_offsets=trim, add_prefix_space=prefix)


def _content(value: Any, key: str) -> str:
    found = value.get("content") if isinstance(value, dict) else value
    if not isinstance(found, str):
        raise TokenizerError(f"{key} is no token", expected="text, or a mapping with content", got=repr(value)[:80], where=CONFIG)
    return found


def _roles(settings: Mapping[str, Any], special: Mapping[str, Any], family: str | None, backend: tokenizers.Tokenizer) -> dict[str, str]:
    roles = dict(_ROLES_OF.get(family or "", {}))
    if not settings and not special and family is None:
        roles = {role: token for names in _ROLES_OF.values() for role, token in names.items() if backend.token_to_id(token) is not None}
    # transformers lets the map speak last, unless the newer list of added tokens is there
    order = (special, settings) if "added_tokens_decoder" in settings else (settings, special)
    for source in order:
        for role in ROLES:
            if source.get(f"{role}_token") is not None:
                roles[role] = _content(source[f"{role}_token"], f"{role}_token")
    return roles


def _add_missing(
    backend: tokenizers.Tokenizer,
    raw: Mapping[str, bytes],
    settings: Mapping[str, Any],
    special: Mapping[str, Any],
    roles: Mapping[str, str],
    folder: Path,
) -> None:
    """Tokens that only the side files know, in the order of their ids; then the special ones."""
    listed: dict[int, Any] = {}
    if isinstance(found := settings.get("added_tokens_decoder"), dict):
        listed = {int(place): token for place, token in found.items() if str(place).isdigit()}
    elif WHOLE not in raw:
        listed = {place: token for token, place in _object(raw, "added_tokens.json", folder).items() if isinstance(place, int)}
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for place, token in sorted(listed.items()):
        if (content := _content(token, "added_tokens_decoder")) not in known:
            backend.add_tokens([_added(token, special=content in roles.values())])
            if backend.token_to_id(content) != place:
                raise TokenizerError(
                    f"the added token {content!r} has another id",
                    expected=str(place),
                    got=str(backend.token_to_id(content)),
                    where=str(folder),
                    hint="the vocabulary and the list of added tokens belong to different tokenizers",
                )
    tokens: dict[str, Any] = {token: {} for token in roles.values()}
    for source in (settings, special):
        tokens.update({_content(value, key): value for key in (f"{role}_token" for role in ROLES) if (value := source.get(key))})
        extra = source.get("extra_special_tokens") or source.get("additional_special_tokens") or ()
        for value in extra.values() if isinstance(extra, dict) else extra:
            tokens[_content(value, "extra_special_tokens")] = value
    _make_special(backend, tokens)


def _make_special(backend: tokenizers.Tokenizer, tokens: Mapping[str, Any]) -> None:
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    backend.add_special_tokens([_added(value or content, special=True) for content, value in tokens.items() if content not in special])


def _added(value: Any, *, special: bool) -> AddedToken:
    flags = value if isinstance(value, dict) else {}
    special = bool(flags.get("special", special)) or special
    kept = {name: bool(flags.get(name, False)) for name in ("single_word", "lstrip", "rstrip")}
    return AddedToken(_content(value, "an added token"), normalized=bool(flags.get("normalized", not special)), special=special, **kept)


def own_class(backend: tokenizers.Tokenizer, roles: Mapping[str, str]) -> dict[str, Any]:
    """The class that opens this tokenizer in `transformers`, with the settings that class goes by.

    `BertTokenizer` builds itself from the vocabulary, so it is right only for exactly what BERT does.
    """
    state = json.loads(backend.to_str())
    normalizer = state["normalizer"] or {}
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer.get("lowercase"),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars"),
    }
    if state["model"]["type"] == "WordPiece" and normalizer.get("type") == "BertNormalizer" and {"cls", "sep", "unk"} <= set(roles):
        twin = wordpiece(state["model"]["vocab"], settings, state["model"]["unk_token"])
        twin.post_processor = bert_template(backend, roles["cls"], roles["sep"])
        rebuilt = json.loads(twin.to_str())
        if all(rebuilt[part] == state[part] for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor", "model")):
            return settings
    return {"tokenizer_class": "PreTrainedTokenizerFast"}


def write_folder(folder: Path | str, tokenizer: TokenizerFolder) -> None:
    """Writes every file of a tokenizer, each atomically; what was read and not changed is written as it was."""
    folder = Path(folder)
    made = {
        WHOLE: (tokenizer.backend.to_str(pretty=True) + "\n").encode(),
        CONFIG: _dump(tokenizer.settings),
        MAP: _dump({f"{role}_token": tokenizer.roles[role] for role in ROLES if role in tokenizer.roles}),
        **_vocabulary_files(tokenizer.backend),
    }
    for name, content in {**made, **tokenizer.raw}.items():
        files.write_bytes(folder / name, content)


def _dump(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _vocabulary_files(backend: tokenizers.Tokenizer) -> dict[str, bytes]:
    """`vocab.txt`, or `vocab.json` and `merges.txt`, for programs that do not read `tokenizer.json`."""
    kind = type(backend.model).__name__
    order = sorted(backend.get_vocab(with_added_tokens=True).items(), key=lambda entry: entry[1])
    whole = [number for _, number in order] == list(range(len(order))) and not any("\n" in token for token, _ in order)
    if kind == "WordPiece" and whole:
        return {"vocab.txt": "".join(f"{token}\n" for token, _ in order).encode()}
    if kind in ("BPE", "WordLevel"):
        model = json.loads(backend.to_str())["model"]
        made = {"vocab.json": (json.dumps(model["vocab"], ensure_ascii=False) + "\n").encode()}
        if kind == "BPE":
            lines = ["#version: 0.2", *(" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])]
            made["merges.txt"] = ("\n".join(lines) + "\n").encode()
        return made
    return {}
