"""Claim: without a learning rate `zolite train` does as well as with the best of a grid. SmolLM2-135M-Instruct in int8.

python benchmarks/quality.py DATA [OUT] [--tasks sst2,trec] [--what auto,grid] [--processes 6] [--seconds 500]

DATA: a folder with a folder of train, dev and test JSONL for each task; tasks that are not in methods.TASKS are
prompted by their columns in their order. Rows of test accuracy (loss in nats a token where rows have no labels), each
of a run through the product's own loop, session and all, of FORWARDS forwards of 16 rows, of which the start in closed
form and the tuning take their part; `says` and `said_right` are how often greedy text is a label, and the right one:

zero_shot     the model as it is
first_order   AdamW on lora, rank 8, 300 steps of 16, at each of RATES; the best on dev counts
auto          nothing given but the data: three seeds, at the checkpoint that is best on dev
auto_long     the same with five times as many forwards
grid          lr given: GRID rates in each space; seed 0 to choose on dev, two more of the best
steady        auto for 600 steps with ten seeds: `diverged` counts how often the loss diverged
space         auto in each space in turn, whatever auto itself would take
after_rank    auto, but the steps behind the fit of the last layer compare labels with each other alone
after_label   auto, but these steps leave out the end behind a label

Rows of what forward-only steps trained have `nothing`, `space` and `newline` too: [says a label, says the right one] of
PROMPTS test rows whose prompt ends so; `other`: nats a token of plain sentences, as the base model has them and after;
`leaks`: everyday prompts, bare and in the chat template, that were answered with a label.

A row is written when it is done, to OUT/quality.jsonl, and not run again; quality-<gpu>.json is made of all rows.
"""

import argparse
import functools
import gc
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, write_by_card
from methods import BATCH, CONTEXT, MODEL, TASKS, first_order, loaded_model
from spread import Row, spread
from textbook import restored

from zolite.common.events import Evaluated, Noted
from zolite.common.paths import paths
from zolite.config import recipe as recipes
from zolite.config import sizes
from zolite.config.recipe import Recipe
from zolite.config.spaces import SPACES
from zolite.data import rows as tables
from zolite.data.examples import Example, one_sequence
from zolite.engine.batch import Order, buckets, length
from zolite.model import load as models
from zolite.sessions import session as sessions
from zolite.sessions.steps import best_step
from zolite.training import step_size
from zolite.training.evaluate import evaluate
from zolite.training.first_values import typing, with_first_values
from zolite.training.greedy import Verbalizer, say
from zolite.training.loop import train
from zolite.training.prepare import assemble, encode_all, facts_of, fitted_rows, with_step_sizes
from zolite.training.replay import read_
from zolite.training.run import Examples, Run

OTHER = json.loads((Path(__file__).parent.parent / "tests/data/other_text.json").read_text(encoding="utf-8"))
FORWARDS, LONG = 4000, 20_000
STEADY_STEPS = 600
STEPS_FIRST_ORDER, RATES = 300, (3e-4, 1e-3, 3e-3)
GRID = {
    "lora-b": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "lora": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "lora-core": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
}
WHATS = ("first_order", "auto", "grid", "zero_shot", "auto_long", "steady", "space", "after_rank", "after_label")
CHOSEN = ("auto", "auto_long", "steady")  # the space is zolite's own choice
PROMPTS = 150


@dataclass(frozen=True)
class Job:
    """One run: what a row is known by."""

    task: str
    what: str
    seed: int = 0
    space: str = "lora-b"
    lr: float = 0.0  # 0: measured

    @classmethod
    def of(cls, row: Row) -> "Job":
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})

    @property
    def forwards(self) -> int:
        return {"auto_long": LONG, "steady": 2 * STEADY_STEPS, "zero_shot": 0}.get(self.what, FORWARDS)


