"""The report of a run: whole, partial, hostile and damaged run folders, written here as the stages would write them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lexloom import files
from lexloom.errors import LexloomError
from lexloom.runs.report import first_sentence, loose, text_report, write_report
from lexloom.runs.report.gather import gather
from lexloom.train.log import MetricsLog

RECIPE = """name: bert-mini-notes
seed: 1
prepare: {sources: [notes/], language: en, split: {validation: 0.01, group: patient_id}}
tokenizer: {kind: wordpiece, vocab_size: 16000}
pretrain:
  model: {kind: bert, preset: bert-mini}
  objective: [masked-lm, next-sentence]
  train: {tokens: 40M, batch_tokens: 16384, length: {128: 0.9, 512: 0.1}, learning_rate: 1e-3, schedule: wsd}
finetune:
  mood: {task: text-classification, data: {train: mood/train.jsonl, validation: mood/dev.jsonl, test: mood/test.jsonl}}
"""
CORPUS = {
    "format": 1,
    "sources": [
        {"path": "notes/2024.jsonl.gz", "documents": 118_204, "bytes": 91_482_113, "encoding": "utf-8", "sha256": "3f" * 32},
        {"path": "notes/2025.jsonl.gz", "documents": 64_871, "bytes": 50_113_870, "encoding": "utf-8", "sha256": "a9" * 32},
        {"path": "notes/old/病历.txt", "documents": 812, "bytes": 731_204, "encoding": "gb18030", "sha256": "07" * 32},
    ],
    "counts": {"read": 183_887, "kept": 171_030, "characters": 208_114_902, "bytes": 231_004_117},
    "bad_rows": {"total": 14, "reasons": {"not utf-8": 12, "not JSON": 2}, "first": ["notes/2024.jsonl.gz:17: not JSON"]},
    "changed": {"normal form": 1_204, "white space": 40_771},
    "warnings": ["212 documents have the id of another one"],
    "dropped": {"too short": 6_120, "exact duplicate": 4_410, "near duplicate": 1_442, "other language": 871, "no letters": 14},
    "duplicates": {"exact": 4_410, "near": 1_442},
    "splits": {"train": {"documents": 169_302, "characters": 206_021_455}, "validation": {"documents": 1_728, "bytes": 2_300_100}},
}
TOKENIZER = {
    "vocab_size": 16_000,
    "kind": "wordpiece",
    "characters_per_token": 4.318,
    "unk_rate": 0.00021,
    "samples": [
        {
            "text": "The patient tolerated the procedure well.",
            "tokens": ["the", "patient", "toler", "##ated", "the", "procedure", "well", "."],
        },
        {"text": "病人术后恢复良好。", "tokens": list("病人术后恢复良好。")},
    ],
}
SHARDS = {
    "format": 1,
    "dtype": "uint16",
    "splits": {
        "train": {
            "tokens": 48_197_331,
            "sentences": 2_301_554,
            "documents": 169_302,
            "skipped": {"empty": 2},
            "files": {
                "tokens-train.bin": {"bytes": 96_394_662, "sha256": "00"},
                "documents-train.bin": {"bytes": 1_000_000, "sha256": "11"},
            },
        }
    },
}
PRETRAIN = {
    "model": "bert-mini",
    "parameters": 7_406_336,
    "steps": 2_442,
    "tokens": 40_009_728,
    "seconds": 5_791.4,
    "loss": 3.0177,
    "validation": {"loss": 3.0642, "parts": {"masked-lm": 2.8114, "next-sentence": 0.2528}},
    "compute": {
        "device": "cpu",
        "dtype": "bfloat16",
        "threads": 2,
        "compile": True,
        "reasons": {"dtype": "the CPU has AMX for bfloat16", "compile": "2,442 steps pay for compiling"},
    },
    "fills": [
        {
            "text": "The wound was clean and [MASK].",
            "answers": [{"token": "dry", "score": 0.61}, {"token": "intact", "score": 0.17}, {"token": "closed", "score": 0.05}],
        },
        {"text": "No known drug [MASK].", "answers": [{"token": "allergies", "score": 0.93}, {"token": "use", "score": 0.02}]},
    ],
}


def scores(*values: tuple[str, float, float, float], n: int = 1821, note: str = "") -> list[dict[str, Any]]:
    return [
        {"model": m, "metric": "accuracy", "value": v, "low": a, "high": b, "n": n, "seeds": 3 if m.startswith("f") else None, "note": note}
        for m, v, a, b in values
    ]


MOOD = {
    "task": "text-classification",
    "seeds": 3,
    "rows": {"train": 67_349, "validation": 872, "test": 1_821},
    "verdict": "Pre-training pays: 0.871 accuracy against 0.823 of TF-IDF, a gain of 0.048 (95 % interval 0.029 to 0.066). "
    "Against the same network without pre-training the gain is 0.061.",
    "scores": [
        *scores(("fine-tuned", 0.8712, 0.8557, 0.8863), ("from scratch", 0.8103, 0.7919, 0.8281), note="three seeds pooled"),
        *scores(("TF-IDF + logistic regression", 0.8232, 0.8056, 0.8402), ("majority", 0.5008, 0.478, 0.5239)),
    ],
    "differences": [
        {
            "a": "fine-tuned",
            "b": "TF-IDF + logistic regression",
            "metric": "accuracy",
            "value": 0.048,
            "low": 0.0291,
            "high": 0.0664,
            "n": 1821,
        },
        {"a": "fine-tuned", "b": "from scratch", "metric": "accuracy", "value": 0.0609, "low": 0.0421, "high": 0.0792, "n": 1821},
        {"a": "from scratch", "b": "TF-IDF + logistic regression", "metric": "accuracy", "value": -0.0129, "low": -0.031, "high": 0.0052},
    ],
    "confusion": {"labels": ["negative", "positive"], "counts": [[801, 111], [124, 785]]},
    "examples": [
        {"text": "The nurse came at once and explained every step.", "gold": "positive", "predicted": "positive", "score": 0.98},
        {"text": "I waited four hours and was then sent home.", "gold": "negative", "predicted": "negative", "score": 0.96},
        {"text": "Not the disaster I had been promised.", "gold": "positive", "predicted": "negative", "score": 0.81},
        {"text": "Well, the parking was excellent.", "gold": "negative", "predicted": "positive", "score": 0.74},
    ],
    "encoding": ["67,349 training rows, 890,120 tokens, at most 128 a row"],
    "compute": {"format": 1, "device": "cpu", "dtype": "float32", "threads": 2, "compile": False, "reasons": {"dtype": "short rows"}},
    "settings": {"epochs": 3.0, "learning_rate": 5e-5, "patience": None, "batch_rows": 32},
    "seconds": 1_283.0,
}
WARDS = {
    "task": "text-classification",
    "seeds": [1, 2, 3],
    "rows": {"train": 7_600, "validation": 400, "test": 1_200},
    "verdict": "Use TF-IDF: 0.914 accuracy against 0.909 of the fine-tuned model, and no difference can be shown.",
    "scores": scores(
        ("fine-tuned", 0.909, 0.8925, 0.9242),
        ("from scratch", 0.8811, 0.8617, 0.8992),
        ("TF-IDF + logistic regression", 0.9142, 0.8983, 0.93),
        ("majority", 0.25, 0.226, 0.275),
        n=1200,
    ),
    "differences": [
        {"a": "fine-tuned", "b": "TF-IDF + logistic regression", "metric": "accuracy", "value": -0.0052, "low": -0.0183, "high": 0.0075},
    ],
    "confusion": {
        "labels": ["surgery", "心内科", "maternity", "emergency"],
        "counts": [[271, 12, 3, 14], [9, 280, 2, 9], [4, 1, 291, 4], [22, 17, 6, 255]],
    },
    "examples": [
        {"text": "患者主诉胸闷三天，夜间加重。", "gold": "心内科", "predicted": "心内科", "score": 0.97},
        {"text": "Fell from a ladder, transferred for fixation.", "gold": "surgery", "predicted": "emergency", "score": 0.55},
    ],
    "seconds": 302.0,
}
ENVIRONMENT = {
    "lexloom": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "system": "Linux x86_64",
    "cores": "2",
    "instruction sets": "avx2, amx_bf16",
}


def write_bundle(folder: Path, **settings: Any) -> None:
    found = {"model_type": "bert", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 16_000, **settings}
    with files.new_folder(folder) as new:
        files.write_json(new / "config.json", {"max_position_embeddings": 512, **found})
        files.write_bytes(new / "model.safetensors", bytes(1000))
        files.write_text(new / "vocab.txt", "[PAD]\n")


def write_log(folder: Path, n: int, every: int, low: float = 3.0, high: float = 9.7) -> None:
    with MetricsLog(folder, tensorboard=False) as log:
        for step in range(1, n + 1):
            loss = low + (high - low) * math.exp(-4 * step / n) + 0.12 * math.sin(step * 12.9898) * math.sin(step * 4.1)
            line: dict[str, Any] = {"step": step, "loss": loss, "tokens": step * 16_384}
            if step % every == 0:
                line["validation"] = {"loss": low + 0.05 + (high - low) * math.exp(-4 * step / n)}
            log.write(line)


def write_run(run: Path, *, tasks: dict[str, dict[str, Any]]) -> Path:
    files.write_text(run / "recipe.yaml", RECIPE)
    files.write_json(run / "environment.json", ENVIRONMENT)
    files.write_json(run / "corpus" / "corpus.json", CORPUS)
    files.write_json(run / "tokenizer" / "report.json", TOKENIZER)
    files.write_json(run / "shards" / "shards.json", SHARDS)
    files.write_json(run / "pretrain" / "summary.json", PRETRAIN)
    write_log(run / "pretrain", 600, 60)
    write_bundle(run / "pretrain" / "bundle", architectures=["BertForPreTraining"])
    for name, summary in tasks.items():
        files.write_json(run / "finetune" / name / "summary.json", summary)
        write_log(run / "finetune" / name, 120, 30, 0.28, 0.7)
        write_bundle(run / "finetune" / name / "bundle", architectures=["BertForSequenceClassification"], id2label={"0": "no", "1": "yes"})
    return run


VOID = {"meta", "link", "br", "hr", "img", "input", "source", "base", "embed"}
LOADS = {"src", "href", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href", "ping", "manifest"}
HOSTILE = (
    "</style></title><script>alert(1)</script>\"'><img src=https://evil.example/x onerror=alert(2)>{{ 7*7 }}{% x %}&lt;\x1b[2J\u202e\u2028"
)


class Page(HTMLParser):
    """A page taken apart: every tag closed in order, all attributes and texts noted."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.where: list[tuple[tuple[str, ...], str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        self.where.append((tuple(self.open), data))

    def named(self, tag: str) -> list[str]:
        """The texts inside of each such tag, joined."""
        return ["".join(data for path, data in self.where if tag in path)] if tag in {"h1", "title", "style"} else []

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(data for path, data in self.where if "style" not in path))


