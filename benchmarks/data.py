"""Large data: seconds and peak memory of `zolite data check` and of what `train` does before it loads the weights.

    python benchmarks/data.py                       a million rows and ten thousand; benchmarks/results/data.json
    python benchmarks/data.py --rows 50000 --out .

Rows are Alpaca's shape, 400 to 600 bytes each, from a seed. Memory is that of all processes together (RSS, so pages of
files that are mapped count), looked at every 50 ms. `prepare` is done twice: tokens are made, and found in the cache.
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from common import RESULTS, write

MODEL = "builtin:smollm2-135m"
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
PREPARE = """
import sys, time
from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.data import rows
from zolite.data.chat_template import chat_of, filled
from zolite.model import load as models
from zolite.training.prepare import encode_all
began = time.perf_counter()
recipe = recipes.override(Recipe(), {"data.path": sys.argv[1], "model.name": sys.argv[2]})
dataset = rows.of(recipe.data)
words = models.vocabulary(models.resolve(recipe.model.name), paths()["cache"])
encode_all(dataset, filled(words.tokenizer, chat_of(recipe.data, {})), recipe, *words.limits)
print(time.perf_counter() - began)
"""


def records(count: int) -> Iterator[dict[str, str]]:
    """Words by Zipf's law, some with accents; a part of the rows has an input."""
    draw = random.Random(0)
    words = ["".join(draw.choices(LETTERS, range(26, 0, -1), k=draw.randint(1, 9))) for _ in range(20_000)]
    words[500:20_000:200] = [f"{word}é" for word in words[500:20_000:200]]
    weights = list(itertools.accumulate(1 / (i + 5) for i in range(len(words))))

    def text(low: int, high: int) -> str:
        return " ".join(draw.choices(words, cum_weights=weights, k=draw.randint(low, high))) + "."

    for _ in range(count):
        yield {"instruction": text(8, 20), "input": text(5, 25) if draw.random() < 0.4 else "", "output": text(40, 75)}


def measured(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Wall and CPU seconds and the peak memory of a command with all its processes."""
    began, peak, cpu = time.monotonic(), 0, 0.0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            used, spent = _looked_at(process.pid)
            peak, cpu = max(peak, used), max(cpu, spent)
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(cpu, 1), "peak_mib": peak >> 20}


def _looked_at(pid: int) -> tuple[int, float]:
    """(bytes, CPU seconds so far) of a process and those that it started."""
    try:
        whole = psutil.Process(pid)
        every = [whole, *whole.children(recursive=True)]
        return sum(each.memory_info().rss for each in every), sum(sum(each.cpu_times()[:2]) for each in every)
    except psutil.NoSuchProcess:
        return 0, 0.0


def cases(file: Path) -> dict[str, list[str]]:
    prepare = [sys.executable, "-c", PREPARE, str(file), MODEL]
    return {
        "data check": [sys.executable, "-m", "zolite", "data", "check", str(file), "--json"],
        "prepare": prepare,
        "prepare, from the cache": prepare,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ZOLITE_CACHE": f"{folder}/cache"}
        few = Path(folder) / "few.jsonl"
        few.write_text("".join(json.dumps(each) + "\n" for each in records(100)))
        measured(cases(few)["prepare"], environment)  # converts the model, once
        for count in options.rows:
            file = Path(folder) / f"{count}.jsonl"
            with file.open("w") as out:
                out.writelines(json.dumps(each) + "\n" for each in records(count))
            for what, command in cases(file).items():
                about = {"rows": count, "bytes": file.stat().st_size, "what": what, "load": os.getloadavg()[0]}
                found.append(about | measured(command, environment))
                print(json.dumps(found[-1]), file=sys.stderr)
    write("data", found, options.out)


if __name__ == "__main__":
    main()