def template(folder: Path) -> str:
    """A task's prompt: of methods.TASKS, or its columns in their order; what zolite takes where rows have no label."""
    if folder.name in TASKS:
        return TASKS[folder.name]
    first = json.loads((folder / "train.jsonl").open(encoding="utf-8").readline())
    if "label" not in first:
        return recipes.Recipe().data.template
    return "\n".join("{" + name + "}" for name in first if name != "label") + "\nLabel: {label}"


def recipe_of(job: Job, data: Path) -> Recipe:
    given = {
        "model.name": MODEL,
        "adapter.space": None if job.what in CHOSEN else job.space,
        "data.path": str(data / job.task),
        "data.template": template(data / job.task),
        "data.context": CONTEXT,
        "train.batch": BATCH,
        "train.seed": job.seed,
        "train.lr": job.lr,
        "train.eps": SPACES[job.space].step_sizes[1] if job.lr else 0.0,
        "train.steps": STEPS_FIRST_ORDER if job.what == "first_order" else max(1, job.forwards // 2),
    }
    return recipes.override(recipes.Recipe(), given)


@functools.cache
def dataset_of(task: str, data: Path) -> tuple[tables.Dataset, Examples]:
    """A task's rows, once a process."""
    recipe = recipe_of(Job(task, "auto"), data)
    dataset = tables.of(recipe.data)
    return dataset, encode_all(dataset, tokenizer(), recipe)[0].examples


def taken(data: Path, job: Job) -> Row:
    """Train and score one run."""
    gc.collect()  # the run before
    loaded, began = loaded_model(), time.monotonic()
    dataset, examples = dataset_of(job.task, data)
    given = recipe_of(job, data)
    with restored(loaded.model):
        recipe = recipes.resolve(given, len(dataset.labels), fitted=fitted_rows(given, examples))
        run = assemble(recipe, loaded, examples, facts_of(loaded, dataset), (), 0)
        run = replace(run, verbalizer=verbalizer_of(dataset))
        row = {"first_order": by_gradients, "zero_shot": as_it_is}.get(job.what, by_forwards)(run, given, job)
        seconds = round(time.monotonic() - began, 1)
        test = scored(run, "test")
    said = {"says": percent(test.says), "said_right": percent(test.said_right)} if dataset.labels else {}
    return {**asdict(job), "forwards": job.forwards, test.metric: shown(test), **said, **row, "seconds": seconds}


def verbalizer_of(dataset: tables.Dataset) -> Verbalizer | None:
    """None where rows have no labels."""
    return Verbalizer.of(dataset.labels, tokenizer(), loaded_model().model) if dataset.labels else None


def scored(run: Run, split: str) -> Evaluated:
    return evaluate(run.engine, run.examples[split], split, 0, verbalizer=run.verbalizer)


def shown(found: Evaluated) -> float:
    """Accuracy in per cent, or nats a token."""
    return percent(found.value) if found.metric == "accuracy" else round(found.value, 4)


def percent(share: float) -> float:
    return round(100 * share, 2)


def merit(row: Row) -> float:
    """What is larger for the better run: accuracy on dev, or minus the loss there."""
    return float(row["dev"] if "accuracy" in row else -row["dev"])


def as_it_is(run: Run, given: Recipe, job: Job) -> Row:
    return {}


def by_gradients(run: Run, given: Recipe, job: Job) -> Row:
    take = first_order(run)
    for step in range(STEPS_FIRST_ORDER):
        take(step)
    return {"dev": shown(scored(run, "dev")), "forwards": 300}


def by_forwards(run: Run, given: Recipe, job: Job) -> Row:
    """Through a session; ends at the checkpoint that is best on dev."""
    dataset, _ = dataset_of(job.task, Path(given.data.path).parent)
    words = tokenizer()
    base = nats(run, words)
    with counted(run) as tokens:
        run = with_first_values(run, dataset, words)
    spent = math.ceil(sum(tokens) / sum(map(length, run.rows)) * len(run.rows) / BATCH)
    run = trained_on(run, FORMS[job.what](run)) if job.what in FORMS else run
    run = replace(run, recipe=replace(run.recipe, adapter=replace(run.recipe.adapter, linear_probe=False)))
    directions, batches = step_size.effort(job.forwards // 2)
    spent += 0 if job.lr else 2 * directions * len(step_size.RADII) * batches
    steps = STEADY_STEPS if job.what == "steady" else max(1, (job.forwards - spent) // 2)
    sized = recipes.resolve(replace(given, train=replace(given.train, steps=steps)))
    run = with_step_sizes(replace(run, recipe=replace(run.recipe, train=sized.train)), given.train)
    events, curve = [], []
    with sessions.create(None, run.recipe, run.facts) as session:
        for event in train(run, session):
            events += [event] if isinstance(event, Noted) else []
            curve += [(event.step, shown(event))] if isinstance(event, Evaluated) else []
        best = best_step(session)
        saved = session.at(best)
        assert saved is not None
        read_(saved.tensors(), saved.state()["method"], run.space, run.state)
    warnings = [event.message for event in events if event.level == "warning"]
    diverged = sum("the loss diverged" in text for text in warnings)
    t = run.recipe.train
    return {
        "dev": shown(scored(run, "dev")), "spent": spent, "steps": steps, "used_lr": t.lr, "eps": t.eps, "best": best,
        **(elsewhere(run, dataset, words) if dataset.labels else {}), "other": [base, nats(run, words)],
        "diverged": diverged, "curve": curve, "notes": [*(note.message for note in run.notes), *warnings],
    }  # fmt: skip


FORMS: dict[str, Callable[[Run], Sequence[Example]]] = {
    "after_rank": lambda run: run.examples["train"],
    "after_label": lambda run: [one_sequence(row.text[:-1], range(row.begins, len(row.text) - 1)) for row in run.rows],
}
"""What steps train on behind the fit, where that is not the run's own rows."""


def trained_on(run: Run, rows: Sequence[Example]) -> Run:
    """The same run with other rows for its steps."""
    order = Order(tuple(map(length, rows)), run.recipe.train.batch, run.recipe.train.seed)
    return replace(run, rows=rows, order=order, lengths=buckets(order, rows) if run.lengths else ())


@contextmanager
def counted(run: Run) -> Iterator[list[int]]:
    """Tokens that go through the model itself, inside."""
    tokens: list[int] = []
    note = lambda _, __, given, ___: tokens.append(given["input_ids"].numel())  # noqa: E731
    handle = run.engine.loaded.model.get_decoder().register_forward_hook(note, with_kwargs=True)
    yield tokens
    handle.remove()


@torch.inference_mode()
def nats(run: Run, words: Any) -> float:
    """Mean loss of plain sentences."""
    run.engine.at_theta()
    total, count = 0.0, 0
    for text in OTHER["sentences"]:
        ids = torch.tensor([words(text)["input_ids"]], device=run.engine.loaded.device)
        logits = run.engine.loaded.model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return round(total / count, 4)


@torch.inference_mode()
def elsewhere(run: Run, dataset: tables.Dataset, words: Any) -> Row:
    """What is said to prompts that end otherwise, and to prompts that have nothing to do with the task."""
    known = Verbalizer.of(dataset.labels, words, run.engine.loaded.model)
    typed, found = typing(dataset, run.recipe.data.template, words, "test"), {}
    rows = run.examples["test"][:PROMPTS]
    for name, ending in {"nothing": "", "space": " ", "newline": "\n"}.items():
        prompts = typed(range(len(rows)), ending)
        asked = [
            replace(row, text=prompt + row.text[row.begins :], begins=len(prompt))
            for row, prompt in zip(rows, prompts, strict=True)
        ]
        heard = say(run.engine, asked, [range(row.candidates) for row in rows], known, sizes.EVAL_TOKENS)
        said = [each.label is not None for each in heard]
        right = [each.label == row.answer for each, row in zip(heard, rows, strict=True)]
        found[name] = [round(100 * sum(each) / len(rows), 1) for each in (said, right)]
    bare = [tuple(words(text)["input_ids"]) for text in OTHER["prompts"]]
    chat = [tuple(turned(words, text)) for text in OTHER["prompts"]]
    asked = [replace(rows[0], text=(*prompt, 0), begins=len(prompt)) for prompt in (*bare, *chat)]
    heard = say(run.engine, asked, [range(rows[0].candidates)] * len(asked), known, sizes.EVAL_TOKENS)
    return {**found, "leaks": sum(each.label is not None for each in heard)}


def turned(words: Any, text: str) -> list[int]:
    talk = [{"role": "user", "content": text}]
    spelled = words.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    return list(words(spelled, add_special_tokens=False)["input_ids"])


@functools.cache
def tokenizer() -> Any:
    return models.tokenizer(models.resolve(MODEL), paths()["cache"])


def turn(tasks: list[str], whats: list[str], known: dict[Job, Row], running: list[Job]) -> Iterator[Job]:
    """Every run whose turn it is, in the order that was asked for."""
    for what in whats:
        for task in tasks:
            yield from TURNS[what](task, known)


def _grid(task: str, known: dict[Job, Row]) -> Iterator[Job]:
    search = [Job(task, "grid", 0, space, lr) for space, rates in GRID.items() for lr in rates]
    yield from search
    if all(job in known for job in search):
        best = max(search, key=lambda job: merit(known[job]))
        yield from (replace(best, seed=seed) for seed in (1, 2))


TURNS = {
    "zero_shot": lambda task, known: [Job(task, "zero_shot")],
    "first_order": lambda task, known: [Job(task, "first_order", 0, "lora", lr) for lr in RATES],
    "auto": lambda task, known: [Job(task, "auto", seed) for seed in range(3)],
    "auto_long": lambda task, known: [Job(task, "auto_long")],
    "grid": _grid,
    "steady": lambda task, known: [Job(task, "steady", seed) for seed in range(10)],
    "space": lambda task, known: [Job(task, "space", 0, space) for space in SPACES],
    **{what: lambda task, known, what=what: [Job(task, what)] for what in ("after_rank", "after_label")},
}


def summary(rows: list[Row]) -> Iterator[str]:
    """Test accuracy by task: what counts of each kind of run."""
    yield "| task | " + " | ".join(WHATS) + " | diverged |"
    yield "| --- |" + " --- |" * (len(WHATS) + 1)
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = [_cell([row for row in rows if (row["task"], row["what"]) == (task, what)], what) for what in WHATS]
        diverged = sum(
            row.get("diverged", row.get("left", 0)) for row in rows if row["task"] == task and row["lr"] == 0
        )
        yield f"| {task} | " + " | ".join(cells) + f" | {diverged} |"


def _cell(rows: list[Row], what: str) -> str:
    if rows and what in ("grid", "first_order"):
        best = max((row for row in rows if row["seed"] == 0), key=merit)
        rows = [row for row in rows if (row["space"], row["lr"]) == (best["space"], best["lr"])]
    if rows and what == "space":
        return ", ".join(f"{row['space']} {row.get('accuracy', row.get('loss'))}" for row in rows)
    found = [row.get("accuracy", row.get("loss")) for row in rows]
    said = [row["said_right"] for row in rows if "said_right" in row]
    tail = f", said {sum(said) / len(said):.4g}" if said else ""
    return f"{sum(found) / len(found):.4g} ({min(found):.4g} to {max(found):.4g}){tail}" if found else ""


def parsed() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [part for part in text.split(",") if part]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--tasks", type=names, default=list(TASKS))
    parser.add_argument("--what", type=names, default=list(WHATS))
    parser.add_argument("--processes", type=int, default=6, help="on each card")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no run after so many")
    return parser.parse_args()


def main() -> None:
    options, began = parsed(), time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = spread(
        functools.partial(turn, options.tasks, options.what),
        functools.partial(taken, options.data),
        Job.of,
        options.out / "quality.jsonl",
        options.processes,
        began + options.seconds,
    )
    write_by_card("quality", rows, options.out)
    print(*summary(rows), sep="\n")


if __name__ == "__main__":
    main()