def check(page: str) -> Page:
    """What has to hold for every report, whatever the run held."""
    found = Page(page)
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "img", "iframe", "object", "link", "base", "form", "embed", "image", "use", "foreignobject"}
    for tag, attributes in found.tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}, (tag, attributes)
        for name in LOADS & set(attributes):
            assert re.fullmatch(r"#[a-z0-9-]+", str(attributes[name])), (tag, attributes)
    (style,) = found.named("style")
    policy = next(a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"url\(|@import|https?:", style)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for tag, a in found.tags if tag == "a"}
    assert targets <= set(ids)
    assert sum(tag == "h1" for tag, _ in found.tags) == 1
    assert sum(tag == "table" for tag, _ in found.tags) == sum(tag == "caption" for tag, _ in found.tags)
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for tag, a in found.tags if tag == "svg")
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    return found


def report(run: Path) -> Page:
    return check(write_report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "bert-mini-notes", tasks={"mood": MOOD, "wards": WARDS})


def test_a_whole_run(whole: Path) -> None:
    page = report(whole)
    words = page.words
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert sections == ["scores", "task-1", "task-2", "pretraining", "tokenizer", "data", "models", "provenance", "next"]
    for expected in (
        "Use TF-IDF: 0.914 accuracy",
        "0.856 to 0.886",
        "+0.029 to +0.066",
        "−0.018 to +0.007",
        "no clear difference",
        "clearly higher",
        "three seeds pooled",
        "67,349",
        "Not the disaster I had been promised.",
        "患者主诉胸闷三天，夜间加重。",
        "心内科",
        "0.878",
        "7,406,336",
        "40,009,728",
        "1 h 37 min",
        "6,908",
        "3.0642",
        "2.8114",
        "the CPU has AMX for bfloat16",
        "allergies",
        "##ated",
        "0.02 %",
        "4.32",
        "890,120 tokens",
        "short rows",
        "5e-05",
        "171,030",
        "4,410",
        "other language",
        "not utf-8",
        "40,771",
        "231 MB",
        "212 documents have the id of another one",
        "notes/old/病历.txt",
        "gb18030",
        "731 kB",
        "070707070707",
        "48,197,331",
        "97 MB",
        "BertForSequenceClassification",
        hashlib.sha256(bytes(1000)).hexdigest(),
        "amx_bf16",
        "group: patient_id",
        "lexloom predict",
    ):
        assert expected in words, expected
    assert sum(tag == "svg" for tag, _ in page.tags) == 3 * 2 + (4 + 3) + (4 + 1)


