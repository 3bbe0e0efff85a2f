"""Claim: which method learns most from as many forwards. SmolLM2-135M-Instruct in int8, space lora-b, rank 8.

python benchmarks/methods.py DATA [OUT] [--tasks sst2,trec] [--methods mezo,lozo] [--processes 3] [--seconds 500]

DATA: a folder with a folder of train, dev and test JSONL for each task. Each method takes FORWARDS forwards of 16 rows:
as many steps as they make. Its learning rate is the best on dev of three around its default, each for a quarter of the
forwards; then two seeds take all of them, and are scored on test once, at the end. The rows beside: `zero-shot`, the
model as it is, and `first-order`, AdamW on the same adapter for STEPS_FIRST_ORDER steps of 16 rows, its rate found in
the same way around RATE_FIRST_ORDER.

Steps are the product's own (captured, batches padded to buckets), without a session. Runs share the cards of the
machine, --processes on each, so seconds compare only roughly. A row is written when it is done, to OUT/methods.jsonl;
what is there is not run again, so the script goes on where it stopped, and --seconds makes it stop. methods-<gpu>.json
is made of all rows, each with the card that it ran on.

--finals 0.3333,1 takes all forwards at these rates too, whatever the search says: what is best by a quarter of them may
fall apart later. The table then shows the rate at which the training loss of the last tenth ends lowest.
"""

import argparse
import functools
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from common import RESULTS, write_by_card
from spread import Row, cards, spread
from textbook import restored

from zolite.common.paths import paths
from zolite.config import methods
from zolite.config import recipe as recipes
from zolite.config.composition import forwards_per_step
from zolite.config.recipe import Recipe
from zolite.data import rows as tables
from zolite.engine import device_memory
from zolite.model import devices
from zolite.model import load as models
from zolite.training.evaluate import evaluate
from zolite.training.learn_scales import Gradients
from zolite.training.prepare import assemble, encode_all
from zolite.training.run import Examples, Run, batches_of, stepper
from zolite.training.scale_nets import networks

MODEL, BATCH, FORWARDS, SEEDS = "builtin:smollm2-135m", 16, 4000, (0, 1)
CONTEXT = 1536  # tokens: no passage of BoolQ is cut
FACTORS = (1 / 3, 1.0, 3.0)  # of the default rate
STEPS_FIRST_ORDER, RATE_FIRST_ORDER = 500, 1e-3

SLOW = {"first-order": 20, "agzo": 4, "grzo": 4}  # forwards' seconds over mezo's, about

TASKS = {
    "sst2": "{sentence}\nSentiment: {label}",
    "trec": "{question}\nType: {label}",
    "rte": "{premise}\nHypothesis: {hypothesis}\nRelation: {label}",
    "boolq": "{passage}\nQuestion: {question}?\nAnswer: {label}",
}
OTHERS = ("zero-shot", "first-order")
FEW = ("mezo", "lozo", "lozo-m", "pgap", "mezo-gv", "mezo-greedy", "zo-finetuner", *OTHERS)  # on the longer tasks
METHODS = {
    "sst2": (*FEW, *(set(methods.METHODS) - set(FEW))),
    "trec": (*FEW, *(set(methods.METHODS) - set(FEW))),
    "rte": FEW,
    "boolq": FEW,
}


@dataclass(frozen=True)
class Job:
    """One run: what a row is known by."""

    task: str
    method: str = "zero-shot"
    factor: float = 1.0
    seed: int = 0
    forwards: int = 0
    split: str = "test"  # that it is scored on

    @classmethod
    def of(cls, row: Row) -> "Job":
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


