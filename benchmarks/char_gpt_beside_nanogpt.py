"""The recipe `char-gpt-shakespeare` beside nanoGPT as its README starts it on a CPU: wall time, and the loss on the last tenth of the text.

    python benchmarks/char_gpt_beside_nanogpt.py --nanogpt FOLDER [--text FILE] [--rounds 3 --out runs/char-gpt]

FOLDER is a checkout of https://github.com/karpathy/nanoGPT; its files are copied, and nothing is written into it. FILE is its text, as .txt
or .txt.gz; without, $LEXLOOM_DATA/tinyshakespeare/input.txt.gz. Theirs is `train.py` as its README starts it on a CPU, over what its
prepare.py made of the text, which is not counted. Ours is `lexloom run`, from the text to bundle and report, with an empty cache of
compiled code: all is counted. The loss is in nats a character over the same text, in stretches of 64 characters: theirs as it says it
itself, over 500 batches drawn at random; ours over all of it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from _generating import perplexity
from _paired import paired, ratios, seconds

from lexloom import compute
from lexloom.hub.bundle import Bundle

RECIPE = Path(__file__).parents[1] / "recipes" / "char-gpt-shakespeare.yaml"
CONTEXT = 64
# What nanoGPT's README says for a CPU.
THEIRS = "device=cpu compile=False eval_iters=20 log_interval=1 block_size=64 batch_size=12 n_layer=4 n_head=4 n_embd=128 max_iters=2000"
THEIRS += " lr_decay_iters=2000 dropout=0.0"
JUDGED = "init_from=resume eval_only=True eval_iters=500"
VARIABLES = {"OMP_NUM_THREADS": str(compute.cores())}


def copied(nanogpt: Path, text: str, out: Path) -> Path:
    """What training needs of nanoGPT, with its data made of the text by its own script."""
    if not (nanogpt / "train.py").is_file():
        raise SystemExit(f"no train.py in {nanogpt}")
    for name in ("train.py", "model.py", "configurator.py", "config/train_shakespeare_char.py", "data/shakespeare_char/prepare.py"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(nanogpt / name, out / name)
    data = out / "data" / "shakespeare_char"
    (data / "input.txt").write_text(text, encoding="utf-8")
    (data / "requests.py").write_text("", encoding="utf-8")  # it is asked for where the text is there, too
    subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, stdout=subprocess.DEVNULL)
    return out


def train_theirs(folder: Path, settings: str = THEIRS) -> str:
    """Runs train.py; what it said."""
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *(f"--{setting}" for setting in settings.split())]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | VARIABLES).stdout


def loss_theirs(folder: Path) -> float:
    """Of what it saved, which is its best."""
    said = re.findall(r"val loss ([\d.]+)", train_theirs(folder, f"{THEIRS} {JUDGED}"))
    return float(said[-1])


def train_ours(text: Path, run: Path) -> None:
    """The whole recipe, compiling included."""
    shutil.rmtree(run, ignore_errors=True)
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "lexloom", "run", str(RECIPE), "--out", str(run), "-q", "--set", f"prepare.sources=[{text}]"]
        subprocess.run(command, check=True, env=os.environ | VARIABLES | {"TORCHINDUCTOR_CACHE_DIR": cache}, stdout=subprocess.DEVNULL)


def loss_ours(run: Path, text: str) -> float:
    """On the tenth of the text that nanoGPT keeps for validation."""
    bundle = Bundle.load(run / "pretrain" / "bundle")
    ids = torch.from_numpy(bundle.tokenizer.encode_plain([text[int(len(text) * 0.9) :]])[0]).long()
    return math.log(perplexity(bundle._answering(), ids.unfold(0, CONTEXT + 1, CONTEXT)))


def tell(run: Path) -> None:
    """Where our time went."""
    stages = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.glob("*/summary.json"))}
    for name, found in stages.items():
        print(f"of which {name}: {found['seconds']:.1f} s; {found['compute']['dtype']}, compiled: {found['compute']['compile']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("LEXLOOM_DATA")
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--text", type=Path, default=Path(data) / "tinyshakespeare" / "input.txt.gz" if data else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/char-gpt"))
    options = parser.parse_args()
    if options.nanogpt is None or options.text is None:
        print("not run: give --nanogpt, and --text or set LEXLOOM_DATA")
        return
    raw = options.text.read_bytes()
    text = (gzip.decompress(raw) if options.text.suffix == ".gz" else raw).decode("utf-8")
    run = options.out.absolute() / "run"
    with tempfile.TemporaryDirectory() as scratch:
        folder = copied(options.nanogpt, text, Path(scratch))
        works = {"lexloom": partial(train_ours, options.text.absolute(), run), "nanoGPT": partial(train_theirs, folder)}
        times = paired({name: partial(seconds, work) for name, work in works.items()}, rounds=options.rounds, warmup=0)
        for name, took in times.items():
            print(f"{name}: {statistics.median(took):.1f} s ({', '.join(f'{one:.1f}' for one in took)})", flush=True)
        tell(run)
        found = ratios(times, "lexloom", "nanoGPT")
        print(f"lexloom / nanoGPT: {statistics.median(found):.2f} × ({min(found):.2f} to {max(found):.2f})")
        print(f"validation loss: lexloom {loss_ours(run, text):.4f}, nanoGPT {loss_theirs(folder):.4f}")


if __name__ == "__main__":
    main()