def test_the_first_sentence_is_the_verdict(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks={"wards": WARDS})
    page = report(run)
    assert page.named("h1") == [WARDS["verdict"]]
    headings = [tag for tag, _ in page.tags if tag in ("h1", "p")]
    assert headings[:2] == ["p", "h1"]  # only the name of the run stands before it
    assert page.words.index(WARDS["verdict"]) < page.words.index("train rows")
    assert text_report(run).startswith(WARDS["verdict"])


def test_the_rest_of_a_long_verdict_is_not_lost(tmp_path: Path) -> None:
    page = report(write_run(tmp_path / "run", tasks={"mood": MOOD}))
    assert page.named("h1") == [first_sentence(MOOD["verdict"])[0]]
    assert "Against the same network without pre-training the gain is 0.061." in page.words


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Use TF-IDF: 0.914 vs. 0.909. The rest.", "Use TF-IDF: 0.914 vs. 0.909."),
        ("One sentence only", "One sentence only"),
        ("用词袋模型。其余如下。", "用词袋模型。"),
        ("Good! “Quoted” then.", "Good!"),
        ("", ""),
    ],
)
def test_first_sentence(text: str, first: str) -> None:
    head, rest = first_sentence(text)
    assert head == first and (head + rest).replace(" ", "") == text.replace(" ", "")


