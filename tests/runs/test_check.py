"""Check: clean data raise nothing, each corruption raises its own finding, and what a run will take is what it takes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lexloom.console import Console
from lexloom.errors import ConfigError, DataError
from lexloom.hub.bundle import Bundle
from lexloom.models.base import Network
from lexloom.models.bert import Bert
from lexloom.objectives.base import Vocabulary
from lexloom.objectives.masked_lm import MaskedLM
from lexloom.objectives.next_sentence import NextSentence
from lexloom.objectives.together import Together
from lexloom.runs.check import check, is_recipe, needs, show, splits_of
from lexloom.runs.check.faults import is_garbled
from lexloom.runs.check.findings import Findings
from lexloom.text.tokenizer import TokenizerConfig, train_tokenizer
from lexloom.train.step import Step

QUIET = Console(quiet=True)
SHARED = [first + second for first in "bdfgklmnprst" for second in ("alo", "emi", "ora", "uni", "isa", "eka", "ovo", "ita")]
GOOD, BAD = ["lovely", "superb", "warm", "witty"], ["dreadful", "dull", "stale", "clumsy"]
Rows = list[dict[str, Any]]


def clean(n: int, seed: int) -> Rows:
    """Texts that differ in nearly all words, under two labels that their words tell."""
    draw = random.Random(seed)
    rows = []
    for _ in range(n):
        label = draw.choice(["good", "bad"])
        words = [*draw.choices(SHARED, k=draw.randint(8, 16)), draw.choice(GOOD if label == "good" else BAD)]
        draw.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def causes(findings: Findings, *levels: str) -> set[str]:
    return {finding.cause for finding in findings.found if finding.level in (levels or ("error", "warning"))}


def looked(path: Path, **options: Any) -> Findings:
    return check(path, console=QUIET, **options)


def corrupted(tmp_path: Path, rows: Rows, **options: Any) -> Findings:
    return looked(write(tmp_path / "rows.jsonl", rows), **options)


def test_clean_data_raise_nothing(tmp_path: Path, bundle_folder: Path) -> None:
    for name, n, seed in (("train.jsonl", 900, 1), ("dev.jsonl", 100, 2), ("test.jsonl", 100, 3)):
        write(tmp_path / "data" / name, clean(n, seed))
    found = looked(tmp_path / "data", tokenizer=bundle_folder)
    assert causes(found) == set() and found.exit_code == 0
    labels, lengths = found.tables
    assert {row["label"]: row["train"] + row["validation"] + row["test"] for row in labels.rows}.keys() == {"good", "bad"}
    assert [row["rows"] for row in lengths.rows] == [900, 100, 100]
    first = lengths.rows[0]
    texts = [row["text"] for row in clean(900, 1)]
    assert first["characters_max"] == max(map(len, texts)) and first["tokens_max"] >= 17 and first["unknown"] == 0.0
    assert sum(len(text) <= first["characters_50"] for text in texts) >= 450


def test_clean_texts_of_other_scripts_raise_nothing(tmp_path: Path) -> None:
    han, french = (
        [chr(0x4E00 + 7 * i) for i in range(900)],
        ["été", "garçon", "où", "naïve", "cœur", "Noël", "hôtel", "façade", "âge", "œuvre"],
    )
    draw = random.Random(1)
    for name, texts in (
        ("zh.txt", ["".join(draw.choices(han, k=20)) for _ in range(300)]),
        ("fr.txt", [" ".join(draw.choices(french + SHARED, k=9)) for _ in range(300)]),
        ("ru.csv", ["text", *(" ".join(draw.choices([f"сл{w}" for w in SHARED], k=9)) for _ in range(300))]),
    ):
        (tmp_path / name).write_text("\n".join(texts), "utf-8")
        assert causes(looked(tmp_path / name)) == set(), name


def test_duplicated_lines(tmp_path: Path) -> None:
    rows = clean(300, 1)
    found = corrupted(tmp_path, rows + rows[:40])
    (finding,) = found.of("duplicates")
    assert finding.level == "warning" and finding.place.endswith("rows.jsonl:301") and "40 of 340 rows" in finding.what
    near = [{**row, "text": row["text"] + " oh"} for row in rows[:30] if len(row["text"].split()) > 13]
    assert any("nearly equal" in finding.what for finding in corrupted(tmp_path, rows + near).of("duplicates"))


@pytest.mark.parametrize(
    ("damage", "share"),
    [
        (lambda text: text.encode("utf-8").decode("cp1252", "ignore"), 1.0),
        (lambda text: text.encode("utf-8").decode("latin-1"), 0.1),
        (lambda text: text.encode("ascii", "replace").decode().replace("?", "\ufffd"), 1.0),
        (lambda text: "这个电影真的非常好看".encode("gb18030").decode("latin-1") + text, 1.0),
        (lambda text: "这个电影真的非常好看很好".encode().decode("gb18030", "ignore") + text, 1.0),
    ],
)
def test_wrong_encodings(damage: Any, share: float, tmp_path: Path) -> None:
    rows = [{**row, "text": row["text"] + " garçon été"} for row in clean(200, 1)]
    assert "encoding" not in causes(corrupted(tmp_path, rows))
    damaged = [{**row, "text": damage(row["text"])} if i < share * len(rows) else row for i, row in enumerate(rows)]
    found = corrupted(tmp_path, damaged).of("encoding")
    assert found and found[0].level == "warning" and found[0].place.endswith("rows.jsonl:1") and found[0].do


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    texts = [f"{row['text']} garçon" for row in clean(100, 1)]
    (tmp_path / "in.csv").write_bytes("\n".join(["text,label", *(f"{text},{i % 2}" for i, text in enumerate(texts))]).encode("cp1252"))
    found = looked(tmp_path / "in.csv")
    assert "encoding" in causes(found) and found.exit_code == 3  # no row is left
    assert any("in.csv:2" in finding.place and "cp1252" in str(finding.do) for finding in found.of("encoding"))
    assert causes(looked(tmp_path / "in.csv", encoding="cp1252")) <= {"labels without words"}


@pytest.mark.parametrize(
    "text", ["naïve café", "你好，世界", "Ünïcödé ñandú", "“quoted” – dash…", "наш дом", "日本語のテキスト", "😀 ok", "Â", "ÀÉÎ"]
)
def test_right_texts_are_not_garbled(text: str) -> None:
    assert not is_garbled(text)


def test_one_label_alone(tmp_path: Path) -> None:
    rows = [{**row, "label": "good"} for row in clean(100, 1)]
    found = corrupted(tmp_path, rows)
    assert causes(found, "error") == {"one label"} and found.exit_code == 3
    sampled = corrupted(tmp_path, [*rows, {"text": "other", "label": "bad"}], max_rows=50)
    assert sampled.of("one label")[0].level == "warning" and "the first 50 rows" in sampled.of("sampled")[0].what


def test_labels_that_were_shuffled_or_never(tmp_path: Path) -> None:
    rows = clean(900, 1)
    labels = [row["label"] for row in rows]
    random.Random(5).shuffle(labels)
    shuffled = corrupted(tmp_path, [{**row, "label": label} for row, label in zip(rows, labels, strict=True)])
    assert causes(shuffled) == {"labels without words"}
    in_order = corrupted(tmp_path, sorted(rows, key=lambda row: row["label"]))
    assert causes(in_order) == {"sorted by label"}


def test_text_that_a_tokenizer_does_not_know(tmp_path: Path, bundle_folder: Path) -> None:
    rows = [{**row, "text": " ".join("ไทย" + chr(0xE01 + i % 40) for i in range(j, j + 9))} for j, row in enumerate(clean(60, 1))]
    found = corrupted(tmp_path, rows, tokenizer=bundle_folder)
    (finding,) = found.of("unknown tokens")
    assert finding.level == "error" and "100.0%" in finding.what and found.exit_code == 3


def test_overlap_of_rows_and_groups(tmp_path: Path) -> None:
    train, test = clean(300, 1), clean(100, 2)
    write(tmp_path / "train.jsonl", [{**row, "patient": i % 30} for i, row in enumerate(train)])
    nearly = {**train[8], "text": " ".join(train[8]["text"].split() * 3)}
    train[8]["text"] = nearly["text"] + " end"
    write(tmp_path / "train.jsonl", [{**row, "patient": i % 30} for i, row in enumerate(train)])
    write(tmp_path / "test.jsonl", [{**row, "patient": 29 + i} for i, row in enumerate([*test, *train[:3], nearly])])
    found = looked(tmp_path, group="patient")
    exact, near = found.of("overlap")
    assert "3 of 104 rows of test" in exact.what and exact.place.endswith("test.jsonl:101") and exact.level == "warning"
    assert "nearly" in near.what and near.place.endswith("test.jsonl:104") and "train.jsonl:9" in near.what
    assert "1 of 104 rows" in found.of("overlap of groups")[0].what and found.exit_code == 0
    write(tmp_path / "test.jsonl", train)
    assert looked(tmp_path).of("overlap")[0].level == "error"


def test_bad_and_unusable_rows_have_their_places(tmp_path: Path) -> None:
    rows = [json.dumps(row) for row in clean(50, 1)]
    rows[3], rows[7], rows[9] = "{broken", '{"text": "no label here"}', '{"text": null, "label": "good"}'
    (tmp_path / "in.jsonl").write_bytes("\r\n".join(rows).encode())
    found = looked(tmp_path / "in.jsonl")
    assert [finding.place.rsplit(":", 1)[1] for finding in found.of("bad rows")] == ["4"]
    assert {finding.place.rsplit(":", 1)[1] for finding in found.of("unusable rows")} == {"8", "10"} and found.exit_code == 3
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert causes(looked(tmp_path / "empty.jsonl")) == {"empty"}
    (tmp_path / "broken.jsonl").write_text("{broken\n{broken\n")
    broken = looked(tmp_path / "broken.jsonl")
    assert causes(broken) == {"empty", "bad rows"} and broken.of("bad rows")[0].places == (
        f"{tmp_path}/broken.jsonl:1",
        f"{tmp_path}/broken.jsonl:2",
    )


def test_empty_conflicting_rare_and_unseen(tmp_path: Path) -> None:
    rows = clean(300, 1)
    empty = corrupted(tmp_path, [*rows, *({"text": " \t", "label": "good"} for _ in range(4))])
    assert "4 of 304 rows are empty" in empty.of("empty texts")[0].what
    torn = [{**row, "label": "bad" if row["label"] == "good" else "good"} for row in rows[:5]]
    conflicts = corrupted(tmp_path, [*rows, *torn]).of("conflicting labels")
    assert conflicts[0].level == "warning" and "5 rows" in conflicts[0].what and conflicts[0].place.endswith(":301")
    rare = [*rows, {"text": "quite another thing here", "label": "odd"}]
    assert {"imbalance", "rare labels"} <= causes(corrupted(tmp_path, rare))
    (tmp_path / "rows.jsonl").unlink()
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", rare[-4:])
    (unseen,) = looked(tmp_path).of("unseen labels")
    assert "'odd'" in unseen.what and unseen.place.endswith("test.jsonl:4") and unseen.level == "error"


def test_splits_by_name(tmp_path: Path) -> None:
    for name in ("train-00000.jsonl", "train-00001.jsonl", "valid.jsonl.gz", "test_2016.csv", "trainer.jsonl"):
        (tmp_path / name).write_text("")
    assert {name: [file.name for file in files] for name, files in splits_of(tmp_path).items()} == {
        "train": ["train-00000.jsonl", "train-00001.jsonl"],
        "validation": ["valid.jsonl.gz"],
        "test": ["test_2016.csv"],
    }


def test_mistakes_become_findings(tmp_path: Path) -> None:
    missing = looked(tmp_path / "nothing.jsonl")
    assert missing.exit_code == 2 and "does not exist" in missing.errors[0].what
    write(tmp_path / "in.jsonl", clean(10, 1))
    wrong = looked(tmp_path / "in.jsonl", columns={"text": "txet"})
    assert wrong.exit_code == 3 and wrong.errors[0].do == "did you mean 'text'?"
    assert is_recipe(tmp_path / "a.yml") and not is_recipe(tmp_path / "in.jsonl")
    (tmp_path / "recipe.json").write_text('{"finetune": {}, "nam": "x"}')
    (tmp_path / "rows.json").write_text(json.dumps(clean(5, 1)))
    assert is_recipe(tmp_path / "recipe.json") and not is_recipe(tmp_path / "rows.json")
    assert "did you mean 'name'?" in str(looked(tmp_path / "recipe.json").errors[0].do)


def test_findings_are_shown_worst_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Findings("x")
    found.add("fact", "a", "x:1", "good to know", "never mind")
    found.add("warning", "b", "x:2", "look \x1b[31mhere", "mend it", places=["x:2", "x:3"])
    found.take(DataError("it is broken", expected="whole", got="half", where="x:9", hint="glue"), "c")
    found.take(ConfigError.together([ConfigError("one", where="r:1"), ConfigError("two", where="r:2", hint="so")]), "config")
    found.table("counts", {"n": "number"}, [{"n": 1}])
    show(found, QUIET)
    text = capsys.readouterr().out
    order = [
        text.index(part) for part in ("counts", "x:9: it is broken: half; expected: whole", "r:2: two", "look", "good to know", "3 errors")
    ]
    assert order == sorted(order) and "\x1b" not in text and "also at:  x:3" in text and "never mind" not in text
    assert found.exit_code == 2 and json.loads(json.dumps(found.plain()))["errors"] == 3
    show(found, Console(json=True))
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.plain()))


# recipes


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer([row["text"] for row in clean(400, 9)], TokenizerConfig(vocab_size=400)).with_max_length(32)
    config = Bert.Config.read({**Bert.TINY, "vocab_size": len(tokenizer)})
    network = Network.build(Bert, config, {"masked-lm"}, seed=1)
    return Bundle(network, tokenizer).save(tmp_path_factory.mktemp("bundles") / "tiny")


RECIPE = """
name: small
prepare: {{sources: [texts/], language: auto}}
tokenizer: {{vocab_size: 500}}
pretrain:
  model: {{kind: bert, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}}
  objective: [masked-lm, next-sentence]
  train: {{{amount}, batch_tokens: 512, length: {{32: 0.5, 64: 0.5}}, compile: false, dtype: float32}}