def recipe_of(job: Job, data: Path, optimizer: Path = Path()) -> Recipe:
    """Its recipe, whose steps and rate follow from the job."""
    given = {
        "model.name": MODEL,
        "adapter.space": "lora-b",
        "method.name": "mezo" if job.method in OTHERS else job.method,
        "method.optimizer": str(optimizer) if job.method == "zo-finetuner" else "",
        "data.path": str(data / job.task),
        "data.template": TASKS[job.task],
        "data.context": CONTEXT,
        "train.batch": BATCH,
        "train.seed": job.seed,
    }
    recipe = recipes.resolve(recipes.override(recipes.Recipe(), given))
    t, lr, cost = (
        recipe.train,
        recipe.train.lr,
        forwards_per_step(recipe.method, recipe.train.queries, recipe.train.batch),
    )
    if job.method == "first-order":
        lr, cost = RATE_FIRST_ORDER, FORWARDS / STEPS_FIRST_ORDER
    return replace(recipe, train=replace(t, steps=max(1, round(job.forwards / cost)), lr=lr * job.factor))


Take = Callable[[int], torch.Tensor]
"""Takes a step by its number, counted from 0; its losses."""


def zeroth_order(run: Run) -> Take:
    """The method's own steps."""
    take = stepper(run)
    return lambda step: take(batches_of(run, step), step).losses


def first_order(run: Run) -> Take:
    """AdamW on the adapter by backpropagation."""
    gradients, theta = Gradients.of(run.engine), run.space.theta
    optimizer = torch.optim.AdamW([theta], lr=run.recipe.train.lr, weight_decay=0.0)

    def take(step: int) -> torch.Tensor:
        loss, theta.grad = gradients([run.engine.put(batch) for batch in batches_of(run, step)], theta)
        optimizer.step()
        return loss.view(1)

    return take


@functools.cache
def loaded_model() -> models.Loaded:
    """The model, once a process."""
    return models.load(models.resolve(MODEL), "int8", devices.pick("auto"), paths()["cache"])


@functools.cache
def examples_of(task: str, data: Path) -> Examples:
    """A task's rows, once a process."""
    tokenizer, recipe = models.tokenizer(models.resolve(MODEL), paths()["cache"]), recipe_of(Job(task), data)
    return encode_all(tables.load(data / task, TASKS[task]), tokenizer, recipe)[0].examples