def without(*names: str) -> Callable[[Path], None]:
    return lambda run: [files.remove(run / name) for name in names] and None


@pytest.mark.parametrize(
    ("drop", "verdict", "absent"),
    [
        (
            ["finetune"],
            "BertMini was pre-trained to a validation loss of 3.0642 on 40,009,728 tokens in 1 h 37 min; no task has tried it yet.",
            "task-1",
        ),
        (["finetune", "pretrain"], "The tokenizer is ready: wordpiece with 16,000 tokens.", "pretraining"),
        (["finetune", "pretrain", "tokenizer"], "The corpus is ready: 171,030 documents.", "tokenizer"),
        (["finetune", "pretrain", "tokenizer", "corpus", "shards"], "Nothing has been finished in this run yet.", "data"),
        (["corpus", "tokenizer", "shards", "pretrain", "recipe.yaml", "environment.json"], WARDS["verdict"], "provenance"),
        (["finetune/wards/metrics.jsonl", "finetune/wards/bundle", "recipe.yaml"], WARDS["verdict"], "scores"),
    ],
)
def test_missing_stages_are_left_out(tmp_path: Path, drop: list[str], verdict: str, absent: str) -> None:
    run = write_run(tmp_path / "run", tasks={"wards": WARDS})
    files.write_json(run / "pretrain" / "summary.json", {**PRETRAIN, "model": {"kind": "bert", "class": "BertMini"}})
    without(*drop)(run)
    page = report(run)
    assert "".join(page.named("h1")) == verdict and text_report(run).startswith(verdict)
    assert absent not in [a.get("id") for _, a in page.tags]


def test_the_folder_of_a_single_stage_is_a_run(tmp_path: Path) -> None:
    run = tmp_path / "topics"
    files.write_json(run / "summary.json", WARDS)
    write_log(run / "seeds" / "seed-1", 40, 10)
    write_log(run / "seeds" / "seed-2", 40, 10)
    (run / "baselines" / "tfidf").mkdir(parents=True)
    write_log(run / "from-scratch" / "seed-1", 40, 10)
    write_bundle(run / "bundle", architectures=["BertForSequenceClassification"])
    page = report(run)
    assert page.named("h1") == [WARDS["verdict"]] and "topics" in page.words
    assert [text for text in page.texts if text.endswith(", smoothed")] == ["seed-1, smoothed", "seed-2, smoothed"] * 2
    assert f"lexloom predict {run.as_posix()}/baselines/tfidf" in page.words
    assert f"lexloom predict {run.as_posix()}/bundle" in page.words