finetune:
  mood: {{task: text-classification, data: {{train: mood/train.jsonl, test: mood/test.jsonl}}, train: {{seeds: 2}}}}
"""


def documents(n: int = 150, seed: int = 1) -> list[str]:
    """Texts of a few sentences."""
    rows = [row["text"].capitalize() for row in clean(2 * n, seed)]
    return [f"{rows[i]}. {rows[i + 1]}." for i in range(0, len(rows), 2)]


def recipe(tmp_path: Path, amount: str = "tokens: 40k") -> Path:
    write(tmp_path / "texts" / "a.jsonl", [{"text": text} for text in documents()[:100]])
    (tmp_path / "texts" / "b.txt").write_text("\n".join(documents()[100:]))
    write(tmp_path / "mood" / "train.jsonl", clean(300, 2))
    write(tmp_path / "mood" / "test.jsonl", clean(60, 3))
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(amount=amount))
    return tmp_path / "recipe.yaml"


def _table(found: Findings, title: str) -> dict[str, dict[str, Any]]:
    table = next(table for table in found.tables if table.title.startswith(title))
    return {str(next(iter(row.values()))): dict(row) for row in table.rows}


def test_a_clean_recipe(tmp_path: Path) -> None:
    found = looked(recipe(tmp_path), out=tmp_path / "run")
    assert causes(found) == set() and found.exit_code == 0 and not (tmp_path / "run").exists()
    config = Bert.Config.read(
        {
            "vocab_size": 500,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
        }
    )
    real = Network.build(Bert, config, {"masked-lm", "next-sentence"}, seed=1)
    counted = _table(found, "parameters")["pre-training"]
    assert counted["total"] == sum(p.numel() for p in real.parameters())
    assert counted["embedding"] == (500 + 64 + 2) * 32 and counted["heads"] == sum(p.numel() for p in real.heads.parameters()) - 500 * 32
    steps = next(table for table in found.tables if table.title.startswith("steps")).rows
    assert [(row["length"], row["rows"], row["steps"]) for row in steps] == [(32, 16, 40), (64, 8, 40)]
    characters = sum(map(len, documents())) + 49
    assert f"{characters / 1000:.3g}k characters" in found.of("text")[0].what and "rule of thumb" in found.of("text")[0].what
    disk, total = _table(found, "disk"), counted["total"]
    assert disk["pre-training: checkpoints and bundle"]["bytes"] == total * 40 and "mood: checkpoints and bundles of 2" in disk
    assert disk["in all"]["bytes"] == pytest.approx(
        sum(row["bytes"] for name, row in disk.items() if name not in ("in all", "free")), abs=9
    )
    assert _table(found, "memory of pre-training")["masters"]["bytes"] == 4 * total


def test_tokens_of_a_character_tokenizer_are_its_characters(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    [told] = looked(path, out=tmp_path / "run", overrides=["tokenizer={kind: char}"]).of("text")
    characters, tokens = re.search(r"about (\S+) characters, (\S+) tokens", told.what).groups()  # type: ignore[union-attr]
    assert characters == tokens


def test_a_tokenizer_that_is_there_is_asked(tmp_path: Path) -> None:
    path = recipe(tmp_path, "epochs: 2")
    tokenizer = train_tokenizer(documents(), TokenizerConfig(vocab_size=300))
    tokenizer.save(tmp_path / "run" / "tokenizer")
    found = looked(path, out=tmp_path / "run", timed=True)
    assert causes(found) == set() and "by the tokenizer" in found.of("text")[0].what
    assert {"padding", "hours", "passes"} <= causes(found, "fact")
    tokens = sum(len(ids) for ids in tokenizer.encode_plain(documents()))
    planned = sum(row["tokens"] for row in next(table for table in found.tables if table.title.startswith("steps")).rows)
    assert planned == pytest.approx(2 * tokens, abs=2 * 512)  # whole steps of two lengths
    lengths = _table(found, "lengths of mood")["train"]
    assert lengths["tokens_max"] == max(len(ids) for ids in tokenizer.encode_plain([row["text"] for row in clean(300, 2)]))


def test_mistakes_of_a_recipe_are_all_told(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    path.write_text(
        path.read_text().replace("seeds: 2", "seedz: 2").replace("epochs", "epohcs").replace("batch_tokens: 512", "batch_size: 512")
    )
    found = looked(path)
    assert found.exit_code == 2 and len(found.errors) == 2 and all(f"{path}:" in finding.place for finding in found.errors)
    assert {str(finding.do) for finding in found.errors} == {"did you mean 'seeds'?", "did you mean 'batch_tokens'?"}
    path.write_text(RECIPE.format(amount="tokens: 40k").replace("[texts/]", "[text/]").replace("kind: bert,", "kind: brat,"))
    assert len(looked(path).errors) == 2


def test_what_a_recipe_cannot_do(tmp_path: Path, bundle_folder: Path) -> None:
    little = looked(recipe(tmp_path, "steps: 100"), overrides=["pretrain.train.batch_tokens=1M"])
    assert little.of("too little text")[0].level == "error"
    often = looked(recipe(tmp_path, "tokens: 2M"))
    assert often.of("too little text")[0].level == "warning"
    short = looked(recipe(tmp_path), overrides=["pretrain.model.max_position_embeddings=40"])
    assert short.exit_code == 2 and "beyond the model's positions" in short.errors[0].what
    huge = looked(recipe(tmp_path), overrides=["pretrain.model.hidden_size=65536"])
    assert {"memory", "disk"} <= causes(huge, "error") and huge.exit_code == 2
    single = looked(recipe(tmp_path), overrides=["prepare.documents=line"])
    assert causes(single) == set()
    write(tmp_path / "texts" / "a.jsonl", clean(300, 1))
    (tmp_path / "texts" / "b.txt").unlink()
    assert causes(looked(tmp_path / "recipe.yaml"), "error") == {"single sentences"}
    words = looked(recipe(tmp_path), overrides=["prepare.language=zh"])
    assert causes(words) == {"language"}
    broken = looked(recipe(tmp_path), overrides=[f"finetune.mood.from={tmp_path / 'mood'}"])
    assert any("not a model folder" in finding.what for finding in broken.errors)


def test_a_task_on_a_bundle(tmp_path: Path, bundle_folder: Path) -> None:
    rows = clean(300, 1)
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", [*clean(50, 2), {"text": "alo", "label": "odd"}])
    value = {
        "finetune": {
            "mood": {"task": "text-classification", "from": str(bundle_folder), "data": {"train": "train.jsonl", "test": "test.jsonl"}}
        }
    }
    (tmp_path / "recipe.json").write_text(json.dumps(value))
    found = looked(tmp_path / "recipe.json")
    assert causes(found) == {"unseen labels"} and found.errors[0].place.endswith("test.jsonl:51") and found.exit_code == 3
    cut = looked(tmp_path / "recipe.json", overrides=["finetune.mood.train.max_length=12"])
    assert {"unseen labels", "long texts"} == causes(cut) and _table(cut, "lengths of mood")["train"]["over"] > 30
    write(tmp_path / "train.jsonl", [{**row, "label": 1} for row in rows])
    assert causes(looked(tmp_path / "recipe.json"), "error") == {"one label"}


# what training takes


def _objective(size: int) -> Together:
    vocabulary = Vocabulary(size, 4, frozenset(range(5)), {"input_ids": 0, "token_type_ids": 0})
    return Together([MaskedLM(MaskedLM.Config(), vocabulary), NextSentence(NextSentence.Config(), vocabulary)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_without_storage_takes_what_a_real_one_does(dtype: str) -> None:
    config, objective = Bert.Config.read({**Bert.TINY, "vocab_size": 1000}), _objective(1000)
    meta = Network.planned(Bert, config, objective.roles).to(getattr(torch, dtype))
    batch = needs.example(objective, 6, 32)
    real = Step(Network.build(Bert, config, objective.roles, seed=1).to(getattr(torch, dtype)), objective)
    with needs.Live() as live:
        torch.stack(list(real(batch.tensors).values())).sum().backward()
    assert needs.step_bytes(meta, objective, batch) == pytest.approx(live.peak, rel=0.02)
    assert all(p.is_meta and p.grad is None for p in meta.parameters())


def test_memory_grows_with_the_micro_batch_and_shrinks_with_the_dtype() -> None:
    config, objective = Bert.Config.read({**Bert.TINY, "vocab_size": 1000}), _objective(1000)
    found = [
        needs.memory(Network.planned(Bert, config, objective.roles), objective, rows=rows, length=32, dtype=dtype)
        for rows, dtype in ((8, "float32"), (64, "float32"), (64, "bfloat16"))
    ]
    assert found[0].step * 4 < found[1].step and found[2].step < 0.8 * found[1].step
    assert found[0].weights == 0 and found[2].weights * 2 == found[2].masters
    assert found[1].least == needs.PROGRAM_BYTES + 4 * found[1].masters + found[1].step
    assert found[1].peak == found[1].least + 3 * found[1].masters


MEASURED = """
import resource, sys, lexloom
from lexloom.console import Console
lexloom.run(sys.argv[1], out=sys.argv[2], console=Console(quiet=True))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_the_estimate_of_memory_is_near_a_real_run(tmp_path: Path, in_child: Any) -> None:
    settings = {"kind": "bert", "preset": "bert-tiny"}
    write(tmp_path / "texts" / "a.jsonl", [{"text": " ".join(documents(30, seed))} for seed in range(60)])
    train = {"steps": 4, "batch_tokens": 4096, "length": 128, "compile": False, "dtype": "float32"}
    value: dict[str, Any] = {"prepare": {"sources": ["texts/"], "split": {"validation": 0.2}}, "tokenizer": {"vocab_size": 800}}
    value["pretrain"] = {"model": settings, "objective": ["masked-lm", "next-sentence"], "train": train}
    (tmp_path / "recipe.json").write_text(json.dumps({"prepare": value["prepare"], "tokenizer": value["tokenizer"]}))
    in_child(MEASURED, tmp_path / "recipe.json", tmp_path / "run")
    (tmp_path / "recipe.json").write_text(json.dumps(value))
    peak = int(in_child(MEASURED, tmp_path / "recipe.json", tmp_path / "run").split()[-1])
    found = looked(tmp_path / "recipe.json", out=tmp_path / "run")
    assert _table(found, "memory of pre-training")["peak"]["bytes"] == pytest.approx(peak, rel=0.2)