def taken(job: Job, data: Path, optimizer: Path) -> Row:
    """Train and score one run."""
    gc.collect()  # the run before
    loaded, recipe = loaded_model(), recipe_of(job, data, optimizer)
    examples = examples_of(job.task, data)
    device, steps = loaded.device, 0 if job.method == "zero-shot" else recipe.train.steps
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with restored(loaded.model):
        nets = networks(recipe.method.optimizer, loaded.fingerprint)
        run = assemble(recipe, loaded, examples, {}, (), 0, nets)
        take = (first_order if job.method == "first-order" else zeroth_order)(run)
        began = time.monotonic()
        losses = [take(step) for step in range(steps)]
        last = torch.cat([torch.zeros(1, device=device), *losses[-max(1, steps // 10) :]])[1:].cpu()  # waits
        seconds = time.monotonic() - began
        scored = evaluate(run.engine, examples[job.split], job.split, steps)
    return {
        **asdict(job),
        "device": device_memory.device_name(device),
        "lr": recipe.train.lr,
        "eps": recipe.train.eps,
        "steps": steps,
        "seconds": round(seconds, 1),
        "accuracy": round(100 * scored.value, 2),
        "loss": round(float(last.nanmean()), 4) if len(last) else None,  # of the last tenth
        "not_finite": int((~last.isfinite()).sum()),
        "peak_mib": device_memory.peak_bytes(device) >> 20,
    }


def turn(task: str, method: str, known: dict[Job, Row], finals: Sequence[float]) -> list[Job]:
    """The rows of a method on a task whose turn it is: those of the rates' search, then those of the best rate."""
    if method == "zero-shot":
        return [job for job in [Job(task)] if job not in known]
    if finals:
        return [job for f in finals for seed in SEEDS if (job := full(task, method, f, seed)) not in known]
    search = [Job(task, method, factor, SEEDS[0], FORWARDS // 4, "dev") for factor in FACTORS]
    tried = [known[job] for job in search if job in known]
    if len(tried) < len(search):
        return [job for job in search if job not in known]
    best = max(tried, key=lambda row: (row["accuracy"], -row["loss"] if math.isfinite(row["loss"]) else -math.inf))
    return [job for seed in SEEDS if (job := full(task, method, best["factor"], seed)) not in known]


def full(task: str, method: str, factor: float, seed: int) -> Job:
    """With all forwards, scored on test; the factor as one of FACTORS where it is one, rounded."""
    factor = next((known for known in FACTORS if math.isclose(factor, known, rel_tol=1e-3)), factor)
    return Job(task, method, factor, seed, FORWARDS, "test")


def order(job: Job, data: Path) -> tuple[bool, float]:
    """The few first; among them those on whose end most is waiting, in forwards by bytes of a row."""
    forwards = job.forwards + (FORWARDS if job.split == "dev" else 0)
    return job.method not in FEW, -forwards * SLOW.get(job.method, 1) * (data / job.task / "train.jsonl").stat().st_size


def eased(jobs: Sequence[Job], running: Sequence[Job], most: int) -> list[Job]:
    """Without the runs by backpropagation beyond so many at a time: they wait for Python, and their card is idle."""
    room = most - sum(job.method == "first-order" for job in running)
    backward = [job for job in jobs if job.method == "first-order"]
    return [job for job in jobs if job not in backward[max(0, room) :]]


def next_ones(
    pairs: Sequence[tuple[str, str]],
    data: Path,
    most: int,
    finals: Sequence[float],
    known: dict[Job, Row],
    running: Sequence[Job],
) -> list[Job]:
    """Every run whose turn it is, in their order."""
    todo = [job for pair in pairs for job in turn(*pair, known, finals)]
    return eased(sorted(todo, key=lambda job: order(job, data)), running, most)


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """A table: test accuracy, mean and half the spread of the seeds, by method and task."""
    tests = [row for row in rows if row["split"] == "test"]
    tasks = [task for task in TASKS if any(row["task"] == task for row in tests)]
    yield "| method | " + " | ".join(tasks) + " | seconds | peak MiB |"
    yield "| --- |" + " --- |" * (len(tasks) + 2)
    for method in dict.fromkeys(row["method"] for row in tests):
        own = [row for row in tests if row["method"] == method]
        cells = []
        for task in tasks:
            found = [row["accuracy"] for row in settled([row for row in own if row["task"] == task])]
            spread = f" ± {(max(found) - min(found)) / 2:.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.mean(found):.1f}{spread}" if found else "")
        seconds, peak = max(row["seconds"] for row in own), max(row.get("peak_mib", 0) for row in own)
        yield f"| {method} | " + " | ".join(cells) + f" | {seconds:.0f} | {peak} |"


def settled(rows: Sequence[Row]) -> list[Row]:
    """Those at the rate whose training loss ends lowest, mean of the seeds."""
    by_rate = {row["factor"]: [r for r in rows if r["factor"] == row["factor"]] for row in rows}
    return min(by_rate.values(), key=lambda some: statistics.mean(r["loss"] or 0.0 for r in some), default=[])


def parsed() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [part for part in text.split(",") if part]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--tasks", type=names, default=list(TASKS))
    parser.add_argument("--methods", type=names)
    parser.add_argument("--finals", type=lambda text: [float(part) for part in text.split(",")], default=[])
    parser.add_argument("--processes", type=int, default=3, help="on each card")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no run after so many")
    parser.add_argument(
        "--optimizer", type=Path, help="file of `zolite learn-optimizer`; default OUT/optimizer.safetensors"
    )
    options = parser.parse_args()
    options.optimizer = options.optimizer or options.out / "optimizer.safetensors"
    return options


def main() -> None:
    options, until = parsed(), time.monotonic()
    until += options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = [(t, m) for t in options.tasks for m in METHODS[t] if not options.methods or m in options.methods]
    rows = spread(
        functools.partial(next_ones, pairs, options.data, len(cards()), options.finals),
        functools.partial(taken, data=options.data, optimizer=options.optimizer),
        Job.of,
        options.out / "methods.jsonl",
        options.processes,
        until,
    )
    write_by_card("methods", rows, options.out)
    print(*summary(rows), sep="\n")


if __name__ == "__main__":
    main()