def test_phases_in_their_order_and_nothing_that_was_put_aside(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks={"mood": MOOD, "mood.old-1": WARDS, "zz": WARDS, "a": WARDS})
    files.write_text(run / "recipe.yaml", "name: n\nfinetune: {zz: {}, mood: {}}\n")
    files.remove(run / "pretrain")
    for i in (1, 2, 10):
        files.write_json(run / f"pretrain-{i}" / "summary.json", {**PRETRAIN, "model": f"phase{i}"})
    facts = gather(run)
    assert [phase.model for phase in facts.phases] == ["phase1", "phase2", "phase10"]
    assert [task.name for task in facts.tasks] == ["zz", "mood", "a"]
    report(run)


def hostile(value: Any, text: str) -> Any:
    """The same shape with every text replaced, keys that nobody reads by name included."""
    if isinstance(value, dict):
        free = {"counts", "dropped", "duplicates", "splits", "parts", "reasons", "changed"}
        return {
            key: {f"{text}{i}": hostile(v, text) for i, v in enumerate(inner.values())}
            if key in free and isinstance(inner, dict)
            else hostile(inner, text)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [hostile(inner, text) for inner in value]
    return text if isinstance(value, str) else value


def test_hostile_texts_in_every_field_stay_texts(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(3)>\u202e;rm -rf ~"
    run = tmp_path / "<script>alert(4)<"
    with_name = hostile(MOOD, HOSTILE)
    write_run(run, tasks={name: with_name, "b": hostile(WARDS, HOSTILE)})
    for file, value in (
        ("environment.json", {f"{HOSTILE}{i}": HOSTILE for i in range(3)}),
        ("corpus/corpus.json", hostile(CORPUS, HOSTILE)),
        ("tokenizer/report.json", hostile(TOKENIZER, HOSTILE)),
        ("shards/shards.json", hostile(SHARDS, HOSTILE)),
        ("pretrain/summary.json", hostile(PRETRAIN, HOSTILE)),
        (f"finetune/{name}/bundle/config.json", {"architectures": [HOSTILE], "model_type": HOSTILE, "id2label": {"0": HOSTILE}}),
        (f"finetune/{name}/bundle/manifest.json", {"format": 1, "files": {HOSTILE: {"bytes": 1, "sha256": HOSTILE}}}),
    ):
        files.write_json(run / file, value)
    files.write_text(run / "recipe.yaml", "name: " + json.dumps(HOSTILE) + "\nprepare: {language: '\"><b>'}\n")
    source = write_report(run).read_text(encoding="utf-8")
    page = check(source)
    assert "<script" not in source and "onerror=alert(2)>" not in source and "<img" not in source and "49" not in page.named("h1")[0]
    assert page.words.count("<script>alert(1)</script>") > 60
    for text in (source, text_report(run)):
        assert not set(text) & {"\x1b", "\u202e", "\u2028"}
    assert f"'{run.as_posix()}/finetune/<img src=x onerror=alert(3)><U+202E>;rm -rf ~/bundle'" in page.words


JUNK = [None, True, -1, 10**400, 0.5, "x", [], {}, [[]], [{}], {"a": {"b": {"c": {"d": {"e": 1}}}}}, [None, 1, "x"], "\u0000"]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:20])
def test_values_of_any_other_type_are_left_out(tmp_path: Path, junk: Any) -> None:
    def spoil(value: dict[str, Any]) -> dict[str, Any]:
        return {key: junk if key not in ("task",) else inner for key, inner in value.items()}

    def spoil_deep(value: dict[str, Any]) -> dict[str, Any]:
        return {
            key: [spoil(row) for row in inner if isinstance(row, dict)]
            if isinstance(inner, list)
            else spoil(inner)
            if isinstance(inner, dict)
            else inner
            for key, inner in value.items()
        }

    for i, how in enumerate((spoil, spoil_deep)):
        run = write_run(tmp_path / str(i), tasks={"mood": how(MOOD)})
        for file, value in (("corpus/corpus.json", CORPUS), ("tokenizer/report.json", TOKENIZER), ("pretrain/summary.json", PRETRAIN)):
            (run / file).write_text(json.dumps(how(value)))
        for file in ("environment.json", "shards/shards.json", "pretrain/bundle/config.json", "pretrain/bundle/manifest.json"):
            (run / file).write_text(json.dumps(junk))
        report(run)
        text_report(run)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"null", b'{"scores": [NaN, {"value": NaN}], "task": Infinity}']
)
def test_damaged_files_are_named_and_left_out(tmp_path: Path, content: bytes) -> None:
    run = write_run(tmp_path / "run", tasks={"mood": MOOD})
    for path in [*run.rglob("*.json"), run / "recipe.yaml", run / "pretrain" / "metrics.jsonl"]:
        path.write_bytes(content)
    page = report(run)
    if content != b"null" and b"scores" not in content:
        assert "Left out, for it could not be read: " in page.words and "corpus/corpus.json" in page.words


