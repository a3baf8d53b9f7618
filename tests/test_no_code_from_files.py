"""X01: nothing that is opened can run code. The source is read for what unpickles; a hook watches while every kind of file is opened.

More that the source must not do is in `tests/test_safety.py`.
"""

from __future__ import annotations

import ast
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import test_safety, tiny

FORMATS = sorted((Path(__file__).parent / "fixtures").glob("format-*"))
SAFE_READERS = {"HuggingFaceStorageReader", "HuggingFaceStorageWriter"}
"""Of `torch.distributed.checkpoint` only these keep to safetensors; its own metadata are a pickle."""
NAMES = {  # named in X01; `test_safety.py` must go on refusing each
    "import pickle": "",
    "import joblib": "",
    "import dill": "",
    "import marshal": "",
    "import shelve": "",
    "import yaml": "",
    "torch.load('x')": "import torch",
    "np.load('x', allow_pickle=True)": "import numpy as np",
    "eval('1')": "",
    "exec('1')": "",
    "os.system('ls')": "import os",
    "subprocess.run('ls', shell=True)": "import subprocess",
}


def unsafe_readers(package: Path) -> list[str]:
    """Uses of `torch.distributed.checkpoint` beside its safetensors storage: `file:line`."""
    found = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if _unsafe(node):
                found.append(f"{file.relative_to(package).as_posix()}:{node.lineno}")  # type: ignore[attr-defined]
    return found


def _unsafe(node: ast.AST) -> bool:
    module = "torch.distributed.checkpoint"
    if isinstance(node, ast.ImportFrom) and node.module == "torch.distributed":
        return any(alias.name == "checkpoint" for alias in node.names)
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(module):
        return any(alias.name not in SAFE_READERS for alias in node.names)
    if isinstance(node, ast.Import):
        return any(alias.name.startswith(module) for alias in node.names)
    return isinstance(node, ast.Attribute) and ast.unparse(node).endswith(("distributed.checkpoint", "dist.checkpoint"))


def test_the_package_reads_no_checkpoint_that_is_a_pickle() -> None:
    assert unsafe_readers(test_safety.PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "import torch.distributed.checkpoint as dcp",
        "from torch.distributed import checkpoint",
        "from torch.distributed.checkpoint import FileSystemReader",
        "from torch.distributed.checkpoint.state_dict_loader import load",
        "import torch\ntorch.distributed.checkpoint.load({})",
        "import torch.distributed as dist\ndist.checkpoint.load({})",
    ],
)
def test_a_planted_reader_is_seen(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(line + "\n", encoding="utf-8")
    assert unsafe_readers(tmp_path)


def test_the_safetensors_storage_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("from torch.distributed.checkpoint import HuggingFaceStorageReader\n", encoding="utf-8")
    assert unsafe_readers(tmp_path) == []


@pytest.mark.parametrize("line", NAMES)
def test_each_name_of_the_list_is_refused_in_the_source(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(f"{NAMES[line]}\n{line}\n", encoding="utf-8")
    assert test_safety.dangers(tmp_path)


# What is opened runs nothing. Libraries are imported before: what an import does is `test_safety.py`'s business.
WATCHED = """
import sys
from pathlib import Path

import numpy, pyarrow.parquet, safetensors.torch, sklearn.linear_model, torch
import lexloom
from lexloom import files
from lexloom.hub.bundle import Bundle
from lexloom.runs import evaluate, finetune, pretrain, replay, report, verify
from lexloom.runs.predict import stream
from lexloom.text.corpus import Corpus
from lexloom.text.pack import open_packing
from lexloom.text.rows import read_rows
from lexloom.text.quarantine import Quarantine
from lexloom.text.shards import Shards
from lexloom.text.tokenizer import Tokenizer
from lexloom.train import checkpoint

FORBIDDEN = "pickle.find_class subprocess.Popen os.system os.exec os.fork os.posix_spawn socket.connect".split()
armed, seen = False, []

def watch(event, arguments):
    if armed and event in FORBIDDEN:
        seen.append((event, str(arguments)[:200]))

sys.addaudithook(watch)
run, rows = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]

def opened(what):
    print("opened", what)
"""
OPEN = """
armed = True
corpus = Corpus.open(run / "corpus")
assert sum(1 for split in corpus.splits for _ in corpus.documents(split)) > 100
opened("corpus")
assert len(Tokenizer.load(run / "tokenizer").encode_plain(["the river"])[0])
opened("tokenizer")
shards = Shards.open(run / "shards", verify=True)
for path in (run / "shards" / "packings").iterdir():
    split = shards.split(path.name.partition("-")[0])
    assert open_packing(path, split).rows([0])
    opened("packing")
opened("shards")
for path in sorted(run.rglob("bundle")):
    bundle = lexloom.load(path)
    assert bundle.embed(["the river"]).shape[0] == 1
    opened(f"bundle {path.relative_to(run)}")
assert lexloom.predict(run / "finetune" / "topics" / "bundle", ["the river"])
assert lexloom.predict(run / "finetune" / "topics" / "baselines" / "tfidf", ["the river"])
opened("tfidf")
for folder in sorted(run.rglob("checkpoints")):
    found, complaints = checkpoint.latest(folder)
    assert found is not None and not complaints
    if found.best is not None:
        assert checkpoint.load_best(folder, found.best.step)
    opened(f"checkpoint {folder.relative_to(run)}")
for path in rows:
    with Quarantine() as bad:
        assert sum(1 for _ in read_rows(path, bad=bad)) == 3, path
    opened(path.name)
for path in run.rglob("*.json"):
    files.read_json(path)
armed = False
assert not seen, seen
"""
ALARM = """
import pickle, socket, subprocess
armed = True
pickle.loads(pickle.dumps(Path))
subprocess.run([sys.executable, "-c", ""])
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
armed = False
assert {event for event, _ in seen} >= {"pickle.find_class", "subprocess.Popen", "socket.connect"}, seen
"""


def rows(folder: Path) -> list[Path]:
    """The same three rows in every format that rows come in."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = [{"text": tiny.sentence(i), "label": "a" if i else "b"} for i in range(3)]
    lines = "".join(json.dumps(row) + "\n" for row in found)
    table = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in found)
    made = [folder / f"rows.{ending}" for ending in ("jsonl", "jsonl.gz", "csv", "tsv", "parquet")]
    made[0].write_text(lines, encoding="utf-8")
    made[1].write_bytes(gzip.compress(lines.encode()))
    made[2].write_text(table, encoding="utf-8")
    made[3].write_text(table.replace(",", "\t"), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(found), made[4])
    return made


@pytest.mark.parametrize("home", FORMATS, ids=[home.name for home in FORMATS])
def test_what_is_opened_unpickles_nothing_starts_nothing_and_connects_to_nothing(
    home: Path, tmp_path: Path, child_environment: dict[str, str]
) -> None:
    run = Path(shutil.copytree(home / "run", tmp_path / "run"))
    opened = watched(OPEN, child_environment, run, *rows(tmp_path))
    assert len([line for line in opened if "bundle" in line]) >= 3 and len([line for line in opened if "checkpoint" in line]) >= 2
    assert {"opened corpus", "opened tokenizer", "opened shards", "opened packing", "opened tfidf", "opened rows.parquet"} <= set(opened)


def test_the_hook_sees_what_it_watches_for(tmp_path: Path, child_environment: dict[str, str]) -> None:
    watched(ALARM, child_environment, tmp_path)


def watched(code: str, environment: dict[str, str], *arguments: Path) -> list[str]:
    """The lines that code says under the hook, in a process of its own."""
    command = [sys.executable, "-c", WATCHED + code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()
