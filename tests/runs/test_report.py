"""The report of a run: whole, partial, hostile and damaged run folders, written here as the stages would write them."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lexloom import files
from lexloom.errors import LexloomError
from lexloom.runs.report import first_sentence, loose, text_report, write_report
from lexloom.runs.report.gather import gather
from tests.runs.madeup import CORPUS, MOOD, PRETRAIN, SHARDS, TOKENIZER, WARDS, write_bundle, write_log, write_run
from tests.runs.page import check, report

HOSTILE = (
    "</style></title><script>alert(1)</script>\"'><img src=https://evil.example/x onerror=alert(2)>{{ 7*7 }}{% x %}&lt;\x1b[2J\u202e\u2028"
)


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