def test_many_labels_and_many_rows_stay_readable(tmp_path: Path) -> None:
    labels = [f"label-{i}" for i in range(150)]
    counts = [[5 if i == j else 3 if j == (i + 1) % 150 else 0 for j in range(150)] for i in range(150)]
    sources = [{"path": f"f{i}.txt", "documents": i} for i in range(5000)]
    task = {**WARDS, "confusion": {"labels": labels, "counts": counts}, "examples": WARDS["examples"] * 500}
    run = write_run(tmp_path / "run", tasks={"t": task})
    files.write_json(run / "corpus" / "corpus.json", {**CORPUS, "sources": sources})
    page = report(run)
    assert "Of 150 labels, the ones that are mixed up most" in page.words and "label-1" in page.words
    assert "50 of 5,000" in page.words
    assert (run / "report.html").stat().st_size < 200_000


def test_a_confusion_of_one_empty_row(tmp_path: Path) -> None:
    task = {**WARDS, "confusion": {"labels": ["a", "b"], "counts": [[0, 0], [0, 3]]}}
    assert "1.000" in report(write_run(tmp_path / "run", tasks={"t": task})).words


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    for tell in (write_report, text_report):
        with pytest.raises(LexloomError, match="no such run"):
            tell(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_the_same_run_gives_the_same_page(whole: Path) -> None:
    first = write_report(whole).read_bytes()
    assert write_report(whole).read_bytes() == first


def test_the_text_is_short_and_has_the_figures(whole: Path, tmp_path: Path) -> None:
    text = text_report(whole)
    lines = text.splitlines()
    assert len(lines) <= 40 and text.endswith("\n")
    assert lines[0] == f"mood: {MOOD['verdict']}" and lines[1] == f"wards: {WARDS['verdict']}"
    for expected in (
        "fine-tuned                    accuracy 0.871  [0.856, 0.886]  n 1,821",
        "no clear difference",
        "171,030",
        "7,406,336",
        "3.0642",
    ):
        assert expected in text
    many = text_report(write_run(tmp_path / "many", tasks={f"t{i}": WARDS for i in range(20)})).splitlines()
    assert len(many) == 40 and many[-1].endswith("many/report.html")


def test_words_are_bounded() -> None:
    assert len(loose.words("x" * 10_000)) == loose.MAX_TEXT
    deep: Any = 1
    for _ in range(300):
        deep = {"a": [deep]}
    assert len(loose.words(deep)) < 100
    assert loose.number(10**400) is None and loose.number(math.nan) is None and loose.number(True) is None


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def blend(top: str, share: float, under: str) -> str:
    return "#" + "".join(f"{round(int(top[i : i + 2], 16) * share + int(under[i : i + 2], 16) * (1 - share)):02x}" for i in (1, 3, 5))


def test_contrast_is_enough_in_every_scheme(whole: Path) -> None:
    """WCAG 2.2 AA: 4.5 for text, 3 for the lines of a chart."""
    (style,) = report(whole).named("style")
    found = [dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", block)) for block in re.findall(r"(?::root|\.chart) \{([^}]*)\}", style)]
    page = [block for block in found if "bg" in block]
    assert len(page) == 3
    for colours in page:
        for text in ("ink", "soft", "accent", "good", "bad"):
            for ground in ("bg", "sunk"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["ink"], blend(colours["accent"], 0.42, colours["sunk"])) >= 4.5
    charts = [block for block in found if "c1" in block]
    assert len(charts) == 2
    for colours, outside in zip(charts, page, strict=False):
        for ground in (colours["paper"], outside["bg"]):
            assert contrast(colours["soft"], ground) >= 4.5
            assert all(contrast(colours[f"c{i}"], ground) >= 3 for i in range(1, 5))


def test_a_browser_opens_it_from_disk_without_a_request_or_a_complaint(whole: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    url = write_report(whole).as_uri()
    with sync_playwright() as player:
        launched = player.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for width in (390, 1200):
            page = launched.new_context(viewport={"width": width, "height": 900}).new_page()
            requests: list[str] = []
            complaints: list[str] = []
            page.on("request", lambda request, seen=requests: seen.append(request.url))
            page.on("console", lambda message, seen=complaints: seen.append(message.text))
            page.goto(url)
            assert requests == [url] and complaints == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        launched.close()
