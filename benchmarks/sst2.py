"""Claim: 2,000 two-point steps on SST-2 with SmolLM2-135M-Instruct in int8. A small grid of learning rates.

python benchmarks/sst2.py DATA [OUT]        DATA: a folder with train, dev and test JSONL of sentence and label
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import RESULTS, write, zolite

TEMPLATES = ("{sentence}\nSentiment: {label}", "{sentence} The sentiment of this review is {label}")
GRID = [("lora-b", lr) for lr in ("1e-3", "3e-3", "6e-3")] + [("lora", lr) for lr in ("3e-4", "1e-3")]


def one(data: str, space: str, lr: str, template: str) -> dict[str, Any]:
    """Train, then test."""
    name = f"sst2-{space}-{lr}-{TEMPLATES.index(template)}"
    options = ("--data", data, "--template", template, "--space", space, "--lr", lr, "--steps", "2000")
    events = zolite("train", "builtin:smollm2-135m", *options, "--name", name)
    test = zolite("eval", name, "--data", data)[0]
    finished = next(e for e in events if e["event"] == "finished")
    return {
        "space": space,
        "lr": float(lr),
        "template": template,
        "test_accuracy": round(100 * test["value"], 1),
        "dev_accuracy": [(e["step"], round(100 * e["value"], 1)) for e in events if e["event"] == "evaluated"],
        "seconds": round(finished["seconds"]),
        "skipped": finished["skipped"],
        "peak_mib": finished["peak_bytes"] >> 20,
    }


if __name__ == "__main__":
    jobs = [(sys.argv[1], space, lr, template) for template in TEMPLATES for space, lr in GRID]
    with ThreadPoolExecutor(len(jobs)) as pool:  # launch-bound: the card has room for all of them
        rows = list(pool.map(lambda job: one(*job), jobs))
    write("sst2", rows, Path(sys.argv[2]) if sys.argv[2:] else RESULTS)
