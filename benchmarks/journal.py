"""Claims: at 100 steps a second a journal costs less than 1 % of the time, 100 bytes a step; kills lose half a second.

python benchmarks/journal.py [OUT]
"""

import json
import os
import random
import select
import signal
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, write
from transformers import LlamaConfig, LlamaForCausalLM

from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config.recipe import Recipe
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.sessions.session import MemoryRow, StepRow
from zolite.training import run as run_module
from zolite.training.journal_writer import FLUSH_SECONDS
from zolite.training.resume import begin

RATE, SECONDS, KILLS = 100, 60, 30


def cost() -> dict[str, Any]:
    """Rows as a run of 100 steps a second writes them: a commit for every batch."""
    wait = FLUSH_SECONDS["cpu"]
    each, spent, cpu, step = round(RATE * wait), [], time.process_time(), 0
    scalars = struct.pack("<f", 0.1), struct.pack("<2f", 1.1, 1.2)
    with sessions.create("cost", Recipe(), {}) as session:
        empty = _bytes(session.path)
        for _ in range(round(SECONDS / wait)):
            rows = [StepRow(step + i, *scalars, 1e-2, 3e-3, 0, time.time(), 0.01, 3) for i in range(1, each + 1)]
            step += each
            began = time.monotonic()
            session.journal.append(rows)
            session.journal.memory(MemoryRow(time.time(), step, 3, 4))
            session.journal.commit()
            spent.append(time.monotonic() - began)
        cpu = time.process_time() - cpu
    return {
        "what": "cost",
        "steps_per_second": RATE,
        "steps": step,
        "share_of_time": round(sum(spent) / SECONDS, 5),
        "share_of_cpu": round(cpu / SECONDS, 5),
        "ms_a_commit_median": round(1e3 * statistics.median(spent), 2),
        "bytes_a_step": round((_bytes(session.path) - empty) / step, 1),
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("journal.db*"))


def small(folder: Path) -> Recipe:
    """A run of quick steps on a model of random weights."""
    tokenizer = models.tokenizer(models.resolve("builtin:smollm2-135m"), paths()["cache"])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"text": f"{i} {'up' if i % 2 else 'down'}", "label": "odd" if i % 2 else "even"} for i in range(64)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = {"model.name": folder / "model", "data.path": folder / "rows.jsonl", "model.quant": "float32"}
    quick = {"model.device": "cpu", "train.batch": 4, "adapter.rank": 2}
    quick |= {"train.steps": 100_000, "train.save_every": 100_000}  # a save would commit what is lost here
    return recipes.override(Recipe(), {k: str(v) for k, v in wanted.items()} | quick)


def killed(recipe: Recipe, name: str, seconds: float) -> dict[str, Any]:
    """One run in a process of its own, killed so long after its first step: what had to be done again."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        real = run_module.take_step

        def reported(run: Any, batches: Any, step: Any) -> Any:
            estimate = real(run, batches, step)
            os.write(writer, struct.pack("<qd", int(step) + 1, time.monotonic()))
            return estimate

        run_module.take_step = reported
        for _ in begin(recipe, name, lambda: False):
            pass
        os._exit(0)
    os.close(writer)
    select.select([reader], [], [])
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    at = time.monotonic()
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        taken = list(struct.iter_unpack("<qd", (data := pipe.read())[: len(data) // 16 * 16]))
    with sessions.open_(name) as session:
        last = session.journal.last_step()
    lost = [ended for step, ended in taken if step > last]
    rate = len(taken) / (taken[-1][1] - taken[0][1])
    return {"lost_steps": len(lost), "lost_seconds": at - lost[0] if lost else 0.0, "steps_per_second": rate}


def loss(folder: Path) -> dict[str, Any]:
    """Seconds of steps that kills at random moments take with them."""
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    recipe, dice = small(folder), random.Random(0)
    found = [killed(recipe, f"kill-{i}", dice.uniform(0.2, 3)) for i in range(KILLS)]
    return {
        "what": "kill -9",
        "kills": KILLS,
        "steps_per_second": round(statistics.median(f["steps_per_second"] for f in found)),
        "lost_seconds_most": round(max(f["lost_seconds"] for f in found), 3),
        "lost_seconds_mean": round(statistics.fmean(f["lost_seconds"] for f in found), 3),
        "lost_steps_most": max(f["lost_steps"] for f in found),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["ZOLITE_HOME"] = home
        measured = [loss(Path(home)), cost()]
    write("journal", measured, Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
